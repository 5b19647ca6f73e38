package servers

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// supervised is a supervise with its server. What happens in it is taken from
// its log, since the answers of most servers do not tell whose they are.
type supervised struct {
	dir   string
	cmd   *exec.Cmd
	ended chan struct{}

	mu   sync.Mutex
	log  []string
	news []entry
	more chan struct{} // closed and replaced with each entry
}

// entry is a line of the log, as far as it matters here.
type entry struct {
	Message    string `json:"@message"`
	Level      string `json:"@level"`
	Generation int    `json:"generation"`
	PID        int    `json:"pid"`
}

// superviseIt starts it, and stops it at the end of the test.
func superviseIt(t *testing.T, p *place, s server, argv []string) *supervised {
	t.Helper()
	sup := &supervised{dir: p.dir, ended: make(chan struct{}), more: make(chan struct{})}
	args := []string{"--log-format", "json", "--log-level", "debug", "--output", filepath.Join(p.dir, "server.log")}
	if s.killSignal != "" {
		args = append(args, "--kill-signal", s.killSignal)
	}
	sup.cmd = exec.Command(built.supervise, append(append(args, "--"), argv...)...)
	out, err := sup.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	// A test that is killed takes its supervise along, and that its server.
	sup.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := built.starter.start(sup.cmd); err != nil {
		t.Fatal(err)
	}
	go func() {
		sup.read(out)
		sup.cmd.Wait()
		close(sup.ended)
	}()
	t.Cleanup(func() { sup.stop(t) })
	sup.await(t, 0, "ready")
	return sup
}

// starter starts commands from a thread that lives as long as the test binary,
// since PR_SET_PDEATHSIG of prctl(2) is about the thread.
type starter chan func()

func newStarter() starter {
	s := make(starter)
	go func() {
		runtime.LockOSThread()
		for f := range s {
			f()
		}
	}()
	return s
}

func (s starter) start(cmd *exec.Cmd) error {
	done := make(chan error)
	s <- func() { done <- cmd.Start() }
	return <-done
}

func (sup *supervised) read(out io.Reader) {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var e entry
		line := lines.Text()
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			e.Message = line
		}
		sup.mu.Lock()
		sup.log = append(sup.log, line)
		sup.news = append(sup.news, e)
		close(sup.more)
		sup.more = make(chan struct{})
		sup.mu.Unlock()
	}
}

func (sup *supervised) lines() []string {
	sup.mu.Lock()
	defer sup.mu.Unlock()
	return slices.Clone(sup.log)
}

// complaints are the distinct warnings and errors, with their number. That a
// generation ended is none, nor that a bound of the gate was met: what was lost
// by that is counted as a failure.
func (sup *supervised) complaints() []string {
	sup.mu.Lock()
	defer sup.mu.Unlock()
	count, first := map[string]int{}, map[string]string{}
	for i, e := range sup.news {
		if (e.Level == "warn" || e.Level == "error") && !strings.HasPrefix(e.Message, "ended") && e.Message != "old generation drained" {
			if count[e.Message]++; count[e.Message] == 1 {
				first[e.Message] = sup.log[i]
			}
		}
	}
	var all []string
	for message, n := range count {
		all = append(all, fmt.Sprintf("%d times: %s", n, first[message]))
	}
	slices.Sort(all)
	return all
}

// now is how many entries there are.
func (sup *supervised) now() int {
	sup.mu.Lock()
	defer sup.mu.Unlock()
	return len(sup.news)
}

// await gives the first entry from a position on that begins with one of the words.
func (sup *supervised) await(t *testing.T, from int, words ...string) entry {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		sup.mu.Lock()
		more := sup.more
		for _, e := range sup.news[from:] {
			for _, w := range words {
				if strings.HasPrefix(e.Message, w) {
					sup.mu.Unlock()
					return e
				}
			}
		}
		sup.mu.Unlock()
		select {
		case <-more:
		case <-sup.ended:
			t.Fatalf("supervise has ended\n%s", sup.words())
		case <-deadline.C:
			t.Fatalf("no word of %q within %v\n%s", words, patience, sup.words())
		}
	}
}

// words are the ends of both logs.
func (sup *supervised) words() string {
	lines := sup.lines()
	server, _ := os.ReadFile(filepath.Join(sup.dir, "server.log"))
	return strings.Join(lines[max(0, len(lines)-60):], "\n") + "\nthe server's own words:\n" + string(server[max(0, len(server)-4000):])
}

func (sup *supervised) alive() error {
	select {
	case <-sup.ended:
		return errors.New("supervise has ended\n" + sup.words())
	default:
		return nil
	}
}

// rollOut has the server replaced, and waits until the old one is gone.
func (sup *supervised) rollOut(t *testing.T) {
	t.Helper()
	from := sup.now()
	if err := sup.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if e := sup.await(t, from, "rollout done", "rollout failed"); e.Message != "rollout done" {
		t.Fatalf("%s\n%s", e.Message, sup.words())
	}
}

// crash kills the main process, and waits until the next generation is ready.
func (sup *supervised) crash(t *testing.T, port int) death {
	t.Helper()
	sup.mu.Lock()
	pid := 0
	for _, e := range sup.news {
		if e.Message == "ready" || e.Message == "candidate ready" {
			pid = e.PID
		}
	}
	sup.mu.Unlock()
	from := sup.now()
	d, err := kill(sup.cmd.Process.Pid, pid, port)
	if err != nil {
		t.Fatalf("%v\n%s", err, sup.words())
	}
	sup.await(t, from, "ready")
	return d
}

// stop ends it, and the server with it.
func (sup *supervised) stop(t *testing.T) {
	t.Helper()
	if sup.alive() != nil {
		return
	}
	sup.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-sup.ended:
	case <-time.After(patience):
		sup.cmd.Process.Kill()
		<-sup.ended
		t.Errorf("supervise did not end within %v\n%s", patience, sup.words())
	}
}
