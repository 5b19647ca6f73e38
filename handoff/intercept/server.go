package intercept

import (
	"errors"
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// ServerOptions are the wishes of who holds the listeners. The zero value is
// useful.
type ServerOptions struct {
	// UDP offers datagram sockets to the holder as well. Both generations read
	// one queue while they overlap, which breaks protocols with state (QUIC, DTLS),
	// and servers that bind one port many times and connect each socket.
	UDP bool

	// Backlog is the least backlog of a listener, because many servers ask for 5;
	// 0 means 1024. The kernel limits it to net.core.somaxconn.
	Backlog int

	// Bound are the binds that an earlier server of the same notify fd had seen;
	// see [Server.Bound].
	Bound []Bound
}

const defaultBacklog = 1024

// Bound is a socket whose bind was seen.
type Bound struct {
	Cookie uint64
	Key    Key
	Lent   bool // it was put into the child by a Decision
}

// maxBound limits what is remembered of one generation: 4096 entries of some
// 200 bytes. Beyond it the oldest is forgotten, and not held if it listens then.
const maxBound = 4096

// Server answers the calls of one generation. It is used by one goroutine,
// except for Close while Run is running.
type Server struct {
	conn   *Conn
	holder Holder
	opts   ServerOptions
	tables []abi

	epoll int // notify fd, timer, wake
	timer int // timerfd: a look at the sockets in late
	wake  int // eventfd: Close interrupts Run

	bound    map[uint64]Bound // by cookie
	order    []uint64         // cookies, oldest first
	late     []lateListen
	label    []byte // our security label; nil without an LSM that has labels
	ownNetNS uint64 // cookie of our network namespace; 0: not asked yet

	mu      sync.Mutex
	running chan struct{} // closed when Run ends; nil if it never ran
	closed  bool
}

// NewServer adopts notifyFD, also on error, and serves it for holder. The
// caller closes the server: from then on bind and listen of processes that are
// left fail with ENOSYS, netlink binds included.
func NewServer(notifyFD int, opts ServerOptions, holder Holder) (*Server, error) {
	s := &Server{
		conn: NewConn(notifyFD), holder: holder, opts: opts, tables: abis(runtime.GOARCH),
		epoll: -1, timer: -1, wake: -1,
		bound: make(map[uint64]Bound), label: ownLabel(),
	}
	if s.opts.Backlog == 0 {
		s.opts.Backlog = defaultBacklog
	}
	for _, b := range opts.Bound {
		s.remember(b)
	}
	s.opts.Bound = nil
	if err := s.open(); err != nil {
		s.release()
		return nil, fmt.Errorf("cannot serve a notify fd: %w", err)
	}
	return s, nil
}

func (s *Server) open() (err error) {
	if s.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	if s.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC); err != nil {
		return err
	}
	if s.wake, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		return err
	}
	for _, fd := range []int{s.conn.FD(), s.timer, s.wake} {
		ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
		if err := unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
			return err
		}
	}
	return nil
}

// FD is readable (EPOLLIN, level-triggered) when Serve has something to do.
// Close closes it.
func (s *Server) FD() int { return s.epoll }

// NotifyFD is the notify fd that was adopted, for who carries it over an exec
// (clear close-on-exec; a call that comes meanwhile waits). Serve leaves no call
// unanswered behind, so between two calls of it there is nothing else to carry
// but Bound.
func (s *Server) NotifyFD() int { return s.conn.FD() }

// Bound lists the sockets whose bind was seen, oldest first, for
// ServerOptions.Bound of a later server of the same notify fd.
func (s *Server) Bound() []Bound {
	all := make([]Bound, 0, len(s.order))
	for _, cookie := range s.order {
		all = append(all, s.bound[cookie])
	}
	return all
}

// maxServe bounds the work of one Serve, some milliseconds, because a child
// that does nothing but bind must not keep a loop from all else.
const maxServe = 64

// Serve answers the calls that wait now, and does not wait for more. If many
// come at once, FD stays readable. empty is true when no process is left that
// has the filter: there will never be another call, and the server is to be
// closed.
func (s *Server) Serve() (empty bool, err error) {
	s.lookLate()
	for range maxServe {
		ready, hup, err := s.conn.Poll(0)
		if err != nil {
			return false, err
		}
		if !ready {
			return hup, nil
		}
		n, ok, err := s.conn.Recv()
		if err != nil {
			return false, err
		}
		if ok {
			s.handle(n)
		}
	}
	return false, nil
}

// Run serves until the generation is empty (nil) or the server is closed (nil),
// for who has no loop of his own. It blocks an OS thread.
func (s *Server) Run() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	done := make(chan struct{})
	s.running = done
	s.mu.Unlock()
	defer close(done)

	events := make([]unix.EpollEvent, 4)
	for {
		if _, err := unix.EpollWait(s.epoll, events, -1); err != nil && err != unix.EINTR {
			return fmt.Errorf("cannot wait for calls: %w", err)
		}
		s.mu.Lock()
		closed := s.closed
		s.mu.Unlock()
		if closed {
			return nil
		}
		if empty, err := s.Serve(); empty || err != nil {
			return err
		}
	}
}

// Close ends Run, if it is running, and closes what the server opened or
// adopted, the notify fd included. It does not touch what the holder holds.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	running := s.running
	s.mu.Unlock()
	if running != nil {
		_, _ = unix.Write(s.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		<-running
	}
	s.release()
	return nil
}

func (s *Server) release() {
	for _, l := range s.late {
		_ = unix.Close(l.call.Socket)
	}
	s.late = nil
	for _, fd := range []*int{&s.epoll, &s.timer, &s.wake} {
		if *fd >= 0 {
			_ = unix.Close(*fd)
			*fd = -1
		}
	}
	_ = s.conn.Close()
}

// handle answers one call, whatever happens: a call without an answer would
// hang its thread for ever. Errors of the answer are not looked at: either the
// caller is gone, or nothing can be done.
func (s *Server) handle(n Notification) {
	t, c := which(s.tables, n.Arch, n.Nr)
	th := thread{tid: n.TID, word: t.words}
	if n.TID == 0 { // of a pid namespace that we cannot see into
		s.unheld(n, Key{}, errors.New("the thread is in a pid namespace that is not below ours"))
		_ = s.conn.Continue(n.ID)
		return
	}
	args := n.Args[:]
	if c == callSocketcall {
		words, err := th.readWords(n.Args[1]&0xffffffff, 3)
		if err != nil {
			s.unseen(n, err)
			return
		}
		args, c = words, callBind
		if n.Args[0] == socketcallListen {
			c = callListen
		}
	}
	switch c {
	case callBind:
		s.bind(n, th, int(int32(args[0])), args[1], args[2])
	case callListen:
		s.listen(n, th, int(int32(args[0])), int(int32(args[1])))
	case callUnlink:
		s.unlink(n, th, unix.AT_FDCWD, args[0])
	case callUnlinkat:
		s.unlink(n, th, int(int32(args[0])), args[1])
	default:
		_ = s.conn.Continue(n.ID)
	}
}

// unseen leaves a call to the kernel that could not be looked at. What is the
// child's own fault (a bad address, a bad fd) is no news.
func (s *Server) unseen(n Notification, err error) {
	if !errors.Is(err, unix.EFAULT) && !errors.Is(err, unix.EBADF) {
		s.unheld(n, Key{}, err)
	}
	_ = s.conn.Continue(n.ID)
}

func (s *Server) unheld(n Notification, key Key, err error) {
	s.event(n, Unheld, key, err)
}

// event tells the holder about a call that still waits. About one whose thread
// died meanwhile, all that fails is no news.
func (s *Server) event(n Notification, kind EventKind, key Key, err error) {
	if s.conn.Valid(n.ID) {
		s.holder.Event(Event{Kind: kind, TID: n.TID, Key: key, Err: err})
	}
}

// remember notes that the bind of a socket was seen.
func (s *Server) remember(b Bound) {
	if _, ok := s.bound[b.Cookie]; !ok {
		if len(s.order) == maxBound {
			delete(s.bound, s.order[0])
			s.order = append(s.order[:0], s.order[1:]...)
		}
		s.order = append(s.order, b.Cookie)
	}
	s.bound[b.Cookie] = b
}
