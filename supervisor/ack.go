package supervisor

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/handoff/wire"
)

// ackSocket is where Einhorn workers acknowledge: one for each service, for
// they say who they are, and the kernel says whether that is true.
type ackSocket struct {
	fd      int
	path    string
	readers []int // connections that have not sent their line yet, oldest first
}

const (
	ackLine    = 4096 // longest line
	ackReaders = 32   // connections at a time
)

// address is the path of the socket; "" where there is none.
func (a *ackSocket) address() string {
	if a == nil {
		return ""
	}
	return a.path
}

// hasAck opens the ack socket, when it is first needed, and reports whether
// there is one.
func (r *runner) hasAck() bool {
	if err := r.openAck(); err != nil {
		r.log.Debug("einhorn is not offered", "service", r.cfg.Name, "because", err)
	}
	return r.ack != nil
}

func (r *runner) openAck() error {
	if r.ack != nil {
		return nil
	}
	if r.runDir == "" {
		return fmt.Errorf("cannot open an ack socket for einhorn: no directory can be made for it; set XDG_RUNTIME_DIR or TMPDIR")
	}
	a := &ackSocket{path: filepath.Join(r.runDir, r.cfg.Name+".ack")}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot open an ack socket for einhorn: %w", err)
	}
	a.fd = fd
	if err = unix.Bind(fd, &unix.SockaddrUnix{Name: a.path}); err == nil {
		if err = unix.Chmod(a.path, 0o666); err == nil { // a command of another user
			if err = unix.Listen(fd, unix.SOMAXCONN); err == nil {
				err = r.poll.add(fd, unix.EPOLLIN, r.acceptAck)
			}
		}
	}
	if err != nil {
		_ = unix.Close(fd)
		_ = os.Remove(a.path)
		return fmt.Errorf("cannot open an ack socket for einhorn at %s: %w", a.path, err)
	}
	r.ack = a
	return nil
}

func (r *runner) closeAck() {
	a := r.ack
	if a == nil {
		return
	}
	r.ack = nil
	for _, fd := range a.readers {
		r.poll.remove(fd)
		_ = unix.Close(fd)
	}
	r.poll.remove(a.fd)
	_ = unix.Close(a.fd)
	_ = os.Remove(a.path)
}

// acceptAck takes one connection; the poller comes again for the next.
func (r *runner) acceptAck() {
	a := r.ack
	fd, _, err := unix.Accept4(a.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	if err != nil {
		return // it went away
	}
	if len(a.readers) >= ackReaders {
		r.dropAck(a.readers[0]) // who has been silent longest
	}
	var line []byte
	read := func() {
		b := make([]byte, ackLine)
		n, err := unix.Read(fd, b)
		if err == unix.EAGAIN || err == unix.EINTR {
			return
		}
		line = append(line, b[:max(0, n)]...)
		if n > 0 && len(line) < ackLine && !bytes.ContainsRune(line, '\n') {
			return
		}
		if r.acknowledged(fd, line) || n <= 0 || len(line) >= ackLine {
			r.dropAck(fd) // as Einhorn does after an ack
		}
		line = nil
	}
	if err := r.poll.add(fd, unix.EPOLLIN, read); err != nil {
		_ = unix.Close(fd)
		return
	}
	a.readers = append(a.readers, fd)
	read()
}

func (r *runner) dropAck(fd int) {
	if r.ack == nil || !slices.Contains(r.ack.readers, fd) {
		return
	}
	r.ack.readers = slices.DeleteFunc(r.ack.readers, func(other int) bool { return other == fd })
	r.poll.remove(fd)
	_ = unix.Close(fd)
}

// acknowledged hears one line. Who sent it must be a process of the generation
// that it speaks of.
func (r *runner) acknowledged(fd int, line []byte) bool {
	pid, ok := wire.ParseAck(line)
	if !ok {
		return false
	}
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return false
	}
	for _, in := range r.instances {
		if in.exited || in.tree == nil || in.pid == 0 {
			continue
		}
		pids, err := in.tree.Pids()
		if err != nil || !slices.Contains(pids, pid) || !slices.Contains(pids, int(cred.Pid)) {
			continue
		}
		if r.waitsForProtocol() {
			in.said, r.speaks = true, true // like READY=1: the next one must say so, too
			r.becameReady(in, "einhorn ack", true)
		}
		return true
	}
	r.log.Warn("acknowledgement of a stranger ignored", "service", r.cfg.Name, "sender", cred.Pid, "of", pid)
	return true
}
