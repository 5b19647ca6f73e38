package portdiag

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
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
	if ask, ok := os.LookupEnv(explainEnv); ok {
		explainer(ask)
		return
	}
	if spec, ok := os.LookupEnv(childEnv); ok {
		child(spec)
		return
	}
	if ownNetwork() {
		return
	}
	os.Exit(m.Run())
}

// networkEnv says that the tests run in a network namespace of their own.
const networkEnv = "PORTDIAG_TEST_NETNS"

// ownNetwork runs the tests once more in a network namespace of their own,
// where nobody else's ports and TIME_WAITs are in their way. False: they have
// to run here, because they do already or because that needs root.
func ownNetwork() bool {
	if os.Getenv(networkEnv) != "" || os.Geteuid() != 0 {
		return false
	}
	exe, err := os.Executable()
	if err != nil {
		return false
	}
	cmd := exec.Command("unshare", append([]string{"-n", "sh", "-ec", `ip link set lo up; exec "$@"`, "sh", exe}, os.Args[1:]...)...)
	if exec.Command("unshare", "-n", "ip", "link", "set", "lo", "up").Run() != nil {
		return false
	}
	cmd.Env = append(os.Environ(), networkEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // the signal comes when this thread ends
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() > 0 {
			os.Exit(exit.ExitCode())
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

// zombieEnv makes the main thread of the child end while others go on.
const zombieEnv = "PORTDIAG_TEST_ZOMBIE"

// ignoreEnv makes the child ignore SIGTERM.
const ignoreEnv = "PORTDIAG_TEST_IGNORE"

func init() {
	if os.Getenv(ignoreEnv) != "" {
		signal.Ignore(syscall.SIGTERM)
	}
	if os.Getenv(zombieEnv) != "" {
		runtime.LockOSThread() // the main goroutine stays on the main thread
	}
}

// child opens what spec says, prints one line for each ("ADDRESS INODE PID"),
// and stays until its standard input ends.
func child(spec string) {
	for _, words := range strings.Split(spec, ";") {
		fields := strings.Fields(words)
		fd, at, err := openSocket(fields)
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		var st unix.Stat_t
		_ = unix.Fstat(fd, &st)
		// A server waits for connections; what it accepts stays open.
		if slices.Contains(fields, "listen") && !slices.Contains(fields, "idle") {
			waiting := make(chan struct{})
			go func() {
				runtime.LockOSThread()
				close(waiting)
				for {
					if _, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC); err != nil && err != unix.EINTR {
						return
					}
				}
			}()
			<-waiting
		}
		fmt.Println(at, st.Ino, os.Getpid())
	}
	if os.Getenv(zombieEnv) != "" {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(0)
		}()
		_, _, _ = unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// openSocket makes the socket that words describe: network, address, then
// options: listen, idle (listen and never accept), reuseaddr, reuseport, v6only,
// mptcp, connect=ADDR, device=NAME.
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
	if fd, err = unix.Socket(family, typ|unix.SOCK_CLOEXEC, proto); err != nil {
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
	for _, w := range words[2:] {
		if device, ok := strings.CutPrefix(w, "device="); ok {
			if err := unix.BindToDevice(fd, device); err != nil {
				return -1, "", err
			}
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
		var at string
		var n uint64
		if _, err := fmt.Sscan(lines.Text(), &at, &n, &h.pid); err != nil {
			t.Fatalf("holder of %q says %q", spec, lines.Text())
		}
		ap, _ := netip.ParseAddrPort(at)
		h.at = append(h.at, ap)
		h.inodes = append(h.inodes, n)
	}
	return h
}

func (h *holder) end() {
	_ = h.stdin.Close()
	_ = h.cmd.Wait() // a second call only gives an error
}
