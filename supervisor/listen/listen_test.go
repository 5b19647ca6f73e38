package listen

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor/config"
	"github.com/supervise/supervise/supervisor/sockdiag"
)

// patience is the one deadline of every wait.
const patience = 30 * time.Second

func TestMain(m *testing.M) {
	if play := os.Getenv("LISTEN_TEST_CHILD"); play != "" {
		os.Exit(child(play))
	}
	goleak.VerifyTestMain(m)
}

func options() config.SocketOptions {
	return config.SocketOptions{Mark: -1, Priority: -1, IPTOS: -1, IPTTL: -1, RemoveOnStop: true}
}

func ip(network, at string) config.Socket {
	return config.Socket{Name: "web", Network: network, Addr: netip.MustParseAddrPort(at), Source: at, Options: options()}
}

func unixAt(network, path string) config.Socket {
	return config.Socket{Name: "local", Network: network, Path: path, Source: path, Options: options()}
}

// open opens sockets, checks that there was no warning, and at the end that no
// descriptor is left.
func open(t *testing.T, sockets ...config.Socket) *Set {
	t.Helper()
	checkFDs(t)
	s, warns, err := Open(sockets, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range warns {
		t.Errorf("warning: %v", w)
	}
	t.Cleanup(s.Close)
	return s
}

// checkFDs compares the open sockets before and after a test.
func checkFDs(t *testing.T) {
	t.Helper()
	before := fds(t)
	t.Cleanup(func() {
		if after := fds(t); !slices.Equal(before, after) {
			t.Errorf("descriptors before: %v\nafter: %v", before, after)
		}
	})
}

func fds(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && (strings.HasPrefix(to, "socket:") || strings.Contains(to, "inotify") || strings.Contains(to, "pidfd")) {
			all = append(all, e.Name()+" "+to)
		}
	}
	return all
}

func lend(t *testing.T, s *Set) *Lane {
	t.Helper()
	lanes, err := s.Lend()
	if err != nil {
		t.Fatal(err)
	}
	if len(lanes) != 1 {
		t.Fatalf("%d lanes", len(lanes))
	}
	return lanes[0]
}

func steer(t *testing.T, s *Set, lanes ...*Lane) {
	t.Helper()
	if err := s.Steer(lanes); err != nil {
		t.Fatal(err)
	}
}

func dial(t *testing.T, s *Socket) net.Conn {
	t.Helper()
	network := s.Network()
	c, err := net.DialTimeout(network, s.DialAddr(), patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// accept takes what waits in the lane, -1 if there is nothing.
func accept(t *testing.T, l *Lane) int {
	t.Helper()
	fd, _, err := unix.Accept4(l.FD(), unix.SOCK_CLOEXEC)
	if errors.Is(err, unix.EAGAIN) {
		return -1
	}
	if err != nil {
		t.Fatalf("accept on lane %d: %v", l.Number(), err)
	}
	return fd
}

// where says in which lane the client waits that dialled last, and takes it.
func where(t *testing.T, lanes ...*Lane) *Lane {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		for _, l := range lanes {
			if fd := accept(t, l); fd >= 0 {
				unix.Close(fd)
				return l
			}
		}
	}
	t.Fatal("the client is in no lane")
	return nil
}

func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if f() {
			return
		}
	}
	t.Fatalf("not in time: %s", what)
}

func hasIPv6() bool {
	l, err := net.Listen("tcp", "[::1]:0")
	if err == nil {
		l.Close()
	}
	return err == nil
}

// addresses of TCP sockets to try everything with.
func addresses(t *testing.T) []string {
	if hasIPv6() {
		return []string{"127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"}
	}
	return []string{"127.0.0.1:0", "0.0.0.0:0"}
}

func TestRollout(t *testing.T) {
	for _, at := range addresses(t) {
		t.Run(at, func(t *testing.T) {
			s := open(t, ip("tcp", at))
			web := s.Sockets()[0]
			if web.Port() == 0 {
				t.Fatal("no port")
			}
			a := lend(t, s)
			dial(t, web)
			if where(t, a) != a {
				t.Fatal("not the first lane")
			}
			for range 10 {
				b := lend(t, s)
				if b == a {
					t.Fatal("one lane lent twice")
				}
				dial(t, web)
				if where(t, a, b) != a {
					t.Fatal("before steering, not the old lane")
				}
				steer(t, s, b)
				for range 4 {
					dial(t, web)
					if where(t, a, b) != b {
						t.Fatal("after steering, not the new lane")
					}
				}
				if r, err := WaitGate(t.Context(), []*Lane{a}, 0); err != nil || r.Queued != 0 {
					t.Fatalf("%+v, %v", r, err)
				}
				if kept := s.Return([]*Lane{a}); len(kept) != 0 {
					t.Fatalf("kept: %v", kept)
				}
				dial(t, web)
				if where(t, b) != b {
					t.Fatal("after the old lane left, not the new lane")
				}
				a = b
			}
			if n := len(web.group.order); n > 2 {
				t.Errorf("%d listeners are left", n)
			}
		})
	}
}

// After a crash the steered lane is lent again, with the clients in it.
func TestCrash(t *testing.T) {
	s := open(t, ip("tcp", "127.0.0.1:0"))
	web := s.Sockets()[0]
	a := lend(t, s)
	dial(t, web)
	until(t, "one client is queued", func() bool { n, _, err := a.Queue(); return err == nil && n == 1 })
	if kept := s.Return([]*Lane{a}); len(kept) != 1 || kept[0] != a {
		t.Fatalf("kept: %v", kept)
	}
	if b := lend(t, s); b != a {
		t.Fatal("another lane was lent")
	}
	if where(t, a) != a {
		t.Fatal("the client is lost")
	}
}

// A lane that new connections left and in which clients still wait is lent
// next, and not closed.
func TestStranded(t *testing.T) {
	s := open(t, ip("tcp", "127.0.0.1:0"))
	web := s.Sockets()[0]
	a := lend(t, s)
	client := dial(t, web)
	until(t, "one client is queued", func() bool { n, _, err := a.Queue(); return err == nil && n == 1 })
	b := lend(t, s)
	steer(t, s, b)
	if kept := s.Return([]*Lane{a}); len(kept) != 1 {
		t.Fatal("the lane was closed with a client in it")
	}
	c := lend(t, s)
	if c != a {
		t.Fatal("the lane with the client was not lent")
	}
	fd := accept(t, c)
	if fd < 0 {
		t.Fatal("no client")
	}
	if _, err := unix.Write(fd, []byte("x")); err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	if _, err := client.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

func TestDialFindsItsLane(t *testing.T) {
	for _, at := range addresses(t) {
		t.Run(at, func(t *testing.T) {
			s := open(t, ip("tcp", at))
			web := s.Sockets()[0]
			a, b, c := lend(t, s), lend(t, s), lend(t, s)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			for range 5 {
				for _, l := range []*Lane{a, b, c} {
					conn, err := l.Dial(ctx)
					if err != nil {
						t.Fatal(err)
					}
					if got := where(t, a, b, c); got != l {
						t.Errorf("dialled lane %d, reached lane %d", l.Number(), got.Number())
					}
					conn.Close()
					dial(t, web)
					if got := where(t, a, b, c); got != a {
						t.Errorf("others came to lane %d", got.Number())
					}
				}
			}
			if len(web.group.pins) != 0 {
				t.Error("rules are left")
			}
		})
	}
}

func TestSynRecvOfDualStack(t *testing.T) {
	if !hasIPv6() {
		t.Skip("no IPv6 here")
	}
	s := open(t, ip("tcp", "[::]:0"))
	web := s.Sockets()[0]
	defer halfOpen(t, web)()
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		found, err := sockdiag.Inet(sockdiag.Query{Protocol: sockdiag.TCP, Family: family, LocalPort: uint16(web.Port()), States: sockdiag.Mask(sockdiag.SynRecv)})
		if want := family == unix.AF_INET6; err != nil || (len(found) > 0) != want {
			t.Errorf("family %d: %d half-open %v", family, len(found), err)
		}
	}
	found, err := web.connections(sockdiag.Mask(sockdiag.SynRecv), false)
	if err != nil || len(found) != 1 {
		t.Errorf("%d, %v", len(found), err)
	}
}

// halfOpen makes a handshake that does not end until the function is called.
func halfOpen(t *testing.T, s *Socket) (end func()) {
	t.Helper()
	to := s.dialAddr()
	domain := unix.AF_INET
	if to.Addr().Is6() {
		domain = unix.AF_INET6
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		t.Fatal(err)
	}
	if err := dropAll(fd); err != nil {
		t.Fatal(err)
	}
	sa, err := sockaddr(to)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(fd, sa); err != unix.EINPROGRESS {
		t.Fatal(err)
	}
	until(t, "the handshake is seen", func() bool {
		found, err := s.connections(sockdiag.Mask(sockdiag.SynRecv), false)
		return err == nil && len(found) > 0
	})
	return func() {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
		t.Cleanup(func() { unix.Close(fd) })
	}
}

func configs(c ...config.Socket) []config.Socket { return c }
