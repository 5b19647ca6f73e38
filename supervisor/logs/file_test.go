package logs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

func openFile(t testing.TB, path string, r Rotation) *File {
	t.Helper()
	f, err := OpenFile(path, r, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.log")
	f := openFile(t, path, Rotation{})
	for range 2 {
		out := newOutput(t, Options{Stdout: Place{File: f}, Stderr: Place{File: f}})
		run(t, out, "turns 1", null)()
		waitEOF(t, out)
		mustClose(t, out)
		mustClose(t, out)
	}
	if got := read(t, path); got != "out 0\nerr 0\nout 0\nerr 0\n" {
		t.Errorf("%q", got)
	}
	_, err := OpenFile(path+"/x", Rotation{}, nil)
	if !errors.Is(err, unix.ENOTDIR) || !strings.Contains(err.Error(), "cannot open log file: open "+path) {
		t.Error(err)
	}
}

// A full disk is said once, not for each write, and what it cost at the end.
func TestFullDisk(t *testing.T) {
	var mu sync.Mutex
	var said []error
	full := Place{File: openFile(t, "/dev/full", Rotation{})}
	out := newOutput(t, Options{Stdout: full, Stderr: full, Report: func(err error) {
		mu.Lock()
		said = append(said, err)
		mu.Unlock()
	}})
	run(t, out, "bytes 300000", null)()
	waitEOF(t, out)
	mustClose(t, out)
	var loss *LossError
	if len(said) != 2 || !errors.Is(said[0], unix.ENOSPC) || !errors.As(said[1], &loss) || loss.Bytes != 300000 {
		t.Errorf("%v", said)
	}
	if _, bytes := out.Dropped(); bytes != 300000 {
		t.Errorf("%d bytes dropped", bytes)
	}
}

// Whatever is written, however it is cut: read from the oldest file to the
// youngest it is the same, no file is larger than it may be, and none but the
// last ends within a line.
func TestRotate(t *testing.T) {
	dir := t.TempDir()
	count := 0
	rapid.Check(t, func(t *rapid.T) {
		count++
		path := filepath.Join(dir, fmt.Sprint(count, ".log"))
		size := rapid.Int64Range(1, 60).Draw(t, "size")
		const keep = 150
		f, err := OpenFile(path, Rotation{Size: size, Keep: keep}, func(err error) { t.Error(err) })
		if err != nil {
			t.Fatal(err)
		}
		var all strings.Builder
		longest := 0
		for _, piece := range rapid.SliceOfN(rapid.StringMatching(`([ab]{0,20}\n){0,6}[ab]{0,30}`), 1, 8).Draw(t, "pieces") {
			if n, err := f.write([]byte(piece)); n != len(piece) || err != nil {
				t.Fatalf("%d, %v", n, err)
			}
			all.WriteString(piece)
			if rapid.Bool().Draw(t, "reopen") {
				if err := f.Reopen(); err != nil {
					t.Fatal(err)
				}
			}
		}
		for line := range strings.Lines(all.String()) {
			longest = max(longest, len(line))
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		for i := keep; i >= 0; i-- {
			name := path
			if i > 0 {
				name = f.numbered(i)
			}
			b, err := os.ReadFile(name)
			if err != nil {
				continue
			}
			got.Write(b)
			if len(b) > int(size)+longest {
				t.Errorf("%s has %d bytes", name, len(b))
			}
			if i > 0 && !strings.HasSuffix(string(b), "\n") {
				t.Errorf("%s ends within a line", name)
			}
		}
		if got.String() != all.String() {
			t.Errorf("%q became %q", all.String(), got.String())
		}
		matches, _ := filepath.Glob(path + "*")
		for _, m := range matches {
			os.Remove(m)
		}
	})
}

// Binary data without lines does not grow for ever.
func TestRotateWithoutLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "l")
	f := openFile(t, path, Rotation{Size: 1000, Keep: 2})
	for range 40 {
		if _, err := f.write(make([]byte, 10000)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{path, path + ".1", path + ".2"} {
		st, err := os.Stat(name)
		if err != nil || st.Size() > 1000+2*maxUnended {
			t.Error(name, st.Size(), err)
		}
	}
	if _, err := os.Stat(path + ".3"); !os.IsNotExist(err) {
		t.Error("too many are kept:", err)
	}
}

// Two writers, and somebody from outside who renames and truncates.
func TestRotateTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "l")
	f := openFile(t, path, Rotation{Size: 5000, Keep: 3})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 2000 {
				if _, err := f.write(fmt.Appendf(nil, "line %d\n", i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 50 {
		_ = os.Rename(path, path+".moved")
		if i%2 == 0 {
			if err := f.Reopen(); err != nil {
				t.Error(err)
			}
		}
		_ = os.Truncate(path, 0)
	}
	wg.Wait()
	if err := f.Reopen(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.write([]byte("end\n")); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path); !strings.HasSuffix(got, "end\n") {
		t.Errorf("%q", got)
	}
}

// What an administrator set on the file stays with it.
func TestRotateKeepsMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "l")
	if err := os.WriteFile(path, nil, 0o604); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o604); err != nil {
		t.Fatal(err)
	}
	f := openFile(t, path, Rotation{Size: 3, Keep: 1})
	for range 2 {
		if _, err := f.write([]byte("abc\n")); err != nil {
			t.Fatal(err)
		}
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode() != 0o604 {
		t.Error(st.Mode(), err)
	}
	if read(t, path) != "abc\n" || read(t, path+".1") != "abc\n" {
		t.Error("not rotated")
	}
}

// A rotation that fails loses nothing and is not tried at each write.
func TestRotateFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "l")
	var said atomic.Int32
	f, err := OpenFile(path, Rotation{Size: 10, Keep: 1}, func(err error) {
		said.Add(1)
		if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENOTEMPTY) {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.MkdirAll(filepath.Join(path+".1", "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if _, err := f.write([]byte("0123456789\n")); err != nil {
			t.Fatal(err)
		}
	}
	if n := said.Load(); n != 1 {
		t.Errorf("said %d times", n)
	}
	if got := read(t, path); got != strings.Repeat("0123456789\n", 100) {
		t.Errorf("%d bytes", len(got))
	}
}

// A path that becomes something else is not followed.
func TestReopenRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "l")
	f := openFile(t, path, Rotation{})
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.Reopen(); err == nil {
		t.Error("reopened")
	}
	if _, err := f.write([]byte("x\n")); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path+".old"); got != "x\n" {
		t.Errorf("%q", got)
	}
}
