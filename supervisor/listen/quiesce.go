package listen

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor/sockdiag"
)

// Quiesced is what Quiesce did. The caller ends it by Undo or by Close.
type Quiesced struct {
	Silenced []int // processes that are not told of new connections any more
	Left     []int // processes that hold a listener and have it in no epoll set: blocked in accept, poll or select, they go on
	items    []item
}

// item is one listener in one epoll set.
type item struct {
	epoll    int // our copy of the epoll set
	listener int // our copy of the listener: the same open file
	number   int // the descriptor under which it was registered, part of its key
	event    unix.EpollEvent
}

// Quiesce silences listeners in the epoll sets of processes, so that they stop
// to accept without knowing. It is for what cannot have lanes. A process that
// was just told of a connection may take that one still. The listeners stay in
// the sets, with no events: a process that takes one out itself, when it is told
// to stop, finds it there, and some do not live without (Dovecot).
//
// pids are the processes of the old generation; inodes those of the listeners
// (Lane.Inode). It needs ptrace permission on the processes (pidfd_getfd(2)).
// On error what was done is undone. Processes that end meanwhile are passed over.
func Quiesce(pids []int, inodes []uint64) (*Quiesced, error) {
	q := &Quiesced{}
	for _, pid := range pids {
		items, holds, err := findItems(pid, inodes)
		q.items = append(q.items, items...)
		if err != nil {
			q.Close()
			return nil, fmt.Errorf("cannot look into the epoll sets of process %d: %w", pid, err)
		}
		if len(items) > 0 {
			q.Silenced = append(q.Silenced, pid)
		} else if holds {
			q.Left = append(q.Left, pid)
		}
	}
	done := 0
	err := onThrowAwayThread(func() error {
		for _, i := range q.items {
			silent := i.event
			silent.Events = 0
			// ENOENT: the process has taken it out itself meanwhile.
			if err := i.set(silent); err != nil && err != unix.ENOENT {
				return err
			}
			done++
		}
		return nil
	})
	if err != nil {
		rest := q.items[done:]
		q.items = q.items[:done]
		err = errors.Join(fmt.Errorf("cannot silence a listener in an epoll set: %w", err), q.Undo())
		(&Quiesced{items: rest}).Close()
		return nil, err
	}
	return q, nil
}

// Undo gives the listeners their events again, for a rollout that was given up,
// and closes q. What a process took out itself meanwhile stays out.
func (q *Quiesced) Undo() error {
	err := onThrowAwayThread(func() error {
		var errs []error
		for _, i := range q.items {
			if err := i.set(i.event); err != nil && err != unix.ENOENT {
				errs = append(errs, fmt.Errorf("cannot give a listener its events in an epoll set again: %w", err))
			}
		}
		return errors.Join(errs...)
	})
	q.Close()
	return err
}

// Close drops what Undo would need. A second Close does nothing.
func (q *Quiesced) Close() {
	for _, i := range q.items {
		unix.Close(i.epoll)
		unix.Close(i.listener)
	}
	q.items = nil
}

// findItems finds the epoll sets of a process that have one of the sockets,
// and whether it holds one at all.
func findItems(pid int, inodes []uint64) (items []item, holds bool, err error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer unix.Close(pidfd)
	dir := "/proc/" + strconv.Itoa(pid)
	entries, err := os.ReadDir(dir + "/fd")
	if gone(err) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		what, _ := os.Readlink(dir + "/fd/" + e.Name())
		if n, ok := socketInode(what); ok && slices.Contains(inodes, n) {
			holds = true
		}
		if what != "anon_inode:[eventpoll]" {
			continue
		}
		info, err := os.ReadFile(dir + "/fdinfo/" + e.Name())
		if gone(err) {
			continue
		}
		if err != nil {
			return items, holds, err
		}
		for _, t := range parseEpoll(info) {
			if !slices.Contains(inodes, t.inode) {
				continue
			}
			listener, err := getSocket(pid, pidfd, t.number, t.inode)
			if errors.Is(err, unix.ENOENT) {
				continue
			}
			if err != nil {
				return items, holds, err
			}
			ep, err := unix.PidfdGetfd(pidfd, fd, 0)
			if err != nil {
				unix.Close(listener)
				if errors.Is(err, unix.EBADF) || errors.Is(err, unix.ESRCH) {
					continue
				}
				return items, holds, err
			}
			items = append(items, item{epoll: ep, listener: listener, number: t.number, event: t.event})
		}
	}
	return items, holds, nil
}

func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) }

func socketInode(link string) (uint64, bool) {
	s, ok := strings.CutPrefix(link, "socket:[")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimSuffix(s, "]"), 10, 64)
	return n, err == nil
}

// getSocket gives a copy of the socket with the inode: from the process under
// the number it was registered with, else our own. ENOENT: neither has it.
func getSocket(pid, pidfd, number int, inode uint64) (int, error) {
	is := func(fd int) bool {
		var st unix.Stat_t
		return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK && st.Ino == inode
	}
	fd, err := unix.PidfdGetfd(pidfd, number, 0)
	if err == nil {
		if is(fd) {
			return fd, nil
		}
		unix.Close(fd)
	} else if errors.Is(err, unix.EPERM) {
		return -1, err
	}
	own, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1, err
	}
	for _, e := range own {
		if n, err := strconv.Atoi(e.Name()); err == nil && is(n) {
			return unix.FcntlInt(uintptr(n), unix.F_DUPFD_CLOEXEC, 0)
		}
	}
	return -1, unix.ENOENT
}

// target is one line of the fdinfo of an epoll set.
type target struct {
	number int
	inode  uint64
	event  unix.EpollEvent
}

// parseEpoll reads "tfd: N events: X data: X pos:N ino:X sdev:X" of proc_pid_fdinfo(5).
func parseEpoll(info []byte) []target {
	var all []target
	lines := bufio.NewScanner(bytes.NewReader(info))
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), "tfd:")
		if !ok {
			continue
		}
		rest = strings.NewReplacer("events:", " ", "data:", " ", "pos:", " ", "ino:", " ", "sdev:", " ").Replace(rest)
		f := strings.Fields(rest)
		if len(f) < 5 {
			continue
		}
		number, err1 := strconv.ParseInt(f[0], 10, 32)
		events, err2 := strconv.ParseUint(f[1], 16, 32)
		data, err3 := strconv.ParseUint(f[2], 16, 64)
		inode, err4 := strconv.ParseUint(f[4], 16, 64)
		if errors.Join(err1, err2, err3, err4) != nil || number < 0 {
			continue
		}
		t := target{number: int(number), inode: inode}
		t.event.Events = uint32(events)
		b := *(*[8]byte)(unsafe.Pointer(&data))
		t.event.Fd = *(*int32)(unsafe.Pointer(&b[0]))
		t.event.Pad = *(*int32)(unsafe.Pointer(&b[4]))
		all = append(all, t)
	}
	return all
}

// onThrowAwayThread runs f on an OS thread with a descriptor table of its own,
// which ends with the thread. f must leave the low descriptors as it found them.
func onThrowAwayThread(f func() error) error {
	result := make(chan error)
	var start func()
	start = func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The main thread never ends. While this goroutine sits on it,
			// the next one is elsewhere.
			inner := make(chan struct{})
			go func() { defer close(inner); start() }()
			<-inner
			runtime.UnlockOSThread()
			return
		}
		err := unix.Unshare(unix.CLONE_FILES)
		if err == nil {
			err = f()
		}
		result <- err
		// No unlock: the thread ends with the goroutine.
	}
	go start()
	return <-result
}

// set gives the listener these events in the set, if it is in it. The kernel
// lets nobody change one that is exclusive: that is taken out and put in anew.
// On a throw-away thread only.
func (i *item) set(event unix.EpollEvent) error {
	if i.event.Events&unix.EPOLLEXCLUSIVE == 0 {
		return i.control(unix.EPOLL_CTL_MOD, event)
	}
	if err := i.control(unix.EPOLL_CTL_DEL, event); err != nil {
		return err
	}
	return i.control(unix.EPOLL_CTL_ADD, event)
}

// control does epoll_ctl(2) as if our copy of the listener had the number
// under which the process registered it, for the kernel's key is file and
// number. On a throw-away thread only.
func (i *item) control(op int, event unix.EpollEvent) error {
	// Helpers go above the number, to survive the dup3.
	high := i.number + 1
	var helpers []int
	defer func() {
		for _, h := range helpers {
			unix.Close(h)
		}
	}()
	up := func(fd int) (int, error) {
		h, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, high)
		if err == nil {
			helpers = append(helpers, h)
		}
		return h, err
	}
	ep, err := up(i.epoll)
	if err != nil {
		return err
	}
	listener, err := up(i.listener)
	if err != nil {
		return err
	}
	saved, err := up(i.number)
	if errors.Is(err, unix.EBADF) {
		saved, err = -1, nil
	}
	if err != nil {
		return err
	}
	if e := swapped(uintptr(ep), uintptr(op), uintptr(i.number), uintptr(listener), saved, unsafe.Pointer(&event)); e != 0 {
		return e
	}
	return nil
}

// swapped puts listener at number, does the epoll_ctl, and puts back what was
// there. The number may be the runtime's own eventfd, which this thread would
// write to if the goroutine were preempted in between (netpollBreak throws when
// that fails): a nosplit function has no preemption point.
//
//go:nosplit
//go:norace
func swapped(ep, op, number, listener uintptr, saved int, event unsafe.Pointer) unix.Errno {
	_, _, e := unix.RawSyscall(unix.SYS_DUP3, listener, number, unix.O_CLOEXEC)
	if e != 0 {
		return e
	}
	_, _, e = unix.RawSyscall6(unix.SYS_EPOLL_CTL, ep, op, number, uintptr(event), 0, 0)
	if saved >= 0 {
		_, _, _ = unix.RawSyscall(unix.SYS_DUP3, uintptr(saved), number, unix.O_CLOEXEC)
	} else {
		_, _, _ = unix.RawSyscall(unix.SYS_CLOSE, number, 0, 0)
	}
	return e
}

// calmFor is how long nothing unread must be seen. A process that was woken by
// its epoll set a moment before it was quiesced still accepts; a client that was
// accepted may not have sent its request; and one whose request was read is not
// answered yet. Nothing tells of these for a unix socket.
const calmFor = 50 * time.Millisecond

// WaitRead waits until the processes have read all that came over the
// connections that they accepted from a unix listener, and that for calmFor, for
// at most bound. left is how many connections have unread bytes at the end. For
// quiesced listeners it is what the shield of a Gate is for TCP: weaker, for a
// unix socket does not tell whether an answer was sent.
func WaitRead(ctx context.Context, pids []int, l *Lane, bound time.Duration) (left int, err error) {
	deadline := time.Now().Add(bound)
	calm := time.Now()
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		left, err = unread(pids, l)
		if left > 0 {
			calm = time.Now()
		}
		if err != nil || time.Since(calm) >= calmFor || !time.Now().Before(deadline) {
			return left, err
		}
		if err := sleep(ctx, pause); err != nil {
			return left, err
		}
	}
}

// unread counts the connections of a unix listener that the processes hold and
// that have unread bytes.
func unread(pids []int, l *Lane) (int, error) {
	all, err := sockdiag.Unix(sockdiag.UnixQuery{States: sockdiag.Mask(sockdiag.Established)})
	if err != nil {
		return 0, err
	}
	// The name is as it was bound, perhaps relative to its server's directory.
	fd := l.FD()
	if fd < 0 {
		return 0, nil // closed meanwhile
	}
	name, err := pathOf(fd)
	if err != nil {
		return 0, err
	}
	waiting := map[uint64]bool{}
	for _, s := range all {
		if s.RQueue > 0 && s.Name == name {
			waiting[uint64(s.Inode)] = true
		}
	}
	if len(waiting) == 0 {
		return 0, nil
	}
	n := 0
	for _, pid := range pids {
		dir := "/proc/" + strconv.Itoa(pid) + "/fd"
		entries, err := os.ReadDir(dir)
		if gone(err) {
			continue
		}
		if err != nil {
			return n, err
		}
		for _, e := range entries {
			link, _ := os.Readlink(dir + "/" + e.Name())
			if ino, ok := socketInode(link); ok && waiting[ino] {
				delete(waiting, ino)
				n++
			}
		}
	}
	return n, nil
}
