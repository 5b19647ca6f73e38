package listen

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A listener that the manager above has as well outlives every rollout and us:
// it is never shut down, and whoever comes after GiveBack waits in it.
func TestInheritedIsKept(t *testing.T) {
	for _, at := range addresses(t) {
		t.Run(at, func(t *testing.T) {
			checkFDs(t)
			above := foreign(t, "tcp", at, unix.IPPROTO_TCP, nil)
			defer unix.Close(above)
			for range 2 { // we are started again
				ours, err := unix.FcntlInt(uintptr(above), unix.F_DUPFD_CLOEXEC, 3)
				if err != nil {
					t.Fatal(err)
				}
				set, _ := adopted(t, nil, Inherited{FD: ours, Name: "web"})
				one := set.Sockets()[0]
				if shared, why := one.Shared(); shared {
					t.Fatal(why)
				}
				now := lend(t, set)
				steer(t, set, now)
				if now.Inode() != one.Lanes()[0].Inode() {
					t.Error("the first lane is not the inherited one")
				}
				for range 5 { // an even number of lanes: the last is not the inherited one
					next := lend(t, set)
					steer(t, set, next)
					set.Return([]*Lane{now})
					if !accepting(above) {
						t.Fatal("the listener of the manager above does not listen any more")
					}
					dial(t, one)
					if where(t, next) != next {
						t.Fatal("a client in the lane of before")
					}
					now = next
				}
				if err := set.GiveBack(); err != nil {
					t.Fatal(err)
				}
				dial(t, one)
				set.Close()
				dial(t, one)
				for range 2 {
					var c int
					until(t, "a client in the listener of the manager above", func() bool {
						c, _, err = unix.Accept4(above, unix.SOCK_CLOEXEC)
						return err == nil
					})
					unix.Close(c)
				}
			}
		})
	}
}
