package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// systemd's KillMode=control-group tells us and the command at once to stop.
// Whoever of the two is seen first, that is a stop that was asked for: status 0,
// and no other generation.
func TestStopOfAllAtOnce(t *testing.T) {
	t.Parallel()
	for _, restart := range []string{"on-failure", "always"} {
		for range 10 {
			r := startSupervise(t, []string{"INVOCATION_ID=0123456789abcdef0123456789abcdef"}, superviseLink(t), "--name", "svc", "--restart", restart, "--ready", "delay:1ms", "--", "sleep", "1000")
			r.await(` ready: `)
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", r.pid(), r.pid()))
			if err != nil {
				t.Skip(err)
			}
			var child int
			for _, f := range strings.Fields(string(text)) {
				child, _ = strconv.Atoi(f)
			}
			if child == 0 { // started by another thread
				_, after, _ := strings.Cut(r.text(), "pid=")
				child, _ = strconv.Atoi(strings.Fields(after)[0])
			}
			// As systemd does it: us first.
			r.signal(unix.SIGTERM)
			if err := unix.Kill(child, unix.SIGTERM); err != nil && err != unix.ESRCH {
				t.Fatal(err)
			}
			if status := r.wait(); status != 0 {
				t.Errorf("restart=%s: exit status %d; the log:\n%s", restart, status, r.text())
			}
			if strings.Contains(r.text(), "generation=2") {
				t.Errorf("restart=%s: a second generation; the log:\n%s", restart, r.text())
			}
		}
	}
}
