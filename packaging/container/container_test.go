package container

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/cmd/storm/load"
)

const (
	patience = time.Minute
	memory   = 64 << 20
)

// built has the static programs that the containers run.
var built = make(map[string]string)

// Roles of the test binary.
const (
	stormEnv = "CONTAINER_TEST_STORM" // load an address until standard input ends
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(engineEnv) != "":
		enter()
	case os.Getenv(stormEnv) != "":
		storm(os.Getenv(stormEnv))
	default:
		os.Exit(run(m))
	}
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "container")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command("go", "build", "-o", dir+"/", "./cmd/supervise", "./examples/hello", "./examples/plain", "./examples/oldbind", "./packaging/container/litter")
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	if err := os.Chmod(dir, 0o755); err != nil { // the users of the containers read them
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for _, name := range []string{"supervise", "hello", "plain", "oldbind", "litter"} {
		built[name] = filepath.Join(dir, name)
	}
	return m.Run()
}

// storm loads addr with new connections until standard input ends, printing
// a number whenever another process answers, and at last the result.
func storm(addr string) {
	l, err := load.Start(load.Options{Addrs: []string{addr}, Workers: 4, Rate: 500, Timeout: patience})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	over := make(chan struct{})
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); close(over) }()
	last := 0
	for tick := time.NewTicker(2 * time.Millisecond); ; {
		select {
		case <-over:
			r := l.Stop()
			text, _ := json.Marshal(r)
			fmt.Printf("%s\n", text)
			os.Exit(0)
		case <-tick.C:
			if pid := l.LastPid(); pid != last {
				last = pid
				fmt.Println(pid)
			}
		}
	}
}

// loaded is a storm in the network of a container.
type loaded struct {
	c     *container
	cmd   *exec.Cmd
	stdin io.Closer
	lines chan string
}

func (c *container) storm(addr string) *loaded {
	c.t.Helper()
	l := &loaded{c: c, cmd: c.inside(stormEnv + "=" + addr), lines: make(chan string, 1000)}
	var err error
	if l.stdin, err = l.cmd.StdinPipe(); err != nil {
		c.t.Fatal(err)
	}
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := l.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	go func() {
		defer close(l.lines)
		s := bufio.NewScanner(out)
		s.Buffer(nil, 1<<24)
		for s.Scan() {
			l.lines <- s.Text()
		}
	}()
	c.t.Cleanup(func() { _ = l.cmd.Process.Kill(); _ = l.cmd.Wait() })
	return l
}

// other waits until another process than before answers.
func (l *loaded) other() {
	l.c.t.Helper()
	select {
	case line, ok := <-l.lines:
		if _, err := strconv.Atoi(line); !ok || err != nil {
			l.c.t.Fatalf("the load says %q", line)
		}
	case <-time.After(patience):
		l.c.t.Fatal("no other process answers")
	}
}

// end stops the load.
func (l *loaded) end() load.Result {
	l.c.t.Helper()
	l.stdin.Close()
	var last string
	for line := range l.lines {
		last = line
	}
	var r load.Result
	if err := json.Unmarshal([]byte(last), &r); err != nil {
		l.c.t.Fatalf("the load says %q: %v", last, err)
	}
	l.c.t.Logf("%d answers, %d failures", r.OK, len(r.Failures))
	return r
}

// words is what a container says.
type words struct {
	mu   sync.Mutex
	text strings.Builder
	news chan struct{}
}

func newWords() *words { return &words{news: make(chan struct{}, 1)} }

func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text.Write(p)
	select {
	case w.news <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

func (w *words) within(t *testing.T, what string, ok func(text string) bool) {
	t.Helper()
	end := time.After(patience)
	for !ok(w.String()) {
		select {
		case <-w.news:
		case <-time.After(10 * time.Millisecond):
		case <-end:
			t.Fatalf("waited in vain for %s; the log:\n%s", what, w)
		}
	}
}

// await waits until it was said n times.
func (c *container) await(said string, n int) {
	c.t.Helper()
	c.log.within(c.t, fmt.Sprintf("%d times %q", n, said), func(text string) bool {
		select {
		case <-c.dead:
			if text = c.log.String(); strings.Count(text, said) < n {
				c.t.Fatalf("the container ended and did not say %q", said)
			}
		default:
		}
		return strings.Count(text, said) >= n
	})
}

func (c *container) signal(sig syscall.Signal) {
	c.t.Helper()
	if err := unix.Kill(c.pid, sig); err != nil {
		c.t.Fatal(err)
	}
}

// boxes are the kinds of container that people run.
var boxes = []struct {
	name string
	box  box
}{
	{"root without capabilities", box{}},
	{"a user", box{UID: 1000}},
}

// Rollouts under load, a crash, and a stop, as PID 1 of a container that gives
// nothing, in 64 MB.
func TestServerThatKnowsListenFDs(t *testing.T) {
	for _, b := range boxes {
		t.Run(b.name, func(t *testing.T) {
			b.box.Files = []string{built["supervise"], built["plain"]}
			b.box.Command = []string{"supervise", "--listen", "127.0.0.1:8080", "--", "/bin/plain"}
			c := b.box.start(t, memory)
			c.await(" ready: ", 1)
			l := c.storm("127.0.0.1:8080")
			l.other()
			for i := range 5 {
				c.signal(unix.SIGHUP)
				l.other()
				c.await("rollout done", i+1)
			}
			if r := l.end(); len(r.Failures) > 0 || r.OK == 0 {
				t.Errorf("%d answers, %d failures, the first: %v", r.OK, len(r.Failures), r.Failures[0])
			}
			// A crash: another answers, nothing is refused.
			l = c.storm("127.0.0.1:8080")
			l.other()
			for _, pid := range c.processes() {
				if pid != c.pid {
					if err := unix.Kill(pid, unix.SIGKILL); err != nil {
						t.Fatal(err)
					}
				}
			}
			l.other()
			if r := l.end(); r.Refused > 0 || r.Timeout > 0 {
				t.Errorf("after a crash %d connections were refused, %d had no answer", r.Refused, r.Timeout)
			}
			c.signal(unix.SIGTERM)
			if status := c.wait(); status != 0 {
				t.Errorf("exit status %d", status)
			}
		})
	}
}

// What the Containerfile says runs as its user.
func TestImage(t *testing.T) {
	text, err := os.ReadFile("Containerfile")
	if err != nil {
		t.Fatal(err)
	}
	b := box{Files: []string{built["supervise"], built["hello"]}}
	var entry, cmd []string
	for line := range strings.Lines(string(text)) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch word {
		case "ENTRYPOINT":
			err = json.Unmarshal([]byte(rest), &entry)
		case "CMD":
			err = json.Unmarshal([]byte(rest), &cmd)
		case "USER":
			uid, _, _ := strings.Cut(rest, ":")
			b.UID, err = strconv.Atoi(uid)
		}
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	b.Command = append(entry, cmd...)
	c := b.start(t, memory)
	c.await(" ready: ", 1)
	l := c.storm("127.0.0.1:8080")
	l.other()
	c.signal(unix.SIGHUP)
	l.other()
	c.await("rollout done", 1)
	if r := l.end(); len(r.Failures) > 0 {
		t.Errorf("%d failures, the first: %v", len(r.Failures), &r.Failures[0])
	}
	c.signal(unix.SIGTERM)
	if status := c.wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// A server that binds by itself: with CAP_SYS_PTRACE it loses nothing; with
// the profile's denial of pidfd_getfd(2) it has a plain restart, and the log
// says why and what to do.
func TestServerThatBinds(t *testing.T) {
	ptrace := []uintptr{unix.CAP_SYS_PTRACE}
	for _, c := range []struct {
		name     string
		box      box
		lossless bool
	}{
		{"root without capabilities", box{}, false},
		{"root with CAP_SYS_PTRACE", box{Caps: ptrace, Trace: true}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := c.box
			b.Files = []string{built["supervise"], built["oldbind"]}
			b.Command = []string{"supervise", "--", "/bin/oldbind", "-addr", "127.0.0.1:8080"}
			k := b.start(t, memory)
			k.await(" ready: ", 1)
			l := k.storm("127.0.0.1:8080")
			l.other()
			for range 3 {
				k.signal(unix.SIGHUP)
				l.other()
			}
			r := l.end()
			if c.lossless && len(r.Failures) > 0 {
				t.Errorf("%d of %d failed, the first: %v", len(r.Failures), r.OK, &r.Failures[0])
			}
			if !c.lossless {
				if !strings.Contains(k.log.String(), "SYS_PTRACE") {
					t.Error("the log does not say what is missing")
				}
			}
			k.signal(unix.SIGTERM)
			if status := k.wait(); status != 0 {
				t.Errorf("exit status %d", status)
			}
		})
	}
}

// Orphans are reaped by PID 1, and a stop ends those that do not want to.
func TestOrphans(t *testing.T) {
	b := box{
		Files:   []string{built["supervise"], built["litter"]},
		Command: []string{"supervise", "--timeout-stop", "1s", "--ready", "delay:1ms", "--", "/bin/litter"},
	}
	c := b.start(t, memory)
	c.await("littered", 1)
	c.log.within(t, "zombies to be reaped", func(string) bool { return c.zombies() == 0 && len(c.processes()) >= 4 })
	c.signal(unix.SIGTERM)
	if status := c.wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// PID 1 takes the status of its service as its own.
func TestExitStatus(t *testing.T) {
	b := box{
		Files:   []string{built["supervise"], built["plain"]},
		Command: []string{"supervise", "--restart", "no", "--listen", "127.0.0.1:8080", "--", "/bin/plain", "-fail-bind"},
	}
	if status := b.start(t, memory).wait(); status != 75 && status != 1 {
		t.Errorf("exit status %d", status)
	}
	b.Command = []string{"supervise", "--", "/bin/no-such-program"}
	if status := b.start(t, memory).wait(); status != 127 {
		t.Errorf("exit status %d", status)
	}
}

// doctor says what such a container lacks.
func TestDoctor(t *testing.T) {
	b := box{Files: []string{built["supervise"]}, Command: []string{"supervise", "doctor"}}
	c := b.start(t, memory)
	if status := c.wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	text := c.log.String()
	for _, want := range []string{"NO   cgroup writable", "NO   pidfd_getfd", "SYS_PTRACE", "yes  pid 1"} {
		if !strings.Contains(strings.Join(strings.Fields(text), " "), strings.Join(strings.Fields(want), " ")) {
			t.Errorf("doctor does not say %q:\n%s", want, text)
		}
	}
}
