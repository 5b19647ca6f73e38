package intercept

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is what our duplicate of a child's socket says about itself.
type socket struct {
	domain, typ, proto int
	cookie             uint64 // SO_COOKIE: never used twice while the system runs, unlike an inode number
	inode              uint64
	netns              uint64 // SO_NETNS_COOKIE, 0 if the kernel has none
	v6only             bool
	device             string
	nonblock           bool
}

func inspect(fd int) (socket, error) {
	var s socket
	var err error
	get := func(level, opt int) int {
		v, e := unix.GetsockoptInt(fd, level, opt)
		err = errors.Join(err, e)
		return v
	}
	s.domain = get(unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return s, fmt.Errorf("cannot inspect a socket: %w", err)
	}
	s.typ = get(unix.SOL_SOCKET, unix.SO_TYPE)
	s.proto = get(unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if s.domain == unix.AF_INET6 {
		s.v6only = get(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY) != 0
	}
	s.cookie, err = Cookie(fd)
	if err != nil {
		return s, err
	}
	s.netns, _ = getsockopt64(fd, unix.SO_NETNS_COOKIE) // 5.14
	if s.domain != unix.AF_UNIX {
		s.device, _ = unix.GetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return s, fmt.Errorf("cannot inspect a socket: %w", err)
	}
	s.inode = st.Ino
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return s, fmt.Errorf("cannot inspect a socket: %w", err)
	}
	s.nonblock = flags&unix.O_NONBLOCK != 0
	return s, nil
}

// Cookie is the identity of a socket (SO_COOKIE): equal for all its
// duplicates, in whatever process, and never used again.
func Cookie(fd int) (uint64, error) {
	v, err := getsockopt64(fd, unix.SO_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("cannot read the cookie of socket %d: %w", fd, err)
	}
	return v, nil
}

func getsockopt64(fd, opt int) (uint64, error) {
	b, err := getsockoptBytes(fd, unix.SOL_SOCKET, opt, 8)
	if err != nil {
		return 0, err
	}
	if len(b) != 8 {
		return 0, unix.EINVAL
	}
	return binary.NativeEndian.Uint64(b), nil
}

func getsockoptBytes(fd, level, opt, size int) ([]byte, error) {
	return getsockoptInto(fd, level, opt, make([]byte, size))
}

// getsockoptInto does not tell the Go scheduler that it enters the kernel: it
// never waits there, and a swap does some hundred of these.
func getsockoptInto(fd, level, opt int, b []byte) ([]byte, error) {
	n := uint32(len(b))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(opt),
		uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return nil, errno
	}
	return b[:n], nil
}

func setsockoptBytes(fd, level, opt int, b []byte) error {
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(opt),
		uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// listening tells whether listen(2) was done on the socket.
func listening(fd int) bool {
	v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	return err == nil && v != 0
}

// name is the address of the socket; ok is false if it has none, or only half
// of one. (unix.Getsockname calls a unix socket without a name "@".)
func name(fd int) (sa sockaddr, ok bool) {
	b := make([]byte, maxSockaddr)
	n := uint32(len(b))
	_, _, errno := unix.Syscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&n)))
	if errno != 0 || int(n) > len(b) {
		return sockaddr{}, false
	}
	return parseSockaddr(b[:n])
}

// bound tells whether the socket has an address.
func bound(fd int) bool {
	_, ok := name(fd)
	return ok
}

// bindRaw does bind(2) with an address as the child wrote it.
func bindRaw(fd int, raw []byte) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&raw[0])), uintptr(len(raw)))
	return errno
}

// setNonblock makes O_NONBLOCK of the open file what want says.
func setNonblock(fd int, want bool) error {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return fmt.Errorf("cannot read the flags of socket %d: %w", fd, err)
	}
	if (flags&unix.O_NONBLOCK != 0) == want {
		return nil
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags^unix.O_NONBLOCK); err != nil {
		return fmt.Errorf("cannot set the flags of socket %d: %w", fd, err)
	}
	return nil
}
