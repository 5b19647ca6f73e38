package proc

import (
	"fmt"
	"os"
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

// StopOwnGroup stops our own process group as the terminal would have: with
// sig (SIGTSTP, SIGTTIN or SIGTTOU) at its default disposition, so that a shell
// sees that signal, and everybody in the job stops. It returns once we were
// continued. Nothing happens, and stopped is false, when no shell could continue
// us: the group is orphaned (see setpgid(2)), or we are PID 1.
func StopOwnGroup(sig unix.Signal) (stopped bool, err error) {
	if ownGroupOrphaned() {
		return false, nil
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var old, ignore, byDefault [32]byte // struct sigaction of the kernel: the handler is first
	ignore[0] = 1                       // SIG_IGN, on a little-endian machine
	action := func(set, old *[32]byte) {
		unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig),
			uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(old)), 8, 0, 0)
	}
	action(&ignore, &old)
	err = unix.Kill(0, sig) // the others of the job
	action(&byDefault, nil)
	if err == nil {
		// Us: at this very thread, so that we are stopped in here, and not
		// by another thread when the handler is in place again.
		err = unix.Tgkill(os.Getpid(), unix.Gettid(), sig)
	}
	action(&old, nil)
	if err != nil {
		return false, fmt.Errorf("cannot stop with the command: %w", err)
	}
	return true, nil
}

// ownGroupOrphaned follows our ancestors as long as they are in our process
// group: the first that is not must be in our session, or nobody does job control
// for us.
func ownGroupOrphaned() bool {
	var read reader
	sid, err := unix.Getsid(0)
	if err != nil {
		return true
	}
	pid, group := os.Getpid(), unix.Getpgrp()
	for pid > 1 {
		s, err := read.stat(pid)
		if err != nil || s.session != sid {
			return true
		}
		if s.group != group {
			return false
		}
		pid = s.parent
	}
	return true
}
