// Command litter leaves processes behind, for the tests of a container's PID 1:
// some that end at once, and some that stay and ignore SIGTERM.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

const many = 20

func main() {
	role := ""
	if len(os.Args) > 1 {
		role = os.Args[1]
	}
	switch role {
	case "parent": // leaves two orphans behind
		start("short")
		start("stubborn")
	case "short":
		time.Sleep(10 * time.Millisecond)
	case "stubborn":
		signal.Ignore(syscall.SIGTERM, syscall.SIGHUP)
		time.Sleep(time.Hour)
	default:
		for range many {
			if err := start("parent").Wait(); err != nil {
				fmt.Fprintln(os.Stderr, "litter:", err)
			}
		}
		fmt.Println("littered")
		time.Sleep(time.Hour)
	}
}

// start starts this program in a session of its own.
func start(role string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", role)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "litter:", err)
		os.Exit(1)
	}
	return cmd
}
