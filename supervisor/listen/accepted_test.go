package listen

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A connection in the queue is not accepted, whoever closed it; one that a
// process has is.
func TestAccepted(t *testing.T) {
	for _, at := range addresses(t) {
		set := open(t, ip("tcp", at))
		one := set.Sockets()[0]
		lane := lend(t, set)
		steer(t, set, lane)
		check := func(want bool, when string) {
			t.Helper()
			got, err := one.Accepted()
			if err != nil || got != want {
				t.Errorf("%s, %s: accepted %v, %v", at, when, got, err)
			}
		}
		check(false, "no client")
		dial(t, one)
		check(false, "a client in the queue")
		c := accept(t, lane)
		check(true, "accepted")
		unix.Close(c)
		check(false, "closed")
	}
}
