package supervisor

import (
	"container/heap"
	"time"
)

// timer is a moment at which the loop calls f: once, and not again until it is
// set again.
type timer struct {
	at    time.Time
	f     func()
	index int // in timers; -1 while it is not set
}

// timers are all that are set, the earliest first.
type timers []*timer

// set has t called at a moment, instead of whenever it was set for before;
// zero: not at all.
func (ts *timers) set(t *timer, at time.Time) {
	switch {
	case t.index >= 0 && at.IsZero():
		heap.Remove(ts, t.index)
	case t.index >= 0 && !at.Equal(t.at):
		t.at = at
		heap.Fix(ts, t.index)
	case t.index < 0 && !at.IsZero():
		t.at = at
		heap.Push(ts, t)
	}
}

// fire calls all that were due by now. One that is set again meanwhile, for a
// moment that has passed already, has its turn in the next round.
func (ts *timers) fire(now time.Time) {
	var due []*timer
	for len(*ts) > 0 && !(*ts)[0].at.After(now) {
		due = append(due, heap.Pop(ts).(*timer))
	}
	for _, t := range due {
		t.f()
	}
}

// next is the earliest; zero: there is none.
func (ts timers) next() time.Time {
	if len(ts) == 0 {
		return time.Time{}
	}
	return ts[0].at
}

// Len, Less, Swap, Push and Pop implement heap.Interface.
func (ts timers) Len() int           { return len(ts) }
func (ts timers) Less(i, j int) bool { return ts[i].at.Before(ts[j].at) }
func (ts timers) Swap(i, j int) {
	ts[i], ts[j] = ts[j], ts[i]
	ts[i].index, ts[j].index = i, j
}

func (ts *timers) Push(x any) {
	t := x.(*timer)
	t.index = len(*ts)
	*ts = append(*ts, t)
}

func (ts *timers) Pop() any {
	old := *ts
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*ts = old[:len(old)-1]
	t.index = -1
	return t
}
