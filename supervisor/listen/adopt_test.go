package listen

import (
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor/config"
)

// foreign opens a listener as another program would have.
func foreign(t *testing.T, network, at string, proto int, prepare func(fd int)) int {
	t.Helper()
	typ := unix.SOCK_STREAM
	if network == "udp" {
		typ = unix.SOCK_DGRAM
	}
	ap := netip.MustParseAddrPort(at)
	domain := unix.AF_INET
	if ap.Addr().Is6() {
		domain = unix.AF_INET6
	}
	fd, err := unix.Socket(domain, typ, proto)
	if err != nil {
		t.Skip(err)
	}
	if prepare != nil {
		prepare(fd)
	}
	if err := bindTo(fd, ap); err != nil {
		t.Fatal(err)
	}
	if typ == unix.SOCK_STREAM {
		if err := unix.Listen(fd, 100); err != nil {
			t.Fatal(err)
		}
	}
	return fd
}

func adopted(t *testing.T, sockets []config.Socket, in ...Inherited) (*Set, []Warning) {
	t.Helper()
	s, warns, err := Open(sockets, in)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, warns
}

// A listener that was there before becomes a lane like any other, with the
// clients in its queue.
func TestAdoptTCP(t *testing.T) {
	for _, at := range addresses(t) {
		t.Run(at, func(t *testing.T) {
			checkFDs(t)
			fd := foreign(t, "tcp", at, 0, nil)
			before, err := boundAddr(fd)
			if err != nil {
				t.Fatal(err)
			}
			s, warns := adopted(t, nil, Inherited{FD: fd, Name: "web"})
			web := s.Sockets()[0]
			if shared, why := web.Shared(); shared || len(warns) > 0 {
				t.Fatal(why, warns)
			}
			if web.AddrPort() != before || web.Name() != "web" || !web.Inherited() {
				t.Errorf("%v, %v", web.AddrPort(), before)
			}
			if flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 {
				t.Error("not close-on-exec")
			}
			if flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); flags&unix.O_NONBLOCK == 0 {
				t.Error("blocking")
			}
			a := lend(t, s)
			if a.FD() != fd {
				t.Fatal("not the inherited one")
			}
			for range 4 {
				dial(t, web)
				if where(t, a) != a {
					t.Fatal("not in the first lane")
				}
				b := lend(t, s)
				dial(t, web)
				if where(t, a, b) != a {
					t.Fatal("before steering, not the old lane")
				}
				steer(t, s, b)
				dial(t, web)
				if where(t, a, b) != b {
					t.Fatal("after steering, not the new lane")
				}
				s.Return([]*Lane{a})
				a = b
			}
		})
	}
}

func TestAdoptUDP(t *testing.T) {
	checkFDs(t)
	fd := foreign(t, "udp", "127.0.0.1:0", 0, nil)
	s, warns := adopted(t, nil, Inherited{FD: fd, Name: "dns"})
	dns := s.Sockets()[0]
	if shared, why := dns.Shared(); shared || len(warns) > 0 {
		t.Fatal(why, warns)
	}
	a, b := lend(t, s), lend(t, s)
	send := func(want *Lane) {
		t.Helper()
		c := dial(t, dns)
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		until(t, "the datagram is there", func() bool { n, _, err := want.Queue(); return err == nil && n > 0 })
		if _, _, err := unix.Recvfrom(want.FD(), make([]byte, 9), 0); err != nil {
			t.Fatal(err)
		}
		if n, _, _ := want.Queue(); n != 0 {
			t.Errorf("%d bytes in the empty queue", n)
		}
	}
	send(a)
	steer(t, s, b)
	send(b)
	if kept := s.Return([]*Lane{a}); len(kept) != 0 {
		t.Error("an empty lane was reported")
	}
	if c := lend(t, s); c != a {
		t.Error("the idle lane was not lent again")
	}
}

// While a listener becomes a group, no client gets into the plug.
func TestAdoptUnderLoad(t *testing.T) {
	checkFDs(t)
	stop := make(chan struct{})
	clients := make(chan int)
	fd := foreign(t, "tcp", "127.0.0.1:0", 0, nil)
	at, err := boundAddr(fd)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		n := 0
		defer func() { clients <- n }()
		for {
			select {
			case <-stop:
				return
			default:
			}
			c, err := net.Dial("tcp", at.String())
			if err != nil {
				t.Error(err)
				return
			}
			n++
			c.Close()
		}
	}()
	s, _ := adopted(t, nil, Inherited{FD: fd, Name: ""})
	a := lend(t, s)
	taken := 0
	drain := func() {
		for c := accept(t, a); c >= 0; c = accept(t, a) {
			unix.Close(c)
			taken++
		}
	}
	for taken < 50 {
		drain()
	}
	close(stop)
	n := <-clients
	until(t, "all clients are taken", func() bool { drain(); return taken == n })
}

// An MPTCP listener, as a Go server's, is a lane like any other: the TCP socket
// within it is in the group. It leaves the group when it is returned, although a
// process still has a copy.
func TestAdoptMPTCP(t *testing.T) {
	for _, at := range addresses(t) {
		t.Run(at, func(t *testing.T) {
			checkFDs(t)
			fd := foreign(t, "tcp", at, unix.IPPROTO_MPTCP, nil)
			proto, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
			if err != nil || proto != unix.IPPROTO_MPTCP {
				t.Skip("no MPTCP here")
			}
			copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(copied)
			s, warns := adopted(t, nil, Inherited{FD: fd, Name: "web"})
			web := s.Sockets()[0]
			if shared, why := web.Shared(); shared || len(warns) > 0 {
				t.Fatal(why, warns)
			}
			a := lend(t, s)
			dial(t, web)
			if where(t, a) != a {
				t.Fatal("not in the first lane")
			}
			b := lend(t, s)
			for range 3 {
				steer(t, s, b)
				dial(t, web)
				if where(t, a, b) != b {
					t.Fatal("not in the new lane")
				}
				steer(t, s, a)
				dial(t, web)
				until(t, "the client is queued", func() bool { n, _, err := a.Queue(); return err == nil && n == 1 })
				if where(t, a, b) != a {
					t.Fatal("not back in the old lane")
				}
			}
			steer(t, s, b)
			s.Return([]*Lane{a})
			if a.FD() < 0 {
				t.Fatal("the inherited listener is not kept")
			}
			for range 4 {
				dial(t, web)
				if where(t, b) != b {
					t.Fatal("not in the lane that is left")
				}
				c := lend(t, s)
				steer(t, s, c)
				dial(t, web)
				if where(t, b, c) != c {
					t.Fatal("not in the next lane")
				}
				s.Return([]*Lane{b})
				b = c
			}
		})
	}
}

func TestAdoptedStaysShared(t *testing.T) {
	for name, test := range map[string]struct {
		proto   int
		prepare func(fd int)
		cfg     func(*config.Socket)
	}{
		"reuseport": {0, nil, func(c *config.Socket) { c.Options.ReusePort = true }},
		"asked":     {0, nil, func(c *config.Socket) { c.Options.Shared = true }},
	} {
		t.Run(name, func(t *testing.T) {
			checkFDs(t)
			fd := foreign(t, "tcp", "127.0.0.1:0", test.proto, test.prepare)
			at, err := boundAddr(fd)
			if err != nil {
				t.Fatal(err)
			}
			var sockets []config.Socket
			if test.cfg != nil {
				c := ip("tcp", at.String())
				test.cfg(&c)
				sockets = append(sockets, c)
			}
			s, warns := adopted(t, sockets, Inherited{FD: fd, Name: "x"})
			web := s.Sockets()[0]
			shared, why := web.Shared()
			if !shared || why == "" {
				t.Fatal("it has lanes")
			}
			if (len(warns) == 1) != (name != "asked") {
				t.Error(warns)
			}
			a, b := lend(t, s), lend(t, s)
			if a != b {
				t.Error("two lanes")
			}
			steer(t, s, b)
			if _, err := a.Dial(t.Context()); !errors.Is(err, ErrShared) {
				t.Error(err)
			}
			dial(t, web)
			until(t, "the client is queued", func() bool { n, _, err := a.Queue(); return err == nil && n == 1 })
			if kept := s.Return([]*Lane{a}); len(kept) != 0 || a.FD() < 0 {
				t.Error("kept", kept)
			}
		})
	}
}

// Another owner: root makes lanes for it, others share.
func TestAdoptOfAnotherOwner(t *testing.T) {
	if unix.Geteuid() != 0 {
		t.Skip("needs root to make a socket of another user")
	}
	checkFDs(t)
	fd := foreign(t, "tcp", "127.0.0.1:0", 0, func(fd int) {
		if err := unix.Fchown(fd, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	})
	s, warns := adopted(t, nil, Inherited{FD: fd, Name: "x"})
	if shared, why := s.Sockets()[0].Shared(); shared || len(warns) != 0 {
		t.Fatal(why, warns)
	}
	a, b := lend(t, s), lend(t, s)
	steer(t, s, b)
	dial(t, s.Sockets()[0])
	if where(t, a, b) != b {
		t.Error("not in the new lane")
	}
}

func TestAdoptMatches(t *testing.T) {
	checkFDs(t)
	one := foreign(t, "tcp", "127.0.0.1:0", 0, nil)
	two := foreign(t, "tcp", "127.0.0.1:0", 0, nil)
	atOne, _ := boundAddr(one)
	byAddr := ip("tcp", atOne.String())
	byAddr.Name = "address"
	byName := ip("tcp", "127.0.0.1:1")
	byName.Name = "name"
	s, warns := adopted(t, configs(byName, byAddr), Inherited{FD: two, Name: "name"}, Inherited{FD: one, Name: "other"})
	all := s.Sockets()
	if len(all) != 2 || all[0].Lanes()[0].FD() != two || all[1].Lanes()[0].FD() != one || all[1].Name() != "address" {
		t.Errorf("%+v", all)
	}
	if len(warns) != 1 { // of the other address
		t.Error(warns)
	}
}

func TestAdoptRefuses(t *testing.T) {
	checkFDs(t)
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[1])
	_, _, err := Open(nil, []Inherited{{FD: pipe[0], Name: "pipe"}})
	var oe *OpenError
	if !errors.As(err, &oe) || oe.Errno != unix.ENOTSOCK || oe.Stage != "adopt" {
		t.Errorf("%v", err)
	}
	if _, err := unix.FcntlInt(uintptr(pipe[0]), unix.F_GETFD, 0); err == nil {
		t.Error("it is still open")
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open(nil, []Inherited{{FD: fd, Name: "unbound"}}); err == nil {
		t.Error("an unbound socket was adopted")
	}
}

func TestAdoptUnix(t *testing.T) {
	checkFDs(t)
	path := filepath.Join(t.TempDir(), "s")
	for _, network := range []string{"unix", "unixgram", "unixpacket"} {
		fd, err := unix.Socket(unix.AF_UNIX, unixType(network), 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
			t.Fatal(err)
		}
		s, warns := adopted(t, nil, Inherited{FD: fd, Name: "u"})
		one := s.Sockets()[0]
		if len(warns) > 0 || one.Network() != network || one.Addr() != path {
			t.Errorf("%v %v %v", one.Network(), one.Addr(), warns)
		}
		c, err := net.Dial(network, path)
		if err != nil {
			t.Fatal(network, err)
		}
		c.Close()
		s.Close()
		if err := unix.Unlink(path); err != nil {
			t.Error("the path of somebody else was removed:", err)
		}
	}
}
