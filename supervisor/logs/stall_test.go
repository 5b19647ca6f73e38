package logs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// numbered makes lines of which one can see which are missing.
func numbered(from, to int) []byte {
	var b bytes.Buffer
	for i := from; i < to; i++ {
		fmt.Fprintf(&b, "%07d\n", i)
	}
	return b.Bytes()
}

// Nobody reads: the child goes on, what it says is counted, its last lines are
// known; and when somebody reads again, whole lines come, and the count is right.
func TestStall(t *testing.T) {
	for _, prefix := range []string{"", "p| "} {
		r, w := testPipe(t)
		said := make(chan error, 10)
		out := newOutput(t, Options{
			Stdout: to(w, prefix), Stderr: to(w, prefix), Patience: 10 * time.Millisecond,
			Report: func(err error) { said <- err },
		})
		const n = 100_000 // lines of 8 bytes: many times what all buffers hold
		if _, err := unix.Write(out.ChildStdout(), numbered(0, n)); err != nil {
			t.Fatal(err) // a write that blocks for ever would fail the test by its time
		}
		var stall *StallError
		if err := <-said; !errors.As(err, &stall) {
			t.Fatal(err)
		}
		out.Drain()
		if last := out.Last(1); len(last) != 1 || last[0] != fmt.Sprintf("%07d", n-1) {
			t.Errorf("last %q", last)
		}
		// A reader comes.
		got := readAll(r)
		var loss *LossError
		for loss == nil {
			// The rest of a stall is dropped up to a line: write until it is over.
			if _, err := unix.Write(out.ChildStdout(), []byte("more\n")); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-said:
				if !errors.As(err, &loss) {
					t.Fatal(err)
				}
			case <-time.After(time.Millisecond):
			}
		}
		if _, err := unix.Write(out.ChildStdout(), []byte("end\n")); err != nil {
			t.Fatal(err)
		}
		out.Started()
		waitEOF(t, out)
		lines, size := out.Dropped()
		mustClose(t, out)
		unix.Close(w)
		b := <-got
		numbers, mores := 0, 0
		for line := range strings.Lines(string(b)) {
			line, ok := strings.CutPrefix(line, prefix)
			switch {
			case !ok:
				t.Fatalf("a line without its prefix: %q", line)
			case line == "more\n":
				mores++
			case line == "end\n":
			case line != fmt.Sprintf("%07d\n", numbers):
				t.Fatalf("after %d lines: %q", numbers, line)
			default:
				numbers++
			}
		}
		if !bytes.HasSuffix(b, []byte(prefix+"end\n")) {
			t.Errorf("prefix %q: the end is missing: %q", prefix, b[len(b)-20:])
		}
		if numbers == 0 || int64(n-numbers) > lines || lines == 0 || size < lines*5 || loss.Lines > lines {
			t.Errorf("prefix %q: %d of %d lines came, %d were counted as dropped (%d bytes), %v", prefix, numbers, n, lines, size, loss)
		}
	}
}

// A reader that is merely slow loses nothing: the child waits.
func TestPatience(t *testing.T) {
	r, w := testPipe(t)
	out := newOutput(t, Options{Stdout: to(w), Stderr: to(w), Patience: deadline / patienceInAll, Report: func(err error) { t.Error(err) }})
	const n = 300_000
	wait := run(t, out, fmt.Sprint("bytes ", n), null)
	got := make(chan []byte, 1)
	go func() {
		var b bytes.Buffer
		for {
			if _, err := io.CopyN(&b, r, 1000); err != nil {
				got <- b.Bytes()
				return
			}
			time.Sleep(100 * time.Microsecond)
		}
	}()
	wait()
	waitEOF(t, out)
	mustClose(t, out)
	unix.Close(w)
	if b := <-got; !bytes.Equal(b, patternBytes(n)) {
		t.Errorf("%d bytes came", len(b))
	}
	if lines, size := out.Dropped(); lines != 0 || size != 0 {
		t.Errorf("dropped %d lines, %d bytes", lines, size)
	}
}

// Data without lines, and lines without an end, survive a stall as pieces.
func TestStallWithoutLines(t *testing.T) {
	r, w := testPipe(t)
	said := make(chan error, 10)
	out := newOutput(t, Options{Stdout: to(w), Stderr: to(w), Patience: 10 * time.Millisecond, Report: func(err error) { said <- err }})
	if _, err := unix.Write(out.ChildStdout(), bytes.Repeat([]byte{'x'}, 1<<20)); err != nil {
		t.Fatal(err)
	}
	<-said
	got := readAll(r)
	var loss *LossError
	for loss == nil {
		if _, err := unix.Write(out.ChildStdout(), bytes.Repeat([]byte{'y'}, 8<<10)); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-said:
			if !errors.As(err, &loss) {
				t.Fatal(err)
			}
		case <-time.After(time.Millisecond):
		}
	}
	out.Started()
	waitEOF(t, out)
	mustClose(t, out)
	unix.Close(w)
	b := <-got
	x, y, ok := bytes.Cut(b, []byte{'\n'})
	if !ok || len(x) == 0 || bytes.Trim(x, "x") != nil && len(bytes.Trim(x, "x")) > 0 || len(bytes.Trim(y, "y")) > 0 {
		t.Errorf("%d bytes, then %d", len(x), len(y))
	}
}

// Nobody ever reads: Close ends it, says what was lost, and leaves nothing.
func TestStallClose(t *testing.T) {
	before := openFDs(t)
	r, w := testPipe(t)
	said := make(chan error, 10)
	out := newOutput(t, Options{Stdout: to(w), Stderr: to(w), Patience: time.Millisecond, Report: func(err error) { said <- err }})
	all := numbered(0, 100_000)
	if _, err := unix.Write(out.ChildStdout(), all); err != nil {
		t.Fatal(err)
	}
	<-said
	out.Started()
	if err := out.Flush(time.Now().Add(time.Millisecond)); err == nil {
		t.Error("flushed")
	}
	mustClose(t, out)
	var loss *LossError
	if err := <-said; !errors.As(err, &loss) {
		t.Error(err)
	}
	unix.Close(w)
	b := <-readAll(r)
	if lines, _ := out.Dropped(); int64(bytes.Count(b, []byte{'\n'}))+lines != 100_000 {
		t.Errorf("%d bytes came, %d lines dropped", len(b), lines)
	}
	r.Close()
	if after := openFDs(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func gap(lines int64) string { return fmt.Sprintf("%d lines missing\n", lines) }

// Our own log never waits; in order; what is missing is said at its place.
func TestWriter(t *testing.T) {
	r, p := testPipe(t)
	w, err := NewWriter(p, gap)
	if err != nil {
		t.Fatal(err)
	}
	const n = 100_000
	for i := range n {
		if m, err := w.Write(numbered(i, i+1)); m != 8 || err != nil {
			t.Fatal(m, err)
		}
	}
	got := readAll(r)
	for {
		w.mu.Lock()
		idle := !w.writing
		w.mu.Unlock()
		if idle {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if _, err := w.Write([]byte("end\n")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(time.Now().Add(deadline)); err != nil {
		t.Error(err)
	}
	unix.Close(p)
	lines := strings.SplitAfter(string(<-got), "\n")
	came, missing := 0, 0
	for _, line := range lines {
		switch {
		case line == fmt.Sprintf("%07d\n", came):
			came++
		case strings.HasSuffix(line, "missing\n"):
			if _, err := fmt.Sscanf(line, "%d lines", &missing); err != nil {
				t.Error(err)
			}
		case line == "end\n", line == "":
		default:
			t.Fatalf("after %d: %q", came, line)
		}
	}
	if came+missing != n || missing == 0 {
		t.Errorf("%d lines came, %d are said to be missing, of %d", came, missing, n)
	}
}

func TestWriterClose(t *testing.T) {
	r, p := testPipe(t)
	w, err := NewWriter(p, gap)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write(numbered(0, 20_000)) // more than the pipe holds
	if err := w.Close(time.Now().Add(time.Millisecond)); err == nil || !strings.Contains(err.Error(), "lines not taken") {
		t.Error(err)
	}
	_, _ = w.Write([]byte("after\n"))
	unix.Close(p)
	if b := <-readAll(r); !bytes.HasPrefix(b, numbered(0, 1000)) || bytes.Contains(b, []byte("after")) {
		t.Errorf("%d bytes", len(b))
	}

	// A reader that is gone, and a file.
	r, p = testPipe(t)
	r.Close()
	if w, err = NewWriter(p, gap); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if n, err := w.Write([]byte("x\n")); n != 2 || err != nil {
			t.Error(n, err)
		}
	}
	if err := w.Close(time.Now()); err != nil {
		t.Error(err)
	}
	unix.Close(p)
	f, err := os.Create(t.TempDir() + "/log")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if w, err = NewWriter(fd, gap); err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write(numbered(0, 50_000))
	if err := w.Close(time.Now()); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(f.Name()); err != nil || len(b) != 400_000 {
		t.Error(len(b), err)
	}
}

// Somebody who follows misses nothing that is kept.
func TestSince(t *testing.T) {
	out := newOutput(t, Options{Stdout: to(-1), Stderr: to(-1), KeepLines: 10})
	lines, more := out.Since(0)
	if len(lines) != 0 {
		t.Error(lines)
	}
	if _, err := unix.Write(out.ChildStdout(), []byte("a\nb\nc")); err != nil {
		t.Fatal(err)
	}
	<-more
	lines, more = out.Since(1)
	if len(lines) != 1 || lines[0].Text != "b" || lines[0].Number != 2 || lines[0].At.IsZero() {
		t.Errorf("%+v", lines)
	}
	if _, err := unix.Write(out.ChildStdout(), numbered(0, 100)); err != nil {
		t.Fatal(err)
	}
	<-more
	lines, _ = out.Since(2)
	if len(lines) != 10 || lines[9].Number != 102 || lines[9].Text != "0000099" {
		t.Errorf("%+v", lines)
	}
	mustClose(t, out)
}
