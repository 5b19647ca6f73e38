package handoff

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// newPatience is how long a connection that has not said anything yet is
// expected to do so when nobody wants to wait: then it counts as idle.
const newPatience = time.Second

// serve is Serve; run is srv.Serve or srv.ServeTLS.
func (p *process) serve(srv *http.Server, listeners []net.Listener, run func(net.Listener) error) error {
	closeAll := func() {
		for _, l := range listeners {
			l.Close()
		}
	}
	if err := p.load(); err != nil {
		closeAll()
		return err
	}
	p.watch()
	t := track(srv, p.draining)
	leave := p.join()
	ended := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { ended <- run(l) }()
	}
	if err := p.ready(); err != nil {
		closeAll()
		leave()
		return errors.Join(err, srv.Close())
	}
	select {
	case err := <-ended:
		closeAll()
		leave()
		return err
	case <-p.draining:
	}
	closeAll()
	// When run has returned, everything that was accepted is known to t.
	for range listeners {
		<-ended
	}
	err := t.drain(p)
	leave()
	<-p.drained
	return err
}

// join counts a server in; the result counts it out, and the last one out
// closes p.drained if the process is draining.
func (p *process) join() (leave func()) {
	p.serving.Lock()
	p.servers++
	p.serving.Unlock()
	return func() {
		p.serving.Lock()
		defer p.serving.Unlock()
		p.servers--
		if p.servers > 0 {
			return
		}
		select {
		case <-p.draining:
			select {
			case <-p.drained:
			default:
				close(p.drained)
			}
		default:
		}
	}
}

// tracker knows the connections and the running handlers of one server.
type tracker struct {
	srv      *http.Server
	draining <-chan struct{}
	changed  chan struct{} // has a token when something changed

	mu       sync.Mutex
	conns    map[net.Conn]*conn
	handlers int
}

// conn is a connection that has not been hijacked.
type conn struct {
	state http.ConnState
	since time.Time // StateNew: when it was accepted
	http2 bool
}

// connKey finds the conn in the context of a request.
type connKey struct{}

// track wraps the hooks and the handler of srv.
func track(srv *http.Server, draining <-chan struct{}) *tracker {
	t := &tracker{srv: srv, draining: draining, changed: make(chan struct{}, 1), conns: map[net.Conn]*conn{}}
	handler, connState, connContext := srv.Handler, srv.ConnState, srv.ConnContext
	if handler == nil {
		handler = http.DefaultServeMux
	}
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.begin(r)
		defer t.end()
		select {
		case <-draining:
			// net/http makes a GOAWAY of it on HTTP/2.
			if !upgrades(r) {
				w.Header().Set("Connection", "close")
			}
		default:
		}
		handler.ServeHTTP(w, r)
	})
	srv.ConnState = func(c net.Conn, s http.ConnState) {
		t.onState(c, s)
		if connState != nil {
			connState(c, s)
		}
	}
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if connContext != nil {
			ctx = connContext(ctx, c)
		}
		return context.WithValue(ctx, connKey{}, c)
	}
	return t
}

// upgrades reports whether the request wants another protocol on the
// connection, a WebSocket say, which "Connection: close" would contradict.
func upgrades(r *http.Request) bool {
	if r.ProtoMajor != 1 || r.Header.Get("Upgrade") == "" {
		return false
	}
	for _, line := range r.Header["Connection"] {
		for token := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(token), "upgrade") {
				return true
			}
		}
	}
	return false
}

func (t *tracker) begin(r *http.Request) {
	c, _ := r.Context().Value(connKey{}).(net.Conn)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.handlers++
	if known := t.conns[c]; known != nil && r.ProtoMajor > 1 {
		known.http2 = true
	}
}

func (t *tracker) end() {
	t.mu.Lock()
	t.handlers--
	t.mu.Unlock()
	t.change()
}

// onState follows http.ConnState: "new" comes before Serve accepts the next one.
func (t *tracker) onState(c net.Conn, s http.ConnState) {
	t.mu.Lock()
	switch s {
	case http.StateNew:
		t.conns[c] = &conn{state: s, since: time.Now()}
	case http.StateActive, http.StateIdle:
		if known := t.conns[c]; known != nil {
			known.state = s
			// The handshake is over by now, so this does not wait for it.
			if secure, ok := c.(*tls.Conn); ok && secure.ConnectionState().NegotiatedProtocol == "h2" {
				known.http2 = true
			}
		}
	case http.StateHijacked, http.StateClosed:
		delete(t.conns, c)
	}
	t.mu.Unlock()
	t.change()
}

func (t *tracker) change() {
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

// count gives what still goes on: connections of HTTP/1 (or not yet known to be
// of HTTP/2), those of them that are in the middle of something, and handlers.
func (t *tracker) count(now time.Time) (http1, busy, handlers int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.conns {
		if c.http2 {
			continue
		}
		http1++
		if c.state == http.StateActive || c.state == http.StateNew && now.Sub(c.since) < newPatience {
			busy++
		}
	}
	return http1, busy, t.handlers
}

// drain is what doc.go describes, from the moment when the listeners are closed.
func (t *tracker) drain(p *process) error {
	deadline, _ := p.deadline()
	began := time.Now()
	// Time for the last steps: idle connections are closed, GOAWAY is sent, and
	// a stream that came just before is finished.
	reserve := min(time.Until(deadline)/5, 3*time.Second)

	patience, cancel := context.WithDeadline(context.Background(), deadline.Add(-reserve))
	defer cancel()
	t.await(patience, func(now time.Time) bool {
		http1, busy, _ := t.count(now)
		return http1 == 0 || busy == 0 && p.hurried()
	})

	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	t.closeSilent()
	err := t.srv.Shutdown(ctx)
	if err == nil {
		t.await(ctx, func(now time.Time) bool {
			_, _, handlers := t.count(now)
			return handlers == 0
		})
		err = ctx.Err()
	}
	_, busy, handlers := t.count(time.Now())
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		t.srv.Close() // its error is that of a listener, and those are closed
		return fmt.Errorf("cannot finish in %v: cut off %d requests on %d connections", time.Since(began).Round(time.Millisecond), handlers, busy)
	default:
		return fmt.Errorf("cannot shut down: %w", err)
	}
}

// closeSilent closes the connections that have never said anything: Shutdown
// would give them 5 s more.
func (t *tracker) closeSilent() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c, known := range t.conns {
		if known.state == http.StateNew {
			c.Close() // net/http hears of it as of a client that goes
		}
	}
}

// await waits until enough, or ctx is done.
func (t *tracker) await(ctx context.Context, enough func(now time.Time) bool) {
	// The age of new connections, and a hurry, change without an event.
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !enough(time.Now()) {
		select {
		case <-ctx.Done():
			return
		case <-t.changed:
		case <-tick.C:
		}
	}
}
