package shim

import (
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// GroupWatch hears SIGINT and SIGQUIT that are sent to a process group, as a
// terminal sends them to its foreground group: nothing else tells a parent
// outside of that group of a Ctrl-C that its child handles.
//
// It is a process in that group that is no program: it shares our memory, has
// no descriptor but the one that it reports to, and runs a short list of
// system calls. It blocks all signals, so that job control does not stop it, ends with its
// first news, and with us. Its parent is this process: reap it with waitid(2).
type GroupWatch struct {
	FD    int // non-blocking, close-on-exec: readable when there is news for Read
	pidfd int
	mem   []byte
}

// WatchGroup starts a watch in the process group pgid of our own session,
// which must exist. It returns when it is there: what is sent to the group from
// then on is heard. The caller closes it. Where the kernel has no close_range(2)
// (before Linux 5.11) there is none: ENOSYS.
func WatchGroup(pgid int) (*GroupWatch, error) {
	if closeRange, _ := otherDescriptors(3); !closeRange {
		return nil, prepareError("watch of a process group", unix.ENOSYS)
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, prepareError("report pipe", err)
	}
	defer unix.Close(pipe[1])
	const maxCalls = 16
	mem, err := unix.Mmap(-1, 0, stackSize+4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		unix.Close(pipe[0])
		return nil, prepareError("memory for the child", err)
	}
	p := &program{block: block{mem: mem, used: stackSize}}
	p.head = (*header)(p.alloc(int(unsafe.Sizeof(header{}))))
	calls := p.alloc(maxCalls * int(unsafe.Sizeof(call{})))
	p.calls = unsafe.Slice((*call)(calls), maxCalls)
	p.head.calls = uintptr(calls)
	p.head.report = uintptr(p.alloc(reportSize))
	p.head.fd = uintptr(pipe[1])

	set, got, parent := p.number(), p.number(), p.number()
	*(*uint64)(p.at(set)) = 1<<(unix.SIGINT-1) | 1<<(unix.SIGQUIT-1) | 1<<(askSignal-1)
	p.add(StagePdeathsig, failedCall, unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL))
	p.add(StagePdeathsig, failedCall, unix.SYS_GETPPID).save = parent
	p.add(StagePdeathsig, failedCall, callExpect, parent, uintptr(os.Getpid()))
	p.add(0, 0, unix.SYS_PRCTL, unix.PR_SET_NAME, p.string("supervise-ctrlc"))
	p.add(0, 0, unix.SYS_CLOSE_RANGE, 0, p.head.fd-1, 0)
	p.add(0, 0, unix.SYS_CLOSE_RANGE, p.head.fd+1, uintptr(^uint32(0)), 0)
	p.add(StagePgid, failedCall, unix.SYS_SETPGID, 0, uintptr(pgid))
	p.add(StagePgid, failedCall, unix.SYS_WRITE, p.head.fd, p.number(), 8) // a zero: it is there
	p.add(StagePgid, failedCall, unix.SYS_RT_SIGTIMEDWAIT, set, 0, 0, 8).save = got
	p.add(StagePgid, failedCall, unix.SYS_WRITE, p.head.fd, got, 8)
	p.add(0, 0, callEnd)

	c := &Child{spec: Spec{CgroupFD: -1}, mem: mem}
	if errno := c.fork(p, ownStack); errno != 0 {
		unix.Close(pipe[0])
		unix.Munmap(mem)
		return nil, &Error{Stage: StageFork, Errno: errno}
	}
	w := &GroupWatch{FD: pipe[0], pidfd: c.PIDFD, mem: mem}
	w.wait()
	if sig, over := w.Read(); sig != 0 || over {
		w.Close()
		return nil, prepareError("watch of process group "+strconv.Itoa(pgid), unix.ESRCH)
	}
	return w, nil
}

// wait waits for news, a second at most.
func (w *GroupWatch) wait() {
	for {
		fds := []unix.PollFd{{Fd: int32(w.FD), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, 1000); err != unix.EINTR {
			return
		}
	}
}

// at turns the address of something in the block back into a pointer.
func (b *block) at(addr uintptr) unsafe.Pointer {
	return unsafe.Pointer(&b.mem[addr-uintptr(unsafe.Pointer(&b.mem[0]))])
}

// Read returns the signal that came, or 0 when none did yet. over says that no
// more will come: the watch has ended, with that signal or because it could not
// be kept (a group that does not exist, SIGSTOP and SIGCONT by hand).
func (w *GroupWatch) Read() (sig unix.Signal, over bool) {
	var b [8]byte
	n, err := unix.Read(w.FD, b[:])
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return 0, false
	case err == nil && n == 8:
		switch news := *(*uint64)(unsafe.Pointer(&b[0])); {
		case news == 0:
			return 0, false
		case news == uint64(askSignal) || news > 64:
			return 0, true
		default:
			return unix.Signal(news), true
		}
	}
	return 0, true
}

// failedCall is the index in the report of a call that failed, half of its first
// 8 bytes: no signal looks like it.
const failedCall = 1

// askSignal makes the watch answer. It is greater than the others: of those
// that are pending the kernel gives the lowest first.
const askSignal = unix.SIGURG

// Ask is Read for now: whether a signal came that the watch had no time to tell
// of, which a member of the group that it killed must not outrun. It takes a
// switch of processes, a second at most, and ends the watch.
func (w *GroupWatch) Ask() (sig unix.Signal) {
	if w.pidfd < 0 || unix.PidfdSendSignal(w.pidfd, askSignal, nil, 0) != nil {
		sig, _ = w.Read()
		return sig
	}
	w.wait()
	sig, _ = w.Read()
	return sig
}

// Close ends the watch. The memory that the process runs in is given back when
// it is dead, which takes no longer than a kill: a fault in memory that it shares
// with us would end us, too.
func (w *GroupWatch) Close() {
	unix.Close(w.FD)
	if w.pidfd < 0 {
		return
	}
	_ = unix.PidfdSendSignal(w.pidfd, unix.SIGKILL, nil, 0)
	for {
		fds := []unix.PollFd{{Fd: int32(w.pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 1000)
		if err == unix.EINTR {
			continue
		}
		if n == 1 {
			unix.Munmap(w.mem)
		}
		break
	}
	unix.Close(w.pidfd)
	w.pidfd = -1
}
