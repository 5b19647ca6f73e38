package proc

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Open returns a pidfd for pid, close-on-exec; the caller closes it. It
// refers to who has the number now: look at /proc/PID after Open, not before.
// It is readable once that process has ended.
func Open(pid int) (pidfd int, err error) {
	pidfd, err = unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, fmt.Errorf("cannot open pid %d: %w", pid, err)
	}
	return pidfd, nil
}

// Signal sends sig to the process of pidfd. When it was reaped already the
// error is ESRCH, and nobody else is hit.
func Signal(pidfd int, sig unix.Signal) error {
	if err := unix.PidfdSendSignal(pidfd, sig, nil, 0); err != nil {
		return fmt.Errorf("cannot send %s: %w", signalName(sig), err)
	}
	return nil
}
