package intercept

import (
	"testing"

	"golang.org/x/sys/unix"
)

// The kernel sets IPV6_V6ONLY of whatever is bound to an address, and lets
// nobody change it then: to copy it from a socket not yet bound is no failure.
func TestOptionsToABoundSocket(t *testing.T) {
	var fds [2]int
	for i := range fds {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Skip("this machine has no IPv6: ", err)
		}
		defer unix.Close(fd)
		fds[i] = fd
	}
	held, asked := fds[0], fds[1]
	if err := unix.Bind(held, &unix.SockaddrInet6{Addr: [16]byte{15: 1}}); err != nil {
		t.Skip("this machine has no ::1: ", err)
	}
	if err := unix.SetsockoptInt(asked, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1); err != nil {
		t.Fatal(err)
	}
	if err := CopyOptions(held, asked); err != nil {
		t.Error(err)
	}
	if on, err := unix.GetsockoptInt(held, unix.SOL_SOCKET, unix.SO_KEEPALIVE); err != nil || on == 0 {
		t.Errorf("SO_KEEPALIVE %d, %v", on, err)
	}
}
