package ready

import (
	"slices"
	"testing"
	"time"
)

func TestSettler(t *testing.T) {
	const ms = time.Millisecond
	type look struct {
		at      time.Duration
		see     []uint64
		settled bool
		next    time.Duration // after at; not looked at when settled
	}
	for _, c := range []struct {
		name   string
		settle time.Duration
		wants  []uint64
		looks  []look
	}{
		{"nothing never settles", 0, nil, []look{
			{0, nil, false, 2 * ms},
			{2 * ms, nil, false, 4 * ms},
			{6 * ms, nil, false, 8 * ms},
			{14 * ms, nil, false, 16 * ms},
			{30 * ms, nil, false, 32 * ms},
			{62 * ms, nil, false, 50 * ms},
			{time.Hour, nil, false, 50 * ms},
		}},
		{"holds", 10 * ms, nil, []look{
			{0, []uint64{2, 1, 2}, false, 2 * ms},
			{2 * ms, []uint64{1, 2}, false, 4 * ms},
			{6 * ms, []uint64{1, 2}, false, 4 * ms}, // not 8: it may be settled at 10
			{10 * ms, []uint64{1, 2}, true, 0},
		}},
		{"changes begin anew", 10 * ms, nil, []look{
			{0, []uint64{1}, false, 2 * ms},
			{9 * ms, []uint64{1, 2}, false, 2 * ms},
			{11 * ms, []uint64{1, 2}, false, 4 * ms},
			{18 * ms, nil, false, 2 * ms},
			{20 * ms, []uint64{1, 2}, false, 2 * ms},
			{29 * ms, []uint64{1, 2}, false, 1 * ms},
			{30 * ms, []uint64{1, 2}, true, 0},
		}},
		{"wants", 10 * ms, []uint64{1, 3}, []look{
			{0, []uint64{1}, false, 2 * ms},
			{40 * ms, []uint64{1}, false, 4 * ms},
			{50 * ms, []uint64{1, 2, 3}, false, 2 * ms},
			{60 * ms, []uint64{1, 2, 3}, true, 0},
		}},
		{"zero", 0, nil, []look{
			{0, []uint64{1}, false, 2 * ms},
			{0, []uint64{1}, true, 0},
		}},
	} {
		s := Settler{Settle: c.settle, Wants: c.wants}
		begin := time.Unix(1000, 0)
		for i, l := range c.looks {
			now := begin.Add(l.at)
			settled, next := s.Look(now, l.see)
			if settled != l.settled || !settled && next.Sub(now) != l.next {
				t.Errorf("%s, look %d: %v, next after %v", c.name, i, settled, next.Sub(now))
			}
		}
	}
	s := Settler{Wants: []uint64{1, 2}}
	s.Look(time.Unix(0, 0), []uint64{2})
	if m := s.Missing(); !slices.Equal(m, []uint64{1}) {
		t.Errorf("missing %v", m)
	}
}
