package proc

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Exit is how a child ended, as waitid(2) tells.
type Exit struct {
	PID    int
	UID    uint32      // real user at the end
	Status int         // exit status, when Signal is 0
	Signal unix.Signal // what killed it, or 0
	Dumped bool        // and left a core dump
	Usage  unix.Rusage // filled by Reap only
}

// String returns "exit status 3" or "signal TERM (core dumped)".
func (e Exit) String() string {
	switch {
	case e.Signal == 0:
		return fmt.Sprintf("exit status %d", e.Status)
	case e.Dumped:
		return fmt.Sprintf("signal %s (core dumped)", signalName(e.Signal))
	default:
		return "signal " + signalName(e.Signal)
	}
}

// ShellStatus is the status that a shell gives: 128+N for signal N.
func (e Exit) ShellStatus() int {
	if e.Signal != 0 {
		return 128 + int(e.Signal)
	}
	return e.Status
}

func signalName(s unix.Signal) string {
	name := unix.SignalName(s)
	if name == "" {
		return fmt.Sprint(int(s))
	}
	return name[len("SIG"):]
}

// Codes of siginfo_t.si_code for SIGCHLD, sigaction(2).
const (
	cldExited    = 1
	cldDumped    = 3
	cldStopped   = 5
	cldContinued = 6
)

// childInfo is siginfo_t as waitid(2) fills it on 64-bit Linux, 128 bytes.
type childInfo struct {
	signo, errno, code int32
	_                  int32
	pid                int32
	uid                uint32
	status             int32
	_                  [100]byte
}

func wait(idType, id, options int, usage *unix.Rusage) (childInfo, error) {
	var info childInfo
	for {
		err := unix.Waitid(idType, id, (*unix.Siginfo)(unsafe.Pointer(&info)), options, usage)
		if err != unix.EINTR {
			return info, err
		}
	}
}

func (info *childInfo) exit() Exit {
	e := Exit{PID: int(info.pid), UID: info.uid}
	if info.code == cldExited {
		e.Status = int(info.status)
		return e
	}
	e.Signal = unix.Signal(info.status)
	e.Dumped = info.code == cldDumped
	return e
}

// Peek looks at a child that has ended and leaves it unreaped, so that its
// pid means nobody else until Reap. ok is false when there is none. The same child is
// told again until it is reaped.
func Peek() (e Exit, ok bool, err error) {
	info, err := wait(unix.P_ALL, 0, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	if err == unix.ECHILD {
		return Exit{}, false, nil
	}
	if err != nil {
		return Exit{}, false, fmt.Errorf("cannot look for ended children: %w", err)
	}
	return info.exit(), info.pid != 0, nil
}

// Reap takes the child pid, which has ended, out of the kernel's table. It
// does not block: for a child that still runs the error is EAGAIN, for what
// is no child of ours ECHILD.
func Reap(pid int) (Exit, error) {
	var usage unix.Rusage
	info, err := wait(unix.P_PID, pid, unix.WEXITED|unix.WNOHANG, &usage)
	if err == nil && info.pid == 0 {
		err = unix.EAGAIN
	}
	if err != nil {
		return Exit{}, fmt.Errorf("cannot reap pid %d: %w", pid, err)
	}
	e := info.exit()
	e.Usage = usage
	return e, nil
}

// ReapOrphans reaps ended children until one comes that owned claims, or
// none is left, or most were reaped; a bound keeps a storm of orphans from starving the
// loop. The claimed one is returned unreaped, as by Peek. With n == most
// there may be more.
func ReapOrphans(owned func(pid int) bool, most int) (n int, e Exit, ok bool, err error) {
	for n < most {
		info, err := wait(unix.P_ALL, 0, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if err == unix.ECHILD || err == nil && info.pid == 0 {
			return n, Exit{}, false, nil
		}
		if err != nil {
			return n, Exit{}, false, fmt.Errorf("cannot look for ended children: %w", err)
		}
		if owned(int(info.pid)) {
			return n, info.exit(), true, nil
		}
		if _, err := wait(unix.P_PID, int(info.pid), unix.WEXITED|unix.WNOHANG, nil); err != nil {
			return n, Exit{}, false, fmt.Errorf("cannot reap orphan %d: %w", info.pid, err)
		}
		n++
	}
	return n, Exit{}, false, nil
}

// Stop is a change of job control: stopped by Signal, or continued when
// Signal is 0.
type Stop struct {
	PID    int
	Signal unix.Signal
}

// TakeStopped returns a change of job control of child pid. Each is told
// once (SIGCHLD says that there may be one); ok is false when there is none.
func TakeStopped(pid int) (s Stop, ok bool, err error) {
	info, err := wait(unix.P_PID, pid, unix.WSTOPPED|unix.WCONTINUED|unix.WNOHANG, nil)
	if err == unix.ECHILD {
		return Stop{}, false, nil
	}
	if err != nil {
		return Stop{}, false, fmt.Errorf("cannot look whether pid %d is stopped: %w", pid, err)
	}
	switch info.code {
	case cldStopped:
		return Stop{int(info.pid), unix.Signal(info.status)}, true, nil
	case cldContinued:
		return Stop{PID: int(info.pid)}, true, nil
	}
	return Stop{}, false, nil
}
