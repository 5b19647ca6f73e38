package intercept

import (
	"time"

	"golang.org/x/sys/unix"
)

// listen answers listen(fd, backlog).
func (s *Server) listen(n Notification, th thread, fd, backlog int) {
	dup, err := th.getfd(fd)
	if err != nil {
		s.unseen(n, err)
		return
	}
	keepDup := false
	defer func() {
		if !keepDup {
			_ = unix.Close(dup)
		}
	}()
	if !s.conn.Valid(n.ID) {
		return
	}
	sock, err := inspect(dup)
	if err != nil {
		_ = s.conn.Continue(n.ID)
		return
	}
	call := Call{TID: n.TID, FD: fd, Socket: dup, Cookie: sock.cookie, Inode: sock.inode, Proto: sock.proto, Backlog: backlog}
	if b, ok := s.bound[sock.cookie]; ok && (b.Lent || hasAddress(dup, b.Key)) {
		call.Key, call.Bound, call.Lent = b.Key, true, b.Lent
	}
	// Not bound, or by ways that we do not see (port 0, io_uring, inherited): not
	// ours. One that listens already was handed over by another protocol, perhaps.
	if !call.Bound && !listening(dup) {
		_ = s.conn.Continue(n.ID)
		return
	}
	if sock.domain == unix.AF_UNIX {
		// Whoever calls listen(2) is what SO_PEERCRED tells the clients; so the
		// child has to. We look afterwards whether it succeeded.
		_ = s.conn.Continue(n.ID)
		s.later(call)
		keepDup = true
		return
	}
	// On our duplicate: it is the same socket, the errno is known, and nothing
	// can happen between success and our keeping it. The sum is done in the kernel:
	// it reads a negative backlog as the largest.
	if backlog >= 0 {
		backlog = max(backlog, s.opts.Backlog)
	}
	if err := unix.Listen(dup, backlog); err != nil {
		errno, ok := err.(unix.Errno)
		if !ok {
			errno = unix.EINVAL
		}
		s.event(n, BindFailed, call.Key, errno)
		_ = s.conn.Reply(n.ID, 0, errno)
		return
	}
	s.offer(&call)
	_ = s.conn.Reply(n.ID, 0, 0)
}

// hasAddress tells whether the socket really has the address that its bind
// asked for: a bind that the kernel carried out may have failed, or read
// another address than we did.
func hasAddress(fd int, key Key) bool {
	sa, ok := name(fd)
	if !ok || sa.family != key.Family {
		return false
	}
	if sa.family != unix.AF_UNIX {
		return sa.addr == key.Addr
	}
	// A path is as the child wrote it, perhaps relative; the key's is absolute.
	return sa.abstract() == key.Abstract() && (!sa.abstract() || sa.path == key.Path)
}

// lateListen is a listen(2) that the kernel carries out now.
type lateListen struct {
	call  Call // owns call.Socket
	tries int
	due   time.Time // of the next look
}

// A listen that the kernel carries out is done within microseconds, unless the
// child is stopped or starved. After the last of these we give up.
func lateDelay(tries int) (time.Duration, bool) {
	delays := [...]time.Duration{200 * time.Microsecond, time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond, 100 * time.Millisecond, time.Second, 5 * time.Second}
	if tries >= len(delays) {
		return 0, false
	}
	return delays[tries], true
}

func (s *Server) later(call Call) {
	delay, _ := lateDelay(0)
	s.late = append(s.late, lateListen{call: call, due: time.Now().Add(delay)})
	s.armTimer()
}

// lookLate offers the listeners that have begun to listen since.
func (s *Server) lookLate() {
	if len(s.late) == 0 {
		return
	}
	var expired [8]byte
	_, _ = unix.Read(s.timer, expired[:])
	waiting := s.late
	s.late = nil
	now := time.Now()
	for _, l := range waiting {
		if listening(l.call.Socket) {
			s.offer(&l.call)
			_ = unix.Close(l.call.Socket)
			continue
		}
		if !now.Before(l.due) {
			l.tries++
			delay, more := lateDelay(l.tries)
			if !more {
				_ = unix.Close(l.call.Socket)
				continue
			}
			l.due = now.Add(delay)
		}
		s.late = append(s.late, l)
	}
	s.armTimer()
}

// armTimer sets the timer for the earliest look, or off.
func (s *Server) armTimer() {
	var spec unix.ItimerSpec // zero is off
	if len(s.late) > 0 {
		next := s.late[0].due
		for _, l := range s.late {
			if l.due.Before(next) {
				next = l.due
			}
		}
		spec.Value = unix.NsecToTimespec(int64(max(time.Until(next), time.Microsecond)))
	}
	_ = unix.TimerfdSettime(s.timer, 0, &spec, nil)
}
