package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The bounds of what clients can take from the supervisor.
const (
	maxConns     = 64
	acceptBatch  = 16               // at one wake-up of the loop
	requestGrace = 10 * time.Second // for a request to be complete
	answerGrace  = 10 * time.Second // for each piece of an answer to be taken
)

// Options say who may use a server.
type Options struct {
	// Group is the number of a group whose members may use the socket beside
	// root and our own user; 0 is none.
	Group uint32
}

// Server answers on one control socket. The loop waits for FD to be readable
// and calls Accept; all else is done in a goroutine per connection.
type Server struct {
	socket  *Endpoint
	backend Backend
	options Options
	web     bool // see NewWeb
	pages   []Page

	ctx, follow       context.Context // of commands, and of what follows
	cancel, endFollow context.CancelFunc

	mu     sync.Mutex
	conns  []*conn // oldest first
	closed bool
	served sync.WaitGroup
}

// conn is one connection.
type conn struct {
	file   *os.File
	peer   Peer
	asking bool // its request is not complete
}

// NewServer serves backend on a socket made by Listen, which it owns from then on.
func NewServer(socket *Endpoint, backend Backend, options Options) *Server {
	s := &Server{socket: socket, backend: backend, options: options}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.follow, s.endFollow = context.WithCancel(s.ctx)
	return s
}

// FD is the listening socket, for the loop to wait on for EPOLLIN. It stays s's.
func (s *Server) FD() int { return s.socket.fd }

// Path is where the socket is.
func (s *Server) Path() string { return s.socket.path }

// Accept takes some of the connections that wait and begins to serve them. It
// never blocks. An error (EMFILE and its like) means that connections wait which
// cannot be taken: try again a while later.
func (s *Server) Accept() error {
	for range acceptBatch {
		fd, _, err := unix.Accept4(s.socket.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch {
		case err == nil:
			s.take(fd)
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNABORTED):
		default:
			return fmt.Errorf("cannot accept a control connection: %w", err)
		}
	}
	return nil
}

func (s *Server) take(fd int) {
	peer, err := s.allow(fd)
	// Not to be handed to net: a file is enough, and of a non-blocking socket it has deadlines.
	c := &conn{file: os.NewFile(uintptr(fd), "control connection"), peer: peer, asking: true}
	if err != nil {
		s.refuse(c, err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		s.refuse(c, Errorf(Unavailable, "the supervisor is ending"))
		return
	case len(s.conns) >= maxConns:
		i := slices.IndexFunc(s.conns, func(c *conn) bool { return c.asking })
		if i < 0 {
			s.refuse(c, Errorf(Unavailable, "%d control connections are in use already", maxConns))
			return
		}
		s.conns[i].file.Close() // its goroutine ends with an error
		s.conns = slices.Delete(s.conns, i, i+1)
	}
	s.conns = append(s.conns, c)
	s.served.Go(func() { s.serve(c) })
}

// refuse answers without having read anything. The answer fits into an empty
// socket buffer.
func (s *Server) refuse(c *conn, err error) {
	writeError(c.file, err)
	c.file.Close()
}

// allow looks at who connected: unix(7), SO_PEERCRED.
func (s *Server) allow(fd int) (Peer, error) {
	if s.web {
		return Peer{}, nil
	}
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Peer{}, Errorf(Forbidden, "cannot see who asks: %v", err)
	}
	p := Peer{PID: int(cred.Pid), UID: cred.Uid, GID: cred.Gid}
	if p.UID == 0 || p.UID == uint32(os.Geteuid()) {
		return p, nil
	}
	if g := s.options.Group; g != 0 && (p.GID == g || slices.Contains(peerGroups(fd), g)) {
		return p, nil
	}
	e := Errorf(Forbidden, "uid %d may not talk to this supervisor, which runs as uid %d", p.UID, os.Geteuid())
	e.Hint = "be root, or the user that the supervisor runs as"
	return p, e
}

// serve is the life of one connection.
func (s *Server) serve(c *conn) {
	defer func() {
		s.mu.Lock()
		if i := slices.Index(s.conns, c); i >= 0 {
			s.conns = slices.Delete(s.conns, i, i+1)
		}
		s.mu.Unlock()
		lingerClose(c.file)
	}()
	_ = c.file.SetDeadline(time.Now().Add(requestGrace))
	req, err := readRequest(c.file, func() error {
		_, err := io.WriteString(c.file, "HTTP/1.1 100 Continue\r\n\r\n")
		return err
	})
	s.mu.Lock()
	c.asking = false
	s.mu.Unlock()
	w := &patientWriter{c.file}
	if err != nil {
		var e *Error
		if errors.As(err, &e) {
			writeError(w, e)
		}
		return // else it said nothing that could be answered
	}
	s.answer(c, w, req)
}

// maxScrap bounds what is read of a client that sends on after its answer.
const maxScrap = 4 << 20

// lingerClose closes a connection whose client may still be sending: closed
// with unread bytes, a unix socket would give the client ECONNRESET before it
// could read the answer.
func lingerClose(f *os.File) {
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_WR) })
	_ = f.SetReadDeadline(time.Now().Add(time.Second))
	var scrap [4096]byte
	for range maxScrap / len(scrap) {
		if _, err := f.Read(scrap[:]); err != nil {
			return
		}
	}
}

// patientWriter gives each write its own time.
type patientWriter struct{ f *os.File }

func (w *patientWriter) Write(b []byte) (int, error) {
	if err := w.f.SetWriteDeadline(time.Now().Add(answerGrace)); err != nil {
		return 0, err
	}
	return w.f.Write(b)
}

// route is how one path is answered.
type route struct {
	method, path string
	serve        func(*call) error
}

// call is one request on its way through a route.
type call struct {
	*request
	ctx     context.Context
	backend Backend
	peer    Peer
	w       io.Writer
	stream  *stream
}

// routes are all of them; each file of a verb has its own.
func routes() []route {
	return []route{
		statusRoute, namesRoute,
		rolloutRoute, reloadRoute, restartRoute, stopRoute, startRoute, killRoute, pauseRoute, resumeRoute, upgradeRoute,
		eventsRoute, logsRoute,
	}
}

func (s *Server) answer(c *conn, w io.Writer, req *request) {
	known, all := "", routes
	if s.web {
		all = webRoutes
		if err := foreignHost(c.file, req); err != nil {
			writeError(w, err)
			return
		}
		if s.answerPage(w, req) {
			return
		}
	}
	for _, r := range all() {
		if r.path != req.path {
			continue
		}
		if r.method != req.method {
			known = r.method
			continue
		}
		parent := s.ctx
		if follows(req) {
			parent = s.follow
		}
		ctx, cancel := context.WithCancel(parent)
		defer cancel()
		k := &call{request: req, ctx: ctx, backend: s.backend, peer: c.peer, w: w, stream: &stream{w: w, http10: req.http10}}
		if follows(req) {
			s.served.Go(func() { awaitEnd(c.file, cancel) })
			defer func() { _ = c.file.SetReadDeadline(time.Now()) }() // ends awaitEnd
		}
		if err := r.serve(k); err != nil && !k.stream.begun {
			writeError(w, err)
		}
		return
	}
	if known != "" {
		writeError(w, Errorf(BadRequest, "%s %s: use %s", req.method, req.path, known))
		return
	}
	writeError(w, Errorf(NotFound, "there is no %.80q: the paths are in api.md, /v1/status is one", req.path))
}

// follows: the answer lasts until the client leaves.
func follows(req *request) bool { return req.query.Get("follow") != "" }

// awaitEnd ends the answer when its client has gone.
func awaitEnd(f *os.File, cancel context.CancelFunc) {
	_ = f.SetReadDeadline(time.Time{})
	var scrap [512]byte
	for {
		if _, err := f.Read(scrap[:]); err != nil {
			cancel()
			return
		}
	}
}

// answer writes a whole answer.
func (k *call) answer(v any) error { return writeJSON(k.w, 200, v) }

// decode reads the body, which may be empty.
func (k *call) decode(v any) error {
	if len(k.body) == 0 {
		return nil
	}
	if err := json.Unmarshal(k.body, v); err != nil {
		return Errorf(BadRequest, "cannot read the body: %v", err)
	}
	return nil
}

// Close ends the server: the socket and its path go at once, followers are
// ended, and whoever is still to hear how a command ended has until grace is over.
func (s *Server) Close(grace time.Duration) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	err := s.socket.Close()
	s.endFollow()
	done := make(chan struct{})
	go func() { s.served.Wait(); close(done) }()
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-done:
		s.cancel()
		return err
	case <-timer.C:
	}
	s.mu.Lock()
	for _, c := range s.conns {
		c.file.Close()
	}
	s.mu.Unlock()
	s.cancel()
	<-done
	return err
}
