package intercept

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Why a filter cannot be installed. Without one the child runs as it would
// have run, and a restart is a plain one.
var (
	ErrNested       = errors.New("another supervisor already intercepts system calls here")
	ErrNotPermitted = errors.New("not permitted")
	ErrUnsupported  = errors.New("not supported by this kernel or machine")
	ErrMainThread   = errors.New("on the main thread, which never ends") // try on another one: see Thread
)

// Install puts the filter on the calling OS thread and returns its notify fd
// (close-on-exec; the caller closes it, or gives it to [NewServer]). What is
// forked from this thread afterwards inherits the filter, and so do its
// descendants, for ever.
//
// A filter cannot be taken off again, so the thread must be a throw-away one:
// locked to its goroutine, never unlocked, not the main thread, and gone soon,
// because the notify fd reports "empty" only once nobody has the filter any
// more. [Thread] makes one.
//
// No-new-privs is set on the thread only if the kernel insists (no
// CAP_SYS_ADMIN); setuid programs of the child then do not elevate.
//
// Errors wrap [ErrNested], [ErrNotPermitted], [ErrUnsupported] or
// [ErrMainThread] where they are such, and the errno. See seccomp(2).
func Install(opts Options) (notifyFD int, err error) {
	fd, _, err := install(opts)
	return fd, err
}

// installed says how a filter was installed.
type installed struct {
	nnp          bool // no-new-privs had to be set
	waitKillable bool
}

func install(opts Options) (fd int, how installed, err error) {
	if unix.Gettid() == unix.Getpid() {
		return -1, how, fmt.Errorf("cannot install the filter: %w", ErrMainThread)
	}
	prog := Program(runtime.GOARCH, opts)
	if prog == nil {
		return -1, how, fmt.Errorf("cannot install the filter: machine %s: %w", runtime.GOARCH, ErrUnsupported)
	}

	// WAIT_KILLABLE_RECV (5.19): once we have received a call, a signal does not
	// interrupt and restart it; Go sends itself SIGURG all the time.
	// SPEC_ALLOW matters before 5.16, where a filter switched on costly
	// mitigations of speculation that this filter, which is no sandbox, has no use for.
	const all = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	flags := uintptr(all)
	for {
		fd, errno := setFilter(prog, flags)
		switch {
		case errno == 0:
			unix.CloseOnExec(fd)
			_ = syncWakeUp(fd)
			how.waitKillable = flags&unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV != 0
			return fd, how, nil
		case errno == unix.EACCES && !how.nnp:
			if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
				return -1, how, fmt.Errorf("cannot set no-new-privs: %w (%w)", ErrNotPermitted, err)
			}
			how.nnp = true
		case errno == unix.EINVAL && flags&unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV != 0:
			flags &^= unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
		default:
			return -1, how, installError(errno)
		}
	}
}

func setFilter(prog []unix.SockFilter, flags uintptr) (int, unix.Errno) {
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&fprog)))
	runtime.KeepAlive(prog)
	return int(fd), errno
}

// installError classifies what seccomp(2) says.
func installError(errno unix.Errno) error {
	class := error(nil)
	switch errno {
	case unix.EBUSY: // one notify fd for a chain of filters
		class = ErrNested
	case unix.EPERM, unix.EACCES:
		class = ErrNotPermitted
	case unix.ENOSYS, unix.EINVAL, unix.EOPNOTSUPP:
		class = ErrUnsupported
	default:
		return fmt.Errorf("cannot install the filter: %w", errno)
	}
	return fmt.Errorf("cannot install the filter: %w (%w)", class, errno)
}

// syncWakeUp makes the kernel hand the cpu over from caller to supervisor and
// back (6.6), which makes a trapped call some five times cheaper. The flag is
// the argument itself. Older kernels refuse it; nothing is lost but time.
func syncWakeUp(fd int) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_SET_FLAGS, unix.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
	if errno != 0 {
		return errno
	}
	return nil
}

// Thread runs f on an OS thread of its own that ends when f returns, and
// returns what f returned. It is never the main thread, which Go parks instead
// of ending it. A child that f starts with Pdeathsig is killed when the thread
// ends, so f must not use that.
func Thread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			done <- f() // no unlock: the thread ends with the goroutine
			return
		}
		// While this goroutine keeps the main thread, the next one gets another.
		defer runtime.UnlockOSThread()
		done <- Thread(f)
	}()
	return <-done
}
