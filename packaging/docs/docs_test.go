package docs

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	patience = time.Minute
	// again is how often a question (curl, pidof) is asked until the answer is
	// the expected one: a person is slower than a test.
	again = 100
)

// step is a command with its answer, or a file.
type step struct {
	line    int
	file    string
	typed   string
	answer  []string
	needs   []string
	section string
}

// steps takes a page apart.
func steps(t *testing.T, page string) []step {
	t.Helper()
	f, err := os.Open(page)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []step
	var needs []string
	var section, file string
	kind := ""
	in := bufio.NewScanner(f)
	for n := 1; in.Scan(); n++ {
		text := in.Text()
		switch {
		case kind == "" && strings.HasPrefix(text, "## "):
			section, needs = text[3:], nil
		case kind == "" && strings.HasPrefix(text, "<!-- needs:"):
			needs = strings.Fields(strings.TrimSuffix(strings.TrimPrefix(text, "<!-- needs:"), "-->"))
		case kind == "" && strings.HasPrefix(text, "<!-- file:"):
			file = strings.TrimSpace(strings.TrimSuffix(strings.TrimPrefix(text, "<!-- file:"), "-->"))
		case kind == "" && strings.HasPrefix(text, "```"):
			kind = strings.TrimPrefix(text, "```") + "."
			if kind != "console." && file != "" {
				all = append(all, step{line: n, file: file, needs: needs, section: section})
			}
		case kind != "" && text == "```":
			kind, file = "", ""
		case kind == "console." && strings.HasPrefix(text, "$ "):
			all = append(all, step{line: n, typed: text[2:], needs: needs, section: section})
		case kind == "console." && len(all) > 0:
			last := &all[len(all)-1]
			last.answer = append(last.answer, text)
		case kind != "" && file != "":
			last := &all[len(all)-1]
			last.answer = append(last.answer, text)
		}
	}
	return all
}

// TestPages runs every command of every page, each page as root of namespaces
// of its own: so its ports, its pids and its /run are nobody else's.
func TestPages(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root for namespaces, in which the ports of the pages are free")
	}
	if out, err := exec.Command("unshare", "--net", "--pid", "--mount", "--fork", "--mount-proc", "true").CombinedOutput(); err != nil {
		t.Skipf("no namespaces can be made here: %v: %s", err, out)
	}
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", bin, "../../cmd/supervise", "../../examples/hello", "../../examples/oldbind")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	pages, err := filepath.Glob("*.md")
	if err != nil || len(pages) == 0 {
		t.Fatal("no pages", err)
	}
	for _, page := range pages {
		t.Run(page, func(t *testing.T) {
			t.Parallel()
			all := steps(t, page)
			if len(all) == 0 {
				t.Skip("has no commands")
			}
			s := newShell(t, bin)
			section, missing := "", ""
			for _, step := range all {
				if step.section != section {
					// Each section is a story of its own.
					s.run("kill $(jobs -p) 2>/dev/null; wait; cd && rm -rf work && mkdir work && cd work")
					section = step.section
					clear(s.pids)
				}
				missing = ""
				for _, program := range step.needs {
					if _, err := exec.LookPath(program); err != nil {
						missing = program
					}
				}
				if missing != "" {
					t.Logf("%s:%d: no %s here", page, step.line, missing)
					continue
				}
				s.play(page, step)
				if t.Failed() {
					t.Fatalf("what the programs in the background said:\n%s", s.background())
				}
			}
		})
	}
}

// shell is a bash to which commands are typed.
type shell struct {
	t     *testing.T
	stdin io.Writer
	lines chan string
	home  string
	pids  map[string]string // by the number in the page
}

func newShell(t *testing.T, bin string) *shell {
	t.Helper()
	home := t.TempDir()
	cmd := exec.Command("unshare", "--net", "--pid", "--mount", "--fork", "--mount-proc", "--kill-child", "sh", "-ec",
		"ip link set lo up; mount -t tmpfs none /run; mount --bind \"$1\" /usr/local/bin; exec bash --noprofile --norc", "sh", bin)
	cmd.Dir = home
	cmd.Env = []string{"HOME=" + home, "PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "GORACE=atexit_sleep_ms=0"}
	for _, keep := range []string{"GOPATH", "GOCACHE", "GOMODCACHE", "GOPROXY", "GOFLAGS"} {
		if v, ok := os.LookupEnv(keep); ok {
			cmd.Env = append(cmd.Env, keep+"="+v)
		}
	}
	if root, err := exec.Command("go", "env", "GOROOT").Output(); err == nil {
		cmd.Env[1] += ":" + strings.TrimSpace(string(root)) + "/bin"
	}
	if cache, err := exec.Command("go", "env", "GOCACHE").Output(); err == nil {
		cmd.Env = append(cmd.Env, "GOCACHE="+strings.TrimSpace(string(cache)))
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	errs, err := os.Create(filepath.Join(home, "background"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &shell{t: t, stdin: stdin, lines: make(chan string, 10000), home: home, pids: make(map[string]string)}
	go func() {
		defer close(s.lines)
		out := bufio.NewScanner(stdout)
		for out.Scan() {
			s.lines <- out.Text()
		}
	}()
	t.Cleanup(func() {
		stdin.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		errs.Close()
	})
	return s
}

func (s *shell) background() string {
	text, _ := os.ReadFile(filepath.Join(s.home, "background"))
	if len(text) > 5000 {
		text = text[len(text)-5000:]
	}
	return string(text)
}

const mark = "@@ end of an answer"

// run types a command and gives what it answers on standard output.
func (s *shell) run(typed string) []string {
	s.t.Helper()
	if _, err := fmt.Fprintf(s.stdin, "%s\necho \"%s\"\n", typed, mark); err != nil {
		s.t.Fatal(err)
	}
	var answer []string
	end := time.After(patience)
	for {
		select {
		case line, ok := <-s.lines:
			if !ok {
				s.t.Fatalf("the shell ended at %q", typed)
			}
			before, _, found := strings.Cut(line, mark)
			if before != "" || !found {
				answer = append(answer, before)
			}
			if found {
				return answer
			}
		case <-end:
			s.t.Fatalf("%q does not end; so far:\n%s\n%s", typed, strings.Join(answer, "\n"), s.background())
		}
	}
}

// play does a step and compares the answer.
func (s *shell) play(page string, st step) {
	s.t.Helper()
	if st.file != "" {
		path := st.file
		if !filepath.IsAbs(path) {
			path = filepath.Join(s.home, "work", path)
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err == nil {
			err = os.WriteFile(path, []byte(strings.Join(st.answer, "\n")+"\n"), 0o755)
			if err != nil {
				s.t.Error(err)
			}
		}
		return
	}
	want, names := pattern(st.answer)
	typed := st.typed
	// A program in the foreground that shows its log: standard error is part of
	// the answer then.
	if !strings.HasSuffix(typed, "&") {
		typed = "{ " + typed + "\n} 2>&1"
	} else {
		typed = strings.TrimSuffix(typed, "&") + " >&2 &"
	}
	tries := 1
	if word, _, _ := strings.Cut(st.typed, " "); word == "curl" || word == "pidof" || word == "cat" || word == "ss" {
		tries = again
	}
	var got []string
	for range tries {
		got = s.run(typed)
		if m := want.FindStringSubmatch(strings.Join(got, "\n")); m != nil && s.agree(names, m[1:]) {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	s.t.Errorf("%s:%d: $ %s\n%s\nis not\n%s", page, st.line, st.typed, strings.Join(got, "\n"), strings.Join(st.answer, "\n"))
}

// agree says whether the pids of an answer are those of the page: one number
// there is one process here, another number another process.
func (s *shell) agree(names, pids []string) bool {
	now := maps.Clone(s.pids)
	for i, name := range names {
		if have, ok := now[name]; ok && have != pids[i] {
			return false
		}
		for other, have := range now {
			if other != name && have == pids[i] {
				return false
			}
		}
		now[name] = pids[i]
	}
	s.pids = now
	return true
}

var pidOf = regexp.MustCompile(`\bpid \d+|kill -TERM \d+`)

// pattern is what an answer has to match; "..." is anything. names are the
// numbers of processes in it, which the groups of the expression find.
func pattern(answer []string) (re *regexp.Regexp, names []string) {
	if len(answer) == 0 {
		return regexp.MustCompile(``), nil
	}
	var b strings.Builder
	b.WriteString(`^`)
	for i, line := range answer {
		if line == "..." {
			b.WriteString(`(?:.*\n)*?(?:.*$)??`)
			continue
		}
		q := strings.ReplaceAll(regexp.QuoteMeta(line), `\.\.\.`, `.*`)
		q = pidOf.ReplaceAllStringFunc(q, func(m string) string {
			at := strings.LastIndexByte(m, ' ') + 1
			names = append(names, m[at:])
			return m[:at] + `(\d+)`
		})
		b.WriteString(q)
		if i < len(answer)-1 {
			b.WriteString(`\n`)
		}
	}
	b.WriteString(`\n?$`)
	return regexp.MustCompile(b.String()), names
}
