package proc

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ChildNews is what Await was woken by.
type ChildNews int

// What there may be.
const (
	NoChild      ChildNews = iota // there is no child at all
	ChildEnded                    // some child ended: Peek or ReapOrphans tells which
	ChildStopped                  // some child was stopped or continued: TakeStopped
)

// Await blocks until some child has ended, stopped or continued, and takes
// nothing: the same child is told again until it is reaped. It is for a
// goroutine of its own, and costs nothing while it blocks; with QuietChildren it
// takes the place of SIGCHLD.
func Await() (ChildNews, error) {
	info, err := wait(unix.P_ALL, 0, unix.WEXITED|unix.WSTOPPED|unix.WCONTINUED|unix.WNOWAIT, nil)
	switch {
	case err == unix.ECHILD:
		return NoChild, nil
	case err != nil:
		return NoChild, fmt.Errorf("cannot wait for children: %w", err)
	case info.code == cldStopped || info.code == cldContinued:
		return ChildStopped, nil
	}
	return ChildEnded, nil
}

// DropStops takes every change of job control that nobody asked for, so that
// Await does not tell it again.
func DropStops() {
	for {
		info, err := wait(unix.P_ALL, 0, unix.WSTOPPED|unix.WCONTINUED|unix.WNOHANG, nil)
		if err != nil || info.pid == 0 {
			return
		}
	}
}

// sigaction is struct sigaction of the kernel, which is not that of libc.
type sigaction struct {
	handler, flags, restorer uintptr
	mask                     uint64
}

// QuietChildren gives SIGCHLD its default action, which is nothing at all. Go's
// runtime has a handler for it that does nothing but cost: it runs for every
// child that ends, some 10 us each. Children can be waited for all the same (only
// SIG_IGN would take them away unseen).
func QuietChildren() error {
	var act sigaction // SIG_DFL
	_, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGCHLD), uintptr(unsafe.Pointer(&act)), 0, unsafe.Sizeof(act.mask), 0, 0)
	if e != 0 {
		return fmt.Errorf("cannot quiet SIGCHLD: %w", e)
	}
	return nil
}
