package handoff

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const patience = 30 * time.Second

// server is one process of its own as far as this package is concerned.
type server struct {
	*process
	addr string
	done chan error // of serve
}

// serveOne serves handler on a listener of its own.
func serveOne(t *testing.T, handler http.Handler, change ...func(*http.Server)) *server {
	t.Helper()
	p := newProcess(*worldOf().environment())
	t.Cleanup(func() { p.drain(causeTerminal) })
	return serveMore(t, p, handler, change...)
}

// serveMore adds a server to a process.
func serveMore(t *testing.T, p *process, handler http.Handler, change ...func(*http.Server)) *server {
	t.Helper()
	l, err := p.listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: handler}
	for _, c := range change {
		c(srv)
	}
	s := &server{process: p, addr: l.Addr().String(), done: make(chan error, 1)}
	go func() { s.done <- p.serve(srv, []net.Listener{l}, srv.Serve) }()
	return s
}

// end waits for serve.
func (s *server) end(t *testing.T) error {
	t.Helper()
	select {
	case err := <-s.done:
		return err
	case <-time.After(patience):
		t.Fatal("Serve does not return")
		return nil
	}
}

// notYet fails if serve has returned.
func (s *server) notYet(t *testing.T) {
	t.Helper()
	select {
	case err := <-s.done:
		t.Fatalf("Serve returned too early: %v", err)
	default:
	}
}

// client is one connection, and what was read from it.
type client struct {
	net.Conn
	r *bufio.Reader
}

func (s *server) dial(t *testing.T) *client {
	t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return &client{c, bufio.NewReader(c)}
}

func (c *client) send(t *testing.T) {
	t.Helper()
	if _, err := fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
}

// receive reads an answer, which is "hello", and says whether it ends the connection.
func (c *client) receive(t *testing.T) (closes bool) {
	t.Helper()
	r, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil || string(body) != "hello" {
		t.Fatalf("answer %q, %v", body, err)
	}
	return r.Close
}

func (c *client) ended(t *testing.T) {
	t.Helper()
	if b, err := c.r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Fatalf("read %q, %v; want EOF", b, err)
	}
}

var hello = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") })

// accepted waits until the server knows of n connections.
func (s *server) accepted(t *testing.T, known *atomic.Int64, n int64) {
	t.Helper()
	for end := time.Now().Add(patience); known.Load() < n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d connections accepted of %d", known.Load(), n)
		}
	}
}

// counting counts new connections, as a ConnState of the user's own.
func counting(n *atomic.Int64) func(*http.Server) {
	return func(srv *http.Server) {
		srv.ConnState = func(_ net.Conn, s http.ConnState) {
			if s == http.StateNew {
				n.Add(1)
			}
		}
	}
}

// A connection that was accepted before the drain and asks after it, and
// one that was idle then, are answered, told to go, and nothing is left.
func TestDrainAnswers(t *testing.T) {
	var known atomic.Int64
	s := serveOne(t, hello, counting(&known))
	idle := s.dial(t)
	idle.send(t)
	if idle.receive(t) {
		t.Error("the connection is closed before the drain")
	}
	fresh := s.dial(t)
	s.accepted(t, &known, 2)
	s.drain(causeSignal)
	<-s.drainingC()
	// The listener is closed before anything else happens.
	for {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			break
		}
		c.Close()
	}
	for _, c := range []*client{fresh, idle} {
		s.notYet(t)
		c.send(t)
		if !c.receive(t) {
			t.Error("the answer does not say Connection: close")
		}
		c.ended(t)
	}
	if err := s.end(t); err != nil {
		t.Error(err)
	}
}

// net/http alone drops the first of them; if this fails, doc.go is to be changed.
func TestShutdownAloneDrops(t *testing.T) {
	var known atomic.Int64
	srv := httptest.NewUnstartedServer(hello)
	counting(&known)(srv.Config)
	srv.Start()
	defer srv.Close()
	s := &server{addr: srv.Listener.Addr().String()}
	c := s.dial(t)
	s.accepted(t, &known, 1)
	down := make(chan error, 1)
	go func() { down <- srv.Config.Shutdown(context.Background()) }()
	for {
		if probe, err := net.Dial("tcp", s.addr); err != nil {
			break // Shutdown has begun
		} else {
			probe.Close()
		}
	}
	c.send(t)
	if r, err := http.ReadResponse(c.r, nil); err == nil {
		r.Body.Close()
		t.Error("Shutdown answered a request that came after it")
	}
	if err := <-down; err != nil {
		t.Error(err)
	}
}

// A request under way is finished; the drain waits for it.
func TestDrainFinishes(t *testing.T) {
	begun, finish := make(chan bool), make(chan bool)
	s := serveOne(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun <- true
		<-finish
		hello(w, r)
	}))
	c := s.dial(t)
	c.send(t)
	<-begun
	s.drain(causeSignal)
	s.notYet(t)
	close(finish)
	if c.receive(t) {
		t.Error("an answer that was begun before the drain says Connection: close")
	}
	c.Close()
	if err := s.end(t); err != nil {
		t.Error(err)
	}
}

// Idle connections are closed shortly before the deadline, and that is no error.
func TestIdleUntilDeadline(t *testing.T) {
	s := serveOne(t, hello)
	s.setDrainTimeout(500 * time.Millisecond)
	c := s.dial(t)
	c.send(t)
	c.receive(t)
	began := time.Now()
	s.drain(causeSignal)
	c.ended(t)
	if d := time.Since(began); d < 300*time.Millisecond {
		t.Errorf("the idle connection was closed after %v", d)
	}
	if err := s.end(t); err != nil {
		t.Error(err)
	}
}

// At a terminal nobody waits for idle connections, only for answers.
func TestHurry(t *testing.T) {
	s := serveOne(t, hello)
	s.setDrainTimeout(time.Hour)
	c := s.dial(t)
	c.send(t)
	c.receive(t)
	s.dial(t) // says nothing
	s.drain(causeSignal)
	s.drain(causeTerminal)
	c.ended(t)
	if err := s.end(t); err != nil {
		t.Error(err)
	}
}

// What does not end is cut off at the deadline, and told.
func TestDeadlineCuts(t *testing.T) {
	begun, finish := make(chan bool), make(chan bool)
	defer close(finish)
	s := serveOne(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		begun <- true
		<-finish
	}))
	s.setDrainTimeout(100 * time.Millisecond)
	if _, ok := s.deadline(); ok {
		t.Error("a deadline before the drain")
	}
	c := s.dial(t)
	c.send(t)
	<-begun
	s.drain(causeSignal)
	if d, ok := s.deadline(); !ok || time.Until(d) > time.Second {
		t.Errorf("deadline %v, %v", d, ok)
	}
	err := s.end(t)
	if err == nil || !strings.Contains(err.Error(), "cut off 1 requests on 1 connections") {
		t.Errorf("got %v", err)
	}
	c.ended(t)
}

// A handler that has hijacked its connection is waited for, and sees Draining.
func TestHijacked(t *testing.T) {
	begun := make(chan bool)
	var p *process
	s := serveOne(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		begun <- true
		<-p.drainingC()
		time.Sleep(50 * time.Millisecond) // a polite end takes its time
		fmt.Fprint(rw, "bye")
		rw.Flush()
	}))
	p = s.process
	c := s.dial(t)
	c.send(t)
	<-begun
	s.drain(causeSignal)
	if said, err := io.ReadAll(c.r); err != nil || string(said) != "bye" {
		t.Errorf("%q, %v", said, err)
	}
	if err := s.end(t); err != nil {
		t.Error(err)
	}
}

// A request for another protocol is not told to close the connection.
func TestUpgradeRequest(t *testing.T) {
	var known atomic.Int64
	s := serveOne(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Upgrade", "x")
		w.WriteHeader(http.StatusSwitchingProtocols)
	}), counting(&known))
	c := s.dial(t)
	s.accepted(t, &known, 1)
	s.drain(causeSignal)
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: x\r\n\r\n")
	r, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.StatusCode != 101 || r.Header.Get("Connection") == "close" {
		t.Errorf("%v", r)
	}
	r.Body.Close()
	c.Close()
	if err := s.end(t); err != nil {
		t.Error(err)
	}
}

// Serve returns when the last server of the process has drained.
func TestTwoServers(t *testing.T) {
	begun, finish := make(chan bool), make(chan bool)
	one := serveOne(t, hello)
	two := serveMore(t, one.process, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun <- true
		<-finish
		hello(w, r)
	}))
	c := two.dial(t)
	c.send(t)
	<-begun
	one.drain(causeSignal)
	for one.count() > 1 { // one has drained, two has not
		time.Sleep(time.Millisecond)
	}
	one.notYet(t)
	close(finish)
	c.receive(t)
	c.Close()
	for _, s := range []*server{one, two} {
		if err := s.end(t); err != nil {
			t.Error(err)
		}
	}
}

func (p *process) count() int {
	p.serving.Lock()
	defer p.serving.Unlock()
	return p.servers
}

// A server that the user shuts down, or whose listener fails, says so at once.
func TestServeFails(t *testing.T) {
	p := newProcess(*worldOf().environment())
	var srv *http.Server
	s := serveMore(t, p, hello, func(made *http.Server) { srv = made })
	c := s.dial(t)
	c.send(t)
	c.receive(t)
	srv.Close()
	if err := s.end(t); !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("got %v", err)
	}
}

// On HTTP/2, with and without TLS: streams that are open are finished, the client
// is sent away by GOAWAY, and it asks nothing in vain.
func TestHTTP2(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("TLS %v", secure), func(t *testing.T) {
			begun, finish := make(chan bool, 100), make(chan bool)
			handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.ProtoMajor != 2 {
					t.Errorf("%s", r.Proto)
				}
				if r.URL.Path == "/slow" {
					begun <- true
					<-finish
				}
				hello(w, r)
			})
			transport := &http.Transport{Protocols: new(http.Protocols)}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport, Timeout: patience}
			scheme := "http://"
			both := new(http.Protocols)
			both.SetHTTP1(true)
			var s *server
			if secure {
				cert := httptest.NewUnstartedServer(nil)
				cert.StartTLS()
				defer cert.Close()
				transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint // the certificate of httptest
				transport.Protocols.SetHTTP2(true)
				both.SetHTTP2(true)
				scheme = "https://"
				p := newProcess(*worldOf().environment())
				l, err := p.listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				srv := &http.Server{Handler: handler, Protocols: both, TLSConfig: &tls.Config{Certificates: cert.TLS.Certificates}}
				s = &server{process: p, addr: l.Addr().String(), done: make(chan error, 1)}
				run := func(l net.Listener) error { return srv.ServeTLS(l, "", "") }
				go func() { s.done <- p.serve(srv, []net.Listener{l}, run) }()
			} else {
				transport.Protocols.SetUnencryptedHTTP2(true)
				both.SetUnencryptedHTTP2(true)
				s = serveOne(t, handler, func(srv *http.Server) { srv.Protocols = both })
			}
			get := func(path string) error {
				r, err := client.Get(scheme + s.addr + path)
				if err != nil {
					return err
				}
				defer r.Body.Close()
				body, err := io.ReadAll(r.Body)
				if err == nil && string(body) != "hello" {
					err = fmt.Errorf("answer %q", body)
				}
				return err
			}
			if err := get("/"); err != nil {
				t.Fatal(err)
			}
			slow := make(chan error, 5)
			for range cap(slow) {
				go func() { slow <- get("/slow") }()
			}
			for range cap(slow) {
				<-begun
			}
			s.drain(causeSignal)
			s.notYet(t)
			close(finish)
			for range cap(slow) {
				if err := <-slow; err != nil {
					t.Error(err)
				}
			}
			if err := s.end(t); err != nil {
				t.Error(err)
			}
		})
	}
}
