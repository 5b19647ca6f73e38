package shim

import (
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Child is a started process. Its parent is this process: reap it with
// waitid(2).
type Child struct {
	PID   int
	PIDFD int // close-on-exec; poll it for the exit, signal through it

	// Report is the read end of the report pipe, close-on-exec and
	// non-blocking: readable when there is news for ReadReport.
	Report int

	// InCgroup says that the child was born in Spec.CgroupFD. It is false
	// where clone3(2) is missing or forbidden: then write PID to
	// cgroup.procs.
	InCgroup bool

	spec Spec
	mem  []byte
}

// clone flags; CLONE_VM alone, without CLONE_VFORK, is what lets Start return at once.
const ownStack = unix.CLONE_VM

// Start creates the process and returns at once; whether the exec succeeded
// is told by ReadReport. Errors of this side (of kind *Error: no memory, no process, no
// such cgroup) leave nothing behind. The caller closes the Child and reaps the process.
//
// Start may be called from several goroutines, and from a locked thread (a
// child inherits the seccomp filters of the thread that calls).
func Start(spec *Spec) (*Child, error) {
	if spec.OOMScore != nil {
		// The kernel gives all processes that share a memory the same score: ours
		// would become the child's. It gets a copy.
		return start(spec, 0)
	}
	return start(spec, ownStack)
}

func start(spec *Spec, share uintptr) (*Child, error) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, prepareError("report pipe", err)
	}
	p, err := build(spec, pipe[1])
	if err != nil {
		unix.Close(pipe[0])
		unix.Close(pipe[1])
		return nil, err
	}
	c := &Child{Report: pipe[0], spec: *spec, mem: p.mem}
	errno := c.fork(p, share)
	unix.Close(pipe[1])
	if errno != 0 {
		unix.Close(pipe[0])
		unix.Munmap(p.mem)
		stage := StageFork
		if spec.CgroupFD >= 0 && errno != unix.EAGAIN && errno != unix.ENOMEM {
			stage = StageCgroup
		}
		return nil, &Error{Stage: stage, Errno: errno}
	}
	return c, nil
}

// cloneArgs is struct clone_args of clone3(2), version of Linux 5.7.
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal uint64
	stack, stackSize, tls, setTID, setTIDSize     uint64
	cgroup                                        uint64
}

// fork creates the process with the best call that this kernel allows:
// clone3 where a cgroup is asked for; clone; clone with a copy of the memory,
// and without pidfd, for emulators that know only thread and fork.
func (c *Child) fork(p *program, share uintptr) unix.Errno {
	// Written by the kernel, so in memory that both sides see.
	pidfd := (*int32)(p.alloc(8))
	args := (*cloneArgs)(p.alloc(int(unsafe.Sizeof(cloneArgs{}))))
	*args = cloneArgs{
		flags:      uint64(share | unix.CLONE_PIDFD | unix.CLONE_INTO_CGROUP),
		pidfd:      uint64(uintptr(unsafe.Pointer(pidfd))),
		exitSignal: uint64(unix.SIGCHLD),
		stack:      uint64(uintptr(unsafe.Pointer(&p.mem[0]))),
		stackSize:  stackSize,
		cgroup:     uint64(c.spec.CgroupFD),
	}
	top := uintptr(unsafe.Pointer(&p.mem[0])) + stackSize
	at := uintptr(unsafe.Pointer(pidfd))
	const sigchld = uintptr(unix.SIGCHLD)

	var pid, errno uintptr
	withPIDFD := true
	release := hold()
	if c.spec.CgroupFD >= 0 {
		pid, errno = clone(unix.SYS_CLONE3, uintptr(unsafe.Pointer(args)), unsafe.Sizeof(*args), 0, 0, 0, p.head)
		c.InCgroup = errno == 0
	}
	if c.spec.CgroupFD < 0 || errno == uintptr(unix.ENOSYS) || errno == uintptr(unix.EPERM) {
		pid, errno = clone(unix.SYS_CLONE, share|unix.CLONE_PIDFD|sigchld, top, at, 0, 0, p.head)
		if errno == uintptr(unix.EINVAL) {
			pid, errno = clone(unix.SYS_CLONE, unix.CLONE_PIDFD|sigchld, top, at, 0, 0, p.head)
		}
		if errno == uintptr(unix.EINVAL) {
			withPIDFD = false
			pid, errno = clone(unix.SYS_CLONE, sigchld, top, 0, 0, 0, p.head)
		}
	}
	release()
	if errno != 0 {
		return unix.Errno(errno)
	}
	c.PID, c.PIDFD = int(pid), int(*pidfd)
	if !withPIDFD {
		// Not reaped yet, so the pid is the child's.
		fd, err := unix.PidfdOpen(c.PID, 0)
		if err != nil {
			fd = -1
		}
		c.PIDFD = fd
	}
	return 0
}

// hold takes what must be held over a fork: the thread, with all signals blocked, so that no
// handler of Go's runtime runs in the child, and syscall.ForkLock, so that no
// descriptor is seen between its making and its close-on-exec flag.
func hold() (release func()) {
	syscall.ForkLock.Lock()
	runtime.LockOSThread()
	all, old := ^uint64(0), uint64(0)
	sigprocmask(&all, &old)
	return func() {
		sigprocmask(&old, nil)
		runtime.UnlockOSThread()
		syscall.ForkLock.Unlock()
	}
}

// sigprocmask sets this thread's mask. Raw, because unix.PthreadSigmask does
// the same through a preemptible call.
func sigprocmask(set, old *uint64) {
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK,
		uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(old)), 8, 0, 0)
}

// clone is in assembly: see clone_amd64.s.
func clone(trap, a1, a2, a3, a4, a5 uintptr, head *header) (r1, errno uintptr)

// ReadReport reads the news of the start without blocking. done is false
// while the child is on its way; err is then nil, or why Report cannot be read.
// When done, err is nil or the *Error of the step that failed, and Report is
// closed and -1. A child that was killed on its way is done
// without an error: its exit tells.
func (c *Child) ReadReport() (done bool, err error) {
	if c.Report < 0 {
		return true, nil
	}
	var r report
	buf := unsafe.Slice((*byte)(unsafe.Pointer(&r)), reportSize)
	n, err := unix.Read(c.Report, buf)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return false, nil
	case err != nil:
		return false, os.NewSyscallError("read of the start report", err)
	}
	c.release()
	if n == reportSize {
		return true, &Error{
			Stage: r.tag.stage, Errno: unix.Errno(r.errno),
			Subject: c.spec.subject(r.tag.stage, int(r.tag.index)),
		}
	}
	return true, nil
}

// release ends the start. End of file, or a record, on the report pipe says
// that the child no longer needs the list: exec leaves the old memory before
// it closes descriptors, and so does exit. A record is followed by nothing but an
// exit, whose two instructions are in the program's text.
func (c *Child) release() {
	unix.Close(c.Report)
	c.Report = -1
	if c.mem != nil {
		unix.Munmap(c.mem)
		c.mem = nil
	}
}

// Close closes the descriptors that are still open (set PIDFD to -1 to keep
// it). Call it when ReadReport is done or the process was reaped, not before:
// a child on its way still uses the list.
func (c *Child) Close() {
	if c.Report >= 0 {
		c.release()
	}
	if c.PIDFD >= 0 {
		unix.Close(c.PIDFD)
		c.PIDFD = -1
	}
}
