package metrics

import (
	"maps"
	"time"
)

// Tally is what was counted of one service. The zero value counts from nothing.
// It belongs to the loop; others get a Clone.
type Tally struct {
	Starts      int            // generations that were started
	Restarts    map[string]int // starts that nobody asked for, by why the one before ended: see Causes
	Done        int            // rollouts
	Failed      int            // rollouts
	Kept        map[string]int // connections that waited while nobody could serve them and were not refused, by when: crash, rollout, stranded
	Left        map[string]int // what was left when a gate met its bound: queued, in_flight, unanswered
	Sick        int            // generations that were found not to live
	DroppedLine int64          // output lines that nobody took
	DroppedByte int64          // bytes of them

	Start   Histogram // from start to ready
	Rollout Histogram // from its start until the old generation is gone
	Gate    Histogram // until the old lanes are empty
	Shield  Histogram // until everything accepted is answered
	Outage  Histogram // from the end of a current generation until the next is ready
}

// Causes are the words of Restarts.
func Causes() []string {
	return []string{"exit", "signal", "timeout", "watchdog", "liveness", "runtime", "command", "no-start"}
}

// Restart counts one.
func (t *Tally) Restart(cause string) { count(&t.Restarts, cause, 1) }

// Keep counts connections that were kept.
func (t *Tally) Keep(when string, n int) { count(&t.Kept, when, n) }

// Leave counts what a gate left.
func (t *Tally) Leave(what string, n int) { count(&t.Left, what, n) }

func count(m *map[string]int, key string, n int) {
	if n == 0 {
		return
	}
	if *m == nil {
		*m = map[string]int{}
	}
	(*m)[key] += n
}

// Clone is a copy that others may read.
func (t *Tally) Clone() Tally {
	c := *t
	c.Restarts, c.Kept, c.Left = maps.Clone(t.Restarts), maps.Clone(t.Kept), maps.Clone(t.Left)
	return c
}

// bounds are the upper bounds of the buckets, in seconds: from a fork to a
// patient drain.
func bounds() []float64 {
	return []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}
}

// Histogram counts durations.
type Histogram struct {
	buckets [17]uint64 // not cumulative; the last is beyond all bounds
	sum     time.Duration
}

// Observe counts one.
func (h *Histogram) Observe(d time.Duration) {
	d = max(d, 0)
	b := bounds()
	i := 0
	for i < len(b) && d.Seconds() > b[i] {
		i++
	}
	h.buckets[i]++
	h.sum += d
}

// Count is how many were counted.
func (h *Histogram) Count() (n uint64) {
	for _, b := range h.buckets {
		n += b
	}
	return n
}
