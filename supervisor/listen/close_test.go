package listen

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// A child that serves a lane when the Set is closed goes on until it closes its
// own copy: it must not meet an error before it hears of the stop signal.
func TestCloseLeavesTheChildItsListener(t *testing.T) {
	set := open(t, ip("tcp", "127.0.0.1:0"))
	copied, err := unix.FcntlInt(uintptr(lend(t, set).FD()), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(copied)
	addr := set.Sockets()[0].Addr()
	set.Close()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatalf("refused though a child listens: %v", err)
	}
	defer c.Close()
	fds := []unix.PollFd{{Fd: int32(copied), Events: unix.POLLIN}}
	if _, err := unix.Poll(fds, 10_000); err != nil {
		t.Fatal(err)
	}
	fd, _, err := unix.Accept4(copied, unix.SOCK_CLOEXEC)
	if err != nil {
		t.Fatalf("accept: %v", err)
	}
	unix.Close(fd)
}
