package ready

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// maxDatagram is the longest message that systemd reads (PIPE_BUF); a
	// longer one is dropped whole, by it and by us.
	maxDatagram = 4096

	// maxFiles is SCM_MAX_FD: the kernel lets no sender attach more.
	maxFiles = 253

	// notifyBuffer is what systemd asks for: senders block when it is full.
	notifyBuffer = 8 << 20

	// maxSunPath is the room in sockaddr_un without the closing NUL, which
	// some clients insist on.
	maxSunPath = 107
)

// Notify is the receiving end of a NOTIFY_SOCKET, made for one generation. It
// belongs to one goroutine.
type Notify struct {
	fd   int
	addr string
	path string // "" for an abstract address
	buf  []byte
	oob  []byte
}

// ListenNotify opens a notify socket. With a dir it is a path in that
// directory, which the caller made and removes; a child of another user needs
// search permission on it (mode 0711), the socket itself is open to all (0666).
// What keeps strangers out is that nobody else knows the name: 64 random bits
// are added to it. With dir "", or where the path would not fit in a
// sockaddr_un, it is an abstract address, which a child in another network
// namespace cannot reach.
//
// The caller closes it with Close. Errors name the stage and carry the errno.
func ListenNotify(dir, name string) (*Notify, error) {
	var b [8]byte
	if _, err := unix.Getrandom(b[:], 0); err != nil { // 0.2 ms cheaper than the first use of crypto/rand
		return nil, fmt.Errorf("cannot open notify socket: random name: %w", err)
	}
	name = strings.Map(func(r rune) rune {
		if r == '/' || r == 0 {
			return '-'
		}
		return r
	}, name)
	suffix := "-" + hex.EncodeToString(b[:])

	n := &Notify{}
	if dir != "" {
		p, err := filepath.Abs(filepath.Join(dir, name+suffix))
		if err != nil {
			return nil, fmt.Errorf("cannot open notify socket: %w", err)
		}
		if len(p) <= maxSunPath {
			n.path, n.addr = p, p
		}
	}
	if n.path == "" {
		const prefix = "@supervise/notify/"
		name = name[:min(len(name), maxSunPath-len(prefix)-len(suffix))]
		n.addr = prefix + name + suffix
	}

	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open notify socket: socket: %w", err)
	}
	fail := func(stage string, err error) (*Notify, error) {
		unix.Close(fd)
		return nil, fmt.Errorf("cannot open notify socket %s: %s: %w", n.addr, stage, err)
	}
	// Before bind, so that no datagram can arrive without credentials.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		return fail("SO_PASSCRED", err)
	}
	// Larger than net.core.rmem_max only with CAP_NET_ADMIN; what the kernel
	// gives otherwise is enough for all but a storm.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, notifyBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, notifyBuffer)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: n.addr}); err != nil {
		return fail("bind", err)
	}
	if n.path != "" {
		// The umask, which belongs to the whole process, narrowed it.
		if err := unix.Chmod(n.path, 0o666); err != nil {
			os.Remove(n.path)
			return fail("chmod", err)
		}
	}
	n.fd = fd
	return n, nil
}

// Addr is the value for NOTIFY_SOCKET: a path, or '@' and an abstract name.
func (n *Notify) Addr() string { return n.addr }

// FD is the socket, for the loop to wait on for EPOLLIN. It stays n's.
func (n *Notify) FD() int { return n.fd }

// Recv takes one datagram; false means that there is none now. What it returns
// may be useless (Message.Problems says why), but it never is an error: that
// would be the socket's own, with its errno. The caller closes the message.
func (n *Notify) Recv() (Message, bool, error) {
	var (
		size, oobn, flags int
		err               error
	)
	if n.buf == nil { // only while there is something to hear: there may be thousands of services
		n.buf = make([]byte, maxDatagram+1)
		n.oob = make([]byte, unix.CmsgSpace(unix.SizeofUcred)+unix.CmsgSpace(maxFiles*4))
	}
	for {
		// MSG_CMSG_CLOEXEC, so that no received fd can leak into a child
		// that is forked meanwhile.
		size, oobn, flags, _, err = unix.Recvmsg(n.fd, n.buf, n.oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		if err != unix.EINTR {
			break
		}
	}
	if err == unix.EAGAIN {
		n.buf, n.oob = nil, nil
		return Message{}, false, nil
	}
	if err != nil {
		return Message{}, false, fmt.Errorf("cannot receive from notify socket %s: %w", n.addr, err)
	}

	pid, uid, files, ok := control(n.oob[:oobn])
	var m Message
	switch {
	case flags&unix.MSG_TRUNC != 0 || size > maxDatagram:
		m.problem("longer than %d bytes: ignored", maxDatagram)
	case flags&unix.MSG_CTRUNC != 0:
		m.problem("attached descriptors do not fit, or none is free here: ignored")
	case !ok:
		m.problem("without readable credentials: ignored")
	default:
		m = parseMessage(n.buf[:size], len(files))
	}
	m.PID, m.UID, m.Files = pid, uid, files
	return m, true, nil
}

// control reads the control messages: who sent it and which fds came along. The
// fds are the caller's, also when ok is false.
func control(oob []byte) (pid int, uid uint32, files []int, ok bool) {
	cms, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0, 0, nil, false
	}
	for i := range cms {
		c := &cms[i]
		if c.Header.Level != unix.SOL_SOCKET {
			continue
		}
		switch c.Header.Type {
		case unix.SCM_CREDENTIALS:
			if cred, err := unix.ParseUnixCredentials(c); err == nil {
				pid, uid, ok = int(cred.Pid), cred.Uid, true
			}
		case unix.SCM_RIGHTS:
			if fds, err := unix.ParseUnixRights(c); err == nil {
				files = append(files, fds...)
			}
		}
	}
	return pid, uid, files, ok
}

// Close closes the socket and removes its path.
func (n *Notify) Close() error {
	if n.fd < 0 {
		return nil
	}
	var rm error
	if n.path != "" {
		if rm = os.Remove(n.path); errors.Is(rm, fs.ErrNotExist) {
			rm = nil // someone cleaned the directory before us
		}
	}
	err := unix.Close(n.fd)
	n.fd = -1
	return errors.Join(rm, err)
}

// Accept says whether the word of sender counts, under access, which has the
// meaning of NotifyAccess= in systemd.service(5): "none", "main", "exec" or
// "all". It is pure: inTree is asked about a sender that is not main. For "all"
// it answers for every process of the generation, for "exec" for those that the
// supervisor started for an Exec line.
//
// A helper such as systemd-notify(1) in a shell script is often gone before its
// datagram is read, and then nothing can be learned of where it stood. Its word
// may be taken nevertheless: the socket belongs to one generation, and its name
// was told to nobody else. So a caller usually gives
//
//	func(pid int) bool { return tree.Has(pid) || ready.Gone(pid) }
//
// A sender without a pid (0: it is in a pid namespace that we cannot see into)
// counts only under "all" with inTree(0) true.
func Accept(access string, sender, main int, inTree func(int) bool) bool {
	switch access {
	case "main":
		return sender > 0 && sender == main
	case "exec":
		return sender > 0 && (sender == main || inTree(sender))
	case "all":
		return (sender > 0 && sender == main) || inTree(sender)
	}
	return false
}

// Gone says that no process with this pid is alive: there is none, or only a
// zombie is left of it. pid 0 is nobody's, and never gone.
func Gone(pid int) bool {
	if pid <= 0 {
		return false
	}
	if unix.Kill(pid, 0) == unix.ESRCH {
		return true
	}
	st := threadState("/proc/" + itoa(pid) + "/stat")
	return st == 'Z' || st == 'X'
}
