package portdiag

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// childEnv makes the test binary a holder of sockets: its value is a list of
// socket descriptions, separated by ';', each a list of words (see openSocket)
// and commands (see child).
const childEnv = "PORTDIAG_TEST_CHILD"

// patience bounds every wait of the tests.
const patience = 20 * time.Second

func TestMain(m *testing.M) {
	if spec, ok := os.LookupEnv(childEnv); ok {
		child(spec)
		return
	}
	os.Exit(m.Run())
}

// child opens what spec says, prints one line for each ("ADDRESS INODE"), and
// stays until its standard input ends.
func child(spec string) {
	for _, words := range strings.Split(spec, ";") {
		fd, at, err := openSocket(strings.Fields(words))
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		var st unix.Stat_t
		_ = unix.Fstat(fd, &st)
		fmt.Println(at, st.Ino)
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// openSocket makes the socket that words describe: network, address, then
// options: listen, reuseaddr, reuseport, v6only, mptcp, connect=ADDR, inherit.
// The address is given back as bound.
func openSocket(words []string) (fd int, at string, err error) {
	network, address := words[0], words[1]
	has := func(w string) bool { return slices.Contains(words[2:], w) }
	if strings.HasPrefix(network, "unix") {
		typ := map[string]int{"unix": unix.SOCK_STREAM, "unixgram": unix.SOCK_DGRAM, "unixpacket": unix.SOCK_SEQPACKET}[network]
		if fd, err = unix.Socket(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0); err != nil {
			return -1, "", err
		}
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: address}); err != nil {
			return -1, "", err
		}
		if has("listen") {
			err = unix.Listen(fd, 16)
		}
		return fd, address, err
	}
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return -1, "", err
	}
	typ, proto, family := unix.SOCK_STREAM, 0, unix.AF_INET
	if network == "udp" {
		typ = unix.SOCK_DGRAM
	}
	if has("mptcp") {
		proto = unix.IPPROTO_MPTCP
	}
	if ap.Addr().Is6() {
		family = unix.AF_INET6
	}
	flags := unix.SOCK_CLOEXEC
	if has("inherit") {
		flags = 0
	}
	if fd, err = unix.Socket(family, typ|flags, proto); err != nil {
		return -1, "", err
	}
	for word, opt := range map[string][2]int{
		"reuseaddr": {unix.SOL_SOCKET, unix.SO_REUSEADDR},
		"reuseport": {unix.SOL_SOCKET, unix.SO_REUSEPORT},
		"v6only":    {unix.IPPROTO_IPV6, unix.IPV6_V6ONLY},
	} {
		if has(word) {
			if err := unix.SetsockoptInt(fd, opt[0], opt[1], 1); err != nil {
				return -1, "", err
			}
		}
	}
	if family == unix.AF_INET6 && !has("v6only") {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0); err != nil {
			return -1, "", err
		}
	}
	if err := unix.Bind(fd, sockaddr(ap)); err != nil {
		return -1, "", err
	}
	for _, w := range words[2:] {
		if to, ok := strings.CutPrefix(w, "connect="); ok {
			dst, err := netip.ParseAddrPort(to)
			if err != nil {
				return -1, "", err
			}
			if err := unix.Connect(fd, sockaddr(dst)); err != nil {
				return -1, "", err
			}
		}
	}
	if has("listen") {
		if err := unix.Listen(fd, 16); err != nil {
			return -1, "", err
		}
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return -1, "", err
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return fd, netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)).String(), nil
	case *unix.SockaddrInet6:
		return fd, netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)).String(), nil
	}
	return -1, "", fmt.Errorf("what address is %v", sa)
}

func sockaddr(ap netip.AddrPort) unix.Sockaddr {
	if ap.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(ap.Port()), Addr: ap.Addr().As16()}
}

// holder is a child process that holds sockets until the test ends.
type holder struct {
	pid    int
	at     []netip.AddrPort // the zero value for unix sockets
	inodes []uint64
	cmd    *exec.Cmd
	stdin  io.Closer
}

// hold starts a child that holds what spec says; adjust may change its command.
func hold(t testing.TB, spec string, adjust ...func(*exec.Cmd)) *holder {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "the holder")
	// The race detector would make each child wait a second at its end.
	cmd.Env = append(os.Environ(), childEnv+"="+spec, "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	for _, f := range adjust {
		f(cmd)
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h := &holder{pid: cmd.Process.Pid, cmd: cmd, stdin: stdin}
	t.Cleanup(h.end)
	lines := bufio.NewScanner(stdout)
	for range strings.Split(spec, ";") {
		if !lines.Scan() {
			t.Fatalf("holder of %q ended early", spec)
		}
		at, inode, _ := strings.Cut(lines.Text(), " ")
		if at == "error" {
			t.Fatalf("holder of %q: %s", spec, inode)
		}
		ap, _ := netip.ParseAddrPort(at)
		n, err := strconv.ParseUint(inode, 10, 64)
		if err != nil {
			t.Fatalf("holder of %q says %q", spec, lines.Text())
		}
		h.at = append(h.at, ap)
		h.inodes = append(h.inodes, n)
	}
	return h
}

func (h *holder) end() {
	_ = h.stdin.Close()
	_ = h.cmd.Wait() // a second call only gives an error
}
