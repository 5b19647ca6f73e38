package listen

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// TestOrder does at random what can change the order of a group, and asks the
// real kernel after each step where a client lands.
func TestOrder(t *testing.T) {
	for _, network := range []string{"tcp", "udp"} {
		for _, at := range addresses(t) {
			t.Run(network+" "+at, func(t *testing.T) {
				checkFDs(t)
				rapid.Check(t, func(r *rapid.T) { orderProperty(t, r, network, at) })
			})
		}
	}
}

func orderProperty(t *testing.T, r *rapid.T, network, at string) {
	s, _, err := Open(configs(ip(network, at)), nil)
	if err != nil {
		r.Fatal(err)
	}
	defer s.Close()
	web := s.Sockets()[0]
	if shared, why := web.Shared(); shared {
		r.Fatal(why)
	}
	var lent []*Lane
	first, err := s.Lend()
	if err != nil {
		r.Fatal(err)
	}
	lent = append(lent, first...)
	steered := first[0]
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	pick := func(r *rapid.T) *Lane { return rapid.SampledFrom(lent).Draw(r, "lane") }
	actions := map[string]func(*rapid.T){
		"lend": func(r *rapid.T) {
			if len(lent) > 6 {
				r.Skip()
			}
			l, err := s.Lend()
			if err != nil {
				r.Fatal(err)
			}
			lent = append(lent, l...)
		},
		"return": func(r *rapid.T) {
			if len(lent) < 2 {
				r.Skip()
			}
			l := pick(r)
			kept := s.Return([]*Lane{l})
			if want := l == steered; (len(kept) == 1) != want {
				r.Fatalf("lane %d, steered to: %v, kept: %v", l.Number(), want, kept)
			}
			for i := range lent {
				if lent[i] == l {
					lent = append(lent[:i], lent[i+1:]...)
					break
				}
			}
		},
		"steer": func(r *rapid.T) {
			steered = pick(r)
			if err := s.Steer([]*Lane{steered}); err != nil {
				r.Fatal(err)
			}
		},
		"probe": func(r *rapid.T) {
			l := pick(r)
			c, err := l.Dial(ctx)
			if err != nil {
				r.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Write([]byte("x")); err != nil {
				r.Fatal(err)
			}
			if got := arrived(r, web); got != l {
				r.Fatalf("dialled lane %d, reached lane %d", l.Number(), got.Number())
			}
		},
		"": func(r *rapid.T) {
			c, err := net.DialTimeout(network, web.DialAddr(), patience)
			if err != nil {
				r.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Write([]byte("x")); err != nil {
				r.Fatal(err)
			}
			if got := arrived(r, web); got != steered {
				r.Fatalf("steered to lane %d, a client came to lane %d of %d", steered.Number(), got.Number(), len(web.group.order))
			}
		},
	}
	if network == "tcp" {
		actions["shut down and heal"] = func(r *rapid.T) {
			l := pick(r)
			if err := unix.Shutdown(l.FD(), unix.SHUT_RDWR); err != nil {
				r.Fatal(err)
			}
			if l.Healthy() {
				r.Fatal("it is told to be healthy")
			}
			if err := s.HealLane(l); err != nil {
				r.Fatal(err)
			}
			if !l.Healthy() {
				r.Fatal("it is not healthy")
			}
		}
	}
	r.Repeat(actions)
}

// arrived takes the one client or datagram that is in some lane.
func arrived(r *rapid.T, s *Socket) *Lane {
	buf := make([]byte, 16)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		for _, l := range s.Lanes() {
			var err error
			if s.Network() == "udp" {
				_, _, err = unix.Recvfrom(l.FD(), buf, 0)
			} else {
				var fd int
				if fd, _, err = unix.Accept4(l.FD(), unix.SOCK_CLOEXEC); err == nil {
					unix.Close(fd)
				}
			}
			if err == nil {
				return l
			}
			if !errors.Is(err, unix.EAGAIN) {
				r.Fatalf("lane %d: %v", l.Number(), err)
			}
		}
	}
	r.Fatal("it is in no lane")
	return nil
}

// Two lanes of one socket that are steered to share the connections.
func TestSpread(t *testing.T) {
	s := open(t, ip("tcp", "127.0.0.1:0"))
	web := s.Sockets()[0]
	a, b, c := lend(t, s), lend(t, s), lend(t, s)
	steer(t, s, b, c)
	got := map[*Lane]int{}
	const n = 200
	for range n {
		dial(t, web).Close()
		got[where(t, a, b, c)]++
	}
	// Less than 1 in 10^30 that a fair coin does this.
	if got[a] != 0 || got[b] < n/8 || got[c] < n/8 {
		t.Errorf("%d, %d and %d of %d connections", got[a], got[b], got[c], n)
	}
}

// A process that keeps a copy of a lane's descriptor does not keep it in the group.
func TestLaneLeavesDespiteCopies(t *testing.T) {
	s := open(t, ip("tcp", "127.0.0.1:0"))
	web := s.Sockets()[0]
	a := lend(t, s)
	leaked, err := unix.Dup(a.FD())
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leaked)
	for range 6 {
		b := lend(t, s)
		steer(t, s, b)
		s.Return([]*Lane{a})
		for range 3 {
			dial(t, web)
			if where(t, b) != b {
				t.Fatal("not in the new lane")
			}
		}
		a = b
	}
}

// While lanes come and go, the program never names one that is not there.
func TestNoClientIsLostToAMove(t *testing.T) {
	s := open(t, ip("tcp", "127.0.0.1:0"))
	web := s.Sockets()[0]
	a, b, c := lend(t, s), lend(t, s), lend(t, s)
	steer(t, s, c)
	ctx, cancel := context.WithCancel(t.Context())
	clients := make(chan int)
	go func() {
		n := 0
		defer func() { clients <- n }()
		for ctx.Err() == nil {
			conn, err := net.Dial("tcp", web.DialAddr())
			if err != nil {
				t.Error(err)
				return
			}
			n++
			_ = conn.(*net.TCPConn).SetLinger(0)
			conn.Close()
		}
	}()
	taken := 0
	drain := func() {
		for fd := accept(t, c); fd >= 0; fd = accept(t, c) {
			unix.Close(fd)
			taken++
		}
	}
	// The old ones go in an order that makes c, the last, the one to move.
	for range 300 {
		for _, l := range []*Lane{a, b} {
			l.setQuiet()
			s.Return([]*Lane{l})
			if l.FD() >= 0 {
				t.Fatal("a client was in a lane that nothing is steered to")
			}
		}
		a, b = lend(t, s), lend(t, s)
		drain()
	}
	cancel()
	n := <-clients
	drain()
	t.Logf("%d clients, %d taken", n, taken)
	for _, l := range []*Lane{a, b} {
		if q, _, _ := l.Queue(); q != 0 {
			t.Errorf("%d clients in lane %d", q, l.Number())
		}
	}
}
