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
