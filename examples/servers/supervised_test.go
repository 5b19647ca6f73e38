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
	How        string `json:"how"`
	By         string `json:"by"`

	read time.Time
}

// superviseIt starts it, and stops it at the end of the test.
func superviseIt(t *testing.T, p *place) *supervised {
	t.Helper()
	sup := &supervised{dir: p.dir, ended: make(chan struct{}), more: make(chan struct{})}
	args := []string{"--log-format", "json", "--log-level", "debug", "--output", filepath.Join(p.dir, "server.log"), "--control", sup.control()}
	args = slices.Concat(args, p.command.flags, []string{"--"}, p.command.argv)
	sup.cmd = exec.Command(built.supervise, args...)
	sup.cmd.Dir, sup.cmd.Env = p.dir, p.command.env
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
		e := entry{read: time.Now()}
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

// stopAndStart is said of a server that must be alone.
const stopAndStart = "the command listens on what cannot be handed over"

// complaints are the distinct warnings and errors, with their number. That a
// generation ended is none, nor that a bound of the gate was met: what was lost
// by that is counted as a failure.
func (sup *supervised) complaints(alone bool) []string {
	sup.mu.Lock()
	defer sup.mu.Unlock()
	count, first := map[string]int{}, map[string]string{}
	for i, e := range sup.news {
		if (e.Level == "warn" || e.Level == "error") && !strings.HasPrefix(e.Message, "ended") && e.Message != "old generation drained" && !(alone && strings.HasPrefix(e.Message, stopAndStart)) {
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

// bad are the words with which nothing good comes any more.
var bad = []string{"failed to start", "rollout failed", "stopped"}

// await gives the first entry from a position on that begins with the word.
func (sup *supervised) await(t *testing.T, from int, word string) entry {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		sup.mu.Lock()
		more := sup.more
		for _, e := range sup.news[from:] {
			if strings.HasPrefix(e.Message, word) {
				sup.mu.Unlock()
				return e
			}
			for _, w := range bad {
				if strings.HasPrefix(e.Message, w) {
					sup.mu.Unlock()
					t.Fatalf("%s\n%s", e.Message, sup.words())
				}
			}
		}
		sup.mu.Unlock()
		select {
		case <-more:
		case <-sup.ended:
			t.Fatalf("supervise has ended\n%s", sup.words())
		case <-deadline.C:
			t.Fatalf("no word of %q within %v\n%s", word, patience, sup.words())
		}
	}
}

// said reports whether a message begins so.
func (sup *supervised) said(words string) bool {
	sup.mu.Lock()
	defer sup.mu.Unlock()
	return slices.ContainsFunc(sup.news, func(e entry) bool { return strings.HasPrefix(e.Message, words) })
}

// how says how the generations were found ready.
func (sup *supervised) how() string {
	sup.mu.Lock()
	defer sup.mu.Unlock()
	var ways []string
	for _, e := range sup.news {
		if e.How != "" && !slices.Contains(ways, e.How) {
			ways = append(ways, e.How)
		}
	}
	return strings.Join(ways, ", ")
}

// offered is by which protocols supervise told the command of its listeners.
func (sup *supervised) offered() string {
	sup.mu.Lock()
	defer sup.mu.Unlock()
	for _, e := range sup.news {
		if e.Message == "listeners are offered" {
			return e.By
		}
	}
	return "nothing"
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

// rollOut has the server replaced, and waits until the old one is gone. One that
// must be alone is stopped first.
func (sup *supervised) rollOut(t *testing.T, alone bool) {
	t.Helper()
	from := sup.now()
	if alone {
		if said, err := exec.Command(built.supervise, "restart", "--control", sup.control()).CombinedOutput(); err != nil {
			t.Fatalf("supervise restart: %v: %s\n%s", err, said, sup.words())
		}
		return
	}
	if err := sup.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	sup.await(t, from, "rollout done")
}

func (sup *supervised) control() string { return filepath.Join(sup.dir, "control") }

// crash kills the main process, alone or with all workers, and waits until the
// next generation is ready.
func (sup *supervised) crash(t *testing.T, p *place, what how) death {
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
	d, err := kill(sup.cmd.Process.Pid, pid, p, what)
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
