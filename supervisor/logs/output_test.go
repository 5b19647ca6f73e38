package logs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const null = 0 // stdin of the test, which children do not read

// Every byte arrives, in order, whatever it is.
func TestUntouched(t *testing.T) {
	for _, n := range []int{0, 1, 4095, 4096, 4097, 65536, 65537, 3 << 20} {
		r, w := testPipe(t)
		got := readAll(r)
		out := newOutput(t, Options{Stdout: to(w), Stderr: to(2)})
		run(t, out, fmt.Sprint("bytes ", n), null)()
		waitEOF(t, out)
		mustClose(t, out)
		unix.Close(w)
		if b := <-got; !bytes.Equal(b, patternBytes(n)) {
			t.Errorf("%d bytes: %d came", n, len(b))
		}
	}
}

// 2>&1: one pipe keeps the order of the two streams.
func TestOneOrder(t *testing.T) {
	r, w := testPipe(t)
	w2, err := unix.FcntlInt(uintptr(w), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	got := readAll(r)
	out := newOutput(t, Options{Stdout: to(w), Stderr: to(w2), KeepLines: 3})
	if out.ChildStdout() != out.ChildStderr() {
		t.Error("two pipes")
	}
	run(t, out, "turns 500", null)()
	waitEOF(t, out)
	if last := out.Last(10); !slices.Equal(last, []string{"err 498", "out 499", "err 499"}) {
		t.Errorf("last %q", last)
	}
	mustClose(t, out)
	unix.Close(w)
	unix.Close(w2)
	var want strings.Builder
	for i := range 500 {
		fmt.Fprintf(&want, "out %d\nerr %d\n", i, i)
	}
	if b := <-got; string(b) != want.String() {
		t.Error("the order is lost")
	}
}

func TestSameFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	open := func() int {
		fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	a, b := open(), open()
	c, err := unix.Dup(a)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(c)
	_, p := testPipe(t)
	defer unix.Close(p)
	_, q := testPipe(t)
	defer unix.Close(q)
	for _, x := range []struct {
		a, b int
		want bool
	}{{a, a, true}, {a, c, true}, {a, b, false}, {p, q, false}, {a, p, false}, {a, -1, false}} {
		if got := sameFile(x.a, x.b); got != x.want {
			t.Errorf("%+v: %v", x, got)
		}
	}
}

// A slow reader makes the child wait, and gets everything in the end. Drain and
// Last do not wait for it.
func TestSlowReader(t *testing.T) {
	r, w := testPipe(t)
	out := newOutput(t, Options{Stdout: to(w), Stderr: to(2), Patience: deadline})
	const n = 1 << 20
	wait := run(t, out, fmt.Sprint("bytes ", n), null)
	// The child is stuck when nothing moves any more: all buffers are full.
	p := out.pipes[0]
	for end := time.Now().Add(deadline); ; time.Sleep(time.Millisecond) {
		var st [2]int
		st[0], _ = unix.IoctlGetInt(p.fd, unix.TIOCINQ)
		if st[0] > 60000 && p.unwritten() > 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("never full")
		}
	}
	if got := p.unwritten(); got > chunk {
		t.Errorf("%d bytes are buffered", got)
	}
	if err := out.Flush(time.Now().Add(time.Millisecond)); err == nil || !strings.Contains(err.Error(), "bytes not taken") {
		t.Errorf("flush: %v", err)
	}
	got := readAll(r)
	wait()
	waitEOF(t, out)
	mustClose(t, out)
	unix.Close(w)
	if b := <-got; !bytes.Equal(b, patternBytes(n)) {
		t.Errorf("%d bytes came", len(b))
	}
}

// Last words are there as soon as the process is dead, even if nobody reads
// our output.
func TestLastWords(t *testing.T) {
	r, w := testPipe(t)
	// Fill the destination, so that nothing can be passed on.
	if err := unix.SetNonblock(w, true); err != nil {
		t.Fatal(err)
	}
	filled := 0
	for {
		n, err := unix.Write(w, make([]byte, 4096))
		if err != nil {
			break
		}
		filled += n
	}
	out := newOutput(t, Options{Stdout: to(w), Stderr: to(w)})
	run(t, out, "say one\ntwo\nthree, unterminated", null)()
	out.Drain()
	if last := out.Last(2); !slices.Equal(last, []string{"two", "three, unterminated"}) {
		t.Errorf("last %q", last)
	}
	if last := out.Last(0); len(last) != 0 {
		t.Errorf("last 0: %q", last)
	}
	got := readAll(r)
	if err := out.Flush(time.Now().Add(deadline)); err != nil {
		t.Error(err)
	}
	waitEOF(t, out)
	mustClose(t, out)
	unix.Close(w)
	if b := <-got; string(b[filled:]) != "one\ntwo\nthree, unterminated" {
		t.Errorf("%q", b[filled:])
	}
}

// Nobody reads our output any more: said once; the child lives on.
func TestReaderGone(t *testing.T) {
	r, w := testPipe(t)
	r.Close()
	var said atomic.Int32
	out := newOutput(t, Options{Stdout: to(w), Stderr: to(2), Report: func(err error) {
		said.Add(1)
		if !errors.Is(err, unix.EPIPE) {
			t.Error(err)
		}
	}})
	run(t, out, "bytes 1000000", null)() // it would die of SIGPIPE
	waitEOF(t, out)
	if said.Load() != 1 {
		t.Errorf("said %d times", said.Load())
	}
	mustClose(t, out)
	unix.Close(w)
}

func TestClosedOutput(t *testing.T) {
	var said atomic.Int32
	out := newOutput(t, Options{Stdout: to(1 << 20), Stderr: to(-1), Report: func(error) { said.Add(1) }})
	run(t, out, "turns 2", null)()
	waitEOF(t, out)
	last := out.Last(9)
	slices.Sort(last)
	if !slices.Equal(last, []string{"err 0", "err 1", "out 0", "out 1"}) || said.Load() != 2 {
		t.Errorf("%q, said %d times", last, said.Load())
	}
	mustClose(t, out)
}

// What outlives the main process can still speak.
func TestGrandchild(t *testing.T) {
	r, w := testPipe(t)
	got := readAll(r)
	var in [2]int
	if err := unix.Pipe2(in[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	out := newOutput(t, Options{Stdout: to(w), Stderr: to(2)})
	run(t, out, "grandchild", in[0])()
	unix.Close(in[0])
	out.Drain()
	if last := out.Last(9); !slices.Equal(last, []string{"parent ends"}) {
		t.Errorf("last %q", last)
	}
	select {
	case <-out.EOF():
		t.Error("ended too early")
	default:
	}
	unix.Close(in[1])
	waitEOF(t, out)
	mustClose(t, out)
	unix.Close(w)
	if b := <-got; string(b) != "parent ends\ngrandchild ends\n" {
		t.Errorf("%q", b)
	}
}

func TestTerminal(t *testing.T) {
	ptmx, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("no pseudo terminal: %v", err)
	}
	defer unix.Close(ptmx)
	if err := unix.IoctlSetPointerInt(ptmx, unix.TIOCSPTLCK, 0); err != nil {
		t.Skipf("no pseudo terminal: %v", err)
	}
	n, err := unix.IoctlGetInt(ptmx, unix.TIOCGPTN)
	if err != nil {
		t.Skipf("no pseudo terminal: %v", err)
	}
	tty, err := unix.Open(fmt.Sprintf("/dev/pts/%d", n), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("no pseudo terminal: %v", err)
	}
	defer unix.Close(tty)
	r, w := testPipe(t)
	got := readAll(r)
	out := newOutput(t, Options{Stdout: to(tty), Stderr: to(w)})
	if out.ChildStdout() != tty || !out.Captured() {
		t.Error("the terminal is not lent")
	}
	run(t, out, "kind", null)()
	waitEOF(t, out)
	mustClose(t, out)
	unix.Close(w)
	<-got
	b := make([]byte, 64)
	if n, err := unix.Read(ptmx, b); err != nil || !strings.HasPrefix(string(b[:n]), "true false") {
		t.Errorf("%q %v", b[:n], err)
	}

	both := newOutput(t, Options{Stdout: to(tty), Stderr: to(tty)})
	waitEOF(t, both) // at once
	if both.Captured() || both.Last(5) != nil {
		t.Error("captured")
	}
	mustClose(t, both)
	prefixed := newOutput(t, Options{Stdout: to(tty, "a | "), Stderr: to(tty, "a | ")})
	if !prefixed.Captured() {
		t.Error("a prefix needs a pipe")
	}
	mustClose(t, prefixed)
}

func TestPrefix(t *testing.T) {
	long := strings.Repeat("x", 10000)
	for say, want := range map[string]string{
		"a\nb\n":         "w.1 | a\nw.1 | b\n",
		"\n\n":           "w.1 | \nw.1 | \n",
		"unterminated":   "w.1 | unterminated\n",
		long + "\ny\n":   "w.1 | " + long + "\nw.1 | y\n",
		long:             "w.1 | " + long + "\n",
		"a\n" + long[:2]: "w.1 | a\nw.1 | xx\n",
	} {
		r, w := testPipe(t)
		got := readAll(r)
		out := newOutput(t, Options{Stdout: to(w, "w.1 | "), Stderr: to(w, "w.1 | ")})
		run(t, out, "say "+say, null)()
		waitEOF(t, out)
		mustClose(t, out)
		unix.Close(w)
		if b := <-got; string(b) != want {
			t.Errorf("%.20q: %.60q", say, b)
		}
	}
}

// A prompt without a line feed comes out at the latest with Flush.
func TestPrefixFlush(t *testing.T) {
	r, w := testPipe(t)
	out := newOutput(t, Options{Stdout: to(w, "> "), Stderr: to(w, "> ")})
	if _, err := unix.Write(out.ChildStdout(), []byte("prompt")); err != nil {
		t.Fatal(err)
	}
	if err := out.Flush(time.Now().Add(deadline)); err != nil {
		t.Error(err)
	}
	b := make([]byte, 64)
	if n, err := r.Read(b); err != nil || string(b[:n]) != "> prompt\n" {
		t.Errorf("%q %v", b[:n], err)
	}
	mustClose(t, out)
	unix.Close(w)
}

// Whatever state it is in, Close ends it and leaves nothing behind.
func TestClose(t *testing.T) {
	before := openFDs(t)
	for _, full := range []bool{false, true} {
		r, w := testPipe(t)
		out := newOutput(t, Options{Stdout: to(w, "p"), Stderr: to(2, "p")})
		if full {
			if _, err := unix.Write(w, make([]byte, 65536)); err != nil {
				t.Fatal(err)
			}
			if _, err := unix.Write(out.ChildStdout(), []byte("x\n")); err != nil {
				t.Fatal(err)
			}
		}
		mustClose(t, out)
		out.Drain()
		mustClose(t, out)
		unix.Close(w)
		r.Close()
	}
	if after := openFDs(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// Drain, Last and Flush may come at any moment, from anyone.
func TestConcurrent(t *testing.T) {
	r, w := testPipe(t)
	got := readAll(r)
	out := newOutput(t, Options{Stdout: to(w), Stderr: to(2)})
	const n = 2 << 20
	wait := run(t, out, fmt.Sprint("bytes ", n), null)
	for range 3 {
		go func() {
			for {
				select {
				case <-out.EOF():
					return
				default:
					out.Drain()
					out.Last(3)
					_ = out.Flush(time.Now())
				}
			}
		}()
	}
	wait()
	waitEOF(t, out)
	mustClose(t, out)
	unix.Close(w)
	if b := <-got; !bytes.Equal(b, patternBytes(n)) {
		t.Errorf("%d bytes came", len(b))
	}
}

func BenchmarkThroughput(b *testing.B) {
	null, err := unix.Open("/dev/null", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(null)
	for _, kind := range []string{"null", "pipe", "file", "rotated", "prefix", "journal"} {
		b.Run(kind, func(b *testing.B) {
			n := 100 << 20
			if kind == "journal" {
				n = 5 << 20
			}
			b.SetBytes(int64(n))
			line := []byte(strings.Repeat(strings.Repeat("x", 99)+"\n", 640))
			for b.Loop() {
				p, w := to(null), -1
				if kind == "prefix" {
					p.Prefix = "web.1 | "
				}
				var r *os.File
				switch kind {
				case "pipe":
					r, w = testPipe(b)
					p.FD = w
				case "file", "rotated":
					r := Rotation{}
					if kind == "rotated" {
						r = Rotation{Size: 10 << 20, Keep: 2}
					}
					p.File = openFile(b, filepath.Join(b.TempDir(), "log"), r)
				case "journal":
					p.Journal = &Journal{Identifier: "web", Service: "web", Generation: 1, Socket: swallow(b)}
				}
				out := newOutput(b, Options{Stdout: p, Stderr: p})
				var got <-chan []byte
				if r != nil {
					got = readAll(r)
				}
				for left := n; left > 0; left -= len(line) {
					if _, err := unix.Write(out.ChildStdout(), line); err != nil {
						b.Fatal(err)
					}
				}
				out.Started()
				waitEOF(b, out)
				mustClose(b, out)
				if r != nil {
					unix.Close(w)
					<-got
				}
			}
		})
	}
}
