package main

// What the service manager above us is told: the test is systemd, with a
// notify socket of its own.

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// running is a supervise that was started for a test.
type running struct {
	t    testing.TB
	cmd  *exec.Cmd
	over chan struct{} // closed when it has ended
	mu   sync.Mutex
	more *sync.Cond
	log  []byte
	seen int
}

// startSupervise starts argv with more environment; stderr is the log. It is
// stopped when the test ends.
func startSupervise(t testing.TB, env []string, argv ...string) *running {
	t.Helper()
	r := &running{t: t, over: make(chan struct{})}
	r.more = sync.NewCond(&r.mu)
	r.cmd = exec.Command(argv[0], argv[1:]...)
	r.cmd.Env = append(append(quiet(), "SUPERVISE_RUNTIME_DIR="+t.TempDir()), env...)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.cmd.Stderr, r.cmd.Stdout = write, write
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	write.Close()
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		buf := make([]byte, 4096)
		for {
			n, err := read.Read(buf)
			r.mu.Lock()
			r.log = append(r.log, buf[:n]...)
			r.more.Broadcast()
			r.mu.Unlock()
			if err != nil {
				read.Close()
				return
			}
		}
	}()
	go func() {
		r.cmd.Wait()
		select { // its last words; but what it left behind may have the pipe
		case <-heard:
		case <-time.After(longest):
		}
		close(r.over)
	}()
	t.Cleanup(func() {
		r.signal(unix.SIGTERM)
		r.signal(unix.SIGCONT)
		select {
		case <-r.over:
		case <-time.After(longest):
			r.cmd.Process.Kill()
			<-r.over
			t.Errorf("supervise did not end; its log:\n%s", r.text())
		}
	})
	return r
}

func (r *running) pid() int { return r.cmd.Process.Pid }

// signal does nothing when it has ended.
func (r *running) signal(sig unix.Signal) { r.cmd.Process.Signal(sig) }

func (r *running) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return string(r.log)
}

// await waits for a match in the log after the last one.
func (r *running) await(pattern string) []string {
	r.t.Helper()
	re := regexp.MustCompile(pattern)
	late := false
	timer := time.AfterFunc(longest, func() {
		r.mu.Lock()
		late = true
		r.more.Broadcast()
		r.mu.Unlock()
	})
	defer timer.Stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		if at := re.FindSubmatchIndex(r.log[r.seen:]); at != nil {
			var groups []string
			for _, g := range re.FindSubmatch(r.log[r.seen:]) {
				groups = append(groups, string(g))
			}
			r.seen += at[1]
			return groups
		}
		if late {
			r.t.Fatalf("%q did not come; the log:\n%s", pattern, r.log)
		}
		r.more.Wait()
	}
}

// wait waits for the end and returns the exit status, 128+N after a signal.
func (r *running) wait() int {
	r.t.Helper()
	select {
	case <-r.over:
	case <-time.After(longest):
		r.t.Fatalf("supervise does not end; its log:\n%s", r.text())
	}
	status := r.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

// systemd is the notify socket of a service manager.
type systemd struct {
	t      *testing.T
	socket *net.UnixConn
	path   string
}

func newManager(t *testing.T) *systemd {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	return &systemd{t, socket, path}
}

func (m *systemd) env(more ...string) []string { return append(more, "NOTIFY_SOCKET="+m.path) }

// next is the next message, "" if none comes within d.
func (m *systemd) next(d time.Duration) string {
	m.t.Helper()
	buf := make([]byte, 8192)
	m.socket.SetReadDeadline(time.Now().Add(d))
	n, err := m.socket.Read(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ""
	}
	if err != nil {
		m.t.Fatal(err)
	}
	return string(buf[:n])
}

// expect takes messages until one begins with want; none of those before it
// may begin with one of never.
func (m *systemd) expect(want string, never ...string) string {
	m.t.Helper()
	for {
		got := m.next(longest)
		if got == "" {
			m.t.Fatalf("the manager was not told %q", want)
		}
		if strings.HasPrefix(got, want) {
			return got
		}
		for _, n := range never {
			if strings.HasPrefix(got, n) {
				m.t.Fatalf("the manager was told %q before %q", got, want)
			}
		}
	}
}

// gate is a fifo: the notify player says READY=1 when it is opened.
type gate string

func newGate(t *testing.T) gate {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gate")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return gate(path)
}

// open waits for one who waits, and lets it through.
func (g gate) open(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile(string(g), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// playNotify is a service: once GATE is opened it says READY=1, unless FAIL exists.
func playNotify(args []string) int {
	gate, fail := args[0], args[1]
	f, err := os.Open(gate)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	io.ReadAll(f)
	f.Close()
	if _, err := os.Stat(fail); err == nil {
		return 7
	}
	c, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Fprint(c, "READY=1\nSTATUS=serving")
	select {}
}

// managed starts the service under the manager.
func managed(t *testing.T, m *systemd, g gate, env []string, flags ...string) (r *running, fail string) {
	t.Helper()
	fail = filepath.Join(t.TempDir(), "fail")
	argv := append([]string{superviseLink(t), "--name", "svc", "--type", "notify"}, flags...)
	return startSupervise(t, m.env(env...), append(argv, "--", self(t), play+"notify", string(g), fail)...), fail
}

func monotonic(t *testing.T) int64 {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	return now.Nano() / 1000
}

func TestManagerIsTold(t *testing.T) {
	t.Parallel()
	m, g := newManager(t), newGate(t)
	r, fail := managed(t, m, g, nil)
	others := []string{"READY=1", "RELOADING=1", "STOPPING=1"}

	r.await(`started`)
	g.open(t)
	pid := r.await(` ready: .*pid=(\d+)`)[1]
	if got := m.expect("READY=1", others...); !strings.Contains(got, "STATUS=generation 1 up, pid "+pid+": serving") {
		t.Errorf("%q does not tell the generation, its pid and its own status", got)
	}

	before := monotonic(t)
	r.signal(unix.SIGHUP)
	got := m.expect("RELOADING=1", others...)
	after := monotonic(t)
	fields := regexp.MustCompile(`^RELOADING=1\nMONOTONIC_USEC=(\d+)\nSTATUS=rollout: generation 1 serves, generation 2 is on its way$`).FindStringSubmatch(got)
	if fields == nil {
		t.Fatalf("told %q", got)
	}
	if at, _ := strconv.ParseInt(fields[1], 10, 64); at < before || at > after {
		t.Errorf("MONOTONIC_USEC=%d, which is not between %d and %d", at, before, after)
	}
	m.expect("EXTEND_TIMEOUT_USEC=", others...)
	g.open(t)
	m.expect("READY=1\nSTATUS=generation 2 up, pid ", others...)
	r.await(`rollout done`)

	if err := os.WriteFile(fail, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r.signal(unix.SIGHUP)
	m.expect("RELOADING=1\nMONOTONIC_USEC=", others...)
	g.open(t)
	m.expect("READY=1\nSTATUS=rollout failed, generation 2 up, pid ", others...)

	r.signal(unix.SIGTERM)
	m.expect("STOPPING=1\nSTATUS=stopping", others...)
	m.expect("EXTEND_TIMEOUT_USEC=", others...)
	if status := r.wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// What fails before it was ever ready must not be announced.
func TestManagerIsNotToldReady(t *testing.T) {
	t.Parallel()
	m, g := newManager(t), newGate(t)
	r, fail := managed(t, m, g, nil, "--restart", "no")
	if err := os.WriteFile(fail, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	g.open(t)
	if status := r.wait(); status != 7 {
		t.Errorf("exit status %d", status)
	}
	m.expect("STOPPING=1", "READY=1")
}

func TestManagerWatchdog(t *testing.T) {
	t.Parallel()
	m, g := newManager(t), newGate(t)
	const every = 100 * time.Millisecond
	r, _ := managed(t, m, g, []string{fmt.Sprintf("WATCHDOG_USEC=%d", every.Microseconds())})
	for range 3 { // before readiness, too
		m.expect("WATCHDOG=1")
	}
	g.open(t)
	m.expect("READY=1")
	last, short := time.Now(), 0
	for range 20 {
		m.expect("WATCHDOG=1")
		if time.Since(last) <= every {
			short++ // counted, for a busy machine may be late once and again
		}
		last = time.Now()
	}
	if short < 10 {
		t.Errorf("only %d of 20 pings came within the interval", short)
	}

	r.signal(unix.SIGSTOP)
	m.expectSilence(every)
	r.signal(unix.SIGCONT)
	m.expect("WATCHDOG=1")
}

// expectSilence waits until five intervals pass without a ping.
func (m *systemd) expectSilence(every time.Duration) {
	m.t.Helper()
	for end := time.Now().Add(longest); m.next(5*every) != ""; {
		if time.Now().After(end) {
			m.t.Fatal("the pings go on")
		}
	}
}

// A loop that hangs does not ping, though all other threads run: a debugger
// stops that one thread.
func TestManagerWatchdogOfALoopThatHangs(t *testing.T) {
	t.Parallel()
	m, g := newManager(t), newGate(t)
	const every = 100 * time.Millisecond
	r, _ := managed(t, m, g, []string{fmt.Sprintf("WATCHDOG_USEC=%d", every.Microseconds())})
	g.open(t)
	m.expect("READY=1")
	m.expect("WATCHDOG=1")
	runtime.LockOSThread() // ptrace(2) is between threads
	defer runtime.UnlockOSThread()
	tid := loopThread(t, r.cmd.Process.Pid)
	if err := unix.PtraceSeize(tid); err != nil {
		t.Skip("no debugger is permitted here:", err)
	}
	if err := unix.PtraceInterrupt(tid); err != nil {
		t.Fatal(err)
	}
	m.expectSilence(every)
	if err := unix.PtraceDetach(tid); err != nil {
		t.Fatal(err)
	}
	m.expect("WATCHDOG=1")
	// Whoever waited for it took the stop for its end: wait(2) tells a debugger of
	// those whatever it asked for.
	_ = unix.Kill(r.pid(), unix.SIGTERM)
	m.expect("STOPPING=1")
	<-r.over
	_, _ = unix.Wait4(r.pid(), nil, 0, nil)
}

// loopThread finds the thread that waits as the loop does: for up to 64 events.
// The runtime's own waits for 128.
func loopThread(t *testing.T, pid int) int {
	t.Helper()
	epollCalls := fmt.Sprintf(" %d ", unix.SYS_EPOLL_PWAIT)
	if runtime.GOARCH == "amd64" {
		epollCalls += "232 " // epoll_wait(2), which newer architectures do not have
	}
	for end := time.Now().Add(longest); time.Now().Before(end); time.Sleep(time.Millisecond) {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", pid))
		for _, f := range files {
			text, _ := os.ReadFile(f)
			words := strings.Fields(string(text))
			if len(words) > 4 && strings.Contains(epollCalls, " "+words[0]+" ") && words[3] == "0x40" {
				tid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
				return tid
			}
		}
	}
	t.Fatal("the loop's thread is not to be found")
	return 0
}

// A watchdog that is meant for another process is not fed.
func TestManagerWatchdogOfAnother(t *testing.T) {
	t.Parallel()
	m, g := newManager(t), newGate(t)
	r, _ := managed(t, m, g, []string{"WATCHDOG_USEC=10000", "WATCHDOG_PID=1"})
	g.open(t)
	m.expect("READY=1", "WATCHDOG=1")
	r.signal(unix.SIGHUP)
	g.open(t)
	m.expect("READY=1", "WATCHDOG=1")
	m.expectSilence(20 * time.Millisecond)
	r.signal(unix.SIGTERM)
	m.expect("STOPPING=1", "WATCHDOG=1")
}

// A manager that does not read holds nobody up; what it missed is told later.
func TestManagerThatDoesNotRead(t *testing.T) {
	t.Parallel()
	m, g := newManager(t), newGate(t)
	fill, err := net.Dial("unixgram", m.path)
	if err != nil {
		t.Fatal(err)
	}
	fill.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	for err == nil {
		_, err = fill.Write(bytes.Repeat([]byte("x"), 64))
	}
	r, _ := managed(t, m, g, []string{"WATCHDOG_USEC=100000"})
	g.open(t)
	r.await(` ready: `)
	r.signal(unix.SIGHUP)
	g.open(t)
	r.await(`rollout done`)
	m.expect("READY=1\nSTATUS=generation 2 up")
	m.expect("WATCHDOG=1")
	r.signal(unix.SIGTERM)
	if status := r.wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// A service that asks for more time is given it, and the manager hears of it.
func TestManagerHearsOfExtendedTimeouts(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	r := startSupervise(t, m.env(), superviseLink(t), "--name", "svc", "--type", "notify", "--timeout-start", "20s", "--",
		self(t), play+"extend")
	m.expect("EXTEND_TIMEOUT_USEC=77000000", "READY=1")
	m.expect("READY=1")
	_ = r
}

// playExtend asks for 77 s, and is then ready.
func playExtend([]string) int {
	c, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		return 1
	}
	fmt.Fprint(c, "EXTEND_TIMEOUT_USEC=77000000")
	fmt.Fprint(c, "READY=1")
	select {}
}
