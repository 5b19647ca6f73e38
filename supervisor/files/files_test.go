package files

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is the one deadline of every wait.
const patience = 30 * time.Second

type watching struct {
	t    *testing.T
	dir  string
	news chan []string
}

func watch(t *testing.T, o Options) *watching {
	t.Helper()
	w := &watching{t: t, dir: o.Paths[0], news: make(chan []string, 100)}
	o.Debounce = 20 * time.Millisecond
	o.Changed = func(paths []string) { w.news <- paths }
	o.Failed = func(err error) { t.Error(err) }
	one, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := one.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *watching) write(name, text string) {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// until waits until all of names are told of, and nothing else is.
func (w *watching) until(names ...string) {
	w.t.Helper()
	want := map[string]bool{}
	for _, n := range names {
		want[filepath.Join(w.dir, n)] = true
	}
	for deadline := time.After(patience); len(want) > 0; {
		select {
		case paths := <-w.news:
			for _, p := range paths {
				rel, _ := filepath.Rel(w.dir, p)
				if !slices.Contains(names, rel) {
					w.t.Errorf("%s is told of", rel)
				}
				delete(want, p)
			}
		case <-deadline:
			w.t.Fatalf("never told of %v", want)
		}
	}
}

func TestWatch(t *testing.T) {
	dir := t.TempDir()
	w := watch(t, Options{Paths: []string{dir}})
	w.write("a.go", "1")
	w.until("a.go")
	w.write("a.go", "2")
	w.until("a.go")
	// As an editor does it: another file, renamed.
	w.write(".#a.go", "3")
	w.write("a.go~", "3")
	w.write("new", "3")
	if err := os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "a.go")); err != nil {
		t.Fatal(err)
	}
	w.until("a.go", "new")
	if err := os.Remove(filepath.Join(dir, "a.go")); err != nil {
		t.Fatal(err)
	}
	w.until("a.go")
	// Folders that come later, with what is in them already.
	w.write("x/y/z/deep.go", "1")
	w.until("x/y/z/deep.go")
	w.write("x/y/z/deep.go", "2")
	w.until("x/y/z/deep.go")
	// A folder from elsewhere.
	other := filepath.Join(t.TempDir(), "moved")
	if err := os.MkdirAll(filepath.Join(other, "in"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(other, "in", "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(other, filepath.Join(dir, "moved")); err != nil {
		t.Skip("another file system:", err)
	}
	w.until("moved/in/f")
	w.write("moved/in/f", "2")
	w.until("moved/in/f")
}

func TestWatchIgnores(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, ".gitignore"), []byte("# built\n/bin/\n*.gen\n!keep.gen\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := watch(t, Options{Paths: []string{dir}, Ignore: []string{"data/**/*.json"}})
	for _, name := range []string{
		"bin/app", ".git/HEAD", "node_modules/x/index.js", "a.gen", "sub/b.gen", "server.log", "data/1.json", "data/a/b/2.json", ".f.swp",
	} {
		w.write(name, "x")
	}
	w.write("keep.gen", "x")
	w.write("sub/bin/app", "x") // only /bin is ignored
	w.write("data/1.txt", "x")
	w.until("keep.gen", "sub/bin/app", "data/1.txt")
}

// A file is its name, whatever is put there, and its neighbours are none of it.
func TestWatchFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "app")
	if err := os.WriteFile(path, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	w := watch(t, Options{Paths: []string{path}})
	w.dir = dir
	w.write("app.new", "1")
	w.write("other", "1")
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	w.until("app")
	w.write("app", "2")
	w.until("app")
	if err := os.Chmod(path, 0o755); err != nil { // no news
		t.Fatal(err)
	}
	w.write("app", "3")
	w.until("app")
}

// What never comes to rest is told of all the same.
func TestWatchRestless(t *testing.T) {
	dir := t.TempDir()
	w := watch(t, Options{Paths: []string{dir}})
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				_ = os.WriteFile(filepath.Join(dir, "busy"), nil, 0o600)
			}
		}
	}()
	for range 3 {
		w.until("busy")
	}
	close(stop)
	<-done
}

func TestNewFails(t *testing.T) {
	_, err := New(Options{Paths: []string{"/no/such/folder"}})
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "cannot watch: stat /no/such/folder") {
		t.Error(err)
	}
	var bad *PatternError
	if _, err := New(Options{Paths: []string{t.TempDir()}, Ignore: []string{"[a"}}); !errors.As(err, &bad) {
		t.Error(err)
	}
}

// The rules are those of git, which says what it would do.
func TestRulesAgainstGit(t *testing.T) {
	git, err := exec.LookPath("git")
	if err != nil {
		t.Skip("no git here:", err)
	}
	dir := t.TempDir()
	if out, err := exec.Command(git, "init", "-q", dir).CombinedOutput(); err != nil {
		t.Skipf("git: %v %s", err, out)
	}
	rapid.Check(t, func(t *rapid.T) { // each starts git: see -rapid.checks for more
		word := rapid.SampledFrom([]string{"a", "b", "c", "a*", "*b", "?", "**", "[ab]"})
		lines := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string {
			line := strings.Join(rapid.SliceOfN(word, 1, 3).Draw(t, "parts"), "/")
			if rapid.Bool().Draw(t, "anchored") {
				line = "/" + line
			}
			if rapid.Bool().Draw(t, "folder") {
				line += "/"
			}
			if rapid.IntRange(0, 3).Draw(t, "keep") == 0 {
				line = "!" + line
			}
			return line
		}), 1, 4).Draw(t, "lines")
		name := strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c", "ab"}), 1, 4).Draw(t, "name"), "/")
		if err := os.WriteFile(filepath.Join(dir, ".gitignore"), []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		err := exec.Command(git, "-C", dir, "check-ignore", "-q", "--no-index", name).Run()
		var exit *exec.ExitError
		if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
			t.Fatal(err)
		}
		rs, e := parseRules(lines)
		if e != nil {
			t.Fatal(e)
		}
		if got := rs.ignored(name, false); got != (err == nil) {
			t.Fatalf("%q with %q: %t, git says %t", name, lines, got, err == nil)
		}
	})
}
