package proc

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/handoff/shim"
)

// TestStatuses reaps every exit status and every signal that ends a process.
func TestStatuses(t *testing.T) {
	start := func(script string) *shim.Child {
		c, err := shim.Start(shim.New("/bin/sh", []string{"sh", "-c", script}, nil))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		await(t, c.PIDFD, unix.POLLIN)
		return c
	}
	for status := range 256 {
		c := start(fmt.Sprint("exit ", status))
		n, e, ok, err := ReapOrphans(func(pid int) bool { return pid == c.PID }, 100)
		if err != nil || !ok || n != 0 || e.Status != status || e.Signal != 0 {
			t.Fatalf("status %d: %v %v %v %v", status, n, e, ok, err)
		}
		if e, err := Reap(c.PID); err != nil || e.Status != status || e.ShellStatus() != status || e.Usage.Maxrss == 0 {
			t.Fatalf("status %d: %v %v", status, e, err)
		}
	}
	for sig := 1; sig <= 64; sig++ {
		switch unix.Signal(sig) {
		case unix.SIGCHLD, unix.SIGCONT, unix.SIGURG, unix.SIGWINCH, unix.SIGSTOP, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU:
			continue
		}
		c := start(fmt.Sprintf("ulimit -c 0; kill -%d $$", sig))
		if e, err := Reap(c.PID); err != nil || e.Signal != unix.Signal(sig) || e.ShellStatus() != 128+sig || e.Dumped {
			t.Fatalf("signal %d: %v %v", sig, e, err)
		}
	}
	if _, ok, err := Peek(); ok || err != nil {
		t.Errorf("without children, peek says %v %v", ok, err)
	}
}

func TestReapLiving(t *testing.T) {
	_, c := tree(t, "hang", false, false)
	if _, err := Reap(c.PID); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("reaping a living process: %v", err)
	}
	for _, step := range []struct {
		send unix.Signal
		want Stop
	}{{unix.SIGSTOP, Stop{c.PID, unix.SIGSTOP}}, {unix.SIGCONT, Stop{PID: c.PID}}} {
		if err := Signal(c.PIDFD, step.send); err != nil {
			t.Fatal(err)
		}
		for {
			if s, ok, err := TakeStopped(c.PID); err != nil {
				t.Fatal(err)
			} else if ok {
				if s != step.want {
					t.Errorf("change is %v, want %v", s, step.want)
				}
				break
			}
			unix.Poll(nil, 1)
		}
		if _, ok, _ := TakeStopped(c.PID); ok {
			t.Error("told twice")
		}
	}
}

func TestForeground(t *testing.T) {
	c := playing("foreground")
	c.Stdout = nil
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := c.Output()
	if err != nil || string(out) != "ok\n" {
		t.Errorf("said %q, %v", out, err)
	}
}

// playForeground takes a terminal from the group that has it.
func playForeground() {
	check := func(err error) {
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	check(err)
	check(unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	check(err)
	tty, err := unix.Open(fmt.Sprint("/dev/pts/", n), unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	check(err)
	check(unix.IoctlSetInt(tty, unix.TIOCSCTTY, 0))
	spec := shim.New("/bin/sh", []string{"sh", "-c", "read x"}, nil)
	var p [2]int // the child reads until we close our end
	check(unix.Pipe2(p[:], unix.O_CLOEXEC))
	spec.Files = []int{p[0], 1, 2}
	spec.Foreground = tty
	child, err := shim.Start(spec)
	check(err)
	for {
		if done, err := child.ReadReport(); done {
			check(err)
			break
		}
		unix.Poll([]unix.PollFd{{Fd: int32(child.Report), Events: unix.POLLIN}}, -1)
	}
	if pgid, err := ForegroundGroup(tty); err != nil || pgid != child.PID || !IsTerminal(tty) || IsTerminal(p[0]) {
		fmt.Println("foreground is", pgid, err)
		return
	}
	// We are in the background now: without the block this would stop us.
	check(Foreground(tty, unix.Getpgrp()))
	if pgid, err := ForegroundGroup(tty); err != nil || pgid != unix.Getpgrp() {
		fmt.Println("foreground is", pgid, err)
		return
	}
	unix.Close(p[1])
	_, err = wait(unix.P_PID, child.PID, unix.WEXITED, nil)
	check(err)
	fmt.Println("ok")
}

// TestSetup looks at a child of ours, in which Setup keeps one of two
// descriptors.
func TestSetup(t *testing.T) {
	c := playing("setup")
	c.Stdout = nil
	r, w, _ := os.Pipe()
	defer r.Close()
	defer w.Close()
	c.ExtraFiles = []*os.File{r, w, r}
	out, err := c.Output()
	if err != nil || string(out) != "true false true subreaper true 1\n" {
		t.Errorf("said %q, %v", out, err)
	}
}

func playSetup() {
	info, err := Setup(4)
	for fd := 3; fd <= 5; fd++ {
		flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		fmt.Print(flags&unix.FD_CLOEXEC != 0, " ")
	}
	var set int32
	unix.Prctl(unix.PR_GET_CHILD_SUBREAPER, uintptr(pointer(&set)), 0, 0, 0)
	fmt.Println("subreaper", info.Subreaper && err == nil, set)
}

func TestFacts(t *testing.T) {
	for _, f := range Facts() {
		t.Logf("%-20s %-5v %s %s", f.Name, f.OK, f.Detail, f.Cost)
		if f.Detail == "" || f.OK != (f.Cost == "") {
			t.Errorf("fact %+v is not complete", f)
		}
	}
	if _, ok, _ := Peek(); ok {
		t.Error("a process is left unreaped")
	}
}

// BenchmarkReapOrphans reaps orphans as PID 1 of a namespace of its own; the
// figure that counts is cpu-us/orphan, user and system time of the reaper.
func BenchmarkReapOrphans(b *testing.B) {
	c := exec.Command("unshare", "--pid", "--fork", "--mount-proc", self())
	c.Env = append(os.Environ(), procPlay+"=reaper:20000")
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		b.Skipf("no pid namespace: %v", err)
	}
	var us float64
	if _, err := fmt.Sscan(strings.TrimSpace(string(out)), &us); err != nil {
		b.Fatalf("said %q", out)
	}
	b.ReportMetric(us, "cpu-us/orphan")
	b.ReportMetric(0, "ns/op")
}

// playReaper makes n orphans, 100 at a time, from one child that forks and
// ends, and prints the CPU time of the reaping in microseconds for each.
func playReaper(n int) {
	var cpu float64
	done := 0
	used := func() float64 {
		var u unix.Rusage
		unix.Getrusage(unix.RUSAGE_SELF, &u)
		return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e3
	}
	for done < n {
		maker := playing("orphans:100")
		if err := maker.Start(); err != nil {
			panic(err)
		}
		// The maker says that all its children ended: wait for it, unreaped.
		unix.Waitid(unix.P_PID, maker.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		before := used()
		for {
			got, _, mine, err := ReapOrphans(func(pid int) bool { return pid == maker.Process.Pid }, 1000)
			if err != nil {
				panic(err)
			}
			done += got
			if mine {
				maker.Wait()
				continue
			}
			if got < 1000 {
				break
			}
		}
		cpu += used() - before
	}
	fmt.Printf("%.2f\n", cpu/float64(done))
}

// orphans forks n children that end at once, and ends without reaping them.
//
//go:norace
//go:nosplit
func orphans(n int) {
	for range n {
		pid, _, _ := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
		if pid == 0 {
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
		}
		syscall.RawSyscall6(syscall.SYS_WAITID, unix.P_PID, pid, 0, unix.WEXITED|unix.WNOWAIT, 0, 0)
	}
}
