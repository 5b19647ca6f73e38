package control

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func TestListenTakesOverOnlyTheDead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.sock")
	first, err := Listen(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil || st.Mode&0o777 != 0o600 {
		t.Errorf("mode %o, %v", st.Mode, err)
	}
	var taken *TakenError
	if _, err := Listen(path, 0); !errors.As(err, &taken) || taken.PID != os.Getpid() {
		t.Errorf("a living one: %v", err)
	}
	unix.Close(first.fd) // killed
	second, err := Listen(path, 0)
	if err != nil {
		t.Fatal("a dead one:", err)
	}
	first.fd = second.fd // the number is used again
	first.fd = -1
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Dial(path); err != nil {
		t.Error("the successor's path is gone:", err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Dir(path) + "/*"); len(left) > 0 {
		t.Error("left behind:", left)
	}
}

func TestListenErrors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "precious")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		file:                   "no socket",
		dir + "/none/web.sock": "no such file or directory",
		filepath.Join(dir, strings.Repeat("x", 100)): "longer than",
		file + "/web.sock":                           "not a directory",
	} {
		s, err := Listen(path, 0)
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "x" {
		t.Error("a file was replaced:", err)
	}
}

// Many that start at the same moment over a dead socket get one each.
func TestListenName(t *testing.T) {
	t.Setenv(dirVariable, filepath.Join(t.TempDir(), "run"))
	dead, _, err := ListenName("web", 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(dead.fd)
	const n = 20
	all := make([]*Endpoint, n)
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() {
			s, _, err := ListenName("web", 0)
			if err != nil {
				t.Error(err)
			}
			all[i] = s
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for _, s := range all {
		if s == nil {
			continue
		}
		seen[s.Path()] = true
		if _, err := Dial(s.Path()); err != nil {
			t.Error(err)
		}
	}
	if len(seen) != n || !seen[filepath.Join(Dirs()[0], "web.sock")] || !seen[filepath.Join(Dirs()[0], "web-20.sock")] {
		t.Errorf("%v", seen)
	}
	if found := Find(); len(found) != n {
		t.Errorf("found %d", len(found))
	}
	_, taken, err := ListenName("web", 0)
	if err != nil || taken == nil || taken.PID != os.Getpid() {
		t.Error(taken, err)
	}
	for _, s := range all {
		if s != nil {
			s.Close()
		}
	}
}

// Whatever a service is called, its socket is in the directory and fits.
func TestFileName(t *testing.T) {
	for _, name := range []string{"", ".", "..", "/", "../../etc/x", "a/b", strings.Repeat("long", 100), "a\nb", "web@1.service"} {
		for _, n := range []int{1, 2, 999} {
			got := fileName("/run/supervise", name, n)
			if filepath.Base(got) != got || strings.HasPrefix(got, ".") || len("/run/supervise/"+got+temporary) > maxPath || !strings.HasSuffix(got, suffix) {
				t.Errorf("%q: %q", name, got)
			}
		}
	}
}

// A directory that somebody else could have prepared is not used.
func TestForeignDirectory(t *testing.T) {
	at := filepath.Join(t.TempDir(), "supervise-x")
	t.Setenv(dirVariable, at)
	if err := os.Mkdir(at, 0o777); err != nil {
		t.Fatal(err)
	}
	os.Chmod(at, 0o777)
	if s, _, err := ListenName("web", 0); err == nil {
		s.Close()
		t.Error("used a directory that everybody may write to")
	}
	os.Remove(at)
	if err := os.Symlink(t.TempDir(), at); err != nil {
		t.Fatal(err)
	}
	if s, _, err := ListenName("web", 0); err == nil {
		s.Close()
		t.Error("followed a symbolic link")
	}
}
