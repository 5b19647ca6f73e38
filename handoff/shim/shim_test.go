package shim

import (
	"bufio"
	"errors"
	"io"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary is also the child: it plays the part that shimPlay names.
const shimPlay = "SHIM_TEST_PLAY"

func TestMain(m *testing.M) {
	if part := os.Getenv(shimPlay); part != "" {
		play(part)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const patience = 60 * time.Second

// playing returns a Spec that has this binary play part and write to the
// returned reader, which ends when the child does.
func playing(t testing.TB, part string) (*Spec, *bufio.Reader) {
	t.Helper()
	r, w := pipe(t)
	spec := New("/proc/self/exe", []string{"play"}, []string{shimPlay + "=" + part})
	if exe, err := os.Executable(); err == nil {
		spec.Path = exe
	}
	spec.Files = []int{0, w, 2}
	t.Cleanup(func() {
		if spec.Files[1] == w { // else it is closed, and its number may be another's by now
			unix.Close(w)
		}
	})
	return spec, bufio.NewReader(os.NewFile(uintptr(r), "output"))
}

// closeOutput closes our copy of the child's output, once.
func closeOutput(spec *Spec) {
	unix.Close(spec.Files[1])
	spec.Files[1] = -1
}

func pipe(t testing.TB) (r, w int) {
	t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	return p[0], p[1]
}

// finish waits for the report and the exit, and reaps.
func finish(t testing.TB, c *Child) (unix.WaitStatus, error) {
	t.Helper()
	err := awaitReport(t, c)
	poll(t, c.PIDFD)
	var ws unix.WaitStatus
	if _, werr := unix.Wait4(c.PID, &ws, 0, nil); werr != nil {
		t.Fatalf("wait4: %v", werr)
	}
	c.Close()
	return ws, err
}

func awaitReport(t testing.TB, c *Child) error {
	t.Helper()
	for {
		poll(t, c.Report)
		if done, err := c.ReadReport(); done {
			return err
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func poll(t testing.TB, fd int) {
	t.Helper()
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience/time.Millisecond))
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			t.Fatalf("nothing on descriptor %d: n=%d err=%v", fd, n, err)
		}
		return
	}
}

// run starts spec, closes our end, and returns all that the child wrote.
func run(t testing.TB, spec *Spec, out *bufio.Reader) string {
	t.Helper()
	c, err := Start(spec)
	if err != nil {
		t.Fatal(err)
	}
	closeOutput(spec)
	text, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	ws, err := finish(t, c)
	if err != nil || ws != 0 {
		t.Fatalf("child ended with %#x, report %v, output %q", ws, err, text)
	}
	return string(text)
}

// failing starts spec and returns the error of either side.
func failing(t testing.TB, spec *Spec) *Error {
	t.Helper()
	var e *Error
	c, err := Start(spec)
	if err == nil {
		var ws unix.WaitStatus
		ws, err = finish(t, c)
		if err == nil {
			t.Fatalf("did not fail, child ended with %#x", ws)
		}
		if !ws.Exited() || ws.ExitStatus() != 127 {
			t.Errorf("child ended with %#x, want exit 127", ws)
		}
	}
	if !errors.As(err, &e) {
		t.Fatalf("error %v is not an *Error", err)
	}
	return e
}

func newReader(r io.Reader) *bufio.Reader { return bufio.NewReader(r) }

// lockedMask sets this thread's signal mask until release.
func lockedMask(set, old *uint64) (release func()) {
	runtime.LockOSThread()
	sigprocmask(set, old)
	return func() {
		sigprocmask(old, nil)
		runtime.UnlockOSThread()
	}
}
