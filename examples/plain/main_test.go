package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	childVariable = "PLAIN_TEST_CHILD"
	patience      = 30 * time.Second
)

// The test binary is plain too.
func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// child is plain with a TCP, a unix and a UDP socket.
type child struct {
	pid            int
	tcp, unix, udp string
	done           chan struct{}
	status         syscall.WaitStatus
	notify         *net.UnixConn
}

// lend gives a non-blocking duplicate of a socket.
func lend(t *testing.T, c syscall.Conn) uintptr {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	fd := -1
	var failed error
	if err := errors.Join(raw.Control(func(have uintptr) {
		fd, failed = unix.FcntlInt(have, unix.F_DUPFD_CLOEXEC, 3)
	}), failed); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return uintptr(fd)
}

func start(t *testing.T, args ...string) *child {
	t.Helper()
	dir := t.TempDir()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	stream, err := net.Listen("unix", filepath.Join(dir, "stream"))
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: filepath.Join(dir, "notify")})
	if err != nil {
		t.Fatal(err)
	}
	stream.(*net.UnixListener).SetUnlinkOnClose(false)
	t.Cleanup(func() { notify.Close() })
	c := &child{
		tcp: tcp.Addr().String(), unix: stream.Addr().String(), udp: udp.LocalAddr().String(),
		notify: notify, done: make(chan struct{}),
	}
	files := []uintptr{0, 1, 2, lend(t, tcp.(syscall.Conn)), lend(t, stream.(syscall.Conn)), lend(t, udp.(syscall.Conn))}
	tcp.Close()
	stream.Close()
	udp.Close()
	argv := append([]string{"sh", "-c", `export LISTEN_PID=$$; exec "$@"`, "sh", os.Args[0]}, args...)
	c.pid, err = syscall.ForkExec("/bin/sh", argv, &syscall.ProcAttr{
		Env:   append(os.Environ(), childVariable+"=1", "LISTEN_FDS=3", "LISTEN_FDNAMES=web:local:echo", "NOTIFY_SOCKET="+filepath.Join(dir, "notify")),
		Files: files,
	})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		syscall.Wait4(c.pid, &c.status, 0, nil)
		close(c.done)
	}()
	t.Cleanup(func() {
		select {
		case <-c.done:
		default:
			syscall.Kill(c.pid, syscall.SIGKILL) // not reaped yet: it is ours
			<-c.done
		}
	})
	return c
}

func (c *child) get(t *testing.T, network, addr, path string) string {
	t.Helper()
	conn, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", path)
	r, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	if r.Header.Get("X-Pid") != strconv.Itoa(c.pid) {
		t.Errorf("%s %s: X-Pid %q of process %d", network, path, r.Header.Get("X-Pid"), c.pid)
	}
	return string(body)
}

func (c *child) end(t *testing.T) syscall.WaitStatus {
	t.Helper()
	select {
	case <-c.done:
		return c.status
	case <-time.After(patience):
		t.Fatal("plain does not end")
		return 0
	}
}

func TestServe(t *testing.T) {
	c := start(t, "-notify")
	word := make([]byte, 100)
	c.notify.SetDeadline(time.Now().Add(patience))
	n, err := c.notify.Read(word)
	if err != nil || string(word[:n]) != "READY=1" {
		t.Fatalf("notified %q, %v", word[:n], err)
	}
	hello := fmt.Sprintf("hello from pid %d\n", c.pid)
	if got := c.get(t, "tcp", c.tcp, "/"); got != hello {
		t.Errorf("tcp: %q", got)
	}
	if got := c.get(t, "unix", c.unix, "/"); got != hello {
		t.Errorf("unix: %q", got)
	}
	if got := c.get(t, "tcp", c.tcp, "/pid"); strings.TrimSpace(got) != strconv.Itoa(c.pid) {
		t.Errorf("/pid: %q", got)
	}
	udp, err := net.Dial("udp", c.udp)
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	udp.SetDeadline(time.Now().Add(patience))
	for say, want := range map[string]string{"word": "word", "pid": strconv.Itoa(c.pid)} {
		fmt.Fprint(udp, say)
		n, err := udp.Read(word)
		if err != nil || string(word[:n]) != want {
			t.Errorf("udp: %q is answered with %q, %v", say, word[:n], err)
		}
	}
	if conn, err := net.Dial("tcp", c.tcp); err == nil {
		defer conn.Close()
		fmt.Fprint(conn, "GET /exit?code=3 HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	if s := c.end(t); s.ExitStatus() != 3 {
		t.Errorf("status %v after /exit?code=3", s)
	}
}

// What was begun before SIGTERM is finished, and the status is 0.
func TestDrain(t *testing.T) {
	c := start(t)
	conn, err := net.Dial("tcp", c.tcp)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	// "100 Continue" comes when the handler asks for the form: then, and not
	// before, the request is one that Shutdown waits for. One that net/http
	// has not read yet when Shutdown begins is dropped.
	fmt.Fprint(conn, "POST /slow HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"+
		"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 4\r\n\r\n")
	in := bufio.NewReader(conn)
	if line, err := in.ReadString('\n'); err != nil || !strings.Contains(line, " 100 ") {
		t.Fatalf("%q, %v", line, err)
	}
	if _, err := in.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	syscall.Kill(c.pid, syscall.SIGTERM)
	fmt.Fprint(conn, "ms=1")
	r, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil || !strings.HasPrefix(string(body), "hello") {
		t.Errorf("answer %q, %v", body, err)
	}
	if s := c.end(t); s.ExitStatus() != 0 {
		t.Errorf("status %v after SIGTERM", s)
	}
}

func TestBadNeighbours(t *testing.T) {
	if s := start(t, "-fail-bind").end(t); s.ExitStatus() != 1 {
		t.Errorf("-fail-bind: status %v", s)
	}
	if s := start(t, "-exit-after", "1ms").end(t); s.ExitStatus() != 1 {
		t.Errorf("-exit-after: status %v", s)
	}
	c := start(t, "-ignore-term")
	c.get(t, "tcp", c.tcp, "/")
	syscall.Kill(c.pid, syscall.SIGTERM)
	c.get(t, "tcp", c.tcp, "/")
	syscall.Kill(c.pid, syscall.SIGKILL)
	if s := c.end(t); s.Signal() != syscall.SIGKILL {
		t.Errorf("-ignore-term: status %v", s)
	}
}
