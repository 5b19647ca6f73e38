package proc

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// IsTerminal says whether fd is a terminal.
func IsTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}

// ForegroundGroup returns the foreground process group of terminal tty.
func ForegroundGroup(tty int) (pgid int, err error) {
	pgid, err = unix.IoctlGetInt(tty, unix.TIOCGPGRP)
	if err != nil {
		return 0, fmt.Errorf("cannot read the terminal's foreground group: %w", err)
	}
	return pgid, nil
}

// Foreground makes pgid the foreground process group of terminal tty. It may
// be called from the background: SIGTTOU, which would stop us, is blocked meanwhile
// on the calling thread, and then tcsetpgrp(3) is allowed.
func Foreground(tty, pgid int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ttou := uint64(1) << (unix.SIGTTOU - 1)
	var old uint64
	mask := func(how int, set, old *uint64) {
		unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, uintptr(how),
			uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(old)), 8, 0, 0)
	}
	mask(unix.SIG_BLOCK, &ttou, &old)
	err := unix.IoctlSetPointerInt(tty, unix.TIOCSPGRP, pgid)
	mask(unix.SIG_SETMASK, &old, nil)
	if err != nil {
		return fmt.Errorf("cannot make process group %d the terminal's foreground: %w", pgid, err)
	}
	return nil
}
