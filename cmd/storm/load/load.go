// Package load makes many small requests, each normally on a connection of its
// own, and tells exactly how each of them ended. It exists to prove that a
// restart of the server is not seen by clients, so it is strict where load
// generators usually are lax: a refused, a reset and a silently closed
// connection are different failures, and each is kept with the time, the local
// address and how far it had got.
//
//	l := load.Start(load.Options{Addrs: []string{"127.0.0.1:8080"}, Workers: 8})
//	... restart the server ...
//	result := l.Stop()
//
// It shares the machine with the server, so it is frugal: prebuilt requests, a
// response parser that knows only what it needs, no net/http.
//
// Limits: HTTP/1.1 and HTTP/2 without TLS; a worker has one request at a time (a closed
// loop: while an answer stalls, that worker asks nothing, so Max tells of
// stalls and the percentiles flatter them).
package load

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Protocol is what is spoken on a connection.
type Protocol int

const (
	HTTP  Protocol = iota // one HTTP/1.1 request
	Echo                  // a line that must come back unchanged; on udp a datagram
	HTTP2                 // HTTP/2 without TLS, by prior knowledge
)

// Options say what to ask, of whom, how often. Only Addrs is needed.
type Options struct {
	Network  string   // "tcp" (default), "tcp4", "tcp6", "unix", "udp", "udp4", "udp6"; udp is always Echo
	Addrs    []string // host:port or a unix path ('@' for an abstract name); workers take turns
	Protocol Protocol

	Path      string // of the HTTP request, "/" by default
	Request   []byte // the whole HTTP request (of HTTP2 the HPACK block), instead of the one made of Path
	KeepAlive bool   // many requests on a connection; each on a new one otherwise

	// Repeat makes a request again, on a new connection, that was sent on a
	// kept one and found it closed: Result.Stale. Otherwise such a request is lost.
	Repeat bool

	// Check says what is wrong with an answer; nil wants status 200. It is
	// called from all workers at once and must not keep a.Body.
	Check func(a Answer) error

	Workers  int           // 4 by default
	Rate     int           // requests per second of all workers together; 0 is as fast as answers come
	Requests int64         // end after so many; 0 is until Stop
	Timeout  time.Duration // of a request, connecting included; 10 s by default

	// Sources are the client addresses, used in turn. By default 127.0.0.1 to
	// 127.0.0.8 when the first of Addrs is in 127.0.0.0/8, so that a storm
	// does not run out of ports; none otherwise.
	Sources []netip.Addr

	KeepFailures int // how many Failures to keep, 10,000 by default; all are counted
}

// Answer is what came back.
type Answer struct {
	Status int    // HTTP status; 0 for Echo
	Pid    int    // of the X-Pid header, else of a body that is a number or ends in "pid N"; 0 if unknown
	Body   []byte // valid until the next request of the same worker

	closes bool // the server will close the connection
}

func (o *Options) defaults() error {
	if len(o.Addrs) == 0 {
		return fmt.Errorf("cannot load: no address given")
	}
	if o.Network == "" {
		o.Network = "tcp"
	}
	switch o.Network {
	case "tcp", "tcp4", "tcp6", "unix":
	case "udp", "udp4", "udp6":
		o.Protocol = Echo
	default:
		return fmt.Errorf("cannot load: unknown network %q", o.Network)
	}
	if o.Workers <= 0 {
		o.Workers = 4
	}
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Second
	}
	if o.KeepFailures <= 0 {
		o.KeepFailures = 10000
	}
	if o.Path == "" {
		o.Path = "/"
	}
	if o.Request == nil {
		host := o.Addrs[0]
		if o.Network == "unix" {
			host = "localhost"
		}
		connection := "close"
		if o.KeepAlive {
			connection = "keep-alive"
		}
		o.Request = []byte("GET " + o.Path + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: " + connection + "\r\n\r\n")
		if o.Protocol == HTTP2 {
			o.Request = headersOf(o.Path, host)
		}
	}
	if o.Check == nil {
		o.Check = func(a Answer) error {
			if a.Status != 200 && a.Status != 0 {
				return fmt.Errorf("status %d", a.Status)
			}
			return nil
		}
	}
	if o.Sources == nil && o.Network != "unix" {
		if a, err := netip.ParseAddrPort(o.Addrs[0]); err == nil && a.Addr().Is4() && a.Addr().IsLoopback() {
			for i := byte(1); i <= 8; i++ {
				o.Sources = append(o.Sources, netip.AddrFrom4([4]byte{127, 0, 0, i}))
			}
		}
	}
	return nil
}

// Load is a load under way. Its methods may be called from any goroutine.
type Load struct {
	options Options
	began   time.Time
	over    atomic.Bool
	done    chan struct{} // closed when all workers have ended
	result  Result        // valid when done is closed

	claimed atomic.Int64 // requests begun, against Options.Requests
	ok      atomic.Int64
	failed  atomic.Int64
	lastPid atomic.Int64
	phase   atomic.Pointer[string]

	mu       sync.Mutex
	failures []Failure
}

// Start begins to load. It fails only on options that make no sense; that
// nobody listens is a matter of the Result. The caller must call Stop.
func Start(o Options) (*Load, error) {
	if err := o.defaults(); err != nil {
		return nil, err
	}
	l := &Load{options: o, began: time.Now(), done: make(chan struct{})}
	l.Mark("")
	workers := make([]*worker, o.Workers)
	var all sync.WaitGroup
	for i := range workers {
		workers[i] = newWorker(l, i)
		all.Go(workers[i].run)
	}
	go func() {
		all.Wait()
		l.result = l.sum(workers)
		close(l.done)
	}()
	return l, nil
}

// Run loads until ctx is done or Options.Requests have been made.
func Run(ctx context.Context, o Options) (Result, error) {
	l, err := Start(o)
	if err != nil {
		return Result{}, err
	}
	select {
	case <-ctx.Done():
	case <-l.Done():
	}
	return l.Stop(), nil
}

// Ask makes one request, as a worker would, and waits for its answer. The
// error is a *Failure where the request failed.
func Ask(ctx context.Context, o Options) (Answer, error) {
	if err := o.defaults(); err != nil {
		return Answer{}, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		o.Timeout = min(o.Timeout, max(time.Until(deadline), time.Millisecond))
	}
	l := &Load{options: o, began: time.Now()}
	l.Mark("")
	w := newWorker(l, 0)
	defer w.hangUp()
	a, failure := w.request()
	if failure != nil {
		return a, failure
	}
	return a, nil
}

// Stop lets the requests under way end, within Options.Timeout, and sums up.
// It may be called again, and gives the same.
func (l *Load) Stop() Result {
	l.over.Store(true)
	<-l.done
	return l.result
}

// Done is closed when the load has ended by itself, or by Stop.
func (l *Load) Done() <-chan struct{} { return l.done }

// OK is the number of good answers until now.
func (l *Load) OK() int64 { return l.ok.Load() }

// Failed is the number of failures until now.
func (l *Load) Failed() int64 { return l.failed.Load() }

// LastPid is the process that gave the latest good answer, 0 if unknown.
func (l *Load) LastPid() int { return int(l.lastPid.Load()) }

// Mark names what is going on now, "rollout 3"; failures carry it.
func (l *Load) Mark(phase string) { l.phase.Store(&phase) }

// WaitTotal waits until n requests have ended, well or not; or until ctx is
// done, whose error it returns.
func (l *Load) WaitTotal(ctx context.Context, n int64) error {
	return l.wait(ctx, func() bool { return l.ok.Load()+l.failed.Load() >= n })
}

// WaitPid waits until a process that other(pid) accepts has given the latest
// answer, and returns it; or until ctx is done.
func (l *Load) WaitPid(ctx context.Context, other func(pid int) bool) (int, error) {
	pid := 0
	err := l.wait(ctx, func() bool {
		pid = l.LastPid()
		return pid != 0 && other(pid)
	})
	return pid, err
}

// wait polls: to be told would cost every request something, and the callers
// pace a storm, for which 2 ms are nothing.
func (l *Load) wait(ctx context.Context, enough func() bool) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !enough() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.done:
			if enough() {
				return nil
			}
			return fmt.Errorf("cannot wait: the load has ended")
		case <-tick.C:
		}
	}
	return nil
}

// pidOf finds N in "N" and "... pid N".
func pidOf(body []byte) int {
	body = bytes.TrimSpace(body)
	if i := bytes.LastIndex(body, []byte("pid ")); i >= 0 {
		body = body[i+4:]
	}
	n, err := strconv.Atoi(string(body))
	if err != nil || n < 0 {
		return 0
	}
	return n
}

func sourceAddr(network string, a netip.Addr) net.Addr {
	if network[0] == 'u' { // udp; unix has no sources
		return net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0))
	}
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(a, 0))
}
