package ready

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// How a process was seen to wait for connections; the larger, the surer.
type How int

const (
	NotSeen How = iota
	Asleep      // it holds the listener and all its threads sleep: no more could be read
	Ring        // the same, and it uses io_uring, whose requests cannot be looked at
	Polled      // a thread sleeps in poll(2) or select(2) with the listener among the fds
	Blocked     // a thread sleeps in accept(2), or for datagrams in recv(2)
	Epoll       // the listener is in an epoll(7) set
)

func (h How) String() string {
	return [...]string{"not seen", "asleep", "io_uring", "poll", "accept", "epoll"}[h]
}

// By says which process was seen waiting, and how.
type By struct {
	PID int
	How How
}

// Sight is one look at the processes of a generation.
type Sight struct {
	By map[uint64]By // by the listener's inode; what nobody waits on is not in it

	// Unreadable are the processes whose descriptors /proc does not show us.
	Unreadable []int
}

// Inodes are the listeners that somebody waits on, in order.
func (s Sight) Inodes() []uint64 {
	in := make([]uint64, 0, len(s.By))
	for i := range s.By {
		in = append(in, i)
	}
	slices.Sort(in)
	return in
}

func (s *Sight) add(inode uint64, pid int, how How) {
	if s.By[inode].How < how {
		s.By[inode] = By{pid, how}
	}
}

// maxSet bounds the fds that are read of a poll or select, 512 KiB and 8 KiB.
const maxSet = 1 << 16

// pollRDNorm is POLLRDNORM of <poll.h>, which some ask for instead of POLLIN.
const pollRDNorm = 0x40

// Seen looks at each process once and says for which of the listeners (socket
// inodes) one of them waits: what a server does that is able to serve, and what
// it does not do while it still loads. It changes nothing, and stops nobody.
// Processes that end meanwhile are left out without an error; the error is that
// /proc itself cannot be read.
//
// Where descriptors cannot be read, a process is taken to hold all the
// listeners, since they were lent to it: then Asleep is all that can be said.
func Seen(pids []int, inodes []uint64) (Sight, error) {
	s := Sight{By: make(map[uint64]By)}
	if len(inodes) == 0 {
		return s, nil
	}
	wanted := make(map[uint64]bool, len(inodes))
	for _, in := range inodes {
		wanted[in] = true
	}
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		return s, fmt.Errorf("cannot observe processes: %w", err)
	}
	for _, pid := range pids {
		if err := s.look(pid, wanted); errors.Is(err, fs.ErrPermission) {
			s.Unreadable = append(s.Unreadable, pid)
			if allAsleep(pid) {
				for in := range wanted {
					s.add(in, pid, Asleep)
				}
			}
		}
	}
	return s, nil
}

// look adds what one process waits for.
func (s *Sight) look(pid int, wanted map[uint64]bool) error {
	dir := "/proc/" + itoa(pid)
	held := map[int]uint64{} // fd -> wanted inode
	ring := false
	err := eachFD(pid, func(fd int, link string) {
		switch {
		case link == "anon_inode:[eventpoll]":
			for in := range epollSet(dir, fd) {
				if wanted[in] {
					s.add(in, pid, Epoll)
				}
			}
		case link == "anon_inode:[io_uring]":
			ring = true
		default:
			if in, ok := socketInode(link); ok && wanted[in] {
				held[fd] = in
			}
		}
	})
	if err != nil {
		return err
	}

	open := 0 // held listeners of which nothing is known yet
	for _, in := range held {
		if s.By[in].How < Blocked {
			open++
		}
	}
	if open == 0 {
		return nil
	}
	unread := s.threads(pid, held)
	if !ring {
		ring = mapsRing(dir)
	}
	if (unread || ring) && allAsleep(pid) {
		how := Asleep
		if ring {
			how = Ring
		}
		for _, in := range held {
			s.add(in, pid, how)
		}
	}
	return nil
}

// threads looks at the system call that each thread sleeps in. unread says that
// this could not be known: no permission, a kernel without it, a 32-bit program.
func (s *Sight) threads(pid int, held map[int]uint64) (unread bool) {
	tasks, err := os.ReadDir("/proc/" + itoa(pid) + "/task")
	if err != nil {
		return false
	}
	if !native(pid) {
		return true
	}
	for _, t := range tasks {
		b, err := os.ReadFile("/proc/" + itoa(pid) + "/task/" + t.Name() + "/syscall")
		if err != nil {
			if !errors.Is(err, unix.ESRCH) && !errors.Is(err, fs.ErrNotExist) {
				unread = true
			}
			continue
		}
		nr, args, ok := parseSyscall(string(b))
		if !ok {
			continue // running, or in no system call
		}
		switch waits[nr] {
		case waitFD:
			if in, ok := held[int(int32(args[0]))]; ok {
				s.add(in, pid, Blocked)
			}
		case waitPoll:
			fds, ok := pollFDs(pid, uintptr(args[0]), args[1])
			unread = unread || !ok
			for _, fd := range fds {
				if in, ok := held[fd]; ok {
					s.add(in, pid, Polled)
				}
			}
		case waitSelect:
			fds, ok := selectFDs(pid, args[0], uintptr(args[1]))
			unread = unread || !ok
			for _, fd := range fds {
				if in, ok := held[fd]; ok {
					s.add(in, pid, Polled)
				}
			}
		}
	}
	return unread
}

// wait is a kind of system call that a server waits in, by where the fds are.
type wait int

const (
	waitNone   wait = iota
	waitFD          // first argument
	waitPoll        // array of pollfd, its length
	waitSelect      // number, fd_set to read
)

// parseSyscall reads /proc/PID/syscall: number and six arguments in hex, or
// "running", or -1 for a thread that is in no system call (proc(5)).
func parseSyscall(text string) (nr int, args [6]uint64, ok bool) {
	f := strings.Fields(text)
	if len(f) < 7 {
		return 0, args, false
	}
	nr, err := strconv.Atoi(f[0])
	if err != nil || nr < 0 {
		return 0, args, false
	}
	for i := range args {
		if args[i], err = strconv.ParseUint(f[i+1], 0, 64); err != nil {
			return 0, args, false
		}
	}
	return nr, args, true
}

// pollFDs reads the pollfd array {int fd; short events, revents} of a thread in
// poll(2). Entries that do not ask for input do not wait for connections.
func pollFDs(pid int, addr uintptr, n uint64) (fds []int, ok bool) {
	b, ok := readMemory(pid, addr, int(min(n, maxSet))*8)
	for ; len(b) >= 8; b = b[8:] {
		fd := int32(b[0]) | int32(b[1])<<8 | int32(b[2])<<16 | int32(b[3])<<24
		events := uint16(b[4]) | uint16(b[5])<<8
		if fd >= 0 && events&(unix.POLLIN|pollRDNorm) != 0 {
			fds = append(fds, int(fd))
		}
	}
	return fds, ok
}

// selectFDs reads the read set of a thread in select(2). On the little-endian
// machines that we run on, bit n of the set is bit n%8 of byte n/8.
//
// The kernel clears nothing in it until the call returns.
func selectFDs(pid int, n uint64, set uintptr) (fds []int, ok bool) {
	if set == 0 {
		return nil, true
	}
	n = min(n, maxSet)
	b, ok := readMemory(pid, set, int(n+7)/8)
	for i, c := range b {
		for bit := range 8 {
			if fd := i*8 + bit; c&(1<<bit) != 0 && fd < int(n) {
				fds = append(fds, fd)
			}
		}
	}
	return fds, ok
}

// readMemory copies from another process; what could be read is returned even
// when that is not all.
func readMemory(pid int, addr uintptr, n int) (b []byte, ok bool) {
	if n == 0 || addr == 0 {
		return nil, true
	}
	b = make([]byte, n)
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(n)
	got, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: addr, Len: n}}, 0)
	if err != nil || got < 0 {
		return nil, false
	}
	return b[:got], got == n
}

// native says that the program is a 64-bit one, whose system call numbers are
// those of waits. What cannot be read is taken for native.
func native(pid int) bool {
	f, err := os.Open("/proc/" + itoa(pid) + "/exe")
	if err != nil {
		return true
	}
	defer f.Close()
	var head [5]byte // "\x7fELF", then the class: 1 is 32 bits
	n, _ := f.ReadAt(head[:], 0)
	return n < 5 || head[4] != 1
}

// mapsRing finds an io_uring whose fd was closed after registering it: its
// rings stay mapped.
func mapsRing(dir string) bool {
	b, err := os.ReadFile(dir + "/maps")
	return err == nil && bytes.Contains(b, []byte("anon_inode:[io_uring]"))
}

// allAsleep says that every thread of a process sleeps and waits for something.
func allAsleep(pid int) bool {
	stats, err := filepath.Glob("/proc/" + itoa(pid) + "/task/*/stat")
	if err != nil || len(stats) == 0 {
		return false
	}
	for _, p := range stats {
		if st := threadState(p); st != 'S' && st != 0 {
			return false
		}
	}
	return true
}

// threadState is the letter of the third field of a stat file; 0 if it cannot be
// read. The second field is a name in parentheses that may contain anything.
func threadState(path string) byte {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	i := bytes.LastIndexByte(b, ')')
	if i < 0 || i+2 >= len(b) {
		return 0
	}
	return b[i+2]
}

// epollSet reads the inodes that an epoll set watches from fdinfo. Lines are
// "tfd: N events: X data: Y pos:P ino:HEX sdev:HEX" (proc(5)). The device is not
// compared: pipes and sockets draw their numbers from one counter, and ordinary
// files cannot be in a set.
func epollSet(dir string, fd int) map[uint64]bool {
	b, err := os.ReadFile(dir + "/fdinfo/" + itoa(fd))
	if err != nil {
		return nil
	}
	return parseEpollSet(string(b))
}

func parseEpollSet(text string) map[uint64]bool {
	set := map[uint64]bool{}
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "tfd:") {
			continue
		}
		_, rest, ok := strings.Cut(line, "ino:")
		if !ok {
			continue
		}
		f := strings.Fields(rest)
		if len(f) == 0 {
			continue
		}
		if in, err := strconv.ParseUint(f[0], 16, 64); err == nil {
			set[in] = true
		}
	}
	return set
}

// eachFD calls f for each open descriptor of a process with what it links to.
func eachFD(pid int, f func(fd int, link string)) error {
	dir := "/proc/" + itoa(pid) + "/fd"
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		link, err := os.Readlink(dir + "/" + name)
		if err != nil {
			if errors.Is(err, fs.ErrPermission) {
				return err
			}
			continue // closed meanwhile
		}
		f(fd, link)
	}
	return nil
}

// socketInode reads "socket:[123]".
func socketInode(link string) (uint64, bool) {
	s, ok := strings.CutPrefix(link, "socket:[")
	if !ok {
		return 0, false
	}
	s, ok = strings.CutSuffix(s, "]")
	if !ok {
		return 0, false
	}
	in, err := strconv.ParseUint(s, 10, 64)
	return in, err == nil
}

// AcceptedBy says which of the processes holds the socket with this inode.
func AcceptedBy(inode uint32, pids []int) (pid int, ok bool) {
	if inode == 0 {
		return 0, false // in the queue of a listener: nobody's yet
	}
	for _, p := range pids {
		found := false
		_ = eachFD(p, func(_ int, link string) {
			in, ok := socketInode(link)
			found = found || ok && in == uint64(inode)
		})
		if found {
			return p, true
		}
	}
	return 0, false
}
