package ready

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// asUser runs f on a thread of another user, which is thrown away afterwards.
func asUser(uid int, done chan<- error, f func() error) {
	runtime.LockOSThread() // and never unlocked: the thread ends with us
	// The raw call changes this thread only.
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), ^uintptr(0)); errno != 0 {
		done <- errno
		return
	}
	done <- f()
}
