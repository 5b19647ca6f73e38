package intercept

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

var errOtherNetNS = errors.New("the socket is in another network namespace")

// bind answers bind(fd, addr, size).
func (s *Server) bind(n Notification, th thread, fd int, addr, size uint64) {
	size &= 0xffffffff // an int
	if size < 2 || size > maxSockaddr {
		_ = s.conn.Continue(n.ID) // the kernel has an errno for that
		return
	}
	raw := make([]byte, size)
	if err := th.readFull(addr, raw); err != nil {
		s.unseen(n, err)
		return
	}
	sa, ok := parseSockaddr(raw)
	if !ok {
		_ = s.conn.Continue(n.ID)
		return
	}
	dup, err := th.getfd(fd)
	if err != nil {
		s.unseen(n, err)
		return
	}
	defer func() { _ = unix.Close(dup) }()
	if !s.conn.Valid(n.ID) { // all we learned may be about another thread of the same number
		return
	}
	sock, err := inspect(dup)
	if err != nil || !s.ours(sock, sa) {
		_ = s.conn.Continue(n.ID)
		return
	}

	call := Call{TID: n.TID, FD: fd, Socket: dup, Cookie: sock.cookie, Inode: sock.inode, Proto: sock.proto}
	call.Key = Key{
		Family: sock.domain, Type: sock.typ, Addr: sa.addr, Path: sa.path,
		V6Only: sock.v6only, Scope: sa.scope, Device: sock.device, NetNS: sock.netns,
	}
	if b, ok := s.bound[sock.cookie]; ok && sameBind(b.Key, call.Key) && bound(dup) {
		// Interrupted after it was answered, and restarted by the kernel: the
		// answer is still true.
		_ = s.conn.Reply(n.ID, 0, 0)
		return
	}
	if bound(dup) {
		_ = s.conn.Continue(n.ID) // EINVAL
		return
	}
	if err := s.complete(th, sa, &call); err != nil {
		s.unheld(n, call.Key, err)
		_ = s.conn.Continue(n.ID)
		return
	}
	if sa.family != unix.AF_UNIX {
		may, err := th.mayBind(sa.addr.Port())
		if err != nil {
			s.unheld(n, call.Key, err)
		}
		if err == nil && !may {
			s.event(n, BindFailed, call.Key, unix.EACCES)
		}
		if err != nil || !may {
			_ = s.conn.Continue(n.ID) // EACCES, as it would be without us
			return
		}
	}

	switch d := s.holder.Bind(&call); d.kind {
	case decideSwap:
		s.swap(n, th, sock, &call, d)
	case decideErrno:
		s.event(n, BindFailed, call.Key, d.errno)
		_ = s.conn.Reply(n.ID, 0, d.errno)
	default:
		s.pass(n, th, sock, sa, &call)
	}
}

// ours tells whether a bind of the socket to the address is one that a holder
// could answer.
func (s *Server) ours(sock socket, sa sockaddr) bool {
	if sock.domain != sa.family {
		return false // the kernel refuses it, or takes AF_INET for an AF_UNSPEC that we do not
	}
	switch sock.typ {
	case unix.SOCK_STREAM:
		return sa.family == unix.AF_UNIX || sock.proto == unix.IPPROTO_TCP || sock.proto == unix.IPPROTO_MPTCP
	case unix.SOCK_SEQPACKET:
		return sa.family == unix.AF_UNIX
	case unix.SOCK_DGRAM:
		return s.opts.UDP && sock.proto == unix.IPPROTO_UDP
	}
	return false
}

// sameBind compares what a restarted bind asks for with what was answered. A
// path is not compared: it was made absolute, and looked up at another time.
func sameBind(a, b Key) bool {
	if a.Family == unix.AF_UNIX {
		a.Path, b.Path = "", ""
	}
	return a == b
}

// complete finds out what the socket itself does not say, and refuses what
// belongs to another world.
func (s *Server) complete(th thread, sa sockaddr, call *Call) error {
	if call.Key.NetNS != 0 {
		ours, err := s.netns()
		if err != nil {
			return err
		}
		if call.Key.NetNS != ours {
			return errOtherNetNS
		}
	} else if same, err := th.sameNS("net"); err != nil {
		return err
	} else if !same {
		return errOtherNetNS
	}
	if sa.family != unix.AF_UNIX || sa.abstract() {
		return nil
	}
	f, err := th.lookup(unix.AT_FDCWD, sa.path)
	if err != nil {
		return err
	}
	call.Key.Path, call.Exists = f.path, f.exists
	if f.exists {
		call.Dev, call.Ino = f.stat.Dev, f.stat.Ino
	}
	return nil
}

// netns is the cookie of our own network namespace.
func (s *Server) netns() (uint64, error) {
	if s.ownNetNS != 0 {
		return s.ownNetNS, nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("cannot open a socket: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	s.ownNetNS, err = getsockopt64(fd, unix.SO_NETNS_COOKIE)
	return s.ownNetNS, err
}

// pass lets the bind happen, and learns what became of it.
func (s *Server) pass(n Notification, th thread, sock socket, sa sockaddr, call *Call) {
	if sa.family == unix.AF_UNIX || !s.labelled(th) {
		// The directory, umask and owner, or the label, that count are the child's. A
		// listener is held only if it turns out to have the address that was asked for.
		if call.Exists {
			s.event(n, BindFailed, call.Key, unix.EADDRINUSE)
		}
		if sock.typ != unix.SOCK_DGRAM {
			s.remember(Bound{Cookie: sock.cookie, Key: call.Key})
		}
		_ = s.conn.Continue(n.ID)
		return
	}
	// We do it ourselves, on the same socket: so the errno is known, and the
	// address cannot be changed behind our back.
	if errno := bindRaw(call.Socket, sa.raw); errno != 0 {
		s.event(n, BindFailed, call.Key, errno)
		_ = s.conn.Reply(n.ID, 0, errno)
		return
	}
	s.remember(Bound{Cookie: sock.cookie, Key: call.Key})
	s.served(call)
	_ = s.conn.Reply(n.ID, 0, 0)
}

// served offers a datagram socket to the holder, which serves from its bind on.
func (s *Server) served(call *Call) {
	if call.Key.Type == unix.SOCK_DGRAM {
		call.Bound = true
		s.offer(call)
	}
}

// swap puts the holder's listener under the child's fd number.
func (s *Server) swap(n Notification, th thread, sock socket, call *Call, d Decision) {
	if d.give {
		defer func() { _ = unix.Close(d.fd) }()
	}
	fail := func(err error) {
		if errors.Is(err, ErrGone) {
			return
		}
		s.unheld(n, call.Key, err)
		_ = s.conn.Continue(n.ID)
	}
	damaged := func(err error) {
		if err != nil {
			s.event(n, Damaged, call.Key, err)
		}
	}

	cookie, err := Cookie(d.fd)
	if err != nil {
		fail(err)
		return
	}
	// A child that forgets close-on-exec wants its listener in what it executes.
	cloexec, err := th.cloexec(call.FD)
	if err != nil {
		fail(err)
		return
	}
	table, err := th.table(call.FD, call.Inode)
	damaged(err)
	if d.Own {
		damaged(CopyOptions(d.fd, call.Socket))
		damaged(setNonblock(d.fd, sock.nonblock))
	}
	if err := s.conn.AddFD(n.ID, d.fd, call.FD, cloexec && !d.NoCloexec); err != nil {
		fail(err)
		return
	}
	// From here on the child has the listener, even if its call was interrupted.
	s.remember(Bound{Cookie: cookie, Key: call.Key, Lent: true})
	for _, fd := range table.copies {
		cloexec, err := th.cloexec(fd)
		if err == nil {
			err = s.conn.AddFD(n.ID, d.fd, fd, cloexec && !d.NoCloexec)
		}
		damaged(err)
	}
	damaged(th.transplant(d.fd, table.watches))
	if call.Key.Type == unix.SOCK_DGRAM {
		lent := *call
		lent.Lent, lent.Cookie = true, cookie
		if dup, err := unix.FcntlInt(uintptr(d.fd), unix.F_DUPFD_CLOEXEC, 0); err == nil {
			lent.Socket = dup
			s.served(&lent)
			_ = unix.Close(dup)
		}
	}
	_ = s.conn.Reply(n.ID, 0, 0)
}

// offer tells the holder about a listener, and keeps the duplicate alive if
// the holder wants it.
func (s *Server) offer(call *Call) {
	own, err := unix.FcntlInt(uintptr(call.Socket), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		s.holder.Event(Event{Kind: Unheld, TID: call.TID, Key: call.Key, Err: fmt.Errorf("cannot duplicate a listener: %w", err)})
		return
	}
	offered := *call
	offered.Socket = own
	if keep := s.holder.Listen(&offered); !keep || !call.Bound {
		_ = unix.Close(own)
	}
}

// ownLabel is the label that security modules gave us; nil without them.
func ownLabel() []byte {
	b, err := readFile("/proc/self/attr/current")
	if err != nil || len(b) == 0 {
		return nil
	}
	return b
}

// labelled tells whether a security module judges a bind of ours as it judges
// one of the thread's.
func (s *Server) labelled(th thread) bool {
	if s.label == nil {
		return true
	}
	b, err := readFile(th.proc("attr/current"))
	return err == nil && bytes.Equal(b, s.label)
}
