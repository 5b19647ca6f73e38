package intercept

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// underFilter runs f on a thread with the filter, and serves its calls for
// holder. The thread shares our fd table, which is as good as a child's for
// everything but the life of a process.
func underFilter(t testing.TB, holder Holder, opts Options, sopts ServerOptions, f func(srv *Server) error) {
	t.Helper()
	server := make(chan *Server)
	done := make(chan error, 1)
	go func() {
		done <- Thread(func() error {
			fd, err := Install(opts)
			if err != nil {
				server <- nil
				return err
			}
			srv, err := NewServer(fd, sopts, holder)
			server <- srv
			if err != nil {
				return err
			}
			return f(srv)
		})
	}()
	srv := <-server
	var runErr error
	if srv != nil {
		runErr = srv.Run() // ends when the thread ends: the generation is empty
		_ = srv.Close()
	}
	err := <-done
	if errors.Is(err, ErrNested) || errors.Is(err, ErrNotPermitted) || errors.Is(err, ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Error(err)
	}
	if runErr != nil {
		t.Error(runErr)
	}
}

// self is a generation that lives in our own process.
func self(h *memHolder, number int) *genHolder {
	return h.generation(number, func(inode uint64) (bool, error) {
		found, err := thread{tid: os.Getpid()}.table(-1, inode)
		return len(found.copies) > 1, err // one is the holder's
	})
}

func openFDs(t testing.TB) string {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, n := range names {
		link, err := os.Readlink("/proc/self/fd/" + n.Name())
		if err == nil && !strings.Contains(link, "/proc/") {
			fmt.Fprintf(&b, "%s %s\n", n.Name(), link)
		}
	}
	return b.String()
}

// sock is a socket of the "child".
type sock struct {
	fd, family int
}

func newSock(family, typ int) (sock, error) {
	fd, err := unix.Socket(family, typ, 0)
	if err == nil && fd < 3 {
		err = errors.New("fd below 3")
	}
	return sock{fd, family}, err
}

func (s sock) bind(addr string, port uint16) error {
	var sa unix.Sockaddr
	switch s.family {
	case unix.AF_INET:
		var a [4]byte
		_, _ = fmt.Sscanf(addr, "%d.%d.%d.%d", &a[0], &a[1], &a[2], &a[3])
		sa = &unix.SockaddrInet4{Addr: a, Port: int(port)}
	case unix.AF_INET6:
		var a [16]byte
		if addr == "::1" {
			a[15] = 1
		}
		sa = &unix.SockaddrInet6{Addr: a, Port: int(port)}
	default:
		sa = &unix.SockaddrUnix{Name: addr}
	}
	return unix.Bind(s.fd, sa)
}

func (s sock) close() { _ = unix.Close(s.fd) }

// freePort finds a port that nobody has now. It is taken from below the
// ephemeral range, where nobody gets one by chance.
func freePort(t testing.TB) uint16 {
	t.Helper()
	for port := uint16(20000 + os.Getpid()%5000); port < 32000; port += 7 {
		s, err := newSock(unix.AF_INET6, unix.SOCK_STREAM)
		if err != nil {
			t.Fatal(err)
		}
		err = s.bind("::", port)
		s.close()
		if err == nil && claim(port) {
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

// serve opens, binds and listens as a server would.
func serve(family int, addr string, port uint16, backlog int) (sock, error) {
	s, err := newSock(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC)
	if err != nil {
		return s, err
	}
	if err := s.bind(addr, port); err != nil {
		return s, fmt.Errorf("bind: %w", err)
	}
	if err := unix.Listen(s.fd, backlog); err != nil {
		return s, fmt.Errorf("listen: %w", err)
	}
	return s, nil
}

// twice runs f as generation 1 and 2 of the same holder, and checks that no fd
// of ours is left behind but those that f and the holder keep.
func twice(t *testing.T, h *memHolder, opts Options, sopts ServerOptions, f func(gen int, srv *Server) error) {
	t.Helper()
	for gen := 1; gen <= 2; gen++ {
		g := self(h, gen)
		underFilter(t, g, opts, sopts, func(srv *Server) error { return f(gen, srv) })
		g.gone()
		if t.Failed() {
			t.Fatalf("generation %d:\n%s", gen, h.log())
		}
	}
}

func TestSwap(t *testing.T) {
	h, port := newHolder(t), freePort(t)
	before := openFDs(t)
	var cookies [3]uint64
	twice(t, h, Options{}, ServerOptions{}, func(gen int, _ *Server) error {
		s, err := serve(unix.AF_INET, "127.0.0.1", port, 5)
		defer s.close()
		if err != nil {
			return err
		}
		if !listening(s.fd) || portOf(t, s.fd) != port {
			return errors.New("not what was asked for")
		}
		cookies[gen], err = Cookie(s.fd)
		return err
	})
	if cookies[1] != cookies[2] {
		t.Errorf("generation 2 has another listener:\n%s", h.log())
	}
	if h.count("give") != 1 || h.count("learn") != 1 || h.count("lend") != 1 || h.count("listen held") != 1 {
		t.Errorf("decisions:\n%s", h.log())
	}
	h.mu.Lock()
	for key := range h.held {
		h.drop(key)
	}
	h.mu.Unlock()
	if after := openFDs(t); after != before {
		t.Errorf("fds before:\n%safter:\n%s", before, after)
	}
}

// TestCloexecIsKept: the child's close-on-exec is kept, set or not.
func TestCloexecIsKept(t *testing.T) {
	for _, cloexec := range []int{0, unix.SOCK_CLOEXEC} {
		h, port := newHolder(t), freePort(t)
		twice(t, h, Options{}, ServerOptions{}, func(gen int, _ *Server) error {
			s, err := newSock(unix.AF_INET, unix.SOCK_STREAM|cloexec)
			defer s.close()
			if err != nil {
				return err
			}
			if err := s.bind("127.0.0.1", port); err != nil {
				return err
			}
			flags, err := unix.FcntlInt(uintptr(s.fd), unix.F_GETFD, 0)
			if err != nil {
				return err
			}
			if (flags&unix.FD_CLOEXEC != 0) != (cloexec != 0) {
				return fmt.Errorf("close-on-exec: asked for %#x, got %#x", cloexec, flags)
			}
			return unix.Listen(s.fd, 5)
		})
	}
}

// noCloexec is a holder that spares .NET.
type noCloexec struct{ *genHolder }

func (n noCloexec) Bind(c *Call) Decision {
	d := n.genHolder.Bind(c)
	d.NoCloexec = true
	return d
}

func TestNoCloexec(t *testing.T) {
	h, port := newHolder(t), freePort(t)
	underFilter(t, noCloexec{self(h, 1)}, Options{}, ServerOptions{}, func(*Server) error {
		s, err := serve(unix.AF_INET, "127.0.0.1", port, 5)
		defer s.close()
		if err != nil {
			return err
		}
		if flags, _ := unix.FcntlInt(uintptr(s.fd), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC != 0 {
			return errors.New("close-on-exec is set")
		}
		return nil
	})
}

// TestNonblockFollowsTheChild: a listener of ours that nobody else uses blocks
// if the child's socket would have; one that another generation uses is left
// alone.
func TestNonblockFollowsTheChild(t *testing.T) {
	h, port := newHolder(t), freePort(t)
	nonblock := func(s sock) bool {
		flags, _ := unix.FcntlInt(uintptr(s.fd), unix.F_GETFL, 0)
		return flags&unix.O_NONBLOCK != 0
	}
	start := func(flag int, g *genHolder, check func(s sock) error) {
		underFilter(t, g, Options{}, ServerOptions{}, func(*Server) error {
			s, err := newSock(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|flag)
			defer s.close()
			if err != nil {
				return err
			}
			if err := s.bind("127.0.0.1", port); err != nil {
				return err
			}
			if err := unix.Listen(s.fd, 5); err != nil {
				return err
			}
			return check(s)
		})
	}
	want := func(want bool) func(sock) error {
		return func(s sock) error {
			if nonblock(s) != want {
				return fmt.Errorf("O_NONBLOCK is not %v", want)
			}
			return nil
		}
	}
	one, two, three := self(h, 1), self(h, 2), self(h, 3)
	start(0, one, want(false))
	one.gone()
	start(unix.SOCK_NONBLOCK, two, want(true))
	// Two is not gone: three must not make it block in accept.
	start(0, three, want(true))
}

func TestPort0IsNeverHeld(t *testing.T) {
	h := newHolder(t)
	twice(t, h, Options{}, ServerOptions{}, func(int, *Server) error {
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			addr := map[int]string{unix.AF_INET: "127.0.0.1", unix.AF_INET6: "::1"}[family]
			s, err := serve(family, addr, 0, 5)
			s.close()
			if err != nil {
				return err
			}
		}
		s, err := newSock(unix.AF_INET, unix.SOCK_STREAM) // listen alone binds to any port
		defer s.close()
		if err != nil {
			return err
		}
		return unix.Listen(s.fd, 5)
	})
	if got := h.log(); got != "" {
		t.Errorf("decisions:\n%s", got)
	}
}

// TestErrnos: what fails without us fails with us, in the same way.
func TestErrnos(t *testing.T) {
	foreign, err := serve(unix.AF_INET, "127.0.0.1", 0, 5)
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.close()
	taken := portOf(t, foreign.fd)
	port := freePort(t)
	long := make([]byte, 200)
	cases := []struct {
		name string
		do   func(s sock) error
	}{
		{"address in use", func(s sock) error { return s.bind("127.0.0.1", taken) }},
		{"address not available", func(s sock) error { return s.bind("192.0.2.1", port) }},
		{"bad fd", func(sock) error { return sock{fd: 9999, family: unix.AF_INET}.bind("127.0.0.1", port) }},
		{"negative fd", func(sock) error { return sock{fd: -1, family: unix.AF_INET}.bind("127.0.0.1", port) }},
		{"no socket", func(sock) error {
			fd, _ := unix.Open("/dev/null", unix.O_RDONLY, 0)
			defer func() { _ = unix.Close(fd) }()
			return sock{fd: fd, family: unix.AF_INET}.bind("127.0.0.1", port)
		}},
		{"wrong family", func(s sock) error { return sock{fd: s.fd, family: unix.AF_INET6}.bind("::", port) }},
		{"too short", func(s sock) error { return errnoOf(bindRaw(s.fd, rawInet4("127.0.0.1:80")[:8])) }},
		{"one byte", func(s sock) error { return errnoOf(bindRaw(s.fd, []byte{2})) }},
		{"too long", func(s sock) error { return errnoOf(bindRaw(s.fd, long)) }},
		{"bad address", func(s sock) error {
			_, _, errno := unix.Syscall(unix.SYS_BIND, uintptr(s.fd), 8, 16)
			return errnoOf(errno)
		}},
		{"negative length", func(s sock) error {
			_, _, errno := unix.Syscall(unix.SYS_BIND, uintptr(s.fd), 8, ^uintptr(0))
			return errnoOf(errno)
		}},
		{"bind twice", func(s sock) error {
			return errors.Join(s.bind("127.0.0.1", 0), s.bind("127.0.0.1", port))
		}},
		{"listen on a bad fd", func(sock) error { return unix.Listen(9999, 5) }},
		{"listen on no socket", func(sock) error { return unix.Listen(0, 5) }},
		{"listen when connected", func(s sock) error {
			if err := unix.Connect(s.fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: int(taken)}); err != nil {
				return err
			}
			return unix.Listen(s.fd, 5)
		}},
		{"unlink nothing", func(sock) error { return unix.Unlink("/nowhere/at/all") }},
		{"unlink a bad address", func(sock) error {
			_, _, errno := unix.Syscall(unix.SYS_UNLINKAT, ^uintptr(99), 8, 0)
			return errnoOf(errno)
		}},
		{"unlink an empty path", func(sock) error { return unix.Unlink("") }},
		{"unlinkat a bad fd", func(sock) error { return unix.Unlinkat(9999, "x", 0) }},
		{"rmdir by unlinkat", func(sock) error { return unix.Unlinkat(unix.AT_FDCWD, "/nowhere", unix.AT_REMOVEDIR) }},
		{"netlink", func(sock) error {
			fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer func() { _ = unix.Close(fd) }()
			return unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		}},
		{"unix in no directory", func(sock) error {
			s, err := newSock(unix.AF_UNIX, unix.SOCK_STREAM)
			defer s.close()
			return errors.Join(err, s.bind("/nowhere/at/all", 0))
		}},
		{"unix on a file", func(sock) error {
			s, err := newSock(unix.AF_UNIX, unix.SOCK_STREAM)
			defer s.close()
			return errors.Join(err, s.bind("/proc/self/status", 0))
		}},
	}
	run := func(do func(s sock) error) error {
		s, err := newSock(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC)
		defer s.close()
		if err != nil {
			return err
		}
		return do(s)
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			plain := run(c.do)
			h := newHolder(t)
			underFilter(t, self(h, 1), Options{Unlink: true}, ServerOptions{}, func(*Server) error {
				got := run(c.do)
				if fmt.Sprint(got) != fmt.Sprint(plain) {
					return fmt.Errorf("got %v, without a filter %v\n%s", got, plain, h.log())
				}
				return nil
			})
			if c.name == "address in use" && h.failed(BindFailed, unix.EADDRINUSE) != 1 {
				t.Errorf("nobody heard of it:\n%s", h.log())
			}
		})
	}
}

func errnoOf(errno unix.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

// TestOptionsAreCopied: what the child sets before bind holds for the listener
// that it gets.
func TestOptionsAreCopied(t *testing.T) {
	h, port := newHolder(t), freePort(t)
	set := map[option]int{
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 4, ""}:        1,
		{unix.SOL_SOCKET, unix.SO_RCVBUF, 4, ""}:           40000,
		{unix.SOL_SOCKET, unix.SO_SNDBUF, 4, ""}:           50000,
		{unix.SOL_SOCKET, unix.SO_PRIORITY, 4, ""}:         3,
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 4, ""}:        1,
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 4, ""}:       77,
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 4, ""}:      7,
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 4, ""}:        5,
		{unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 4, ""}:   3,
		{unix.IPPROTO_TCP, unix.TCP_FASTOPEN, 4, ""}:       16,
		{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 4, ""}:   9000,
		{unix.IPPROTO_IP, unix.IP_TTL, 4, ""}:              33,
		{unix.IPPROTO_IP, unix.IP_TOS, 4, ""}:              0x10,
		{unix.IPPROTO_IPV6, unix.IPV6_TCLASS, 4, ""}:       0x20,
		{unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, 4, ""}: 44,
	}
	twice(t, h, Options{}, ServerOptions{}, func(gen int, _ *Server) error {
		s, err := newSock(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC)
		defer s.close()
		if err != nil {
			return err
		}
		read := map[option]int{}
		for o, v := range set {
			if gen == 2 { // another version wants other values
				v++
			}
			if o.opt == unix.SO_KEEPALIVE && o.level == unix.SOL_SOCKET || o.opt == unix.TCP_NODELAY && o.level == unix.IPPROTO_TCP {
				v = 2 - gen
			}
			if err := unix.SetsockoptInt(s.fd, o.level, o.opt, v); err != nil {
				return err
			}
		}
		for o := range set {
			read[o], _ = unix.GetsockoptInt(s.fd, o.level, o.opt)
		}
		before, err := Cookie(s.fd)
		if err != nil {
			return err
		}
		if err := s.bind("::", port); err != nil {
			return err
		}
		if after, err := Cookie(s.fd); err != nil || after == before {
			return fmt.Errorf("not swapped: %v", err)
		}
		for o, want := range read {
			if got, err := unix.GetsockoptInt(s.fd, o.level, o.opt); got != want || err != nil {
				return fmt.Errorf("generation %d: option %d/%d: %d, %v; want %d", gen, o.level, o.opt, got, err, want)
			}
		}
		return unix.Listen(s.fd, 5)
	})
	if h.failed(Damaged, nil) != 0 || strings.Contains(h.log(), "damaged") {
		t.Errorf("events:\n%s", h.log())
	}
}

// TestCopiesAreSwapped: other numbers of the same socket follow.
func TestCopiesAreSwapped(t *testing.T) {
	h, port := newHolder(t), freePort(t)
	twice(t, h, Options{}, ServerOptions{}, func(int, *Server) error {
		s, err := newSock(unix.AF_INET, unix.SOCK_STREAM)
		defer s.close()
		if err != nil {
			return err
		}
		other, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 100)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(other) }()
		if err := s.bind("127.0.0.1", port); err != nil {
			return err
		}
		a, _ := Cookie(s.fd)
		b, _ := Cookie(other)
		if a != b {
			return errors.New("the copy is left behind")
		}
		for fd, want := range map[int]int{s.fd: 0, other: unix.FD_CLOEXEC} {
			if flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); flags != want {
				return fmt.Errorf("fd %d: flags %d", fd, flags)
			}
		}
		return unix.Listen(other, 5)
	})
}

// TestEpollBeforeBind: registrations made before bind work on the listener.
func TestEpollBeforeBind(t *testing.T) {
	h, port := newHolder(t), freePort(t)
	twice(t, h, Options{}, ServerOptions{}, func(gen int, _ *Server) error {
		s, err := newSock(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		defer s.close()
		if err != nil {
			return err
		}
		ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(ep) }()
		const data = 0x1122334455667788
		ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: data & 0x7fffffff, Pad: data >> 32}
		if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, s.fd, &ev); err != nil {
			return err
		}
		if err := s.bind("127.0.0.1", port); err != nil {
			return err
		}
		if err := unix.Listen(s.fd, 5); err != nil {
			return err
		}
		mod := ev
		mod.Events = unix.EPOLLIN
		if err := unix.EpollCtl(ep, unix.EPOLL_CTL_MOD, s.fd, &mod); err != nil {
			return fmt.Errorf("MOD: %w", err)
		}
		client, err := newSock(unix.AF_INET, unix.SOCK_STREAM)
		defer client.close()
		if err != nil {
			return err
		}
		if err := unix.Connect(client.fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: int(port)}); err != nil {
			return err
		}
		got := make([]unix.EpollEvent, 2)
		n, err := unix.EpollWait(ep, got, int(deadline.Milliseconds()))
		if err != nil || n != 1 || got[0].Fd != ev.Fd || got[0].Pad != ev.Pad {
			return fmt.Errorf("events %d, %v, %+v", n, err, got)
		}
		conn, _, err := unix.Accept(s.fd)
		if err != nil {
			return err
		}
		_ = unix.Close(conn)
		if err := unix.EpollCtl(ep, unix.EPOLL_CTL_DEL, s.fd, nil); err != nil {
			return fmt.Errorf("DEL: %w", err)
		}
		return nil
	})
}

func TestBacklogIsRaised(t *testing.T) {
	h, port := newHolder(t), freePort(t)
	underFilter(t, self(h, 1), Options{}, ServerOptions{Backlog: 33}, func(*Server) error {
		for _, c := range []struct{ ask, want int }{{5, 33}, {77, 77}, {0, 33}} {
			s, err := serve(unix.AF_INET, "127.0.0.1", port, c.ask)
			if err != nil {
				s.close()
				return err
			}
			info, err := unix.GetsockoptTCPInfo(s.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
			s.close()
			if err != nil {
				return err
			}
			if int(info.Sacked) != c.want { // of a listener: its backlog
				return fmt.Errorf("asked for %d, got %d", c.ask, info.Sacked)
			}
		}
		return nil
	})
}

// TestClientsBindToo: a socket that binds a fixed port to connect from it is
// nobody's listener, and works.
func TestClientsBindToo(t *testing.T) {
	h, port := newHolder(t), freePort(t)
	server, err := serve(unix.AF_INET, "127.0.0.1", 0, 5)
	if err != nil {
		t.Fatal(err)
	}
	defer server.close()
	twice(t, h, Options{}, ServerOptions{}, func(int, *Server) error {
		s, err := newSock(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC)
		defer s.close()
		if err != nil {
			return err
		}
		_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		_ = unix.SetsockoptLinger(s.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}) // no TIME_WAIT
		if err := s.bind("127.0.0.1", port); err != nil {
			return err
		}
		if err := unix.Connect(s.fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: int(portOf(t, server.fd))}); err != nil {
			return err
		}
		conn, _, err := unix.Accept(server.fd)
		if err != nil {
			return err
		}
		return unix.Close(conn)
	})
	if h.count("learn") != 0 {
		t.Errorf("decisions:\n%s", h.log())
	}
}

// TestSlots: N listeners of one generation get N listeners of the last.
func TestSlots(t *testing.T) {
	h, port := newHolder(t), freePort(t)
	cookies := map[uint64]int{}
	twice(t, h, Options{}, ServerOptions{}, func(int, *Server) error {
		var all []sock
		defer func() {
			for _, s := range all {
				s.close()
			}
		}()
		for range 3 {
			s, err := newSock(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC)
			all = append(all, s)
			if err != nil {
				return err
			}
			if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
				return err
			}
			if err := s.bind("127.0.0.1", port); err != nil {
				return err
			}
			if err := unix.Listen(s.fd, 5); err != nil {
				return err
			}
			c, _ := Cookie(s.fd)
			cookies[c]++
		}
		// A fourth, without SO_REUSEPORT, is one too many.
		s, err := newSock(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC)
		all = append(all, s)
		if err != nil {
			return err
		}
		if err := s.bind("127.0.0.1", port); err != unix.EADDRINUSE {
			return fmt.Errorf("the fourth: %v", err)
		}
		return nil
	})
	if len(cookies) != 3 {
		t.Errorf("%d listeners:\n%s", len(cookies), h.log())
	}
	for c, n := range cookies {
		if n != 2 {
			t.Errorf("listener %d was used %d times", c, n)
		}
	}
}

// TestCloseAndRebind: one generation may close its listener and bind again.
func TestCloseAndRebind(t *testing.T) {
	h, port := newHolder(t), freePort(t)
	twice(t, h, Options{}, ServerOptions{}, func(int, *Server) error {
		for range 3 {
			s, err := serve(unix.AF_INET, "127.0.0.1", port, 5)
			s.close()
			if err != nil {
				return err
			}
		}
		return nil
	})
	if h.count("learn") != 1 || h.count("lend") != 5 {
		t.Errorf("decisions:\n%s", h.log())
	}
}

// TestShapes: another shape of the same port is another key, and starts.
func TestShapes(t *testing.T) {
	h, port := newHolder(t), freePort(t)
	shapes := []struct {
		family int
		addr   string
		v6only int
	}{{unix.AF_INET, "0.0.0.0", 0}, {unix.AF_INET6, "::", 0}, {unix.AF_INET, "127.0.0.1", 0}, {unix.AF_INET6, "::", 1}, {unix.AF_INET6, "::1", 0}}
	for gen, shape := range shapes {
		g := self(h, gen)
		underFilter(t, g, Options{}, ServerOptions{}, func(*Server) error {
			s, err := newSock(shape.family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC)
			defer s.close()
			if err != nil {
				return err
			}
			if shape.family == unix.AF_INET6 {
				_ = unix.SetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, shape.v6only)
			}
			if err := s.bind(shape.addr, port); err != nil {
				return fmt.Errorf("%+v: %w", shape, err)
			}
			return unix.Listen(s.fd, 5)
		})
		g.gone()
	}
	if h.count("lend") != 0 || h.count("learn") != len(shapes) {
		t.Errorf("decisions:\n%s", h.log())
	}
}

// TestRestartedBind: a bind that is repeated on the socket that answered it
// succeeds again; the kernel restarts interrupted calls.
func TestRestartedBind(t *testing.T) {
	h, port := newHolder(t), freePort(t)
	twice(t, h, Options{}, ServerOptions{}, func(int, *Server) error {
		s, err := serve(unix.AF_INET, "127.0.0.1", port, 5)
		defer s.close()
		if err != nil {
			return err
		}
		return s.bind("127.0.0.1", port)
	})
	if h.count("lend")+h.count("give") != 2 {
		t.Errorf("decisions:\n%s", h.log())
	}
}

func TestUnix(t *testing.T) {
	for _, typ := range []int{unix.SOCK_STREAM, unix.SOCK_SEQPACKET} {
		for _, name := range []string{"path", "@abstract"} {
			t.Run(fmt.Sprintf("%d %s", typ, name), func(t *testing.T) {
				h := newHolder(t)
				path := filepath.Join(t.TempDir(), "x.sock")
				if name[0] == '@' {
					path = fmt.Sprintf("@intercept-%d-%d", os.Getpid(), typ)
				}
				var cookies [3]uint64
				twice(t, h, Options{Unlink: true}, ServerOptions{}, func(gen int, _ *Server) error {
					s, err := newSock(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC)
					defer s.close()
					if err != nil {
						return err
					}
					if path[0] == '/' { // as everybody does
						if err := unix.Unlink(path); err != nil && err != unix.ENOENT {
							return err
						}
					}
					if err := s.bind(path, 0); err != nil {
						return err
					}
					if err := unix.Listen(s.fd, 5); err != nil {
						return err
					}
					if err := h.wait("l", gen*2-1); err != nil { // learned, or lent and held
						return err
					}
					if path[0] == '/' {
						if err := unix.Unlinkat(unix.AT_FDCWD, path, 0); err != nil { // at exit
							return err
						}
						if _, err := os.Lstat(path); err != nil {
							return err
						}
					}
					client, err := newSock(unix.AF_UNIX, typ)
					defer client.close()
					if err != nil {
						return err
					}
					if err := unix.Connect(client.fd, &unix.SockaddrUnix{Name: path}); err != nil {
						return err
					}
					// SO_PEERCRED is who listened. Both are this process here; see the
					// test with a child.
					cookies[gen], err = Cookie(s.fd)
					return err
				})
				if cookies[1] != cookies[2] {
					t.Errorf("another listener:\n%s", h.log())
				}
			})
		}
	}
}

// TestUnixPathRemoved: without the trap on unlink, the hard link brings the
// path back at the next bind.
func TestUnixPathRemoved(t *testing.T) {
	h := newHolder(t)
	path := filepath.Join(t.TempDir(), "x.sock")
	twice(t, h, Options{}, ServerOptions{}, func(gen int, _ *Server) error {
		_ = unix.Unlink(path)
		s, err := serve(unix.AF_UNIX, path, 0, 5)
		defer s.close()
		if err != nil {
			return err
		}
		if err := h.wait("l", gen*2-1); err != nil {
			return err
		}
		_, err = os.Lstat(path)
		return err
	})
	if h.count("lend") != 1 {
		t.Errorf("decisions:\n%s", h.log())
	}
}

// TestUnixForeign: a path where somebody else's socket stands now is the kernel's.
func TestUnixForeign(t *testing.T) {
	h := newHolder(t)
	path := filepath.Join(t.TempDir(), "x.sock")
	twice(t, h, Options{}, ServerOptions{}, func(gen int, _ *Server) error {
		s, err := serve(unix.AF_UNIX, path, 0, 5)
		defer s.close()
		if gen == 2 {
			if !errors.Is(err, unix.EADDRINUSE) {
				return fmt.Errorf("bind over a foreign socket: %v", err)
			}
			return nil
		}
		if err != nil {
			return err
		}
		if err := h.wait("learn", 1); err != nil {
			return err
		}
		if err := unix.Unlink(path); err != nil {
			return err
		}
		other, err := newSock(unix.AF_UNIX, unix.SOCK_DGRAM) // not looked at
		defer other.close()
		return errors.Join(err, other.bind(path, 0))
	})
	if h.failed(BindFailed, unix.EADDRINUSE) != 1 {
		t.Errorf("nobody heard of it:\n%s", h.log())
	}
}

// TestUnlinkPaths: however the path is written, it is the same socket; and
// nothing else is kept.
func TestUnlinkPaths(t *testing.T) {
	h := newHolder(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "x.sock")
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, filepath.Join(dir, "sub", "up")); err != nil {
		t.Fatal(err)
	}
	underFilter(t, self(h, 1), Options{Unlink: true}, ServerOptions{}, func(*Server) error {
		s, err := serve(unix.AF_UNIX, path, 0, 5)
		defer s.close()
		if err != nil {
			return err
		}
		if err := h.wait("learn", 1); err != nil {
			return err
		}
		d, err := unix.Open(filepath.Join(dir, "sub"), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(d) }()
		for i, do := range []func() error{
			func() error { return unix.Unlink(path) },
			func() error { return unix.Unlink(dir + "//sub/../x.sock") },
			func() error { return unix.Unlink(dir + "/sub/up/x.sock") },
			func() error { return unix.Unlinkat(d, "../x.sock", 0) },
			func() error { return unix.Unlinkat(d, "up/x.sock", 0) },
			func() error { return unix.Unlinkat(d, path, 0) },
		} {
			if err := do(); err != nil {
				return fmt.Errorf("%d: %w", i, err)
			}
			if _, err := os.Lstat(path); err != nil {
				return fmt.Errorf("%d: %w", i, err)
			}
		}
		// A file, a symbolic link to the socket, and a foreign socket go.
		file, link, foreign := filepath.Join(dir, "file"), filepath.Join(dir, "link"), filepath.Join(dir, "foreign")
		if err := errors.Join(os.WriteFile(file, nil, 0o644), os.Symlink(path, link), unix.Mknod(foreign, unix.S_IFSOCK|0o644, 0)); err != nil {
			return err
		}
		for _, p := range []string{file, link, foreign} {
			if err := unix.Unlink(p); err != nil {
				return err
			}
			if _, err := os.Lstat(p); !os.IsNotExist(err) {
				return fmt.Errorf("%s is still there: %v", p, err)
			}
		}
		return nil
	})
}

func TestUDPIsOptIn(t *testing.T) {
	h, port := newHolder(t), freePort(t)
	bind := func(gen int, _ *Server) error {
		s, err := newSock(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC)
		defer s.close()
		return errors.Join(err, s.bind("127.0.0.1", port))
	}
	twice(t, h, Options{}, ServerOptions{}, bind)
	if h.log() != "" {
		t.Fatalf("decisions:\n%s", h.log())
	}
	twice(t, h, Options{}, ServerOptions{UDP: true}, bind)
	if h.count("learn") != 1 || h.count("lend") != 1 {
		t.Errorf("decisions:\n%s", h.log())
	}
}

// TestMPTCP: one key for MPTCP and TCP.
func TestMPTCP(t *testing.T) {
	h, port := newHolder(t), freePort(t)
	for gen, proto := range []int{unix.IPPROTO_MPTCP, 0, unix.IPPROTO_MPTCP} {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, proto)
		if err != nil {
			t.Skip(err)
		}
		g := self(h, gen)
		s := sock{fd, unix.AF_INET}
		underFilter(t, g, Options{}, ServerOptions{}, func(*Server) error {
			defer s.close()
			if err := s.bind("127.0.0.1", port); err != nil {
				return err
			}
			return unix.Listen(s.fd, 5)
		})
		g.gone()
	}
	if h.count("learn") != 1 || h.count("lend") != 2 || strings.Contains(h.log(), "damaged") {
		t.Errorf("decisions:\n%s", h.log())
	}
}

// TestDevice: SO_BINDTODEVICE is part of the key.
func TestDevice(t *testing.T) {
	h, port := newHolder(t), freePort(t)
	underFilter(t, self(h, 1), Options{}, ServerOptions{}, func(*Server) error {
		for _, device := range []string{"lo", "lo", ""} {
			s, err := newSock(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC)
			defer s.close()
			if err != nil {
				return err
			}
			if err := unix.SetsockoptString(s.fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, device); err != nil {
				return err
			}
			if err := s.bind("127.0.0.1", port); err != nil {
				return err
			}
			if err := unix.Listen(s.fd, 5); err != nil {
				return err
			}
			s.close()
		}
		return nil
	})
	// The third is another shape of the second.
	if h.count("learn") != 2 || h.count("lend") != 1 || h.count("release") != 1 {
		t.Errorf("decisions:\n%s", h.log())
	}
}

// TestPassedBind: an address that the holder passes is learned all the same.
func TestPassedBind(t *testing.T) {
	h, port := newHolder(t), freePort(t)
	g := self(h, 1)
	var server *Server
	underFilter(t, passing{g}, Options{}, ServerOptions{}, func(srv *Server) error {
		server = srv
		s, err := serve(unix.AF_INET, "127.0.0.1", port, 5)
		s.close()
		return err
	})
	if b := server.Bound(); len(b) != 1 || b[0].Key.Addr.Port() != port || b[0].Lent {
		t.Errorf("bound: %+v", b)
	}
	if h.count("learn") != 1 {
		t.Errorf("decisions:\n%s", h.log())
	}
}

type passing struct{ *genHolder }

func (passing) Bind(*Call) Decision { return Pass() }

type refusing struct{ *genHolder }

func (refusing) Bind(*Call) Decision { return Errno(unix.EADDRNOTAVAIL) }

func TestRefusedBind(t *testing.T) {
	h, port := newHolder(t), freePort(t)
	underFilter(t, refusing{self(h, 1)}, Options{}, ServerOptions{}, func(*Server) error {
		s, err := serve(unix.AF_INET, "127.0.0.1", port, 5)
		defer s.close()
		if !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("got %v", err)
		}
		return nil
	})
}

// TestHandedOverServer: another server of the same notify fd, as after an exec,
// knows what was bound.
func TestHandedOverServer(t *testing.T) {
	h, port := newHolder(t), freePort(t)
	first := self(h, 1)
	underFilter(t, passing{first}, Options{}, ServerOptions{}, func(*Server) error {
		s, err := newSock(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC)
		defer s.close()
		return errors.Join(err, s.bind("127.0.0.1", port))
	})
	// The same by hand, with a change of servers in between.
	type step struct{ bound, listened chan error }
	st := step{make(chan error), make(chan error)}
	notify, more := make(chan int), make(chan bool)
	done := make(chan error, 1)
	go func() {
		done <- Thread(func() error {
			fd, err := Install(Options{})
			notify <- fd
			if err != nil {
				return err
			}
			s, err := newSock(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC)
			defer s.close()
			st.bound <- errors.Join(err, s.bind("127.0.0.1", port))
			<-more
			st.listened <- unix.Listen(s.fd, 5)
			return nil
		})
	}()
	fd := <-notify
	if fd < 0 {
		t.Skip(<-done)
	}
	serveOnce := func(srv *Server) {
		var events [1]unix.EpollEvent
		for {
			if n, err := unix.EpollWait(srv.FD(), events[:], -1); err == unix.EINTR {
				continue
			} else if n != 1 || err != nil {
				t.Fatal(n, err)
			}
			break
		}
		if _, err := srv.Serve(); err != nil {
			t.Fatal(err)
		}
	}
	keep, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	one, err := NewServer(fd, ServerOptions{}, passing{first})
	if err != nil {
		t.Fatal(err)
	}
	serveOnce(one)
	if err := <-st.bound; err != nil {
		t.Fatal(err)
	}
	carried := one.Bound()
	_ = one.Close()
	two, err := NewServer(keep, ServerOptions{Bound: carried}, passing{first})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = two.Close() }()
	more <- true
	serveOnce(two)
	if err := errors.Join(<-st.listened, <-done); err != nil {
		t.Fatal(err)
	}
	if h.count("learn") != 1 {
		t.Errorf("decisions:\n%s", h.log())
	}
}

// TestServerGone: without a server bind fails at once and does not hang.
func TestServerGone(t *testing.T) {
	err := Thread(func() error {
		fd, err := Install(Options{})
		if err != nil {
			return err
		}
		if err := unix.Close(fd); err != nil {
			return err
		}
		s, err := newSock(unix.AF_INET, unix.SOCK_STREAM)
		defer s.close()
		if err != nil {
			return err
		}
		if err := s.bind("127.0.0.1", 0); err != unix.ENOSYS {
			return fmt.Errorf("bind: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestNested(t *testing.T) {
	err := Thread(func() error {
		fd, err := Install(Options{})
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		_, err = Install(Options{})
		if !errors.Is(err, ErrNested) || !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("a second filter: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestInstallErrors(t *testing.T) {
	for errno, want := range map[unix.Errno]error{
		unix.EBUSY: ErrNested, unix.EPERM: ErrNotPermitted, unix.EACCES: ErrNotPermitted,
		unix.ENOSYS: ErrUnsupported, unix.EINVAL: ErrUnsupported,
	} {
		if err := installError(errno); !errors.Is(err, want) || !errors.Is(err, errno) {
			t.Errorf("%v: %v", errno, err)
		}
	}
	if err := installError(unix.ENOMEM); !errors.Is(err, unix.ENOMEM) {
		t.Error(err)
	}
}

// TestThreadIsNeverMain, even where the goroutine that asks is on it.
func TestThreadIsNeverMain(t *testing.T) {
	for range 50 {
		err := Thread(func() error {
			if unix.Gettid() == unix.Getpid() {
				return errors.New("on the main thread")
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestNoIOUring: io_uring can be forbidden.
func TestNoIOUring(t *testing.T) {
	underFilter(t, self(newHolder(t), 1), Options{NoIOUring: true}, ServerOptions{}, func(*Server) error {
		_, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, 0, 0)
		if errno != unix.ENOSYS {
			return fmt.Errorf("io_uring_setup: %v", errno)
		}
		return nil
	})
}

func TestProbe(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	before := openFDs(t)
	r := Probe()
	t.Logf("%+v", r)
	if os.Getuid() == 0 && !r.OK() {
		t.Errorf("root cannot intercept here: %+v", r)
	}
	if after := openFDs(t); after != before {
		t.Errorf("fds before:\n%safter:\n%s", before, after)
	}
}

// TestClose: Run ends, and nothing is left.
func TestClose(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	before := openFDs(t)
	fds := make(chan int)
	stop := make(chan bool)
	done := make(chan error, 1)
	go func() {
		done <- Thread(func() error {
			fd, err := Install(Options{})
			fds <- fd
			<-stop
			return err
		})
	}()
	fd := <-fds
	if fd < 0 {
		close(stop)
		t.Skip(<-done)
	}
	srv, err := NewServer(fd, ServerOptions{}, self(newHolder(t), 1))
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() { ran <- srv.Run() }()
	if err := errors.Join(srv.Close(), <-ran, srv.Close(), srv.Run()); err != nil {
		t.Error(err)
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if after := openFDs(t); after != before {
		t.Errorf("fds before:\n%safter:\n%s", before, after)
	}
	if _, err := NewServer(-1, ServerOptions{}, nil); err == nil {
		t.Error("a server of nothing")
	}
}

// TestForgets: what is remembered is bounded.
func TestForgets(t *testing.T) {
	s := &Server{bound: map[uint64]Bound{}}
	for i := range uint64(maxBound + 10) {
		s.remember(Bound{Cookie: i})
		s.remember(Bound{Cookie: i, Lent: true})
	}
	if all := s.Bound(); len(all) != maxBound || all[0].Cookie != 10 || !all[0].Lent {
		t.Errorf("%d, first %+v", len(all), all[0])
	}
}

// TestOtherRoot: a path under another root means another file.
func TestOtherRoot(t *testing.T) {
	needRoot(t)
	for name, leave := range map[string]func(dir string) error{
		"chroot": func(dir string) error {
			return errors.Join(unix.Unshare(unix.CLONE_FS), unix.Chroot(dir))
		},
		"mount namespace": func(dir string) error {
			return errors.Join(unix.Unshare(unix.CLONE_FS|unix.CLONE_NEWNS), unix.Chdir(dir))
		},
	} {
		t.Run(name, func(t *testing.T) {
			h, dir := newHolder(t), t.TempDir()
			twice(t, h, Options{Unlink: true}, ServerOptions{}, func(int, *Server) error {
				if err := leave(dir); err != nil {
					return err
				}
				path := "x.sock"
				if name == "chroot" {
					path = "/x.sock"
				}
				s, err := serve(unix.AF_UNIX, path, 0, 5)
				defer s.close()
				return errors.Join(err, unix.Unlink(path))
			})
			if h.count("") != 0 || h.failed(Unheld, errElsewhere) != 2 {
				t.Errorf("decisions:\n%s", h.log())
			}
		})
	}
}

// TestRename: a name that is never bound again is in nobody's way (HAProxy binds
// a temporary name and renames it).
func TestRename(t *testing.T) {
	h, dir := newHolder(t), t.TempDir()
	twice(t, h, Options{Unlink: true}, ServerOptions{}, func(gen int, _ *Server) error {
		path := fmt.Sprintf("%s/x.%d.tmp", dir, gen)
		s, err := serve(unix.AF_UNIX, path, 0, 5)
		defer s.close()
		if err != nil {
			return err
		}
		if err := h.wait("learn", gen); err != nil {
			return err
		}
		if err := os.Rename(path, dir+"/x"); err != nil {
			return err
		}
		client, err := newSock(unix.AF_UNIX, unix.SOCK_STREAM)
		defer client.close()
		return errors.Join(err, unix.Connect(client.fd, &unix.SockaddrUnix{Name: dir + "/x"}))
	})
	if h.count("lend") != 0 {
		t.Errorf("decisions:\n%s", h.log())
	}
}

// TestOwnFDTable: a thread may have an fd table that its process has not.
func TestOwnFDTable(t *testing.T) {
	if fd, err := unix.PidfdOpen(unix.Getpid(), unix.PIDFD_THREAD); err != nil {
		t.Skip("this kernel has no pidfds of threads: ", err)
	} else {
		_ = unix.Close(fd)
	}
	h, port := newHolder(t), freePort(t)
	twice(t, h, Options{}, ServerOptions{}, func(int, *Server) error {
		if err := unix.Unshare(unix.CLONE_FILES); err != nil {
			return err
		}
		s, err := serve(unix.AF_INET, "127.0.0.1", port, 5)
		if err != nil {
			return err
		}
		if !listening(s.fd) {
			return errors.New("not listening")
		}
		return nil // the table ends with the thread
	})
	if h.count("learn") != 1 || h.count("lend") != 1 {
		t.Errorf("decisions:\n%s", h.log())
	}
}

// TestFlood: one Serve does not last for ever.
func TestFlood(t *testing.T) {
	h := newHolder(t)
	fds, stop := make(chan int), make(chan bool)
	done := make(chan error, 1)
	go func() {
		done <- Thread(func() error {
			fd, err := Install(Options{})
			fds <- fd
			if err != nil {
				return err
			}
			for {
				select {
				case <-stop:
					return nil
				default:
				}
				s, err := newSock(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC)
				if err != nil {
					return err
				}
				err = s.bind("127.0.0.1", 0)
				s.close()
				if err != nil {
					return err
				}
			}
		})
	}()
	fd := <-fds
	if fd < 0 {
		t.Skip(<-done)
	}
	srv, err := NewServer(fd, ServerOptions{}, self(h, 1))
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if _, err := srv.Serve(); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	if err := errors.Join(srv.Run(), <-done, srv.Close()); err != nil {
		t.Error(err)
	}
}
