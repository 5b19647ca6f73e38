// Package examples has the tests of the examples that use package handoff: as
// their users start them, under the supervisor and without.
package examples

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/cmd/storm/load"
)

const patience = time.Minute

// bin is where everything is built, once.
var bin string

func TestMain(m *testing.M) {
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	var err error
	if bin, err = os.MkdirTemp("", "examples-test-"); err != nil {
		panic(err)
	}
	defer os.RemoveAll(bin)
	build := exec.Command("go", "build", "-o", bin, "../cmd/supervise", "./hello", "./plain", "./http2", "./stream", "./udp")
	if out, err := build.CombinedOutput(); err != nil {
		panic(string(out))
	}
	return m.Run()
}

// running is a command and what it says.
type running struct {
	cmd   *exec.Cmd
	lines chan string
	done  chan struct{}
	err   error
}

// start runs a program of bin; env is added to the environment.
func start(t *testing.T, env []string, argv ...string) *running {
	t.Helper()
	for i, arg := range argv {
		if rest, ok := strings.CutPrefix(arg, "bin/"); ok {
			argv[i] = filepath.Join(bin, rest)
		}
	}
	if strings.HasSuffix(argv[0], "/supervise") && controls() {
		argv = slices.Insert(argv, 1, "--control", filepath.Join(t.TempDir(), "control")) // not that of a real one
	}
	r := &running{cmd: exec.Command(argv[0], argv[1:]...), lines: make(chan string, 10000), done: make(chan struct{})}
	r.cmd.Env = append(os.Environ(), env...)
	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.cmd.Stdout, r.cmd.Stderr = w, w
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	go func() {
		defer out.Close()
		s := bufio.NewScanner(out)
		for s.Scan() {
			r.lines <- s.Text()
		}
	}()
	go func() {
		r.err = r.cmd.Wait()
		close(r.done)
	}()
	t.Cleanup(func() {
		select {
		case <-r.done:
			return
		default:
		}
		r.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-r.done:
		case <-time.After(patience):
			r.cmd.Process.Kill()
			<-r.done
		}
	})
	return r
}

var controls = sync.OnceValue(func() bool {
	help, _ := exec.Command(filepath.Join(bin, "supervise"), "--help").Output()
	return strings.Contains(string(help), "--control ")
})

// await reads lines until one has the word, and gives them all.
func (r *running) await(t *testing.T, word string) []string {
	t.Helper()
	var all []string
	timeout := time.After(patience)
	for {
		select {
		case line := <-r.lines:
			all = append(all, line)
			if strings.Contains(line, word) {
				return all
			}
		case <-timeout:
			t.Fatalf("no %q in:\n%s", word, strings.Join(all, "\n"))
			return nil
		}
	}
}

// rollout waits for the end of one.
func (r *running) rollout(t *testing.T) {
	t.Helper()
	if err := r.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	r.await(t, "rollout done")
}

func freePort(t *testing.T, network string) string {
	t.Helper()
	if network == "udp" {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.LocalAddr().String()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Connections that are kept lose nothing in rollouts, with the library; the plain
// server beside it loses some, or else this would prove nothing.
func TestKept(t *testing.T) {
	for _, test := range []struct {
		name, server string
		protocol     load.Protocol
		lossless     bool
	}{
		{"hello", "bin/hello", load.HTTP, true},
		{"http2", "bin/http2", load.HTTP2, true},
		{"plain, the control", "bin/plain", load.HTTP, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			addr := freePort(t, "tcp")
			s := start(t, nil, "bin/supervise", "--listen", addr, "--", test.server)
			s.await(t, "ready: ")
			l, err := load.Start(load.Options{Addrs: []string{addr}, KeepAlive: true, Protocol: test.protocol, Workers: 4})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Stop()
			for i := range 5 {
				before := l.OK() + l.Failed()
				if err := l.WaitTotal(t.Context(), before+500); err != nil {
					t.Fatal(err)
				}
				l.Mark(fmt.Sprintf("rollout %d", i+1))
				s.rollout(t)
			}
			r := l.Stop()
			if r.Reused < r.Total()*9/10 || len(r.Answered) < 5 {
				t.Errorf("%d of %d requests on used connections, by %d processes", r.Reused, r.Total(), len(r.Answered))
			}
			t.Logf("%d lost of %d, %d moved", r.Failed(), r.Total(), r.Moved)
			if lossless := r.Failed() == 0; lossless != test.lossless {
				t.Errorf("%d lost: %+v", r.Failed(), r.Failures)
			}
		})
	}
}

// Without a supervisor hello replaces itself.
func TestHelloAlone(t *testing.T) {
	addr := freePort(t, "tcp")
	s := start(t, nil, "bin/hello", "-addr", addr)
	l, err := load.Start(load.Options{Addrs: []string{addr}, KeepAlive: true, Workers: 1, Rate: 1000})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Stop()
	first, err := l.WaitPid(t.Context(), func(pid int) bool { return pid == s.cmd.Process.Pid })
	if err != nil {
		t.Fatal(err)
	}
	refused := l.Failed() // before it listened
	s.cmd.Process.Signal(syscall.SIGHUP)
	next, err := l.WaitPid(t.Context(), func(pid int) bool { return pid != first })
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.done:
	case <-time.After(patience):
		t.Fatal("the old process does not end")
	}
	if s.err != nil {
		t.Error(s.err)
	}
	r := l.Stop()
	if r.Failed() != refused {
		t.Errorf("lost %d: %+v", r.Failed()-refused, r.Failures)
	}
	// It descends from the one that was started here, and answers on the port.
	pidfd, err := unix.PidfdOpen(next, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	if err := unix.PidfdSendSignal(pidfd, unix.SIGTERM, nil, 0); err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(patience.Milliseconds())); n != 1 {
		t.Errorf("the new process does not end: %v", err)
	}
}

// A stream of events ends after a whole event, and goes on where it was; the
// WebSocket says goodbye with 1012 and answers what was sent before.
func TestStream(t *testing.T) {
	addr := freePort(t, "tcp")
	s := start(t, nil, "bin/supervise", "--listen", addr, "--", "bin/stream", "-interval", "10ms")
	s.await(t, "ready: ")

	events, err := http.Get("http://" + addr + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer events.Body.Close()
	lines := bufio.NewReader(events.Body)
	first, err := lines.ReadString('\n')
	if err != nil || first != "id: 1\n" {
		t.Fatalf("%q, %v", first, err)
	}

	ws, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	ws.SetDeadline(time.Now().Add(patience))
	// The key and the answer are those of RFC 6455, 1.3.
	fmt.Fprint(ws, "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	in := bufio.NewReader(ws)
	answer, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := answer.Header.Get("Sec-WebSocket-Accept"); answer.StatusCode != 101 || got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("%v", answer)
	}
	frame := make([]byte, 4)
	fmt.Fprint(ws, "\x81\x82\x00\x00\x00\x00hi")
	if _, err := io.ReadFull(in, frame); err != nil || string(frame) != "\x81\x02hi" {
		t.Fatalf("%q, %v", frame, err)
	}

	old := make(chan string, 1)
	go func() {
		rest, err := io.ReadAll(lines)
		if err != nil {
			old <- "broken: " + err.Error()
		}
		old <- string(rest)
	}()
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(in, frame); err != nil || string(frame) != "\x88\x02\x03\xf4" {
		t.Fatalf("%q, %v; want the goodbye 1012", frame, err)
	}
	fmt.Fprint(ws, "\x81\x82\x00\x00\x00\x00yo\x88\x82\x00\x00\x00\x00\x03\xf4")
	if _, err := io.ReadFull(in, frame); err != nil || string(frame) != "\x81\x02yo" {
		t.Fatalf("%q, %v", frame, err)
	}
	if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("after the goodbye: %v", err)
	}
	s.await(t, "rollout done")
	rest := <-old
	if !strings.HasSuffix(rest, "\n\nretry: 10\n\n") {
		t.Errorf("the stream ends in the midst of something: %.100q", rest)
	}
	again, err := http.NewRequest("GET", "http://"+addr+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	again.Header.Set("Last-Event-ID", "41")
	more, err := http.DefaultClient.Do(again)
	if err != nil {
		t.Fatal(err)
	}
	defer more.Body.Close()
	if line, err := bufio.NewReader(more.Body).ReadString('\n'); err != nil || line != "id: 42\n" {
		t.Errorf("%q, %v", line, err)
	}
}

// A client that neither uses its connection nor closes it has it for most of
// TimeoutStopSec; then the process ends by itself, before SIGKILL.
func TestIdleClient(t *testing.T) {
	addr := freePort(t, "tcp")
	s := start(t, nil, "bin/supervise", "--timeout-stop", "5s", "--listen", addr, "--", "bin/hello")
	s.await(t, "ready: ")
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	in := bufio.NewReader(c)
	answer, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, answer.Body); err != nil || answer.Close {
		t.Fatalf("%v, close %v", err, answer.Close)
	}
	s.cmd.Process.Signal(syscall.SIGHUP)
	told := s.await(t, "old generation drained")
	at := time.Now()
	if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("read %v", err)
	}
	if kept := time.Since(at); kept < time.Second {
		t.Errorf("the idle connection was kept for %v", kept)
	}
	told = append(told, s.await(t, "rollout done")...)
	for _, line := range told {
		if strings.Contains(line, "SIGKILL") || strings.Contains(line, "[WARN]") || strings.Contains(line, "[ERROR]") {
			t.Error(line)
		}
	}
}

func TestUDP(t *testing.T) {
	addr := freePort(t, "udp")
	s := start(t, nil, "bin/supervise", "--listen", "udp://"+addr, "--", "bin/udp")
	s.await(t, "ready: ")
	l, err := load.Start(load.Options{Network: "udp", Addrs: []string{addr}, Workers: 2, Timeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Stop()
	for i := range 3 {
		if err := l.WaitTotal(t.Context(), int64(i+1)*200); err != nil {
			t.Fatal(err)
		}
		s.rollout(t)
	}
	if r := l.Stop(); r.Failed() != 0 {
		t.Errorf("%d lost of %d: %+v", r.Failed(), r.Total(), r.Failures)
	}
}
