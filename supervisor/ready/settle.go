package ready

import (
	"slices"
	"time"
)

const (
	firstLook = 2 * time.Millisecond  // most servers listen within a few of these
	lastLook  = 50 * time.Millisecond // a slow start does not cost a busy supervisor
)

// Settler turns a row of sights into one answer: the generation is ready when
// the same listeners have been waited on for a while, and all that the
// generation before waited on are among them. It is pure: time is passed in. The
// zero value wants nothing and settles at the second equal look.
//
// Why not at once: a server that opens several addresses does so one by one, and
// some runtimes put a listener into their epoll set before the program has
// begun to accept.
type Settler struct {
	Settle time.Duration // how long it must hold

	// Wants must all be there. Numbers are usually inodes; a caller that knows
	// addresses instead may number those. Empty for a first generation.
	Wants []uint64

	set   []uint64
	since time.Time
	pause time.Duration
}

// Look takes in what is listened on now, and says whether that is settled; if
// not, when to look next. Nothing at all never settles. The wait begins anew
// with each change of the set.
func (s *Settler) Look(now time.Time, listening []uint64) (settled bool, next time.Time) {
	set := slices.Compact(slices.Sorted(slices.Values(listening)))
	if len(set) > 0 && slices.Equal(set, s.set) {
		if now.Sub(s.since) >= s.Settle && len(s.Missing()) == 0 {
			return true, time.Time{}
		}
	} else {
		if s.set != nil || len(set) > 0 {
			s.pause = 0 // something happens: more may follow soon
		}
		s.set, s.since = set, now
		if len(set) == 0 {
			s.set = nil
		}
	}
	if s.pause = min(s.pause*2, lastLook); s.pause < firstLook {
		s.pause = firstLook
	}
	next = now.Add(s.pause)
	// No later than the moment at which it may be settled.
	if done := s.since.Add(s.Settle); len(s.set) > 0 && len(s.Missing()) == 0 && done.After(now) && done.Before(next) {
		next = done
	}
	return false, next
}

// Missing are the wants that the last look did not find, for the message about
// a generation that never got there.
func (s *Settler) Missing() []uint64 {
	var m []uint64
	for _, w := range s.Wants {
		if !slices.Contains(s.set, w) {
			m = append(m, w)
		}
	}
	return m
}
