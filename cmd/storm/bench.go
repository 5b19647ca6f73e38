package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/cmd/storm/crash"
)

const benchUsage = `usage: storm bench [flags]

  -supervise PATH   the binary to measure; built from ./cmd/supervise if none
  -flags "..."      more flags for supervise, before --
  -samples N        of each time                                      40
  -settle DUR       how long a child has run before it is killed      300ms
  -idle DUR         how long to watch supervise do nothing; 0: skip   60s

All times are taken in turns in one run: the machine is never the same twice,
only the ratio to the bare program of the same run means something.
`

// childSource is what is supervised: it says its pid and when its main began,
// and waits. In C, as a Go program would take longer to reach main than the
// supervisors to start it.
const childSource = `
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>
int main(int argc, char **argv) {
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	int fd = open(argv[1], O_WRONLY);
	dprintf(fd, "%d %lld\n", (int)getpid(), now.tv_sec * 1000000000LL + now.tv_nsec);
	for (;;) pause();
}
`

// respawnSource is the least that can be called a supervisor.
const respawnSource = `
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
int main(int argc, char **argv) {
	for (;;) {
		pid_t pid = fork();
		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			execv(argv[1], argv + 1);
			_exit(127);
		}
		waitpid(pid, 0, 0);
	}
}
`

// benchmark is one run of bench.
type benchmark struct {
	dir       string // of all that is built
	supervise []string
	samples   int
	settle    time.Duration
	idle      time.Duration
	table     *tabwriter.Writer
}

func bench(args []string) int {
	f := flag.NewFlagSet("storm bench", flag.ContinueOnError)
	f.Usage = func() { fmt.Fprint(os.Stderr, benchUsage) }
	binary := f.String("supervise", "", "")
	flags := f.String("flags", "", "")
	b := benchmark{table: tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)}
	f.IntVar(&b.samples, "samples", 40, "")
	f.DurationVar(&b.settle, "settle", 300*time.Millisecond, "")
	f.DurationVar(&b.idle, "idle", time.Minute, "")
	if err := f.Parse(args); err != nil || f.NArg() > 0 || b.samples < 1 {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 64
	}
	dir, err := os.MkdirTemp("", "storm-bench-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "storm bench:", err)
		return 70
	}
	defer os.RemoveAll(dir)
	b.dir = dir
	if err := b.run(*binary, strings.Fields(*flags)); err != nil {
		fmt.Fprintln(os.Stderr, "storm bench:", err)
		return 70
	}
	return 0
}

func (b *benchmark) run(binary string, flags []string) error {
	if binary == "" {
		binary = filepath.Join(b.dir, "supervise")
		build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, "github.com/supervise/supervise/cmd/supervise")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("cannot build supervise: %w\n%s", err, out)
		}
	}
	binary, err := filepath.Abs(binary)
	if err != nil {
		return err
	}
	b.supervise = append([]string{binary}, flags...)
	if help, _ := exec.Command(binary, "--help").Output(); bytes.Contains(help, []byte("--control ")) {
		b.supervise = append(b.supervise, "--control", filepath.Join(b.dir, "control.sock")) // not that of a real one
	}
	child, err := b.compile("child", childSource)
	if err != nil {
		return err
	}
	respawn, err := b.compile("respawn", respawnSource)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}

	fmt.Fprintf(b.table, "\tmedian\tmin\tmax\tto bare\t\n")
	err = errors.Join(
		b.recovery([]contender{
			{"SIGKILL to next main: bare, C", []string{respawn}},
			{"bare, Go", []string{self, controlVerb, "respawn", "none", "none"}},
			{"supervise --handoff none", b.with("--handoff", "none", "--")},
			{"supervise", b.with("--")},
		}, child),
		b.start(),
		b.atRest(child),
	)
	if info, statErr := os.Stat(binary); statErr == nil {
		fmt.Fprintf(b.table, "binary\t%.2f MiB\t\t\t\t\n", float64(info.Size())/(1<<20))
	}
	return errors.Join(err, b.table.Flush())
}

// with is supervise with more arguments.
func (b *benchmark) with(args ...string) []string {
	return append(slices.Clone(b.supervise), args...)
}

func (b *benchmark) compile(name, source string) (string, error) {
	binary := filepath.Join(b.dir, name)
	cc := exec.Command("cc", "-static", "-O2", "-x", "c", "-o", binary, "-")
	cc.Stdin = strings.NewReader(source)
	if out, err := cc.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot compile %s: %w\n%s", name, err, out)
	}
	return binary, nil
}

// contender is one way of supervising; the child's command is appended to argv.
type contender struct {
	name string
	argv []string
}

// born is what a child says of itself.
type born struct {
	pid   int
	clock uint64 // CLOCK_MONOTONIC at main, ns
}

// nursery is a fifo in which children say that they have begun.
type nursery struct {
	path  string
	file  *os.File
	lines *bufio.Reader
}

// openNursery makes it; the caller closes file.
func (b *benchmark) openNursery() (*nursery, error) {
	n := &nursery{path: filepath.Join(b.dir, fmt.Sprintf("fifo-%d", time.Now().UnixNano()))}
	if err := unix.Mkfifo(n.path, 0o600); err != nil {
		return nil, fmt.Errorf("cannot make %s: %w", n.path, err)
	}
	var err error
	// Read and write, so that it does not end when no child has it open.
	n.file, err = os.OpenFile(n.path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	n.lines = bufio.NewReader(n.file)
	return n, nil
}

func (n *nursery) next() (born, error) {
	var c born
	if err := n.file.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return c, err
	}
	line, err := n.lines.ReadString('\n')
	if err != nil {
		return c, fmt.Errorf("cannot hear of a child: %w", err)
	}
	_, err = fmt.Sscanf(line, "%d %d", &c.pid, &c.clock)
	return c, err
}

// recovery measures from the SIGKILL of a child to the main of the next one.
// Each sample is of a supervisor of its own, since their delays grow when a
// child dies often.
func (b *benchmark) recovery(contenders []contender, child string) error {
	times := make([][]time.Duration, len(contenders))
	for range b.samples {
		for i, c := range contenders {
			took, err := b.recover(c, child)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			times[i] = append(times[i], took)
		}
	}
	for i, c := range contenders {
		b.row(c.name, times[i], times[0])
	}
	return nil
}

func (b *benchmark) recover(c contender, child string) (time.Duration, error) {
	n, err := b.openNursery()
	if err != nil {
		return 0, err
	}
	defer n.file.Close()
	s, err := begin(append(slices.Clone(c.argv), child, n.path), nil, nil)
	if err != nil {
		return 0, err
	}
	defer s.end(20 * time.Second)
	first, err := n.next()
	if err != nil {
		return 0, fmt.Errorf("%w%s", err, s.words())
	}
	time.Sleep(b.settle) // what is measured is the crash of a server that had run
	d, err := crash.KillNoted(s.pid(), first.pid, nil)
	if err != nil {
		return 0, err
	}
	second, err := n.next()
	if err != nil {
		return 0, fmt.Errorf("after the kill: %w%s", err, s.words())
	}
	return time.Duration(second.clock - d.Clock), nil
}

// start measures a whole run of true(1).
func (b *benchmark) start() error {
	path, err := exec.LookPath("true")
	if err != nil {
		return err
	}
	var bare, supervised []time.Duration
	for range b.samples {
		for _, run := range []struct {
			argv  []string
			times *[]time.Duration
		}{
			{[]string{path}, &bare},
			{b.with("--", path), &supervised},
		} {
			cmd := exec.Command(run.argv[0], run.argv[1:]...)
			began := time.Now()
			err := cmd.Run()
			*run.times = append(*run.times, time.Since(began))
			if err != nil {
				return fmt.Errorf("%s: %w", strings.Join(run.argv, " "), err)
			}
		}
	}
	b.row("true: bare", bare, bare)
	b.row("supervise -- true", supervised, bare)
	return nil
}

func (b *benchmark) row(name string, times, bare []time.Duration) {
	slices.Sort(times)
	slices.Sort(bare)
	median, base := times[len(times)/2], bare[len(bare)/2]
	fmt.Fprintf(b.table, "%s\t%v\t%v\t%v\t%.2f\t\n", name, round(median), round(times[0]), round(times[len(times)-1]), float64(median)/float64(base))
}

// atRest measures a supervisor of one service that has nothing to do.
func (b *benchmark) atRest(child string) error {
	n, err := b.openNursery()
	if err != nil {
		return err
	}
	defer n.file.Close()
	s, err := begin(b.with("--", child, n.path), nil, nil)
	if err != nil {
		return err
	}
	defer s.end(20 * time.Second)
	if _, err := n.next(); err != nil {
		return fmt.Errorf("%w%s", err, s.words())
	}
	time.Sleep(3 * time.Second) // readiness has settled, the collector has been
	rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", s.pid()))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(rollup)) {
		if f := strings.Fields(line); len(f) == 3 && (f[0] == "Pss:" || f[0] == "Rss:") {
			kib, _ := strconv.Atoi(f[1])
			fmt.Fprintf(b.table, "memory, %s\t%.2f MiB\t\t\t\t\n", strings.ToUpper(f[0][:3]), float64(kib)/1024)
		}
	}
	if b.idle == 0 {
		return nil
	}
	calls, err := b.strace(s.pid())
	if err != nil {
		return err
	}
	fmt.Fprintf(b.table, "system calls in %v of idle\t%d\t\t\t\t\n", b.idle, len(calls))
	for i, call := range calls {
		if i == 5 {
			break
		}
		fmt.Fprintln(os.Stderr, "idle:", call)
	}
	return nil
}

// strace gives the system calls that a process and its threads complete within
// the idle time. What ends in the first second does not count: to be attached
// to interrupts the calls that wait, epoll_wait(2) with EINTR.
func (b *benchmark) strace(pid int) ([]string, error) {
	file := filepath.Join(b.dir, "strace")
	var said strings.Builder
	cmd := exec.Command("strace", "-f", "-ttt", "-o", file, "-p", strconv.Itoa(pid))
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("cannot watch for idleness: %w", err)
	}
	const attaching = time.Second
	from := float64(time.Now().Add(attaching).UnixNano()) / 1e9
	time.Sleep(attaching + b.idle)
	until := float64(time.Now().UnixNano()) / 1e9
	// With -p, strace detaches on SIGINT and lets the process go on.
	cmd.Process.Signal(syscall.SIGINT)
	err := cmd.Wait()
	text, readErr := os.ReadFile(file)
	if readErr != nil || len(text) == 0 {
		return nil, fmt.Errorf("cannot watch for idleness: %w: %s", errors.Join(err, readErr), said.String())
	}
	var calls []string
	for line := range strings.Lines(string(text)) {
		// PID TIME CALL(ARGS) = RESULT; what has not ended has no result.
		var thread int
		var at float64
		if _, err := fmt.Sscan(line, &thread, &at); err != nil {
			return nil, fmt.Errorf("cannot read a line of strace: %q: %w", line, err)
		}
		if strings.Contains(line, " = ") && at >= from && at < until {
			calls = append(calls, strings.TrimSpace(line))
		}
	}
	return calls, nil
}
