package listen

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// poll looks until want is true of what the gate says.
func poll(t *testing.T, g *Gate, what string, want func(Progress) bool) {
	t.Helper()
	var last Progress
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		p, err := g.Poll()
		if err != nil {
			t.Fatal(err)
		}
		if last = p; want(p) {
			return
		}
	}
	t.Fatalf("not in time: %s; last %+v", what, last)
}

func done(p Progress) bool { return p.Phase == PhaseDone }

// acceptOne takes a client and gives both ends.
func acceptOne(t *testing.T, s *Socket, l *Lane) (server int, client net.Conn) {
	t.Helper()
	client = dial(t, s)
	until(t, "a client is there", func() bool { server = accept(t, l); return server >= 0 })
	t.Cleanup(func() { unix.Close(server) })
	return server, client
}

func exchange(t *testing.T, server int, client net.Conn) {
	t.Helper()
	if _, err := client.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	receive(t, server)
	if _, err := unix.Write(server, []byte("pong")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(client, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
}

func receive(t *testing.T, server int) {
	t.Helper()
	until(t, "the request is there", func() bool {
		n, _, err := unix.Recvfrom(server, make([]byte, 64), unix.MSG_DONTWAIT)
		return err == nil && n > 0
	})
}

func TestGate(t *testing.T) {
	for _, at := range addresses(t) {
		t.Run(at, func(t *testing.T) {
			s := open(t, ip("tcp", at))
			web := s.Sockets()[0]
			a := lend(t, s)
			idle, idleClient := acceptOne(t, web, a)
			exchange(t, idle, idleClient)
			answered, answeredClient := acceptOne(t, web, a)
			silent, silentClient := acceptOne(t, web, a)
			asked, askedClient := acceptOne(t, web, a)
			queued := dial(t, web)
			until(t, "it is queued", func() bool { n, _, _ := a.Queue(); return n == 1 })
			end := halfOpen(t, web)

			b := lend(t, s)
			steer(t, s, b)
			g := NewGate([]*Lane{a}, time.Now())
			poll(t, g, "the handshake and the queue are seen", func(p Progress) bool {
				return p == Progress{Queued: 1, InFlight: 1, Phase: PhaseGate}
			})
			// Silent clients of the new lane do not hold the gate of the old one.
			other, _ := acceptOne(t, web, b)
			_ = other
			first := accept(t, a)
			defer unix.Close(first)
			_ = queued
			poll(t, g, "the handshake is seen", func(p Progress) bool {
				return p == Progress{InFlight: 1, Phase: PhaseGate}
			})
			end()
			var second int
			poll(t, g, "the client of the handshake comes to the old lane", func(p Progress) bool {
				if p.Phase != PhaseGate {
					t.Fatalf("%+v, though nobody took the client", p)
				}
				second = accept(t, a)
				return second >= 0
			})
			defer unix.Close(second)
			if _, err := askedClient.Write([]byte("?")); err != nil {
				t.Fatal(err)
			}
			receive(t, asked)
			exchange(t, answered, answeredClient)
			// Silent: silent, first and second. Asked: one.
			poll(t, g, "four are not answered", func(p Progress) bool { return p.Phase == PhaseShield && p.Unanswered == 4 })
			exchange(t, silent, silentClient)
			poll(t, g, "three are not answered", func(p Progress) bool { return p.Phase == PhaseShield && p.Unanswered == 3 })
			if _, err := unix.Write(asked, []byte("!")); err != nil {
				t.Fatal(err)
			}
			poll(t, g, "two are not answered", func(p Progress) bool { return p.Phase == PhaseShield && p.Unanswered == 2 })
			r, err := WaitGate(t.Context(), []*Lane{a}, 0)
			// What another gate sees now is more: the silent client of the new lane.
			if err != nil || r.Unanswered < 2 || r.Queued != 0 || r.InFlight != 0 {
				t.Errorf("%+v, %v", r, err)
			}
			unix.Close(first)
			unix.Close(second)
			poll(t, g, "nobody is left", done)
			if p, err := g.Poll(); !done(p) || err != nil {
				t.Error(p, err)
			}
		})
	}
}

// The second request of a keep-alive connection counts as much as the first.
func TestGateKnowsTheLatestRequest(t *testing.T) {
	s := open(t, ip("tcp", "127.0.0.1:0"))
	web := s.Sockets()[0]
	a := lend(t, s)
	server, client := acceptOne(t, web, a)
	exchange(t, server, client)
	steer(t, s, lend(t, s))
	// In the tick of the answer, it cannot be told what came first; let the
	// kernel's clock go on until it can.
	sent := func() uint32 {
		i, err := unix.GetsockoptTCPInfo(server, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			t.Fatal(err)
		}
		return i.Last_data_sent
	}
	until(t, "the answer is some ticks old", func() bool { return sent() > 20 })
	if _, err := client.Write([]byte("again")); err != nil {
		t.Fatal(err)
	}
	receive(t, server)
	g := NewGate([]*Lane{a}, time.Now())
	poll(t, g, "it is not answered", func(p Progress) bool {
		if done(p) {
			t.Fatal("the request was overlooked")
		}
		return p.Unanswered == 1
	})
	for range 30 {
		if p, _ := g.Poll(); p.Unanswered != 1 {
			t.Fatal("the request was forgotten")
		}
	}
	if _, err := unix.Write(server, []byte("pong")); err != nil {
		t.Fatal(err)
	}
	poll(t, g, "it is answered", done)
}

// A keep-alive connection on which one request follows the other is answered
// with the one that was under way, and does not hold the gate to its bound.
func TestGateLetsBusyConnectionsGo(t *testing.T) {
	s := open(t, ip("tcp", "127.0.0.1:0"))
	web := s.Sockets()[0]
	a := lend(t, s)
	server, client := acceptOne(t, web, a)
	ask := func() {
		if _, err := client.Write([]byte("?")); err != nil {
			t.Fatal(err)
		}
		receive(t, server)
	}
	ask()
	steer(t, s, lend(t, s))
	g := NewGate([]*Lane{a}, time.Now())
	poll(t, g, "a request is under way", func(p Progress) bool { return p.Phase == PhaseShield && p.Unanswered == 1 })
	if _, err := unix.Write(server, []byte("!")); err != nil {
		t.Fatal(err)
	}
	ask() // before the gate looks again
	if p, err := g.Poll(); !done(p) || err != nil {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestGateOfOthers(t *testing.T) {
	s := open(t, ip("udp", "127.0.0.1:0"))
	a := lend(t, s)
	c := dial(t, s.Sockets()[0])
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	until(t, "it is queued", func() bool { n, _, _ := a.Queue(); return n > 0 })
	steer(t, s, lend(t, s))
	if r, err := WaitGate(t.Context(), []*Lane{a}, 0); err != nil || r.Queued != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	if _, _, err := unix.Recvfrom(a.FD(), make([]byte, 9), 0); err != nil {
		t.Fatal(err)
	}
	if r, err := WaitGate(t.Context(), []*Lane{a}, patience); err != nil || r.Queued != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := WaitGate(t.Context(), nil, patience); err != nil || r != (Result{GateFor: r.GateFor, ShieldFor: r.ShieldFor}) {
		t.Errorf("%+v, %v", r, err)
	}
}

// rude is a server that, when told to stop, drops all it has at once.
type rude struct {
	lane  *Lane
	wake  [2]int
	over  sync.WaitGroup
	mu    sync.Mutex
	conns map[int]bool
}

func serve(t *testing.T, l *Lane) *rude {
	r := &rude{lane: l, conns: map[int]bool{}}
	if err := unix.Pipe2(r.wake[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	fd := l.FD()
	r.over.Go(func() {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(r.wake[0]), Events: unix.POLLIN}}
		for {
			if _, err := unix.Poll(poll, -1); err != nil && err != unix.EINTR {
				t.Error(err)
				return
			}
			if poll[1].Revents != 0 {
				return
			}
			c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
			if err == unix.EAGAIN || err == unix.EINTR {
				continue
			}
			if err != nil {
				t.Error(err)
				return
			}
			r.mu.Lock()
			r.conns[c] = true
			r.mu.Unlock()
			r.over.Go(func() { r.answer(c) })
		}
	})
	return r
}

func (r *rude) answer(c int) {
	buf := make([]byte, 4)
	n, err := unix.Read(c, buf)
	for err == unix.EINTR {
		n, err = unix.Read(c, buf)
	}
	if err == nil && n > 0 {
		_, _ = unix.Write(c, buf[:n])
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	unix.Close(c)
	delete(r.conns, c)
}

// stop resets whoever was not answered.
func (r *rude) stop() {
	unix.Write(r.wake[1], []byte("x"))
	r.mu.Lock()
	for c := range r.conns {
		_ = unix.SetsockoptLinger(c, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		_ = unix.Shutdown(c, unix.SHUT_RDWR)
	}
	r.mu.Unlock()
	r.over.Wait()
	unix.Close(r.wake[0])
	unix.Close(r.wake[1])
}

// Rollouts under load, with servers that shut down as rudely as can be: nobody
// is refused, reset or cut off.
func TestNobodyIsLost(t *testing.T) {
	for _, at := range addresses(t) {
		t.Run(at, func(t *testing.T) { lossless(t, at, 12, 1500) })
	}
}

func lossless(t *testing.T, at string, rollouts int, requests int64) {
	s := open(t, ip("tcp", at))
	web := s.Sockets()[0]
	a := lend(t, s)
	server := serve(t, a)
	var served atomic.Int64
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for range 6 {
		clients.Go(func() {
			buf := make([]byte, 4)
			for {
				select {
				case <-stop:
					return
				default:
				}
				c, err := net.DialTimeout("tcp", web.DialAddr(), patience)
				if err != nil {
					t.Error("connect:", err)
					return
				}
				_ = c.SetDeadline(time.Now().Add(patience))
				_, err = c.Write([]byte("ping"))
				if err == nil {
					_, err = io.ReadFull(c, buf)
				}
				if err != nil {
					t.Errorf("request from %v: %v", c.LocalAddr(), err)
				}
				served.Add(1)
				c.Close()
			}
		})
	}
	for n := 0; n < rollouts || served.Load() < requests && !t.Failed(); n++ {
		lanes, err := s.Lend()
		if err != nil {
			t.Error(err)
			break
		}
		next := serve(t, lanes[0])
		conn, err := lanes[0].Dial(t.Context())
		if err != nil {
			t.Error(err)
		} else {
			_, _ = conn.Write([]byte("ping"))
			if _, err := io.ReadFull(conn, make([]byte, 4)); err != nil {
				t.Error("probe:", err)
			}
			conn.Close()
		}
		steer(t, s, lanes[0])
		r, err := WaitGate(t.Context(), []*Lane{a}, patience)
		if err != nil || r.Queued+r.InFlight+r.Unanswered != 0 {
			t.Errorf("rollout %d: %+v, %v", n, r, err)
		}
		server.stop()
		s.Return([]*Lane{a})
		a, server = lanes[0], next
	}
	close(stop)
	clients.Wait()
	server.stop()
	t.Logf("%d requests", served.Load())
}

func TestDialsAtOnce(t *testing.T) {
	s := open(t, ip("tcp", "127.0.0.1:0"))
	lanes := []*Lane{lend(t, s), lend(t, s), lend(t, s)}
	counts := make([]atomic.Int64, len(lanes))
	var all sync.WaitGroup
	const each = 40
	for i := range lanes {
		for range each {
			all.Go(func() {
				c, err := lanes[i].Dial(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				counts[i].Add(1)
				c.Close()
			})
		}
	}
	for range 50 {
		steer(t, s, lanes[0])
		steer(t, s, lanes[1])
	}
	all.Wait()
	for i, l := range lanes {
		n := 0
		until(t, "its clients are there", func() bool {
			if fd := accept(t, l); fd >= 0 {
				unix.Close(fd)
				n++
			}
			return n == each
		})
		if fd := accept(t, l); fd >= 0 {
			t.Errorf("one too many in lane %d", i)
			unix.Close(fd)
		}
	}
	s.Close()
	if _, err := lanes[0].Dial(t.Context()); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if _, _, err := lanes[0].Queue(); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}
