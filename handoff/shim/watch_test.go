package shim

import (
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// reapWatch takes the process of a watch out of the kernel's table.
func reapWatch(t *testing.T, pidfd int) {
	t.Helper()
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PIDFD, pidfd, &info, unix.WEXITED, nil); err != nil {
		t.Errorf("cannot reap the watch: %v", err)
	}
}

func TestWatchGroup(t *testing.T) {
	leader := exec.Command("sleep", "1000")
	leader.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := leader.Start(); err != nil {
		t.Fatal(err)
	}
	defer leader.Wait()
	defer leader.Process.Kill()
	group := leader.Process.Pid
	for _, test := range []struct {
		name string
		send func()
		want unix.Signal
	}{
		{"asked without news", func() {}, 0},
		{"others", func() { unix.Kill(-group, unix.SIGWINCH); unix.Kill(-group, unix.SIGCONT) }, 0},
		{"SIGQUIT to the group", func() { leader.Process.Kill(); leader.Wait(); unix.Kill(-group, unix.SIGQUIT) }, unix.SIGQUIT},
	} {
		w, err := WatchGroup(group)
		if err != nil {
			t.Fatal(test.name, err)
		}
		pidfd, err := unix.FcntlInt(uintptr(w.pidfd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			t.Fatal(err)
		}
		test.send()
		if sig := w.Ask(); sig != test.want {
			t.Errorf("%s: told of signal %d, not %d", test.name, sig, test.want)
		}
		w.Close()
		reapWatch(t, pidfd)
		unix.Close(pidfd)
	}
}

func TestWatchGroupThatDoesNotExist(t *testing.T) {
	cmd := exec.Command("true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if w, err := WatchGroup(cmd.Process.Pid); err == nil {
		w.Close()
		t.Error("a group without members was joined")
	}
}
