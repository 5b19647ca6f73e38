package proc

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/handoff/shim"
)

// The test binary is also the child: it plays the part that procPlay names.
const procPlay = "PROC_TEST_PLAY"

const patience = 60 * time.Second

func TestMain(m *testing.M) {
	if part := os.Getenv(procPlay); part != "" {
		play(part)
		os.Exit(0)
	}
	// A -race build sleeps a second at each exit.
	os.Setenv("GORACE", "atexit_sleep_ms=0")
	if _, err := Setup(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func self() string {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return exe
}

// tree starts part in a tree of its own and waits until it says that it is
// ready.
func tree(t *testing.T, part string, cgroup bool, sole bool) (*Tree, *shim.Child) {
	t.Helper()
	var id [16]byte
	rand.Read(id[:])
	tr := NewTree(TreeConfig{
		Name: "test", Generation: int(id[0])<<8 + int(id[1]), Marker: hex.EncodeToString(id[:]),
		UseCgroup: cgroup, Sole: func() bool { return sole },
	})
	if cgroup && tr.CgroupFD() < 0 {
		t.Skipf("no cgroup here: %v", tr.CgroupError())
	}
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	spec := shim.New(self(), []string{"play-" + part}, []string{
		procPlay + "=" + part, "INVOCATION_ID=" + tr.cfg.Marker, "PATH=" + os.Getenv("PATH"), "GOMAXPROCS=1", "GORACE=" + os.Getenv("GORACE"),
	})
	spec.Files = []int{0, p[1], 2}
	spec.Setpgid = true
	spec.CgroupFD = tr.CgroupFD()
	c, err := shim.Start(spec)
	unix.Close(p[1])
	if err != nil {
		t.Fatal(err)
	}
	tr.SetMain(c.PID, c.PIDFD)
	t.Cleanup(func() {
		end(t, tr, c)
		c.Close()
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
	out := os.NewFile(uintptr(p[0]), "output")
	defer out.Close()
	lines := bufio.NewReader(out)
	for range readies(part) {
		if line, err := lines.ReadString('\n'); err != nil || line != "ready\n" {
			t.Fatalf("%s said %q, %v", part, line, err)
		}
	}
	return tr, c
}

// readies is how many lines "ready" a part says: a storm one for each chain.
func readies(part string) int {
	name, rest, _ := strings.Cut(part, ":")
	if name == "usr1-all" {
		return 3
	}
	if n, err := strconv.Atoi(rest); err == nil && strings.HasSuffix(name, "storm") {
		return n
	}
	return 1
}

// end kills the tree as the loop would: kill, reap, again; and fails if it
// does not end. It returns how often it had to.
func end(t *testing.T, tr *Tree, c *shim.Child) (rounds int) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		left, err := tr.Kill()
		if err != nil {
			t.Fatal(err)
		}
		rounds++
		reapAll(t, tr, c)
		if left == 0 {
			empty, err := tr.Empty()
			if err != nil {
				t.Fatal(err)
			}
			if empty {
				return rounds
			}
		}
		if time.Now().After(deadline) {
			pids, _ := tr.Pids()
			t.Fatalf("%d processes left: %v", left, pids)
		}
		// SIGCHLD would wake the loop; the exits are a matter of microseconds.
		unix.Poll(nil, 1)
	}
}

func reapAll(t *testing.T, tr *Tree, c *shim.Child) {
	t.Helper()
	for {
		n, e, mine, err := ReapOrphans(func(pid int) bool { return pid == c.PID }, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if mine {
			if _, err := Reap(e.PID); err != nil {
				t.Fatal(err)
			}
			tr.MainReaped()
			continue
		}
		if n < 1000 {
			return
		}
	}
}

// playing returns a command that plays part.
func playing(part string, env ...string) *exec.Cmd {
	c := exec.Command(self())
	c.Args = []string{"play-" + part}
	c.Env = append(os.Environ(), procPlay+"="+part)
	c.Env = append(c.Env, env...)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	return c
}

func hang() {
	signal.Ignore(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
	time.Sleep(2 * patience) // a test that fails to end us does not leave us for ever
}

func play(part string) {
	part, rest, _ := strings.Cut(part, ":")
	switch part {
	case "hang", "ignore-term":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("ready")
		hang()
	case "silent":
		hang()
	case "double-fork": // main stays, a grandchild without parent, session, group hangs
		c := playing("fork-once")
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := c.Run(); err != nil {
			panic(err)
		}
		fmt.Println("ready")
		hang()
	case "fork-once":
		c := playing("silent")
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := c.Start(); err != nil {
			panic(err)
		}
	case "gone-main": // the main process ends, its daemon does not
		play("fork-once")
		fmt.Println("ready")
	case "clean-env": // a daemon with no environment, session, group or parent in common with main
		c := playing("fork-clean")
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := c.Run(); err != nil {
			panic(err)
		}
		fmt.Println("ready")
		hang()
	case "fork-clean":
		c := playing("silent")
		c.Env = []string{procPlay + "=silent", "FOR_THE_TEST=" + os.Getenv("INVOCATION_ID")}
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := c.Start(); err != nil {
			panic(err)
		}
	case "stopped":
		c := playing("silent")
		if err := c.Start(); err != nil {
			panic(err)
		}
		syscall.Kill(c.Process.Pid, syscall.SIGSTOP)
		var ws syscall.WaitStatus
		syscall.Wait4(c.Process.Pid, &ws, syscall.WUNTRACED, nil)
		fmt.Println("ready")
		hang()
	case "zombies": // children that nobody reaps
		for range 20 {
			c := playing("exit")
			c.Start()
			unix.Waitid(unix.P_PID, c.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		}
		fmt.Println("ready")
		hang()
	case "exit":
		n, _ := strconv.Atoi(rest)
		os.Exit(n)
	case "storm", "group-storm": // N chains of fork and exit; in a storm each link is in a session of its own
		n, _ := strconv.Atoi(rest)
		link := map[string]string{"storm": "chain", "group-storm": "group-chain"}[part]
		for range n {
			c := playing(link)
			if err := c.Start(); err != nil {
				panic(err)
			}
			go c.Wait()
		}
		hang()
	case "chain":
		chain(true, 20000, []byte("ready\n"))
	case "group-chain":
		chain(false, 20000, []byte("ready\n"))
	case "setup":
		playSetup()
	case "reaper":
		n, _ := strconv.Atoi(rest)
		playReaper(n)
	case "orphans":
		n, _ := strconv.Atoi(rest)
		orphans(n)
	case "foreground":
		playForeground()
	case "usr1-all": // main and two others that end with 7 on SIGUSR1
		for range 2 {
			c := playing("signals")
			c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			if err := c.Start(); err != nil {
				panic(err)
			}
		}
		play("signals")
	case "signals":
		ch := make(chan os.Signal, 1)
		signal.Notify(ch, syscall.SIGUSR1)
		fmt.Println("ready")
		<-ch
		os.Exit(7)
	default:
		os.Exit(99)
	}
}

// chain forks and ends, again and again, as fast as the kernel can: only raw
// system calls, for there is no Go runtime after a fork. It says that it is
// under way at the 50th link, and ends by itself after the last.
//
//go:norace
//go:nosplit
func chain(setsid bool, links int, ready []byte) {
	for i := range links {
		pid, _, _ := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
		if pid != 0 {
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
		}
		if setsid {
			syscall.RawSyscall(syscall.SYS_SETSID, 0, 0, 0)
		}
		if i == 50 {
			syscall.RawSyscall(syscall.SYS_WRITE, 1, uintptr(unsafe.Pointer(unsafe.SliceData(ready))), uintptr(len(ready)))
		}
	}
	syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
}

func TestTreesEnd(t *testing.T) {
	parts := []string{"ignore-term", "double-fork", "gone-main", "clean-env", "stopped", "zombies", "group-storm:10", "storm:1", "storm:10"}
	for _, cgroup := range []bool{true, false} {
		for _, part := range parts {
			t.Run(fmt.Sprintf("%s/cgroup=%v", part, cgroup), func(t *testing.T) {
				tr, c := tree(t, part, cgroup, part == "clean-env")
				begin := time.Now()
				rounds := end(t, tr, c)
				t.Logf("%s: %d rounds, %v", tr.Way(), rounds, time.Since(begin))
				nobody(t, tr)
			})
		}
	}
}

// nobody checks by other means that nobody of the tree lives: each has the
// marker in its environment, be it under another name.
func nobody(t *testing.T, tr *Tree) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if strings.Contains(string(env), tr.cfg.Marker) {
			t.Errorf("process %d of the tree lives", pid)
		}
	}
}

// noDeadline is for walks that may take their time.
var noDeadline time.Time

func pointer(p *int32) unsafe.Pointer { return unsafe.Pointer(p) }
