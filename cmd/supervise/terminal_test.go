package main

// A terminal works under supervise as without it: a pseudo terminal whose
// session leader is a tiny job-control shell, played by this binary, and one
// test with a real shell.

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// longest is the one deadline of every wait of the system tests.
const longest = 30 * time.Second

// play is the first argument that makes this binary one of the players.
const play = "play="

func init() {
	if filepath.Base(os.Args[0]) == "supervise" {
		os.Exit(run(os.Args[1:]))
	}
	if len(os.Args) < 2 || !strings.HasPrefix(os.Args[1], play) {
		return
	}
	role, args := strings.TrimPrefix(os.Args[1], play), os.Args[2:]
	f := map[string]func([]string) int{
		"shell": playShell, "lines": playLines, "orphans": playOrphans, "notify": playNotify, "extend": playExtend,
	}[role]
	if f == nil {
		fmt.Fprintln(os.Stderr, "no such player:", role)
		os.Exit(99)
	}
	os.Exit(f(args))
}

// self is the path of this binary.
func self(t testing.TB) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

// superviseLink is a path under which this binary is supervise.
func superviseLink(t testing.TB) string {
	t.Helper()
	link := filepath.Join(t.TempDir(), "supervise")
	if err := os.Symlink(self(t), link); err != nil {
		t.Fatal(err)
	}
	return link
}

// quiet is our environment without what would slow the players down.
func quiet() []string { return append(os.Environ(), "GORACE=atexit_sleep_ms=0") }

// playLines is the command: it says its pid, answers each line that it reads,
// and does with SIGINT what its argument says. It tells the size of its window.
func playLines(args []string) int {
	signals := make(chan os.Signal, 10)
	signal.Notify(signals, syscall.SIGWINCH)
	if args[0] != "default" {
		signal.Notify(signals, syscall.SIGINT)
	}
	var mu sync.Mutex
	say := func(format string, a ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Printf(format+"\n", a...)
	}
	go func() {
		for s := range signals {
			if s == syscall.SIGWINCH {
				if size, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil {
					say("size %dx%d", size.Col, size.Row)
				}
				continue
			}
			say("interrupted")
			if status, err := strconv.Atoi(args[0]); err == nil {
				os.Exit(status)
			}
		}
	}()
	say("up %d", os.Getpid())
	if len(args) > 1 { // does not read
		select {}
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		say("read %q by %d", lines.Text(), os.Getpid())
	}
	select {}
}

// command is "supervise FLAGS -- " the lines player, as arguments.
func command(t *testing.T, onINT string, flags ...string) []string {
	return append(append([]string{"--name", "lines"}, flags...), "--", self(t), play+"lines", onINT)
}

func TestCtrlCEndsSupervise(t *testing.T) {
	t.Parallel()
	for _, onINT := range []string{"default", "0", "130"} {
		for _, restart := range []string{"no", "on-failure", "always"} {
			t.Run(onINT+" "+restart, func(t *testing.T) {
				t.Parallel()
				c := openShell(t, "start", command(t, onINT, "--restart", restart)...)
				c.awaitAll(`up (\d+)`, `ready:`)
				c.press(ctrlC)
				c.expect("wait", "exited 130 terminal job")
			})
		}
	}
}

func TestCtrlCBeforeReadiness(t *testing.T) {
	t.Parallel()
	c := openShell(t, "start", command(t, "default", "--restart", "always", "--ready", "notify")...)
	c.await(`up \d+`)
	c.press(ctrlC)
	c.expect("wait", "exited 130 terminal job")
}

// A command's own status after a Ctrl-C is passed on.
func TestCtrlCStatusOfTheCommand(t *testing.T) {
	t.Parallel()
	c := openShell(t, "start", command(t, "3", "--restart", "always")...)
	c.awaitAll(`up (\d+)`, `ready:`)
	c.press(ctrlC)
	c.expect("wait", "exited 3 terminal job")
}

func TestQuitKeyEndsSupervise(t *testing.T) {
	t.Parallel()
	c := openShell(t, "start", "--name", "sleeper", "--restart", "always", "--limit-core", "0", "--", "sh", "-c", "echo up; exec sleep 1000")
	c.awaitAll(`up\r`, `ready:`)
	c.press(ctrlBackslash)
	c.expect("wait", "exited 131 terminal job")
}

// Ctrl-C is the command's: one that goes on is left alone, once and again.
func TestCtrlCThatTheCommandSurvives(t *testing.T) {
	t.Parallel()
	c := openShell(t, "start", command(t, "never", "--restart", "always")...)
	c.awaitAll(`up (\d+)`, `ready:`)
	for range 3 {
		c.press(ctrlC)
		c.await(`interrupted`)
	}
	c.press("still there\n")
	c.await(`read "still there"`)
	if err := unix.Kill(c.job, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	c.expect("wait", "exited 0 terminal job")
}

// Ctrl-Z stops command and supervise; fg continues both.
func TestCtrlZAndForeground(t *testing.T) {
	t.Parallel()
	c := openShell(t, "start", command(t, "default")...)
	c.await(`up \d+`)
	for i := range 3 {
		c.press(fmt.Sprintf("line %d\n", i))
		c.await(fmt.Sprintf(`read "line %d"`, i))
		c.press(ctrlZ)
		c.expect("wait", "stopped SIGTSTP terminal job")
		c.expect("fg", "ok")
	}
	c.press("after\n")
	c.await(`read "after"`)
	c.press(ctrlC)
	c.expect("wait", "exited 130 terminal job")
}

// After bg the command runs, and stops again when it reads.
func TestBackgroundAfterCtrlZ(t *testing.T) {
	t.Parallel()
	c := openShell(t, "start", command(t, "default")...)
	c.await(`up \d+`)
	c.press("one\n")
	c.await(`read "one"`)
	c.press(ctrlZ)
	c.expect("wait", "stopped SIGTSTP terminal job")
	c.expect("bg", "ok")
	c.expect("wait", "stopped SIGTTIN terminal shell")
	c.expect("fg", "ok")
	c.press("two\n")
	c.await(`read "two"`)
	c.press(ctrlC)
	c.expect("wait", "exited 130 terminal job")
}

func TestStartedInBackground(t *testing.T) {
	t.Parallel()
	c := openShell(t, "start-background", command(t, "default")...)
	c.await(`up \d+`)
	c.expect("wait", "stopped SIGTTIN terminal shell")
	c.expect("fg", "ok")
	c.press("hello\n")
	c.await(`read "hello"`)
	c.press(ctrlC)
	c.expect("wait", "exited 130 terminal job")
}

func TestWindowSize(t *testing.T) {
	t.Parallel()
	c := openShell(t, "start", command(t, "default")...)
	c.awaitAll(`up (\d+)`, `ready:`)
	raw, err := c.master.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 99})
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	c.await(`size 99x33`)
	c.press(ctrlC)
	c.expect("wait", "exited 130 terminal job")
}

// After a rollout, and after a crash, the new generation has the terminal.
func TestNewGenerationHasTheTerminal(t *testing.T) {
	t.Parallel()
	c := openShell(t, "start", command(t, "default", "--restart", "always", "--ready", "delay:1ms")...)
	pid := c.awaitAll(`up (\d+)`, `ready:`)
	for range 3 {
		if err := unix.Kill(c.job, unix.SIGHUP); err != nil {
			t.Fatal(err)
		}
		next := c.awaitAll(`up (\d+)`, `rollout done`)
		c.press("whose?\n")
		if by := c.await(`read "whose\?" by (\d+)`)[1]; by != next || by == pid {
			t.Fatalf("read by %s, not by %s", by, next)
		}
		pid = next
	}
	old, _ := strconv.Atoi(pid)
	if err := unix.Kill(old, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	next := c.await(`up (\d+)`)[1]
	c.press("whose?\n")
	if by := c.await(`read "whose\?" by (\d+)`)[1]; by != next {
		t.Fatalf("read by %s, not by %s", by, next)
	}
	c.press(ctrlC)
	c.expect("wait", "exited 130 terminal job")
}

// With "stty tostop" our log is written although the command has the terminal.
func TestLogUnderTostop(t *testing.T) {
	t.Parallel()
	c := openShell(t, "start", command(t, "default", "--ready", "delay:1ms")...)
	c.awaitAll(`up (\d+)`, `ready:`)
	raw, err := c.master.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			var mode *unix.Termios
			if mode, err = unix.IoctlGetTermios(int(fd), unix.TCGETS); err == nil {
				mode.Lflag |= unix.TOSTOP
				err = unix.IoctlSetTermios(int(fd), unix.TCSETS, mode)
			}
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(c.job, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	c.await(`stopping`)
	c.expect("wait", "exited 0 terminal job")
}

// The terminal goes away: that is a stop and no reload, whatever Restart= says.
func TestHangUp(t *testing.T) {
	t.Parallel()
	for _, onINT := range []string{"default", "0"} {
		c := openShell(t, "start", command(t, onINT, "--restart", "always")...)
		pid, _ := strconv.Atoi(c.awaitAll(`up (\d+)`, `ready:`))
		c.master.Close()
		c.expect("wait", "exited 0 terminal other")
		if unix.Kill(pid, 0) != unix.ESRCH {
			t.Error("the command outlives the terminal")
		}
	}
}

// Whoever ignores SIGHUP, as nohup(1) has it, outlives the terminal, and so does
// the command. A SIGHUP that is none of the terminal's is a reload all the same.
func TestHangUpUnderNohup(t *testing.T) {
	t.Parallel()
	for name, stdin := range map[string]string{"stdin is the terminal": "", "stdin is not": "</dev/null"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := filepath.Join(t.TempDir(), "log")
			script := `log=$1; shift; trap '' HUP; exec "$@" 2>$log ` + stdin
			leader := []string{self(t), play + "shell", "sh", "-c", script, "sh", log, superviseLink(t)}
			c := openConsole(t, nil, append(leader, command(t, "default", "--restart", "always")...)...)
			fmt.Sscanf(c.tell("start"), "pid %d", &c.job)
			pid, _ := strconv.Atoi(c.await(`up (\d+)`)[1])
			awaitLog(t, log, `ready:`)
			c.master.Close()
			awaitLog(t, log, `the terminal is gone, going on`)
			if err := unix.Kill(pid, 0); err != nil {
				t.Errorf("the command: %v", err)
			}
			if err := unix.Kill(c.job, unix.SIGHUP); err != nil {
				t.Fatal(err)
			}
			awaitLog(t, log, `(?s)generation=2 .*rollout done:`)
			if err := unix.Kill(c.job, unix.SIGTERM); err != nil {
				t.Fatal(err)
			}
			c.expect("wait", "exited 0 terminal other")
		})
	}
}

// awaitLog waits until a file has what matches pattern.
func awaitLog(t *testing.T, file, pattern string) {
	t.Helper()
	re := regexp.MustCompile(pattern)
	for end := time.Now().Add(longest); ; time.Sleep(5 * time.Millisecond) {
		text, err := os.ReadFile(file)
		if re.Match(text) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%q did not come, %v; the log:\n%s", pattern, err, text)
		}
	}
}

// A session of its own, as in a container: nobody could continue what Ctrl-Z stops.
func TestCtrlZWithoutAShell(t *testing.T) {
	t.Parallel()
	c := openConsole(t, nil, append([]string{superviseLink(t)}, command(t, "default")...)...)
	c.await(`up (\d+)`)
	c.press("one\n")
	c.await(`read "one"`)
	c.press(ctrlZ)
	c.press("two\n")
	c.await(`read "two"`)
	c.press(ctrlC)
	err := c.shell.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 130 {
		t.Fatalf("%v; the screen:\n%s", err, c.screen())
	}
}

// awaitStopped waits until the parent of pid, which is supervise, is stopped.
func awaitStopped(t *testing.T, pid string) {
	t.Helper()
	for end := time.Now().Add(longest); time.Now().Before(end); time.Sleep(time.Millisecond) {
		text, _ := os.ReadFile("/proc/" + pid + "/stat")
		_, after, _ := strings.Cut(string(text), ") ")
		if f := strings.Fields(after); len(f) > 1 {
			text, _ = os.ReadFile("/proc/" + f[1] + "/stat")
			if _, after, _ = strings.Cut(string(text), ") "); strings.HasPrefix(after, "T") {
				return
			}
		}
	}
	t.Fatal("supervise was not stopped")
}

// The same with a shell of the world.
func TestRealShell(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"bash", "dash"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			shell, err := exec.LookPath(name)
			if err != nil {
				t.Skip("no such shell here:", err)
			}
			argv := []string{shell, "-i"}
			if name == "bash" {
				argv = []string{shell, "--norc", "--noprofile", "--noediting", "-i"}
			}
			c := openConsole(t, []string{"PS1=> ", "ENV=", "HISTFILE="}, argv...)
			line := strings.Join(append([]string{superviseLink(t)}, command(t, "0", "--restart", "always")...), " ")
			c.await(`> $`)
			c.press(line + "\n")
			pid := c.awaitAll(`up (\d+)`, `started:`)
			c.press("one\n")
			c.await(`read "one"`)
			c.press(ctrlZ)
			c.await(`Stopped`)
			c.await(`> $`)
			c.press("fg\n")
			c.press("two\n")
			c.await(`read "two"`)
			c.press(ctrlZ)
			c.await(`Stopped`)
			c.await(`> $`)
			c.press("bg\n")
			c.await(`> $`)       // else it would still be stopped from before
			awaitStopped(t, pid) // it reads
			// The shell has not always heard of it yet, and fg of a job that it
			// takes for running sends no SIGCONT.
			for {
				c.press("jobs\n")
				if c.await(`(Stopped|Running)`)[1] == "Stopped" {
					break
				}
			}
			c.press("fg\n")
			c.press("three\n")
			c.await(`read "three"`)
			c.press(ctrlC)
			c.await(`interrupted`)
			c.press("echo status=$?\n")
			c.await(`status=130`)
			c.press(line + " | cat\n") // the shell waits for both
			c.awaitAll(`up \d+`, `started:`)
			c.press(ctrlC)
			c.await(`interrupted`)
			c.await(`> $`)
			c.press("exit\n")
			if bytes.Contains([]byte(c.screen()), []byte("cannot")) {
				t.Error(c.screen())
			}
		})
	}
}
