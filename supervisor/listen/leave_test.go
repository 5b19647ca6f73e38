package listen

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A lane that a child shut down is left behind, and steering still finds its
// lane, whichever place it has in the group now.
func TestLeaveLane(t *testing.T) {
	for _, at := range addresses(t) {
		set := open(t, ip("tcp", at))
		one := set.Sockets()[0]
		lanes := []*Lane{lend(t, set), lend(t, set), lend(t, set)}
		steer(t, set, lanes[2])
		if left, err := set.LeaveLane(lanes[0]); left || err != nil {
			t.Fatalf("a lane that listens was left: %v, %v", left, err)
		}
		for _, old := range lanes[:2] {
			if err := unix.Shutdown(old.FD(), unix.SHUT_RDWR); err != nil {
				t.Fatal(err)
			}
			if left, err := set.LeaveLane(old); !left || err != nil {
				t.Fatalf("not left: %v, %v", left, err)
			}
			if old.FD() >= 0 {
				t.Error("not closed")
			}
			for range 20 {
				dial(t, one)
				if got := where(t, lanes[2]); got != lanes[2] {
					t.Fatal("another lane")
				}
			}
		}
		set.Return(lanes[:2])
		next := lend(t, set)
		steer(t, set, next)
		for range 20 {
			dial(t, one)
			if got := where(t, lanes[2], next); got != next {
				t.Fatal("a client in the lane of before")
			}
		}
	}
}
