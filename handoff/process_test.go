//go:build linux

package handoff

import (
	"bufio"
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const childVariable = "HANDOFF_TEST_CHILD"

// The test binary is the server, too.
func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		if err := child(); err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// child serves what the variables say:
//
//	NETWORK, ADDR   listen there
//	BROKEN          a file; if it is there the child fails before it is ready
//
// It ends with its standard input, which is the life of the test; its successors
// have the same.
func child() error {
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(3)
	}()
	l, err := Listen(os.Getenv("NETWORK"), os.Getenv("ADDR"))
	if err != nil {
		return err
	}
	if _, err := os.Stat(os.Getenv("BROKEN")); err == nil {
		return errors.New("broken")
	}
	Watchdog(func() error { return nil })
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, os.Getpid()) })
	mux.HandleFunc("/env", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Join(os.Environ(), "\n")) })
	mux.HandleFunc("/hang", func(w http.ResponseWriter, _ *http.Request) {
		http.NewResponseController(w).Flush()
		select {}
	})
	return Serve(&http.Server{Handler: mux}, l)
}

// family is a child, and those that replace it.
type family struct {
	pid    int // of the first
	notify *net.UnixConn
	done   chan struct{} // the first has ended
	status syscall.WaitStatus
	errs   *bytes.Buffer // valid when done is closed
	life   *os.File
}

// begin starts the child by a shell, which says what only the child's pid can
// say: LISTEN_PID. files become descriptors from 3 on.
func begin(t *testing.T, files []uintptr, vars ...string) *family {
	t.Helper()
	dir := t.TempDir()
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: filepath.Join(dir, "notify")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { notify.Close() })
	notify.SetReadDeadline(time.Now().Add(patience))
	inR, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	f := &family{notify: notify, done: make(chan struct{}), errs: &bytes.Buffer{}, life: inW}
	t.Cleanup(func() { inW.Close() })
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "NOTIFY_SOCKET=") })
	env = append(env, childVariable+"=1", "NETWORK=tcp", "NOTIFY_SOCKET="+filepath.Join(dir, "notify"))
	env = append(env, vars...)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f.pid, err = syscall.ForkExec("/bin/sh", []string{"sh", "-c", `[ -z "$LISTEN_FDS" ] || export LISTEN_PID=$$; exec "$0"`, self}, &syscall.ProcAttr{
		Env:   env,
		Files: append([]uintptr{inR.Fd(), outW.Fd(), outW.Fd()}, files...),
	})
	inR.Close()
	outW.Close()
	if err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() { io.Copy(f.errs, outR) }) // to the end of the last of the family
	t.Cleanup(func() {
		inW.Close()
		reading.Wait()
		outR.Close()
		if t.Failed() && f.errs.Len() > 0 {
			t.Logf("the children said:\n%s", f.errs)
		}
	})
	go func() {
		syscall.Wait4(f.pid, &f.status, 0, nil)
		close(f.done)
	}()
	return f
}

// hear gives the next message that does not ping.
func (f *family) hear(t *testing.T) string {
	t.Helper()
	buf := make([]byte, 4096)
	for {
		n, err := f.notify.Read(buf)
		if err != nil {
			t.Fatalf("no message: %v", err)
		}
		if s := string(buf[:n]); s != "WATCHDOG=1" {
			return s
		}
	}
}

func (f *family) wantHeard(t *testing.T, want string) {
	t.Helper()
	if got := f.hear(t); got != want {
		t.Fatalf("heard %q, want %q", got, want)
	}
}

// successor is who the old process says takes over.
func (f *family) successor(t *testing.T) (pid int) {
	t.Helper()
	got := f.hear(t)
	if n, err := fmt.Sscanf(got, "MAINPID=%d\nREADY=1", &pid); n != 1 || err != nil {
		t.Fatalf("heard %q", got)
	}
	return pid
}

// wantEnd waits for the end of the first child.
func (f *family) wantEnd(t *testing.T, status int) {
	t.Helper()
	select {
	case <-f.done:
	case <-time.After(patience):
		t.Fatal("the child does not end")
	}
	if f.status.ExitStatus() != status {
		t.Fatalf("status %v, want %d", f.status, status)
	}
}

// lend gives a duplicate without taking O_NONBLOCK away.
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

// bound gives a listening socket and its address.
func bound(t *testing.T) (uintptr, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return lend(t, l.(syscall.Conn)), l.Addr().String()
}

// get makes one request on a connection of its own.
func get(t *testing.T, network, addr, path string) string {
	t.Helper()
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", path)
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// Each protocol with real descriptors: served, ready, clean for grandchildren,
// and ended by SIGTERM with status 0.
func TestProtocols(t *testing.T) {
	self := strconv.Itoa(os.Getpid())
	for name, vars := range map[string][]string{
		"systemd":        {"LISTEN_FDS=1", "LISTEN_FDNAMES=web", "WATCHDOG_USEC=20000"},
		"server starter": {"SERVER_STARTER_PORT=127.0.0.1:1=3", "SERVER_STARTER_GENERATION=1"},
		"einhorn":        {"EINHORN_FD_COUNT=1", "EINHORN_FD_0=3", "EINHORN_MASTER_PID=" + self},
	} {
		t.Run(name, func(t *testing.T) {
			fd, addr := bound(t)
			f := begin(t, []uintptr{fd}, append(vars, "ADDR=:1")...)
			f.wantHeard(t, "READY=1")
			if got := get(t, "tcp", addr, "/"); got != strconv.Itoa(f.pid) {
				t.Errorf("process %s answers, not %d", got, f.pid)
			}
			env := get(t, "tcp", addr, "/env")
			for _, word := range []string{"LISTEN_", "NOTIFY_", "WATCHDOG_", "SERVER_STARTER_", "EINHORN_", "TABLEFLIP_", "HANDOFF_LEGACY"} {
				if strings.Contains("\n"+env, "\n"+word) {
					t.Errorf("%s* is still in the environment:\n%s", word, env)
				}
			}
			if name == "systemd" {
				buf := make([]byte, 100)
				for range 3 {
					n, err := f.notify.Read(buf)
					if err != nil || string(buf[:n]) != "WATCHDOG=1" {
						t.Fatalf("%q, %v", buf[:n], err)
					}
				}
			}
			stop := syscall.SIGTERM
			if name == "einhorn" {
				stop = syscall.SIGUSR2
			}
			syscall.Kill(f.pid, stop)
			f.wantHeard(t, "STOPPING=1")
			f.wantEnd(t, 0)
		})
	}
}

// A tableflip parent that is not one of ours: its socket, by the literal
// address, and its ready byte.
func TestTableflipParent(t *testing.T) {
	fd, addr := bound(t)
	readyR, readyW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	namesR, namesW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer readyR.Close()
	defer namesW.Close()
	f := begin(t, []uintptr{readyW.Fd(), namesR.Fd(), fd}, "TABLEFLIP_HAS_PARENT_7DIU3=x", "ADDR=localhost:1")
	readyW.Close()
	namesR.Close()
	if err := gob.NewEncoder(namesW).Encode([][]string{{"listener", "tcp", "localhost:1"}}); err != nil {
		t.Fatal(err)
	}
	word := make([]byte, 2)
	if n, err := readyR.Read(word); err != nil || n != 1 || word[0] != 42 {
		t.Fatalf("the ready byte is %v, %v", word[:n], err)
	}
	f.wantHeard(t, "READY=1")
	if got := get(t, "tcp", addr, "/"); got != strconv.Itoa(f.pid) {
		t.Errorf("process %s answers, not %d", got, f.pid)
	}
	syscall.Kill(f.pid, syscall.SIGTERM)
	f.wantEnd(t, 0)
}

// Without a supervisor a process replaces itself on SIGHUP, three times, under
// load on kept and on new connections; nothing is lost, and the manager knows the
// pid of the newest.
func TestUpgrade(t *testing.T) {
	free, addr := bound(t)
	unix.Close(int(free))
	f := begin(t, nil, "ADDR="+addr)
	f.wantHeard(t, "READY=1")
	var over atomic.Bool
	var answers atomic.Int64
	var clients sync.WaitGroup
	defer func() {
		over.Store(true)
		clients.Wait()
	}()
	for kept := range 4 {
		clients.Go(func() {
			if err := load(addr, kept%2 == 0, &over, &answers); err != nil {
				t.Error(err)
			}
		})
	}
	pid := f.pid
	for range 3 {
		until(t, &answers, answers.Load()+200)
		old := pid
		fd, err := unix.PidfdOpen(old, 0)
		if err != nil {
			t.Fatal(err)
		}
		syscall.Kill(old, syscall.SIGHUP)
		if got := f.hear(t); !strings.HasPrefix(got, "RELOADING=1\nMONOTONIC_USEC=") {
			t.Fatalf("heard %q", got)
		}
		pid = f.successor(t)
		if pid == old {
			t.Fatalf("process %d replaced itself by itself", old)
		}
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		for {
			if n, err := unix.Poll(poll, int(patience.Milliseconds())); n == 1 {
				break
			} else if err != unix.EINTR {
				t.Fatalf("process %d does not end: %v", old, err)
			}
		}
		unix.Close(fd)
		if got := get(t, "tcp", addr, "/"); got != strconv.Itoa(pid) {
			t.Errorf("process %s answers, not %d", got, pid)
		}
	}
	f.wantEnd(t, 0)
	over.Store(true)
	clients.Wait()
	if env := get(t, "tcp", addr, "/env"); strings.Contains(env, "TABLEFLIP_") || strings.Contains(env, "HANDOFF_LEGACY") {
		t.Errorf("the environment of the last one:\n%s", env)
	}
	syscall.Kill(pid, syscall.SIGTERM)
	f.wantHeard(t, "STOPPING=1")
}

// SIGINT does not wait for idle connections; a second one waits for nothing.
func TestInterrupt(t *testing.T) {
	for _, path := range []string{"/", "/hang"} {
		fd, addr := bound(t)
		f := begin(t, []uintptr{fd}, "LISTEN_FDS=1", "ADDR=:1")
		f.wantHeard(t, "READY=1")
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
		if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
			t.Fatal(err)
		}
		syscall.Kill(f.pid, syscall.SIGINT)
		f.wantHeard(t, "STOPPING=1")
		if path == "/" {
			began := time.Now()
			f.wantEnd(t, 0)
			if took := time.Since(began); took > defaultDrain/2 {
				t.Errorf("it took %v", took)
			}
			continue
		}
		syscall.Kill(f.pid, syscall.SIGINT)
		select {
		case <-f.done:
		case <-time.After(patience):
			t.Fatal("the child does not end")
		}
		if !f.status.Signaled() || f.status.Signal() != syscall.SIGINT {
			t.Errorf("status %v", f.status)
		}
	}
}

// A new process that fails changes nothing.
func TestUpgradeFails(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "broken")
	path := filepath.Join(t.TempDir(), "s")
	f := begin(t, nil, "NETWORK=unix", "ADDR="+path, "BROKEN="+broken)
	f.wantHeard(t, "READY=1")
	if err := os.WriteFile(broken, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	syscall.Kill(f.pid, syscall.SIGHUP)
	f.hear(t)
	if got := f.hear(t); !strings.HasPrefix(got, "READY=1\nSTATUS=cannot upgrade: ") {
		t.Fatalf("heard %q", got)
	}
	if got := get(t, "unix", path, "/"); got != strconv.Itoa(f.pid) {
		t.Errorf("process %s answers, not %d", got, f.pid)
	}
	// The next one is whole. Its path is the same, and goes with the last.
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	syscall.Kill(f.pid, syscall.SIGHUP)
	f.hear(t)
	pid := f.successor(t)
	f.wantEnd(t, 0)
	if got := get(t, "unix", path, "/"); got != strconv.Itoa(pid) || pid == f.pid {
		t.Errorf("process %s answers, not %d", got, pid)
	}
	syscall.Kill(pid, syscall.SIGTERM)
	f.wantHeard(t, "STOPPING=1")
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the path of the unix socket is still there")
		}
	}
}

// load asks until over, on one connection for as long as it is kept or always
// on new ones. A request that has no answer is an error, also one on a
// connection that was used before.
func load(addr string, kept bool, over *atomic.Bool, answers *atomic.Int64) error {
	var c net.Conn
	var r *bufio.Reader
	for made := 0; !over.Load(); made++ {
		if c == nil {
			var err error
			if c, err = net.Dial("tcp", addr); err != nil {
				return err
			}
			c.SetDeadline(time.Now().Add(patience))
			r = bufio.NewReader(c)
			made = 0
		}
		word := ""
		if !kept {
			word = "Connection: close\r\n"
		}
		_, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\n%s\r\n", word)
		if err != nil {
			return fmt.Errorf("request %d of a connection: %w", made, err)
		}
		a, err := http.ReadResponse(r, nil)
		if err != nil {
			return fmt.Errorf("answer %d of a connection: %w", made, err)
		}
		if _, err := io.Copy(io.Discard, a.Body); err != nil {
			return err
		}
		answers.Add(1)
		if a.Close {
			c.Close()
			c = nil
		}
	}
	if c != nil {
		c.Close()
	}
	return nil
}

func until(t *testing.T, answers *atomic.Int64, n int64) {
	t.Helper()
	for end := time.Now().Add(patience); answers.Load() < n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) || t.Failed() {
			t.Fatalf("%d answers of %d", answers.Load(), n)
		}
	}
}

// A bind that fails says who is there, and what was given instead.
func TestConflict(t *testing.T) {
	fd, addr := bound(t)
	_, port, _ := net.SplitHostPort(addr)
	f := begin(t, []uintptr{fd}, "LISTEN_FDS=1", "ADDR=:1")
	f.wantHeard(t, "READY=1")
	unix.Close(int(fd))
	w := worldOf("LISTEN_FDS=1", "LISTEN_PID=7")
	p := newProcess(*w.environment())
	_, err := p.listen("tcp", ":"+port)
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("got %v", err)
	}
	want := fmt.Sprintf("cannot listen on tcp :%s: address already in use\n\ttcp %s is held by process %d (", port, addr, f.pid)
	for _, part := range []string{want, "LISTEN_FDS=1 was for process 7", "supervise why " + port} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in:\n%v", part, err)
		}
	}
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	self := newProcess(*worldOf().environment())
	self.env.pid = os.Getpid()
	if _, err := self.listen("unix", path); err == nil || !strings.Contains(err.Error(), "this process listens on unix "+path+" itself") {
		t.Errorf("got %v", err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := self.listen("unix", path); err == nil || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("got %v", err)
	}
	if _, err := self.listen("udp", ":1"); err == nil || !strings.Contains(err.Error(), "ListenPacket") {
		t.Errorf("got %v", err)
	}
	if _, err := self.listenPacket("tcp", ":1"); err == nil || !strings.Contains(err.Error(), "is for Listen") {
		t.Errorf("got %v", err)
	}
}

// What is announced and no listener is an error before anything serves.
func TestNoListener(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	f := begin(t, []uintptr{r.Fd()}, "LISTEN_FDS=1", "ADDR=:1")
	f.wantEnd(t, 1)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	f = begin(t, []uintptr{uintptr(fd)}, "LISTEN_FDS=1", "ADDR=:1")
	f.wantEnd(t, 1)
}
