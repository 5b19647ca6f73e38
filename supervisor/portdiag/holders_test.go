package portdiag

import (
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// needIPv6 skips where the loopback has no ::1.
func needIPv6(t testing.TB) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet6{Addr: netip.IPv6Loopback().As16()})
		unix.Close(fd)
	}
	if err != nil {
		t.Skipf("no IPv6 here: %v", err)
	}
}

// at is host with the port of h's first socket.
func (h *holder) with(host string) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(host), h.at[0].Port())
}

func mustHolders(t *testing.T, network string, addr netip.AddrPort) []Holder {
	t.Helper()
	hs, err := Holders(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	return hs
}

// TestConflicts holds one address and asks for another on the same port: the
// answer must be what bind(2) itself says.
func TestConflicts(t *testing.T) {
	needIPv6(t)
	binds := []string{
		"127.0.0.1:0", "127.0.0.2:0", "0.0.0.0:0", "[::1]:0", "[::]:0", "[::]:0 v6only",
		"[::ffff:127.0.0.1]:0", "[::ffff:0.0.0.0]:0",
	}
	for _, network := range []string{"tcp", "udp"} {
		listen := map[string]string{"tcp": " listen", "udp": ""}[network]
		for _, held := range binds {
			h := hold(t, network+" "+held+listen)
			for _, asked := range binds {
				words := strings.Fields(asked)
				host := netip.MustParseAddrPort(words[0]).Addr()
				addr := netip.AddrPortFrom(host, h.at[0].Port())
				net := network
				spec := append([]string{network, addr.String()}, words[1:]...)
				if slices.Contains(words, "v6only") {
					net += "6"
				}
				fd, _, err := openSocket(append(spec, strings.TrimSpace(listen)))
				if err == nil {
					unix.Close(fd)
				} else if err != unix.EADDRINUSE {
					t.Fatalf("bind %v: %v", spec, err)
				}
				hs := mustHolders(t, net, addr)
				if (err != nil) != (len(hs) > 0) {
					t.Errorf("held %s %s, asked %s: bind says %v, Holders %v", network, held, asked, err, hs)
				}
				for _, g := range hs {
					if len(g.Processes) != 1 || g.Processes[0].PID != h.pid || g.Inode != h.inodes[0] {
						t.Errorf("held %s %s: %+v is not of pid %d, inode %d", network, held, g, h.pid, h.inodes[0])
					}
				}
			}
			h.end()
		}
	}
}

func TestHolderFacts(t *testing.T) {
	h := hold(t, "tcp 127.0.0.1:0 listen", func(c *exec.Cmd) { c.Dir = "/" })
	hs := mustHolders(t, "tcp", h.at[0])
	if len(hs) != 1 || len(hs[0].Processes) != 1 {
		t.Fatalf("got %+v", hs)
	}
	g, p := hs[0], hs[0].Processes[0]
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if g.State != Listen || g.Local != h.at[0] || g.UID != uint32(os.Getuid()) || g.Count != 1 {
		t.Errorf("holder %+v", g)
	}
	if p.PID != h.pid || p.PPID != os.Getpid() || p.Exe != exe || p.Dir != "/" || p.UID != uint32(os.Geteuid()) ||
		len(p.Args) != 2 || p.Args[1] != "the holder" || len(p.FDs) != 1 || p.Started.IsZero() {
		t.Errorf("process %+v", p)
	}
	want := "pid " + strconv.Itoa(h.pid) + " ("
	if s := g.String(); !strings.HasPrefix(s, want) || !strings.HasSuffix(s, ", user "+p.User+", listening on "+h.at[0].String()) {
		t.Errorf("String: %s", s)
	}
}

func TestBoundNotListening(t *testing.T) {
	h := hold(t, "tcp 127.0.0.1:0")
	hs := mustHolders(t, "tcp", h.with("0.0.0.0"))
	if len(hs) == 0 && !kernelAtLeast(t, 6, 8) {
		t.Skip("the kernel shows bound sockets that do not listen since 6.8")
	}
	if len(hs) != 1 || hs[0].State != Bound || len(hs[0].Processes) != 1 || hs[0].Processes[0].PID != h.pid {
		t.Fatalf("got %+v", hs)
	}
}

func TestMPTCPListener(t *testing.T) {
	if fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP); err != nil {
		t.Skipf("no MPTCP here: %v", err)
	} else {
		unix.Close(fd)
	}
	h := hold(t, "tcp 127.0.0.1:0 mptcp listen")
	hs := mustHolders(t, "tcp", h.with("0.0.0.0"))
	if len(hs) != 1 || !hs[0].MPTCP || hs[0].State != Listen || len(hs[0].Processes) != 1 || hs[0].Processes[0].PID != h.pid {
		t.Fatalf("got %+v", hs)
	}
}

func TestConnections(t *testing.T) {
	server := hold(t, "tcp 127.0.0.1:0 listen")
	client := hold(t, "tcp 127.0.0.1:0 connect="+server.at[0].String())

	hs := mustHolders(t, "tcp", server.at[0])
	if len(hs) != 1 || hs[0].State != Listen || hs[0].Connections != 1 {
		t.Errorf("the server's side: %+v", hs)
	}
	hs = mustHolders(t, "tcp", client.with("0.0.0.0"))
	if len(hs) != 1 || hs[0].State != Established || hs[0].Remote != server.at[0] || hs[0].Processes[0].PID != client.pid {
		t.Errorf("the client's side: %+v", hs)
	}
}

func TestTimeWait(t *testing.T) {
	addr := timeWait(t)
	hs := mustHolders(t, "tcp", addr)
	if len(hs) != 1 || hs[0].State != TimeWait || len(hs[0].Processes) != 0 || hs[0].Hidden != "" {
		t.Fatalf("got %+v", hs)
	}
	if left := hs[0].Expires; left <= 0 || left > 60*time.Second {
		t.Errorf("%v left of the 60 s that the kernel keeps it", left)
	}
	if s := hs[0].String(); !strings.HasPrefix(s, "no process, 1 connection of "+addr.String()+" in TIME_WAIT for ") {
		t.Errorf("String: %s", s)
	}
}

// timeWait leaves a connection in TIME_WAIT and gives its local address.
func timeWait(t *testing.T) netip.AddrPort {
	t.Helper()
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddrPort(client.LocalAddr().String())
	client.Close()
	if _, err := server.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("the server read %v", err)
	}
	server.Close()
	waitFor(t, "TIME_WAIT at "+addr.String(), func() bool {
		hs := mustHolders(t, "tcp", addr)
		return len(hs) == 1 && hs[0].State == TimeWait
	})
	return addr
}

// waitFor looks again and again until ok, for what sends no event.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s in %v", what, patience)
		}
	}
}

// TestInherited: a listener in two processes has both, the parent first.
func TestInherited(t *testing.T) {
	fd, at, err := openSocket([]string{"tcp", "127.0.0.1:0", "listen"})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	copied := os.NewFile(uintptr(must(unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3))), "copy")
	defer copied.Close()
	h := hold(t, "udp 127.0.0.1:0", func(c *exec.Cmd) { c.ExtraFiles = []*os.File{copied} })
	hs := mustHolders(t, "tcp", netip.MustParseAddrPort(at))
	if len(hs) != 1 || len(hs[0].Processes) != 2 || hs[0].Processes[0].PID != os.Getpid() || hs[0].Processes[1].PID != h.pid {
		t.Fatalf("got %+v", hs)
	}
	if n := len(hs[0].Processes[0].FDs); n != 2 {
		t.Errorf("we hold it at 2 descriptors, not %d", n)
	}
}

// TestHiddenOwner asks as another user, who may see the socket but not into
// the process.
func TestHiddenOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become another user")
	}
	h := hold(t, "tcp 127.0.0.1:0 listen")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=TestAskAsOther", "-test.v")
	cmd.Path = exe
	// The test binary may lie in a directory that is closed to others.
	f, err := os.Open(exe)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd.ExtraFiles = []*os.File{f}
	cmd.Path = "/proc/self/fd/3"
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "PORTDIAG_ASK="+h.at[0].String())
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534, NoSetGroups: true}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "a process that we cannot see") || !strings.Contains(string(out), "listening on "+h.at[0].String()) {
		t.Errorf("said: %s", out)
	}
}

func TestAskAsOther(t *testing.T) {
	at := os.Getenv("PORTDIAG_ASK")
	if at == "" {
		t.Skip("is a helper of TestHiddenOwner")
	}
	for _, h := range mustHolders(t, "tcp", netip.MustParseAddrPort(at)) {
		t.Log(h)
	}
}

func TestPathHolders(t *testing.T) {
	dir := t.TempDir()
	for _, network := range []string{"unix", "unixpacket", "unixgram"} {
		path := filepath.Join(dir, network)
		listen := " listen"
		if network == "unixgram" {
			listen = ""
		}
		h := hold(t, network+" "+path+listen)
		link := path + "-link"
		if err := os.Symlink(path, link); err != nil {
			t.Fatal(err)
		}
		for _, p := range []string{path, link} {
			hs, err := PathHolders(p)
			if err != nil {
				t.Fatal(err)
			}
			if len(hs) != 1 || hs[0].Network != network || hs[0].Path != path || len(hs[0].Processes) != 1 || hs[0].Processes[0].PID != h.pid {
				t.Errorf("%s: %+v", p, hs)
			}
		}
		h.end()
		if hs, err := PathHolders(path); err != nil || len(hs) != 0 {
			t.Errorf("stale %s: %+v, %v", path, hs, err)
		}
	}
}

// TestReplacedPath: the first server keeps the name but not the path.
func TestReplacedPath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	hold(t, "unix "+path+" listen")
	// Renamed, not removed: a freed inode number may come back at once.
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	second := hold(t, "unix "+path+" listen")
	hs, err := PathHolders(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(hs) != 1 || hs[0].Processes[0].PID != second.pid {
		t.Errorf("got %+v", hs)
	}
}

func TestAbstract(t *testing.T) {
	name := "@portdiag-test-" + strconv.Itoa(os.Getpid())
	h := hold(t, "unix "+name+" listen")
	hs, err := PathHolders(name)
	if err != nil {
		t.Fatal(err)
	}
	if len(hs) != 1 || hs[0].Path != name || hs[0].Processes[0].PID != h.pid {
		t.Errorf("got %+v", hs)
	}
	if want := "listening on unix " + name; !strings.HasSuffix(hs[0].String(), want) {
		t.Errorf("String: %s", hs[0])
	}
}

func TestTitleIsPrintable(t *testing.T) {
	p := Process{Comm: "x", Args: []string{"a\x1b[31m", "b\n", "\xff", "né", "\u202e"}}
	if got, want := p.Title(0), `a\x1b[31m b\n \xff né \u202e`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := p.Title(3), `a\x1b[...`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestParseStat(t *testing.T) {
	p, err := parseStat([]byte("12 (a) b (c)) S 7 12 12 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 3 0 12345 0 0"))
	if err != nil {
		t.Fatal(err)
	}
	if p.PID != 12 || p.Comm != "a) b (c)" || p.State != "S" || p.PPID != 7 || p.Threads != 3 || p.ticks != 12345 {
		t.Errorf("got %+v", p)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("12 (a) S 7 12 12 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 3 0 12345 0 0"))
	f.Add([]byte(")("))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = parseStat(b)
		_ = parseCmdline(b)
		_ = printable(string(b), 10)
	})
}

func must(n int, err error) int {
	if err != nil {
		panic(err)
	}
	return n
}

func kernelAtLeast(t *testing.T, major, minor int) bool {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	f := strings.SplitN(unix.ByteSliceToString(u.Release[:]), ".", 3)
	if len(f) < 2 {
		return false
	}
	a, _ := strconv.Atoi(f[0])
	b, _ := strconv.Atoi(strings.TrimRightFunc(f[1], func(r rune) bool { return r < '0' || r > '9' }))
	return a > major || a == major && b >= minor
}
