package intercept

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Report is what this kernel, container and user permit. An error is nil where
// the thing works; its text names the errno.
type Report struct {
	Install error // a filter with a notify fd: ErrNested, ErrNotPermitted or ErrUnsupported
	Swap    error // a bind was trapped and answered with another socket (needs Install)
	Dup     error // pidfd_getfd: default container profiles want CAP_SYS_PTRACE for it
	Memory  error // process_vm_readv or /proc/PID/mem

	NoNewPrivs   bool // the filter needed no-new-privs: setuid programs of a child do not elevate
	WaitKillable bool // 5.19: signals do not interrupt a call that is being answered
	SyncWakeUp   bool // 6.6: a trapped call costs some five times less
	NetNSCookie  bool // 5.14: SO_NETNS_COOKIE

	Yama int // kernel.yama.ptrace_scope; -1 without Yama. From 2 on only CAP_SYS_PTRACE may look into a child
}

// OK tells whether interception works here at all. A child of another user, or
// one that is not dumpable, may still be closed to a supervisor without
// privilege: that is said by an [Unheld] event when it happens.
func (r Report) OK() bool {
	return r.Install == nil && r.Swap == nil && r.Dup == nil && r.Memory == nil
}

// Probe tries it: it installs a filter on a throw-away thread of this process,
// lets it bind a loopback port, and answers. It starts no process and leaves
// nothing behind. It takes some 1 ms.
func Probe() Report {
	r := Report{Yama: yama()}
	self := thread{tid: unix.Getpid(), word: 8}
	r.Dup, r.Memory = probeDup(self), probeMemory(self)
	r.NetNSCookie = probeCookie()
	r.probeFilter()
	return r
}

func yama() int {
	b, err := readFile("/proc/sys/kernel/yama/ptrace_scope")
	if err != nil {
		return -1
	}
	v, err := strconv.Atoi(string(bytes.TrimSpace(b)))
	if err != nil {
		return -1
	}
	return v
}

func probeDup(self thread) error {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	dup, err := self.getfd(fd)
	if err != nil {
		return err
	}
	return unix.Close(dup)
}

func probeMemory(self thread) error {
	word := new([8]byte)
	copy(word[:], "supervis")
	var got [8]byte
	if err := self.readFull(uint64(uintptr(unsafe.Pointer(word))), got[:]); err != nil {
		return err
	}
	if got != *word {
		return errors.New("cannot read memory: it read something else")
	}
	return nil
}

func probeCookie() bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	_, err = getsockopt64(fd, unix.SO_NETNS_COOKIE)
	return err == nil
}

// probeFilter binds in a thread with the filter, answers from this one, and
// looks whether the socket is the one that was given.
func (r *Report) probeFilter() {
	notify := make(chan int, 1)
	swapped := make(chan error, 1)
	go func() {
		swapped <- Thread(func() error {
			fd, flags, err := install(Options{})
			r.Install, r.NoNewPrivs, r.WaitKillable = err, flags.nnp, flags.waitKillable
			notify <- fd
			if err != nil {
				return nil
			}
			return bindOnce()
		})
	}()
	fd := <-notify
	if fd < 0 {
		r.Swap = fmt.Errorf("cannot try: %w", r.Install)
		<-swapped
		return
	}
	conn := NewConn(fd)
	r.SyncWakeUp = syncWakeUp(fd) == nil
	err := answerOnce(conn)
	_ = conn.Close() // a call that is left fails with ENOSYS
	r.Swap = errors.Join(<-swapped, err)
}

// bindOnce binds a socket; the listener that it then has listens already.
func bindOnce() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return fmt.Errorf("cannot bind under the filter: %w", err)
	}
	if !listening(fd) {
		return errors.New("cannot swap: the bind was not answered with our socket")
	}
	return nil
}

func answerOnce(conn *Conn) error {
	held, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(held) }()
	if err := unix.Bind(held, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	if err := unix.Listen(held, 1); err != nil {
		return err
	}
	// It is on its way; 5 s for a machine that is nearly dead.
	ready, _, err := conn.Poll(5000)
	if err != nil {
		return err
	}
	if !ready {
		return errors.New("cannot see a trapped bind: nothing came")
	}
	n, ok, err := conn.Recv()
	if err != nil || !ok {
		return errors.Join(err, ErrGone)
	}
	if err := conn.AddFD(n.ID, held, int(int32(n.Args[0])), true); err != nil {
		_ = conn.Continue(n.ID)
		return err
	}
	return conn.Reply(n.ID, 0, 0)
}
