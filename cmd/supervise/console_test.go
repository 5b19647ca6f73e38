package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// console is a terminal with a session on it.
type console struct {
	t      *testing.T
	master *os.File
	shell  *exec.Cmd
	ask    io.WriteCloser
	answer *bufio.Reader
	job    int // pid of what the shell started

	mu   sync.Mutex
	more *sync.Cond
	text []byte
	seen int // await goes on from here
}

// openConsole starts leader as the leader of a session on a new terminal.
func openConsole(t *testing.T, env []string, leader ...string) *console {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no pseudo terminal can be had:", err)
	}
	var number int
	raw, err := master.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
				number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
			}
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no pseudo terminal can be had:", err)
	}
	defer slave.Close()
	c := &console{t: t, master: master}
	c.more = sync.NewCond(&c.mu)
	askRead, ask, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	answer, answerWrite, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c.ask, c.answer = ask, bufio.NewReader(answer)
	c.shell = exec.Command(leader[0], leader[1:]...)
	c.shell.Env = append(quiet(), env...)
	c.shell.Stdin, c.shell.Stdout, c.shell.Stderr = slave, slave, slave
	c.shell.ExtraFiles = []*os.File{askRead, answerWrite}
	c.shell.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	if err := c.shell.Start(); err != nil {
		t.Fatal(err)
	}
	askRead.Close()
	answerWrite.Close()
	go c.listen()
	t.Cleanup(func() {
		if c.job != 0 {
			if unix.Kill(c.job, unix.SIGTERM) == nil {
				unix.Kill(c.job, unix.SIGCONT)
			}
		}
		ask.Close()
		c.shell.Process.Signal(unix.SIGTERM)
		c.shell.Process.Signal(unix.SIGCONT)
		timer := time.AfterFunc(longest, func() { c.shell.Process.Kill() })
		c.shell.Wait()
		timer.Stop()
		answer.Close()
		master.Close()
	})
	return c
}

// openShell is openConsole with the played shell, which has started
// "supervise FLAGS -- COMMAND".
func openShell(t *testing.T, start string, args ...string) *console {
	t.Helper()
	c := openConsole(t, nil, append([]string{self(t), play + "shell", superviseLink(t)}, args...)...)
	fmt.Sscanf(c.tell(start), "pid %d", &c.job)
	if c.job == 0 {
		t.Fatal("the shell did not start supervise")
	}
	return c
}

func (c *console) listen() {
	buf := make([]byte, 4096)
	for {
		n, err := c.master.Read(buf)
		c.mu.Lock()
		c.text = append(c.text, buf[:n]...)
		c.more.Broadcast()
		c.mu.Unlock()
		if err != nil && !errors.Is(err, syscall.EIO) { // EIO: nobody has it open just now
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// await waits until the screen shows a match after the last one, and returns
// its groups.
func (c *console) await(pattern string) []string {
	c.t.Helper()
	re := regexp.MustCompile(pattern)
	late := false
	timer := time.AfterFunc(longest, func() {
		c.mu.Lock()
		late = true
		c.more.Broadcast()
		c.mu.Unlock()
	})
	defer timer.Stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if at := re.FindSubmatchIndex(c.text[c.seen:]); at != nil {
			var groups []string
			for _, g := range re.FindSubmatch(c.text[c.seen:]) {
				groups = append(groups, string(g))
			}
			c.seen += at[1]
			return groups
		}
		if late {
			c.t.Fatalf("%q did not come; the screen:\n%s", pattern, c.text)
		}
		c.more.Wait()
	}
}

// awaitAll is await for several, in whatever order they come. It returns the
// first group of the first.
func (c *console) awaitAll(patterns ...string) string {
	c.t.Helper()
	from, last, first := c.seen, c.seen, ""
	for i, p := range patterns {
		c.seen = from
		groups := c.await(p)
		if i == 0 && len(groups) > 1 {
			first = groups[1]
		}
		last = max(last, c.seen)
	}
	c.seen = last
	return first
}

// press sends keys.
func (c *console) press(keys string) {
	c.t.Helper()
	if _, err := io.WriteString(c.master, keys); err != nil {
		c.t.Fatal(err)
	}
}

const (
	ctrlC         = "\x03"
	ctrlZ         = "\x1a"
	ctrlBackslash = "\x1c"
)

// tell asks the played shell and returns its answer.
func (c *console) tell(word string) string {
	c.t.Helper()
	if _, err := fmt.Fprintln(c.ask, word); err != nil {
		c.t.Fatal(err)
	}
	type line struct {
		text string
		err  error
	}
	came := make(chan line, 1)
	go func() {
		text, err := c.answer.ReadString('\n')
		came <- line{strings.TrimSuffix(text, "\n"), err}
	}()
	select {
	case l := <-came:
		if l.err != nil {
			c.t.Fatalf("the shell has ended: %v; the screen:\n%s", l.err, c.screen())
		}
		return l.text
	case <-time.After(longest):
		c.t.Fatalf("no answer to %q; the screen:\n%s", word, c.screen())
	}
	return ""
}

func (c *console) screen() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.text)
}

// expect is tell, with the answer that must come.
func (c *console) expect(word, want string) {
	c.t.Helper()
	if got := c.tell(word); got != want {
		c.t.Fatalf("%s: %q, not %q; the screen:\n%s", word, got, want, c.screen())
	}
}

// playShell does job control for one job, as asked line by line on fd 3. It
// answers on fd 4.
func playShell(argv []string) int {
	signal.Ignore(syscall.SIGTTOU, syscall.SIGTTIN, syscall.SIGTSTP, syscall.SIGINT, syscall.SIGQUIT)
	asked, answer := bufio.NewScanner(os.NewFile(3, "asked")), os.NewFile(4, "answer")
	unix.CloseOnExec(3)
	unix.CloseOnExec(4)
	foreground := func(pgid int) {
		if err := unix.IoctlSetPointerInt(0, unix.TIOCSPGRP, pgid); err != nil && err != unix.EIO && err != unix.ENOTTY {
			fmt.Fprintln(answer, "error", err)
		}
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	job := 0
	go func() {
		for range hup {
			unix.Kill(-job, unix.SIGHUP) // as a shell does for its jobs
		}
	}()
	for asked.Scan() {
		switch word := asked.Text(); word {
		case "start", "start-background":
			cmd := exec.Command(argv[0], argv[1:]...)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Foreground: word == "start", Ctty: 0}
			if err := cmd.Start(); err != nil {
				fmt.Fprintln(answer, "error", err)
				continue
			}
			job = cmd.Process.Pid
			fmt.Fprintln(answer, "pid", job)
		case "wait":
			var status unix.WaitStatus
			for {
				_, err := unix.Wait4(job, &status, unix.WUNTRACED, nil)
				if err != unix.EINTR {
					break
				}
			}
			fg, _ := unix.IoctlGetInt(0, unix.TIOCGPGRP)
			foreground(unix.Getpgrp())
			whose := "other"
			if fg == job {
				whose = "job"
			} else if fg == unix.Getpgrp() {
				whose = "shell"
			}
			switch {
			case status.Stopped():
				fmt.Fprintln(answer, "stopped", unix.SignalName(status.StopSignal()), "terminal", whose)
			case status.Signaled():
				fmt.Fprintln(answer, "signaled", unix.SignalName(status.Signal()), "terminal", whose)
			default:
				fmt.Fprintln(answer, "exited", status.ExitStatus(), "terminal", whose)
			}
		case "fg", "bg":
			if word == "fg" {
				foreground(job)
			}
			unix.Kill(-job, unix.SIGCONT)
			fmt.Fprintln(answer, "ok")
		}
	}
	return 0
}
