package ready

import (
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// childEnv makes the test binary play a child: its value is the part.
const childEnv = "READY_TEST_CHILD"

// deadline is generous: only a failure waits that long.
const deadline = 30 * time.Second

func TestMain(m *testing.M) {
	if part := os.Getenv(childEnv); part != "" {
		if err := play(part); err != nil {
			fmt.Fprintln(os.Stderr, "child:", part+":", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// play is the child's main. A part is a name and perhaps an argument. Fd 3 is a
// socket where one was lent.
func play(part string) error {
	name, arg, _ := strings.Cut(part, " ")
	switch name {
	case "notify": // go-systemd's client
		sent, err := daemon.SdNotify(false, arg)
		if err == nil && !sent {
			err = fmt.Errorf("not sent")
		}
		return err
	case "barrier": // what sd_notify_barrier(3) does
		return barrier(arg)
	case "hold": // holds the listener and does not serve
		fmt.Println("holding")
		_, err := io.Copy(io.Discard, os.Stdin)
		return err
	case "accept":
		for {
			fd, _, err := unix.Accept(3)
			if err != nil {
				return err
			}
			_, _ = unix.Write(fd, []byte("x")) // and keep it open
		}
	case "recv":
		_, _, err := unix.Recvfrom(3, make([]byte, 16), 0)
		return err
	case "poll":
		_, err := unix.Poll([]unix.PollFd{{Fd: 0, Events: unix.POLLIN}, {Fd: 3, Events: unix.POLLIN}}, -1)
		return err
	case "select":
		var set unix.FdSet
		set.Set(0)
		set.Set(3)
		_, err := unix.Select(4, &set, nil, nil, nil)
		return err
	case "epoll": // Go's own way
		l, err := net.FileListener(os.NewFile(3, "listener"))
		if err != nil {
			return err
		}
		for {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			defer c.Close()
		}
	case "bind": // opens listeners of its own, and says which
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		p, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		u, err := net.Listen("unix", arg)
		if err != nil {
			return err
		}
		defer u.Close()
		fmt.Println(l.Addr(), p.LocalAddr())
		for {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			defer c.Close()
		}
	}
	return fmt.Errorf("no such part")
}

// barrier sends BARRIER=1 with the write end of a pipe and waits until every
// copy of it is closed.
func barrier(state string) error {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	to := &unix.SockaddrUnix{Name: os.Getenv("NOTIFY_SOCKET")}
	if err := unix.Sendto(s, []byte(state), 0, to); err != nil {
		return err
	}
	if err := unix.Sendmsg(s, []byte("BARRIER=1"), unix.UnixRights(p[1]), to, 0); err != nil {
		return err
	}
	unix.Close(p[1])
	if n, err := unix.Read(p[0], make([]byte, 1)); n != 0 || err != nil {
		return fmt.Errorf("barrier: %d %v", n, err)
	}
	return nil
}

// child is a running part.
type child struct {
	pid    int
	stdin  *os.File // closing it ends "hold"
	stdout *os.File
}

// start runs the test binary in a part, with fd 3 if it is not negative. It is
// killed and reaped at the end of the test if wait was not called.
func start(t *testing.T, part string, fd int, env ...string) *child {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	inR, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	// Raw numbers: nothing here may touch O_NONBLOCK of a lent socket.
	files := []uintptr{inR.Fd(), outW.Fd(), 2}
	if fd >= 0 {
		files = append(files, uintptr(fd))
	}
	pid, err := syscall.ForkExec(exe, []string{exe}, &syscall.ProcAttr{
		Env:   append(append(os.Environ(), childEnv+"="+part, "GORACE=atexit_sleep_ms=0"), env...),
		Files: files,
	})
	inR.Close()
	outW.Close()
	if err != nil {
		t.Fatal(err)
	}
	c := &child{pid: pid, stdin: inW, stdout: outR}
	t.Cleanup(func() {
		inW.Close()
		outR.Close()
		if c.pid != 0 {
			_ = syscall.Kill(c.pid, syscall.SIGKILL)
			_, _ = syscall.Wait4(c.pid, nil, 0, nil)
		}
	})
	return c
}

// wait reaps the child and gives its exit status.
func (c *child) wait(t *testing.T) int {
	t.Helper()
	var ws syscall.WaitStatus
	for {
		_, err := syscall.Wait4(c.pid, &ws, 0, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		c.pid = 0
		return ws.ExitStatus()
	}
}

// line waits for one line of the child's output.
func (c *child) line(t *testing.T) string {
	t.Helper()
	_ = c.stdout.SetReadDeadline(time.Now().Add(deadline))
	var out []byte
	b := make([]byte, 1)
	for {
		if _, err := c.stdout.Read(b); err != nil {
			t.Fatalf("child %d said %q, then: %v", c.pid, out, err)
		}
		if b[0] == '\n' {
			return string(out)
		}
		out = append(out, b[0])
	}
}

// until asks again and again until f is true.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// openFDs counts our descriptors.
func openFDs(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

// tcpListener opens a raw listener on loopback; blocking or not.
func tcpListener(t *testing.T, flags int) (fd int, inode uint64, addr string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|flags, unix.IPPROTO_TCP)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 16); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fd, inodeOf(t, fd), "127.0.0.1:" + strconv.Itoa(sa.(*unix.SockaddrInet4).Port)
}

func inodeOf(t *testing.T, fd int) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}
