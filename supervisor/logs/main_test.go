package logs

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// childEnv makes the test binary play a child: its value is the part.
const childEnv = "LOGS_TEST_CHILD"

// deadline is generous: only a failure waits that long.
const deadline = 60 * time.Second

func TestMain(m *testing.M) {
	if part := os.Getenv(childEnv); part != "" {
		if err := play(part); err != nil {
			fmt.Fprintln(os.Stderr, "child:", part+":", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func play(part string) error {
	name, arg, _ := strings.Cut(part, " ")
	n, _ := strconv.Atoi(arg)
	switch name {
	case "say":
		_, err := os.Stdout.WriteString(arg)
		return err
	case "turns": // one line to each stream, in turn
		for i := range n {
			if _, err := fmt.Fprintln(os.Stdout, "out", i); err != nil {
				return err
			}
			if _, err := fmt.Fprintln(os.Stderr, "err", i); err != nil {
				return err
			}
		}
		return nil
	case "bytes": // a pattern of n bytes, with everything in it
		_, err := io.Copy(os.Stdout, io.LimitReader(&pattern{}, int64(n)))
		return err
	case "grandchild": // dies, and leaves one behind that writes when told
		p, err := os.StartProcess("/proc/self/exe", []string{"x"}, &os.ProcAttr{
			Env:   []string{childEnv + "=later", "GORACE=atexit_sleep_ms=0"},
			Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		})
		if err != nil {
			return err
		}
		fmt.Println("parent ends")
		return p.Release()
	case "later":
		_, _ = io.Copy(io.Discard, os.Stdin)
		fmt.Println("grandchild ends")
		return nil
	case "kind":
		fmt.Println(isTerminal(1), isTerminal(2))
		return nil
	}
	return fmt.Errorf("no such part")
}

// pattern is an endless stream of bytes with long and short lines.
type pattern struct{ at int }

func (p *pattern) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(p.at * 7 >> (p.at % 3))
		p.at++
	}
	return len(b), nil
}

func patternBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = (&pattern{}).Read(b)
	return b
}

// run starts the test binary with the child ends of out. The function reaps it.
func run(t testing.TB, out *Output, part string, stdin int) (wait func()) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	pid, err := syscall.ForkExec(exe, []string{exe}, &syscall.ProcAttr{
		Env:   append(os.Environ(), childEnv+"="+part, "GORACE=atexit_sleep_ms=0"),
		Files: []uintptr{uintptr(stdin), uintptr(out.ChildStdout()), uintptr(out.ChildStderr())},
	})
	if err != nil {
		t.Fatal(err)
	}
	out.Started()
	return func() {
		t.Helper()
		var ws syscall.WaitStatus
		for {
			_, err := syscall.Wait4(pid, &ws, 0, nil)
			if err == syscall.EINTR {
				continue
			}
			if err != nil || ws != 0 {
				t.Errorf("child %s: status %v, %v", part, ws, err)
			}
			return
		}
	}
}

// testPipe is a destination: a pipe that the test reads.
func testPipe(t testing.TB) (r *os.File, w int) {
	t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(p[0], true); err != nil {
		t.Fatal(err)
	}
	r = os.NewFile(uintptr(p[0]), "reader")
	t.Cleanup(func() { r.Close() })
	_ = r.SetReadDeadline(time.Now().Add(deadline))
	return r, p[1]
}

// readAll reads a destination to its end in the background.
func readAll(r io.Reader) <-chan []byte {
	c := make(chan []byte, 1)
	go func() {
		var b bytes.Buffer
		_, _ = io.Copy(&b, r)
		c <- b.Bytes()
	}()
	return c
}

func waitEOF(t testing.TB, out *Output) {
	t.Helper()
	select {
	case <-out.EOF():
	case <-time.After(deadline):
		t.Fatalf("the output never ends; last %q", out.Last(5))
	}
}

func to(fd int, prefix ...string) Place { return Place{FD: fd, Prefix: strings.Join(prefix, "")} }

// write plays the child. It must fit into the pipe.
func write(t testing.TB, out *Output, s string) {
	t.Helper()
	if _, err := unix.Write(out.ChildStdout(), []byte(s)); err != nil {
		t.Fatal(err)
	}
}

func newOutput(t testing.TB, o Options) *Output {
	t.Helper()
	out, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func mustClose(t testing.TB, out *Output) {
	t.Helper()
	if err := out.Close(); err != nil {
		t.Error(err)
	}
}

func openFDs(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}
