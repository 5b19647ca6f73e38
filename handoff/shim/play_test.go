package shim

import (
	"fmt"
	"os"
	"sort"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/handoff/shim/nofile"
)

// play is what the child says about the state that its main began in.
func play(part string) {
	switch part {
	case "env":
		for _, kv := range os.Environ() {
			fmt.Println(kv)
		}
		fmt.Println("pid", os.Getpid())
	case "tame":
		fmt.Print(playTame())
	case "grandchild-limit":
		soft, hard, _ := nofile.Original()
		var now unix.Rlimit
		unix.Getrlimit(unix.RLIMIT_NOFILE, &now)
		fmt.Println("original", soft, hard, "raised", now.Cur > soft)
		c, err := Start(New("/bin/sh", []string{"sh", "-c", "ulimit -n"}, nil))
		if err != nil {
			panic(err)
		}
		unix.Wait4(c.PID, nil, 0, nil)
	case "session":
		tty := openTerminal()
		exe, _ := os.Executable()
		spec := New(exe, []string{"play"}, []string{shimPlay + "=foreground"})
		spec.Files = []int{tty, 1, 2}
		spec.Foreground = tty
		c, err := Start(spec)
		if err != nil {
			panic(err)
		}
		unix.Wait4(c.PID, nil, 0, nil)
	case "foreground":
		group, err := unix.IoctlGetInt(0, unix.TIOCGPGRP)
		fmt.Println("foreground", err == nil && group == os.Getpid())
	case "state":
		pgid, _ := unix.Getpgid(0)
		dir, _ := os.Getwd()
		mask := unix.Umask(0)
		nice, _ := unix.Getpriority(unix.PRIO_PROCESS, 0)
		groups, _ := os.Getgroups()
		nnp, _ := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
		fmt.Println("own group", pgid == os.Getpid())
		fmt.Println("dir", dir)
		fmt.Printf("umask %#o\n", mask)
		fmt.Println("nice", 20-nice)
		fmt.Println("user", os.Getuid(), os.Geteuid(), os.Getgid(), os.Getegid(), groups)
		fmt.Println("no new privs", nnp)
	}
}

func field(text, name string) string {
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(line, name); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func sorted(lines string) []string {
	l := strings.Split(strings.TrimSpace(lines), "\n")
	sort.Strings(l)
	return l
}

// openTerminal makes a session of our own with a new pseudo-terminal.
func openTerminal() (tty int) {
	if _, err := unix.Setsid(); err != nil {
		panic(err)
	}
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		panic(err)
	}
	unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0)
	n, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err != nil {
		panic(err)
	}
	tty, err = unix.Open(fmt.Sprint("/dev/pts/", n), unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		panic(err)
	}
	if err := unix.IoctlSetInt(tty, unix.TIOCSCTTY, 0); err != nil {
		panic(err)
	}
	return tty
}
