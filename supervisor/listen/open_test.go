package listen

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor/config"
)

// It is all or nothing: what was opened before an error is closed and removed.
func TestOpenIsAllOrNothing(t *testing.T) {
	checkFDs(t)
	held, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	dir := t.TempDir()
	free := ip("tcp", "127.0.0.1:0")
	busy := ip("tcp", held.Addr().String())
	_, _, err = Open(configs(free, unixAt("unix", filepath.Join(dir, "s")), busy), nil)
	var oe *OpenError
	if !errors.As(err, &oe) || oe.Errno != unix.EADDRINUSE || oe.Stage != "bind" || oe.Socket.Addr != busy.Addr || oe.Hint() == "" {
		t.Errorf("%v", err)
	}
	if left := files(t, dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// A foreign holder is found though it allows SO_REUSEPORT, of TCP and UDP.
func TestReusePortOfOthersIsInUse(t *testing.T) {
	checkFDs(t)
	for _, network := range []string{"tcp", "udp"} {
		fd := foreign(t, network, "127.0.0.1:0", 0, func(fd int) {
			if err := on(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT); err != nil {
				t.Fatal(err)
			}
		})
		at, _ := boundAddr(fd)
		if _, _, err := Open(configs(ip(network, at.String())), nil); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("%s: %v", network, err)
		}
		// With ReusePort= it is joined, and shared.
		c := ip(network, at.String())
		c.Options.ReusePort = true
		s, _, err := Open(configs(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		if shared, why := s.Sockets()[0].Shared(); !shared || !strings.Contains(why, "ReusePort") {
			t.Error(why)
		}
		s.Close()
		unix.Close(fd)
	}
}

func TestOpenErrors(t *testing.T) {
	checkFDs(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	device := ip("tcp", "127.0.0.1:0")
	device.Options.BindToDevice = "nosuch0"
	user := unixAt("unix", filepath.Join(t.TempDir(), "s"))
	user.Options.User = "no-such-user"
	for name, test := range map[string]struct {
		c     config.Socket
		errno unix.Errno
		hint  bool
	}{
		"no such address": {ip("tcp", "192.0.2.1:80"), unix.EADDRNOTAVAIL, true},
		"no such device":  {device, unix.ENODEV, true},
		"not a directory": {unixAt("unix", filepath.Join(file, "s")), unix.ENOTDIR, true},
		"no network":      {config.Socket{Network: "sctp"}, unix.EAFNOSUPPORT, true},
		"no address":      {config.Socket{Network: "tcp"}, unix.EINVAL, false},
		"no path":         {config.Socket{Network: "unix"}, unix.EINVAL, false},
		"no user":         {user, 0, false},
	} {
		_, _, err := Open(configs(test.c), nil)
		var oe *OpenError
		if !errors.As(err, &oe) || oe.Errno != test.errno || (oe.Hint() != "") != test.hint || !strings.HasPrefix(err.Error(), "cannot listen on ") {
			t.Errorf("%s: %v; %+v", name, err, oe)
		}
	}
	if left := files(t, filepath.Dir(user.Path)); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestPrivilegedPort(t *testing.T) {
	if unprivilegedStart() < 2 {
		t.Skip("no port is privileged here")
	}
	e := failed("bind", ip("tcp", "127.0.0.1:80"), unix.EACCES)
	e.Socket.Addr = netip.MustParseAddrPort("127.0.0.1:1")
	if !strings.Contains(e.Hint(), "CAP_NET_BIND_SERVICE") {
		t.Error(e.Hint())
	}
}

// "localhost:0" is one port on both loopbacks.
func TestLocalhost(t *testing.T) {
	if !hasIPv6() {
		t.Skip("no IPv6 here")
	}
	four, six := ip("tcp", "127.0.0.1:0"), ip("tcp", "[::1]:0")
	four.Source, six.Source, six.Optional = "localhost:0", "localhost:0", true
	for range 20 {
		s := open(t, four, six)
		all := s.Sockets()
		if len(all) != 2 || all[0].Port() != all[1].Port() || all[0].Port() == 0 {
			t.Fatalf("%v %v", all[0].Addr(), all[1].Addr())
		}
		lanes, err := s.Lend()
		if err != nil || len(lanes) != 2 {
			t.Fatal(lanes, err)
		}
		for i, one := range all {
			dial(t, one)
			where(t, lanes[i])
		}
		s.Close()
	}
}

// Where IPv6 is off (disable_ipv6), an optional address is left out with a
// warning. The wildcard can be bound all the same, and takes IPv4.
func TestWithoutIPv6(t *testing.T) {
	if unix.Geteuid() != 0 {
		t.Skip("needs root to make a network namespace without IPv6")
	}
	type answer struct {
		s     *Set
		warns []Warning
		err   error
		skip  error
	}
	answers := make(chan answer)
	four, six := ip("tcp", "127.0.0.1:0"), ip("tcp", "[::1]:0")
	four.Source, six.Source, six.Optional = "localhost:0", "localhost:0", true
	go func() {
		// Never unlocked: the thread and its namespace end here.
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			answers <- answer{skip: errors.New("this is the main thread")}
			runtime.UnlockOSThread()
			return
		}
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			answers <- answer{skip: err}
			return
		}
		// The whole namespace has IPv6 off then, and it is this thread's alone.
		if err := errors.Join(os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0), loopbackUp()); err != nil {
			answers <- answer{skip: err}
			return
		}
		var a answer
		a.s, a.warns, a.err = Open(configs(ip("tcp", "[::]:0"), four, six), nil)
		answers <- a
	}()
	a := <-answers
	if a.skip != nil {
		t.Skip(a.skip)
	}
	if a.err != nil {
		t.Fatal(a.err)
	}
	defer a.s.Close()
	all := a.s.Sockets()
	if len(all) != 2 || !all[0].AddrPort().Addr().IsUnspecified() || all[1].AddrPort().Addr() != four.Addr.Addr() {
		t.Errorf("%d sockets", len(all))
	}
	if len(a.warns) != 1 || !errors.Is(a.warns[0].Err, unix.EADDRNOTAVAIL) {
		t.Error(a.warns)
	}
	lanes, err := a.s.Lend() // in our namespace: only that nothing breaks
	if err != nil {
		t.Fatal(err)
	}
	a.s.Return(lanes)
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
}

// The options arrive at the listener, of each lane.
func TestOptions(t *testing.T) {
	c := ip("tcp", "127.0.0.1:0")
	c.Options = config.SocketOptions{
		Backlog: 7, NoDelay: true, KeepAlive: true, KeepAliveTime: 100 * time.Second, KeepAliveIntv: 1500 * time.Millisecond,
		KeepAliveProb: 3, DeferAccept: time.Second, FreeBind: true, Mark: -1, Priority: 3, IPTOS: 0x10, IPTTL: 33,
		ReceiveBuffer: 40000, SendBuffer: 50000, FastOpen: 5, Blocking: true,
	}
	s := open(t, c)
	for range 2 {
		l := lend(t, s)
		for _, o := range []struct {
			name                string
			level, opt, atLeast int
		}{
			{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
			{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 100},
			{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 2},
			{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3},
			{"TCP_DEFER_ACCEPT", unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 1},
			{"IP_FREEBIND", unix.IPPROTO_IP, unix.IP_FREEBIND, 1},
			{"SO_PRIORITY", unix.SOL_SOCKET, unix.SO_PRIORITY, 1},
			{"IP_TOS", unix.IPPROTO_IP, unix.IP_TOS, 0x10},
			{"IP_TTL", unix.IPPROTO_IP, unix.IP_TTL, 33},
			{"SO_RCVBUF", unix.SOL_SOCKET, unix.SO_RCVBUF, 80000},
			{"SO_SNDBUF", unix.SOL_SOCKET, unix.SO_SNDBUF, 100000},
		} {
			if v, err := unix.GetsockoptInt(l.FD(), o.level, o.opt); err != nil || v < o.atLeast {
				t.Errorf("%s is %d, %v", o.name, v, err)
			}
		}
		if _, backlog, err := l.Queue(); err != nil || backlog != 7 {
			t.Error(backlog, err)
		}
		if flags, err := unix.FcntlInt(uintptr(l.FD()), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
			t.Error("not blocking", err)
		}
	}
	v6 := ip("tcp", "[::]:0")
	v6.V6Only = true
	if !hasIPv6() {
		return
	}
	six := open(t, v6).Sockets()[0]
	if c, err := net.Dial("tcp4", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), six.AddrPort().Port()).String()); err == nil {
		c.Close()
		t.Error("IPv4 reaches an IPv6-only listener")
	}
	dial(t, six)
}
