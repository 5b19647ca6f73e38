package proc

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Await blocks until some child has ended, stopped or continued, and takes
// nothing: Peek, ReapOrphans and TakeStopped tell what it was. have is false
// when there is no child at all. It is for a goroutine of its own, and costs
// nothing while it blocks; with QuietChildren it takes the place of SIGCHLD.
func Await() (have bool, err error) {
	_, err = wait(unix.P_ALL, 0, unix.WEXITED|unix.WSTOPPED|unix.WCONTINUED|unix.WNOWAIT, nil)
	switch err {
	case nil:
		return true, nil
	case unix.ECHILD:
		return false, nil
	}
	return false, fmt.Errorf("cannot wait for children: %w", err)
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
