package main

// supervise as PID 1 of a pid namespace, and as the subreaper of its
// descendants. PID 1 is played only inside "unshare --pid --fork --mount-proc".

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// asPID1 is the command that makes what follows PID 1, or skips.
func asPID1(t testing.TB) []string {
	t.Helper()
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		t.Skip("no unshare(1) here:", err)
	}
	argv := []string{unshare, "--pid", "--fork", "--mount-proc", "--kill-child"}
	if os.Getuid() != 0 {
		argv = append(argv, "--user", "--map-root-user")
	}
	if out, err := exec.Command(argv[0], append(argv[1:], "true")...).CombinedOutput(); err != nil {
		t.Skipf("no pid namespace may be made here: %v: %s", err, out)
	}
	return argv
}

// firstChild is the pid of PID 1 of the namespace that r made, in ours.
func firstChild(t testing.TB, r *running) int {
	t.Helper()
	for end := time.Now().Add(longest); time.Now().Before(end); time.Sleep(time.Millisecond) {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", r.pid(), r.pid()))
		if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			return pid
		}
	}
	t.Fatal("unshare started nothing")
	return 0
}

func TestPID1EndsBySignals(t *testing.T) {
	t.Parallel()
	pid1 := asPID1(t)
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGQUIT} {
		r := startSupervise(t, nil, append(pid1, superviseLink(t), "--", "sleep", "1000")...)
		r.await(` ready: `)
		if err := unix.Kill(firstChild(t, r), sig); err != nil {
			t.Fatal(err)
		}
		if status := r.wait(); status != 0 && sig != unix.SIGQUIT {
			t.Errorf("exit status %d after %v; the log:\n%s", status, sig, r.text())
		}
		if !strings.Contains(r.text(), "stopped") {
			t.Errorf("no stop after %v; the log:\n%s", sig, r.text())
		}
	}
}

func TestPID1PassesTheStatusOn(t *testing.T) {
	t.Parallel()
	pid1 := asPID1(t)
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n(exit 3) & (exit 4) &\nsh -c 'exit 5'\nexit \"$1\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{0, 1, 42, 126, 255} {
		r := startSupervise(t, nil, append(pid1, superviseLink(t), "--restart", "no", "--", script, strconv.Itoa(want))...)
		if got := r.wait(); got != want {
			t.Errorf("exit status %d, not %d; the log:\n%s", got, want, r.text())
		}
	}
	r := startSupervise(t, nil, append(pid1, superviseLink(t), "--restart", "no", "--limit-core", "0", "--", "sh", "-c", "kill -SEGV $$")...)
	if got := r.wait(); got != 128+int(unix.SIGSEGV) {
		t.Errorf("exit status %d, not that of SIGSEGV; the log:\n%s", got, r.text())
	}
}

// What a container may lack: no usable /proc, nothing writable.
func TestPID1WithoutProcOrWritableRoot(t *testing.T) {
	t.Parallel()
	pid1 := asPID1(t)
	for name, prepare := range map[string]string{
		"empty proc":     `mount -t tmpfs none /proc`,
		"foreign proc":   `umount -l /proc`, // that of the namespace above, or none
		"read-only root": `mount -o remount,bind,ro / && for d in /tmp /run /sys/fs/cgroup; do mount -t tmpfs -o ro none $d; done`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if os.Getuid() != 0 {
				t.Skip("only root can take the file systems away")
			}
			link := filepath.Join("/dev/shm", fmt.Sprintf("supervise-test-%d", os.Getpid()), strings.ReplaceAll(name, " ", "-"))
			if err := os.MkdirAll(link, 0o755); err != nil {
				t.Skip("no place that outlives /tmp:", err)
			}
			t.Cleanup(func() { os.RemoveAll(link) })
			link = filepath.Join(link, "supervise")
			binary, err := os.ReadFile(self(t))
			if err == nil {
				err = os.WriteFile(link, binary, 0o755)
			}
			if err != nil {
				t.Fatal(err)
			}
			script := `mount --make-rprivate / && ` + prepare + ` && exec "$0" --restart always --ready delay:1ms -- sh -c '(sleep 0.01 &) ; echo up; exec sleep 1000'`
			r := startSupervise(t, nil, append(pid1, "--mount", "sh", "-c", script, link)...)
			r.await(`ready: `)
			init := firstChild(t, r)
			for range 2 {
				if err := unix.Kill(init, unix.SIGHUP); err != nil {
					t.Fatal(err)
				}
				r.await(`rollout done`)
			}
			if err := unix.Kill(init, unix.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if status := r.wait(); status != 0 {
				t.Errorf("exit status %d; the log:\n%s", status, r.text())
			}
		})
	}
}

const (
	orphans = 20000
	batch   = 250 // at a time: what is the machine's is not ours alone
)

// playOrphans makes orphans in batches, sees to it that no zombie is left 100
// ms after the last of a batch died, and prints the most that were.
func playOrphans(args []string) int {
	total, _ := strconv.Atoi(args[0])
	parent := os.Getppid()
	worst := 0
	for made := 0; made < total; made += batch {
		// A shell that forks and ends: its children are adopted while they run,
		// and all die at the end of a pipe's last writer.
		cmd := exec.Command("sh", "-c", fmt.Sprintf(`i=0; while [ $i -lt %d ]; do read x <&3 & i=$((i+1)); done`, batch))
		read, write, err := os.Pipe()
		if err != nil {
			fmt.Println("cannot make orphans:", err)
			return 1
		}
		cmd.ExtraFiles = []*os.File{read}
		if err := cmd.Run(); err != nil {
			fmt.Println("cannot make orphans:", err)
			return 1
		}
		read.Close()
		write.Close() // now they die
		for end := time.Now().Add(longest); ; time.Sleep(time.Millisecond) {
			living, _ := childrenOf(parent)
			if living == 0 {
				break
			}
			if time.Now().After(end) {
				fmt.Println("orphans that do not end:", living)
				return 1
			}
		}
		zombies := 0
		for range 100 {
			if _, zombies = childrenOf(parent); zombies == 0 {
				break
			}
			time.Sleep(time.Millisecond)
		}
		worst = max(worst, zombies)
	}
	fmt.Println("zombies", worst)
	select {}
}

// childrenOf counts the children of pid other than ourselves.
func childrenOf(pid int) (living, zombies int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		text, _ := os.ReadFile(task)
		for child := range strings.FieldsSeq(string(text)) {
			if child == strconv.Itoa(os.Getpid()) {
				continue
			}
			stat, err := os.ReadFile("/proc/" + child + "/stat")
			if err != nil {
				continue
			}
			_, after, _ := strings.Cut(string(stat), ") ")
			if strings.HasPrefix(after, "Z") {
				zombies++
			} else {
				living++
			}
		}
	}
	return living, zombies
}

// storm has n orphans made below a supervise, and returns it when all have died,
// with the CPU time that it spent on them.
func storm(t testing.TB, n int, wrapper []string) (r *running, spent time.Duration) {
	t.Helper()
	r = startSupervise(t, nil, append(slices.Clone(wrapper), superviseLink(t), "--restart", "no", "--", self(t), play+"orphans", strconv.Itoa(n))...)
	r.await(` started: `)
	pid := r.pid()
	if wrapper != nil {
		pid = firstChild(t, r)
	}
	before := cpuTime(pid)
	if got := r.await(`zombies (\d+)\n|orphans .*|cannot .*`)[1]; got != "0" {
		t.Errorf("%q zombies were left after 100 ms; the log:\n%s", got, r.text())
	}
	spent = cpuTime(pid) - before
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := r.wait(); status != 0 {
		t.Errorf("exit status %d; the log:\n%s", status, r.text())
	}
	return r, spent
}

// cpuTime is what the threads of pid have spent; without its children.
func cpuTime(pid int) (spent time.Duration) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, task := range tasks {
		text, _ := os.ReadFile(task)
		var ns int64
		fmt.Sscan(string(text), &ns)
		spent += time.Duration(ns)
	}
	return spent
}

func TestReapsOrphansAsSubreaper(t *testing.T) { reapsOrphans(t, nil) }
func TestReapsOrphansAsPID1(t *testing.T)      { reapsOrphans(t, asPID1(t)) }

func reapsOrphans(t *testing.T, wrapper []string) {
	n := orphans
	if testing.Short() {
		n = 2000
	}
	_, spent := storm(t, n, wrapper)
	t.Logf("%d orphans, %.1f us of CPU for each", n, float64(spent.Nanoseconds())/1e3/float64(n))
}

// BenchmarkOrphans tells the CPU time of supervise for each adopted orphan.
func BenchmarkOrphans(b *testing.B) {
	n := (b.N + batch - 1) / batch * batch
	_, spent := storm(b, n, nil)
	b.ReportMetric(float64(spent.Nanoseconds())/1e3/float64(n), "cpu-us/orphan")
}
