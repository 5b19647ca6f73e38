package intercept

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// thread is a thread of a child that waits in a trapped call: what can be
// learned about it through /proc and the ptrace-like calls. Each of them may
// fail with EPERM or EACCES where the supervisor may not look (another user's
// or a non-dumpable process, Yama, a container without CAP_SYS_PTRACE).
// All of it is only true if the notification is still valid afterwards.
type thread struct {
	tid  int
	word int // size of a word in its memory: 4 or 8
}

func (t thread) proc(name string) string { return "/proc/" + strconv.Itoa(t.tid) + "/" + name }

// read fills buf from the thread's memory at addr as far as it is readable.
func (t thread) read(addr uint64, buf []byte) (int, error) {
	local := []unix.Iovec{{Base: &buf[0]}}
	local[0].SetLen(len(buf))
	remote := []unix.RemoteIovec{{Base: uintptr(addr), Len: len(buf)}}
	n, err := unix.ProcessVMReadv(t.tid, local, remote, 0)
	if err == nil || err == unix.EFAULT {
		return max(n, 0), err
	}
	// Some container profiles know only one of the two ways.
	n, memErr := t.readMem(addr, buf)
	if memErr == nil || memErr == unix.EFAULT {
		return n, memErr
	}
	return 0, fmt.Errorf("cannot read memory of thread %d: %w", t.tid, err)
}

// readMem is read by way of /proc/TID/mem.
func (t thread) readMem(addr uint64, buf []byte) (int, error) {
	fd, err := openRead(t.proc("mem"))
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Close(fd) }()
	n, err := unix.Pread(fd, buf, int64(addr))
	if err == unix.EIO { // what process_vm_readv calls EFAULT
		err = unix.EFAULT
	}
	return max(n, 0), err
}

// readFull reads exactly len(buf) bytes, or fails with EFAULT.
func (t thread) readFull(addr uint64, buf []byte) error {
	n, err := t.read(addr, buf)
	if err == nil && n < len(buf) {
		err = unix.EFAULT
	}
	return err
}

// readPath reads a path as the kernel does: up to the first zero byte, within
// PATH_MAX.
func (t thread) readPath(addr uint64) (string, error) {
	const page = 4096 // the smallest; a string may end just before an unmapped page
	var path []byte
	for len(path) < unix.PathMax {
		buf := make([]byte, min(page-addr%page, 256))
		n, err := t.read(addr, buf)
		if err != nil {
			return "", err
		}
		if i := bytes.IndexByte(buf[:n], 0); i >= 0 {
			return string(append(path, buf[:i]...)), nil
		}
		if n < len(buf) {
			return "", unix.EFAULT
		}
		path = append(path, buf...)
		addr += uint64(n)
	}
	return "", unix.ENAMETOOLONG
}

// readWords reads n words of a 32-bit caller: the arguments of socketcall(2).
func (t thread) readWords(addr uint64, n int) ([]uint64, error) {
	buf := make([]byte, 4*n)
	if err := t.readFull(addr, buf); err != nil {
		return nil, err
	}
	words := make([]uint64, n)
	for i := range words {
		words[i] = uint64(binary.NativeEndian.Uint32(buf[4*i:]))
	}
	return words, nil
}

// getfd returns a close-on-exec duplicate of the thread's fd, for the caller
// to close.
func (t thread) getfd(fd int) (int, error) {
	pidfd, err := t.pidfd()
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(pidfd) }()
	dup, err := unix.PidfdGetfd(pidfd, fd, 0)
	if err != nil {
		return -1, fmt.Errorf("cannot duplicate fd %d of thread %d: %w", fd, t.tid, err)
	}
	return dup, nil
}

func (t thread) pidfd() (int, error) {
	// The thread itself (6.9), because a thread may have an fd table of its own.
	pidfd, err := unix.PidfdOpen(t.tid, unix.PIDFD_THREAD)
	if err == unix.EINVAL {
		// Older: a process only, that is a thread that leads its group.
		pidfd, err = unix.PidfdOpen(t.tid, 0)
	}
	if err == unix.EINVAL || err == unix.ENOENT {
		tgid, tgidErr := t.tgid()
		if tgidErr != nil {
			return -1, tgidErr
		}
		pidfd, err = unix.PidfdOpen(tgid, 0)
	}
	if err != nil {
		return -1, fmt.Errorf("cannot open a pidfd of thread %d: %w", t.tid, err)
	}
	return pidfd, nil
}

// tgid is the process that the thread belongs to.
func (t thread) tgid() (int, error) {
	v, err := t.status("Tgid")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(v)
}

// status returns one field of /proc/TID/status.
func (t thread) status(field string) (string, error) {
	b, err := readFile(t.proc("status"))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok && name == field {
			return strings.TrimSpace(value), nil
		}
	}
	return "", fmt.Errorf("cannot find %s in %s", field, t.proc("status"))
}

// cloexec tells whether the thread's fd is closed on exec.
func (t thread) cloexec(fd int) (bool, error) {
	b, err := readFile(t.proc("fdinfo/" + strconv.Itoa(fd)))
	if err != nil {
		return false, err
	}
	flags, err := fdinfoFlags(b)
	return flags&unix.O_CLOEXEC != 0, err
}

// fdinfoFlags reads the "flags:" line of /proc/PID/fdinfo/FD, see proc(5).
func fdinfoFlags(b []byte) (int, error) {
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte("flags:")); ok {
			v, err := strconv.ParseUint(string(bytes.TrimSpace(rest)), 8, 32)
			return int(v), err
		}
	}
	return 0, errors.New("cannot find flags in fdinfo")
}

// sameNS tells whether the thread lives in our namespace of the kind "net",
// "mnt", "user", ...
func (t thread) sameNS(kind string) (bool, error) {
	theirs, err := readlink(t.proc("ns/" + kind))
	if err != nil {
		return false, err
	}
	ours, err := readlink("/proc/self/ns/" + kind)
	return err == nil && ours == theirs, err
}

// sameRoot tells whether a path means the same file to the thread as to us.
func (t thread) sameRoot() (bool, error) {
	if same, err := t.sameNS("mnt"); err != nil || !same {
		return false, err
	}
	var theirs, ours unix.Stat_t
	if err := unix.Stat(t.proc("root"), &theirs); err != nil {
		return false, err
	}
	if err := unix.Stat("/proc/self/root", &ours); err != nil {
		return false, err
	}
	return theirs.Dev == ours.Dev && theirs.Ino == ours.Ino, nil
}

// capNetBindService is CAP_NET_BIND_SERVICE of linux/capability.h.
const capNetBindService = 10

// mayBind tells whether the thread may bind port in our network namespace, see
// ip_unprivileged_port_start in ip(7).
func (t thread) mayBind(port uint16) (bool, error) {
	start := uint64(1024)
	if b, err := readFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err == nil {
		if v, err := strconv.ParseUint(string(bytes.TrimSpace(b)), 10, 32); err == nil {
			start = v
		}
	}
	if uint64(port) >= start {
		return true, nil
	}
	// A capability in a user namespace of the child's own is none here.
	if same, err := t.sameNS("user"); err != nil || !same {
		return false, err
	}
	eff, err := t.status("CapEff")
	if err != nil {
		return false, err
	}
	caps, err := strconv.ParseUint(eff, 16, 64)
	return caps&(1<<capNetBindService) != 0, err
}

// fdTable is what in the fd table of a thread refers to one socket.
type fdTable struct {
	copies  []int   // other numbers of the same socket
	watches []watch // registrations of the socket in epoll sets
}

// watch is one registration in an epoll set, which the kernel keys by number
// and open file.
type watch struct {
	epoll  int // number of the epoll fd in the child
	fd     int // number of the socket in the child
	events uint32
	data   uint64
}

// table looks for what refers to the socket with this inode, known as fd.
func (t thread) table(fd int, inode uint64) (fdTable, error) {
	var found fdTable
	dir, err := unix.Open(t.proc("fd"), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return found, fmt.Errorf("cannot open %s: %w", t.proc("fd"), err)
	}
	defer func() { _ = unix.Close(dir) }()

	socket := "socket:[" + strconv.FormatUint(inode, 10) + "]"
	var epolls []int
	var link [64]byte
	err = eachNumber(dir, func(number int, name []byte) {
		if number == fd {
			return
		}
		n, _, errno := unix.RawSyscall6(unix.SYS_READLINKAT, uintptr(dir), uintptr(unsafe.Pointer(&name[0])),
			uintptr(unsafe.Pointer(&link[0])), uintptr(len(link)), 0, 0)
		if errno != 0 {
			return
		}
		switch string(link[:n]) {
		case socket:
			found.copies = append(found.copies, number)
		case "anon_inode:[eventpoll]":
			epolls = append(epolls, number)
		}
	})
	registered := []byte("ino:" + strconv.FormatUint(inode, 16) + " ")
	for _, ep := range epolls {
		b, readErr := readFile(t.proc("fdinfo/" + strconv.Itoa(ep)))
		if readErr != nil {
			err = errors.Join(err, readErr)
			continue
		}
		if !bytes.Contains(b, registered) {
			continue // nearly always; parsing costs more than all the rest
		}
		for _, w := range parseWatches(b) {
			if w.inode == inode {
				w.epoll = ep
				found.watches = append(found.watches, w.watch)
			}
		}
	}
	return found, err
}

type watchedInode struct {
	watch
	inode uint64
}

// parseWatches reads the "tfd:" lines in the fdinfo of an epoll fd, see proc(5):
//
//	tfd:        5 events:       19 data: 1122334455667788  pos:0 ino:61af sdev:7
func parseWatches(b []byte) []watchedInode {
	var all []watchedInode
	for line := range strings.Lines(string(b)) {
		if !strings.HasPrefix(line, "tfd:") {
			continue
		}
		// Some values stand apart from their colon, some do not.
		f := strings.Fields(strings.ReplaceAll(line, ":", ": "))
		var w watchedInode
		var have int
		for i := 0; i+1 < len(f); i += 2 {
			base, bits := 16, 64
			switch f[i] {
			case "tfd:":
				base, bits = 10, 31
			case "events:":
				bits = 32
			}
			v, err := strconv.ParseUint(f[i+1], base, bits)
			if err != nil {
				continue
			}
			switch f[i] {
			case "tfd:":
				w.fd = int(v)
			case "events:":
				w.events = uint32(v)
			case "data:":
				w.data = v
			case "ino:":
				w.inode = v
			default:
				continue
			}
			have++
		}
		if have == 4 {
			all = append(all, w)
		}
	}
	return all
}

// Holds tells whether one of the processes has the socket with this inode
// open. A process that is gone holds nothing; one that may not be looked into
// is an error unless another one holds it.
func Holds(pids []int, inode uint64) (bool, error) {
	var failed error
	for _, pid := range pids {
		found, err := thread{tid: pid}.table(-1, inode)
		if len(found.copies) > 0 {
			return true, nil
		}
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ESRCH) {
			failed = err
		}
	}
	return false, failed
}

// eachNumber calls f for each entry of the open directory whose name is a
// number; name ends in a zero byte.
func eachNumber(dir int, f func(number int, name []byte)) error {
	const header = 19 // of struct linux_dirent64: ino, off, reclen, type; see getdents64(2)
	var buf [2048]byte
	for {
		n, err := unix.Getdents(dir, buf[:])
		if err != nil {
			return fmt.Errorf("cannot read a directory: %w", err)
		}
		if n == 0 {
			return nil
		}
		for rest := buf[:n]; len(rest) > header; {
			size := int(binary.NativeEndian.Uint16(rest[16:]))
			if size <= header || size > len(rest) {
				return errors.New("cannot read a directory: a broken entry")
			}
			name := rest[header:size]
			if end := bytes.IndexByte(name, 0); end > 0 {
				if number, err := strconv.Atoi(string(name[:end])); err == nil {
					f(number, name[:end+1])
				}
			}
			rest = rest[size:]
		}
	}
}

// The helpers below go to the system calls directly: package os would
// register each file with the poller and twice the time of a trapped bind
// would go there.

func openRead(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("cannot open %s: %w", path, err)
	}
	return fd, nil
}

// readFile reads a small file of /proc.
func readFile(path string) ([]byte, error) {
	fd, err := openRead(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	b := make([]byte, 0, 1024)
	for {
		if len(b) == cap(b) {
			b = append(b, make([]byte, cap(b))...)[:len(b)]
		}
		n, err := unix.Read(fd, b[len(b):cap(b)])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read %s: %w", path, err)
		}
		if n == 0 {
			return b, nil
		}
		b = b[:len(b)+n]
	}
}

func readlink(path string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlink(path, buf)
	if err != nil {
		return "", fmt.Errorf("cannot read link %s: %w", path, err)
	}
	return string(buf[:n]), nil
}
