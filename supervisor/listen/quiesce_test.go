package listen

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The numbers that a listener has in the child of TestQuiesceAllNumbers: among
// them are those of this process's own runtime.
const (
	firstNumber = 4
	lastNumber  = 60
)

// start runs this test binary in a part of child_test.go, with the lane at
// descriptor 3. It is ready when start returns, and ends with the test.
func start(t *testing.T, play string, l *Lane) (pid int, ask func() string) {
	t.Helper()
	var in, out [2]int
	for _, p := range []*[2]int{&in, &out} {
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
	}
	// Not exec.Cmd.ExtraFiles: it would make the listener blocking.
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"child"}, &syscall.ProcAttr{
		Env:   append(os.Environ(), "LISTEN_TEST_CHILD="+play),
		Files: []uintptr{uintptr(in[0]), uintptr(out[1]), 2, uintptr(l.FD())},
	})
	unix.Close(in[0])
	unix.Close(out[1])
	if err != nil {
		t.Fatal(err)
	}
	stdout := os.NewFile(uintptr(out[0]), "child's output")
	t.Cleanup(func() {
		unix.Close(in[1])
		stdout.Close()
		var ws unix.WaitStatus
		for {
			if _, err := unix.Wait4(pid, &ws, 0, nil); err != unix.EINTR {
				break
			}
		}
	})
	lines := bufio.NewReader(stdout)
	line := func() string {
		s, err := lines.ReadString('\n')
		if err != nil {
			t.Fatalf("the child ended: %v", err)
		}
		return strings.TrimSpace(s)
	}
	if s := line(); s != "ready" {
		t.Fatal(s)
	}
	return pid, func() string {
		if _, err := unix.Write(in[1], []byte("?")); err != nil {
			t.Fatal(err)
		}
		return line()
	}
}

func answered(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if b, err := io.ReadAll(c); err != nil || string(b) != "child" {
		t.Fatalf("%q, %v", b, err)
	}
}

// silenced connects until a client stays in the queue. The child may take some
// still: it was on its way to accept(2) when its epoll set was changed.
func silenced(t *testing.T, s *Socket, l *Lane) {
	t.Helper()
	until(t, "a client stays here and does not come to the child", func() bool {
		c := dial(t, s)
		defer c.Close()
		for {
			if fd := accept(t, l); fd >= 0 {
				unix.Close(fd)
				return true
			}
			_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
			if n, err := c.Read(make([]byte, 9)); n > 0 || errors.Is(err, io.EOF) {
				return false // the child's
			}
		}
	})
}

func TestQuiesce(t *testing.T) {
	s := open(t, unixAt("unix", filepath.Join(t.TempDir(), "s")))
	one := s.Sockets()[0]
	l := lend(t, s)
	pid, _ := start(t, "go", l)
	answered(t, dial(t, one))
	for range 5 {
		q, err := Quiesce([]int{pid}, []uint64{l.Inode()})
		if err != nil {
			t.Fatal(err)
		}
		if len(q.Silenced) != 1 || q.Silenced[0] != pid || len(q.Left) != 0 {
			t.Fatalf("%+v", q)
		}
		silenced(t, one, l)
		if err := q.Undo(); err != nil {
			t.Fatal(err)
		}
		answered(t, dial(t, one))
	}
	if q, err := Quiesce([]int{pid}, []uint64{1}); err != nil || len(q.Silenced)+len(q.Left) != 0 {
		t.Errorf("%+v, %v", q, err)
	}
	if q, err := Quiesce([]int{1 << 30}, []uint64{l.Inode()}); err == nil && len(q.Silenced)+len(q.Left) != 0 {
		t.Errorf("a process that is not there: %+v", q)
	}
}

func TestQuiesceWithoutEpoll(t *testing.T) {
	s := open(t, ip("tcp", "127.0.0.1:0"))
	l := lend(t, s)
	pid, _ := start(t, "poll", l)
	answered(t, dial(t, s.Sockets()[0]))
	q, err := Quiesce([]int{pid}, []uint64{l.Inode()})
	if err != nil || len(q.Left) != 1 || q.Left[0] != pid || len(q.Silenced) != 0 {
		t.Fatalf("%+v, %v", q, err)
	}
	q.Close()
	q.Close()
}

// A process that takes the listener out of its sets itself finds it there.
func TestQuiescedStaysInTheSet(t *testing.T) {
	for _, undone := range []bool{false, true} {
		s := open(t, ip("tcp", "127.0.0.1:0"))
		l := lend(t, s)
		pid, ask := start(t, "fussy", l)
		dial(t, s.Sockets()[0])
		q, err := Quiesce([]int{pid}, []uint64{l.Inode()})
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		want := "0 <nil> <nil>; 0 <nil> <nil>"
		if undone {
			if err := q.Undo(); err != nil {
				t.Fatal(err)
			}
			want = "1 <nil> <nil>; 1 <nil> <nil>"
		}
		if got := ask(); got != want {
			t.Errorf("undone %v: events and what epoll_ctl says: %q, want %q", undone, got, want)
		}
		if !undone {
			if err := q.Undo(); err != nil {
				t.Error("what the process took out:", err)
			}
		}
	}
}

// A listener is registered under every small number, also those that are the
// runtime's own here: each is found, and this process survives it.
func TestQuiesceAllNumbers(t *testing.T) {
	s := open(t, ip("tcp", "127.0.0.1:0"))
	l := lend(t, s)
	pid, ask := start(t, "numbers", l)
	before := ask()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Microsecond): // timers make the runtime use its eventfd
				runtime.GC()
			}
		}
	}()
	dial(t, s.Sockets()[0])
	until(t, "the child is told", func() bool { return !strings.HasPrefix(ask(), "0") })
	told := ask()
	if fmt.Sprintf("%.2s", told) < "40" {
		t.Fatalf("the child is told of %s; before: %s", told, before)
	}
	for range 20 {
		q, err := Quiesce([]int{pid}, []uint64{l.Inode()})
		if err != nil {
			t.Fatal(err)
		}
		if got := ask(); got != "0" {
			t.Fatalf("the child is told of %s", got)
		}
		if err := q.Undo(); err != nil {
			t.Fatal(err)
		}
		if got := ask(); len(strings.Fields(got)) != len(strings.Fields(told)) {
			t.Fatalf("the child is told of %s, before of %s", got, told)
		}
	}
	close(stop)
	<-stopped
}

// No thread with a table of its own, full of our listeners, is left.
func TestThreadIsThrownAway(t *testing.T) {
	threads := func() int {
		d, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, e := range d {
			same, err := sameTable(e.Name())
			if err == nil && !same {
				n++
			}
		}
		return n
	}
	for range 50 {
		if err := onThrowAwayThread(func() error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "all threads have one table", func() bool { return threads() == 0 })
}

// sameTable compares the descriptor tables of this process's main thread and a
// thread by kcmp(2).
func sameTable(tid string) (bool, error) {
	var n int
	if _, err := fmt.Sscan(tid, &n); err != nil {
		return false, err
	}
	const kcmpFiles = 2
	r, _, e := unix.Syscall6(unix.SYS_KCMP, uintptr(unix.Getpid()), uintptr(n), kcmpFiles, 0, 0, 0)
	if e != 0 {
		return false, e
	}
	return r == 0, nil
}

func TestWaitRead(t *testing.T) {
	s := open(t, unixAt("unix", filepath.Join(t.TempDir(), "s")))
	l := lend(t, s)
	client := dial(t, s.Sockets()[0])
	var server int
	until(t, "a client is there", func() bool { server = accept(t, l); return server >= 0 })
	defer unix.Close(server)
	if _, err := client.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	self := []int{os.Getpid()}
	if left, err := WaitRead(t.Context(), self, l, 0); left != 1 || err != nil {
		t.Error(left, err)
	}
	if left, err := WaitRead(t.Context(), []int{os.Getppid()}, l, 0); left != 0 || err != nil {
		t.Error("of another process:", left, err)
	}
	receive(t, server)
	if left, err := WaitRead(t.Context(), self, l, patience); left != 0 || err != nil {
		t.Error(left, err)
	}
}

// What a child does to the path is seen and undone.
func TestChildTakesThePath(t *testing.T) {
	s := open(t, unixAt("unix", filepath.Join(t.TempDir(), "s")))
	l := lend(t, s)
	s.Heal()
	start(t, "leave", l)
	fds := []unix.PollFd{{Fd: int32(s.WatchFD()), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, int(patience.Milliseconds())); n != 1 {
		t.Fatal("it was not seen", err)
	}
	if events := s.Heal(); len(events) != 1 || events[0].What != PathReplaced || events[0].Err != nil {
		t.Fatalf("%+v", events)
	}
	dial(t, s.Sockets()[0])
	where(t, l)
}

func FuzzParseEpoll(f *testing.F) {
	f.Add([]byte("pos:\t0\nflags:\t02\nmnt_id:\t10\nino:\t7\ntfd:        5 events:       19 data:                5  pos:0 ino:61af sdev:9\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, x := range parseEpoll(b) {
			if x.number < 0 {
				t.Error(x)
			}
		}
	})
}
