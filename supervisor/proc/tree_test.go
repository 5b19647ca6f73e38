package proc

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor/config"
)

func ways(t *testing.T, f func(t *testing.T, cgroup bool)) {
	for _, cgroup := range []bool{true, false} {
		t.Run(fmt.Sprintf("cgroup=%v", cgroup), func(t *testing.T) { f(t, cgroup) })
	}
}

// await polls pidfd until its process has ended.
func await(t *testing.T, fd int, events int16) {
	t.Helper()
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, int(patience.Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			t.Fatalf("nothing on descriptor %d: %v", fd, err)
		}
		return
	}
}

// awaitEmpty asks until the tree is empty: one question has a bounded time,
// and says no when that was too little.
func awaitEmpty(t *testing.T, tr *Tree) {
	t.Helper()
	for end := time.Now().Add(patience); ; {
		empty, err := tr.Empty()
		if err != nil || time.Now().After(end) {
			t.Fatalf("not empty: %v", err)
		}
		if empty {
			return
		}
		unix.Poll(nil, 1)
	}
}

func TestSignalAll(t *testing.T) {
	ways(t, func(t *testing.T, cgroup bool) {
		tr, c := tree(t, "usr1-all", cgroup, false)
		pids, err := tr.Pids()
		if err != nil || len(pids) != 3 || pids[0] != c.PID {
			t.Fatalf("pids are %v, %v; main is %d", pids, err, c.PID)
		}
		var fds []int
		for _, pid := range pids {
			fd, err := Open(pid)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			fds = append(fds, fd)
		}
		if err := tr.Signal(unix.SIGUSR1, config.KillControlGroup); err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			await(t, fd, unix.POLLIN)
		}
		if e, err := Reap(c.PID); err != nil || e.Status != 7 || e.Signal != 0 {
			t.Errorf("main ended with %v, %v", e, err)
		}
		tr.MainReaped()
		awaitEmpty(t, tr)
		reapAll(t, tr, c)
	})
}

func TestSignalMain(t *testing.T) {
	ways(t, func(t *testing.T, cgroup bool) {
		tr, c := tree(t, "usr1-all", cgroup, false)
		pids, _ := tr.Pids()
		if err := tr.Signal(unix.SIGUSR1, config.KillNone); err != nil {
			t.Fatal(err)
		}
		if err := tr.Signal(unix.SIGUSR1, config.KillMixed); err != nil {
			t.Fatal(err)
		}
		await(t, c.PIDFD, unix.POLLIN)
		e, ok, err := Peek()
		if err != nil || !ok || e.PID != c.PID || e.Status != 7 {
			t.Fatalf("peek says %v %v %v", e, ok, err)
		}
		if _, err := Reap(c.PID); err != nil {
			t.Fatal(err)
		}
		tr.MainReaped()
		left, err := tr.Pids()
		slices.Sort(left)
		want := slices.Sorted(slices.Values(pids[1:]))
		if err != nil || !slices.Equal(left, want) {
			t.Errorf("left are %v, %v; want %v", left, err, want)
		}
		if err := tr.Signal(unix.SIGUSR1, config.KillProcess); err != nil {
			t.Errorf("without a main process: %v", err)
		}
	})
}

// TestStrangers holds that other trees, their orphans and Others are not
// members.
func TestStrangers(t *testing.T) {
	other, oc := tree(t, "gone-main", false, false)
	await(t, oc.PIDFD, unix.POLLIN)
	tr, c := tree(t, "double-fork", false, false)
	pids, err := tr.Pids()
	if err != nil || len(pids) != 2 {
		t.Errorf("pids are %v, %v", pids, err)
	}
	theirs, err := other.Pids()
	if err != nil || len(theirs) != 1 || slices.Contains(pids, theirs[0]) {
		t.Errorf("the other tree's pids are %v, %v; ours %v", theirs, err, pids)
	}
	tr.cfg.Sole = func() bool { return true }
	tr.cfg.Others = func() []int { return append([]int{oc.PID}, theirs...) }
	if pids, err := tr.Pids(); err != nil || len(pids) != 2 {
		t.Errorf("with others, pids are %v, %v", pids, err)
	}
	end(t, tr, c)
	if empty, err := other.Empty(); err != nil || empty {
		t.Errorf("the other tree: empty %v, %v", empty, err)
	}
}

// TestStartTime gives an orphan with no mark at all to the tree in whose time
// it started.
func TestStartTime(t *testing.T) {
	tr, _ := tree(t, "clean-env", false, false)
	if pids, err := tr.Pids(); err != nil || len(pids) != 1 {
		t.Fatalf("pids are %v, %v", pids, err)
	}
	next := newTree(TreeConfig{})
	next.mainStart = ^uint64(0)
	tr.SetSuccessor(next)
	pids, err := tr.Pids()
	if err != nil || len(pids) != 2 {
		t.Errorf("with a successor, pids are %v, %v", pids, err)
	}
	next.mainStart = tr.mainStart
	tr.known = map[int]uint64{}
	tr.own = map[int]bool{}
	if pids, err = tr.Pids(); err != nil || len(pids) != 1 {
		t.Errorf("with a successor as old, pids are %v, %v", pids, err)
	}
	tr.cfg.Sole = func() bool { return true } // for the end
}

func TestScanAgrees(t *testing.T) {
	tr, _ := tree(t, "double-fork", false, false)
	a, b := tr.newWalk(noDeadline), tr.newWalk(noDeadline)
	if err := a.look(nil); err != nil {
		t.Fatal(err)
	}
	b.seen = map[int]bool{}
	if err := b.scan(); err != nil {
		t.Fatal(err)
	}
	pids := func(w *walk) (l []int) {
		for _, m := range w.found {
			l = append(l, m.pid)
		}
		slices.Sort(l)
		return l
	}
	if x, y := pids(a), pids(b); !slices.Equal(x, y) || len(x) != 2 {
		t.Errorf("lists of children give %v, /proc %v", x, y)
	}
}

func TestEvents(t *testing.T) {
	tr, c := tree(t, "hang", true, false)
	if empty, err := tr.Empty(); err != nil || empty {
		t.Fatalf("empty is %v, %v", empty, err)
	}
	if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(tr.EventsFD()), Events: unix.POLLPRI}}, 0); n != 0 {
		t.Error("news although nothing changed")
	}
	if err := Signal(c.PIDFD, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, tr.EventsFD(), unix.POLLPRI)
	if empty, err := tr.Empty(); err != nil || !empty {
		t.Errorf("empty is %v, %v", empty, err)
	}
	if err := Signal(c.PIDFD, unix.SIGTERM); err != nil {
		t.Errorf("signal to a zombie: %v", err)
	}
	if e, err := Reap(c.PID); err != nil || e.Signal != unix.SIGKILL || e.String() != "signal KILL" || e.ShellStatus() != 137 {
		t.Errorf("ended with %v, %v", e, err)
	}
	if err := Signal(c.PIDFD, unix.SIGTERM); !errors.Is(err, unix.ESRCH) {
		t.Errorf("signal to a reaped process: %v", err)
	}
	tr.MainReaped()
	if _, err := Reap(c.PID); !errors.Is(err, unix.ECHILD) {
		t.Errorf("reaped twice: %v", err)
	}
}

func TestKillFrozen(t *testing.T) {
	tr, c := tree(t, "storm:3", true, false)
	for range 1000 {
		if err := tr.group.killFrozen(); err != nil {
			t.Fatal(err)
		}
		reapAll(t, tr, c)
		if empty, _ := tr.Empty(); empty {
			return
		}
	}
	t.Error("not empty after 1000 rounds")
}

func TestGroupLeftovers(t *testing.T) {
	g, err := NewGroup("", "leftover-test", 1)
	if err != nil {
		t.Skip(err)
	}
	parent := filepath.Dir(g.Path())
	// 4194304 is the largest pid_max: no process has that number plus one.
	old := filepath.Join(parent, "supervise-leftover-test-4194305.3")
	if err := os.MkdirAll(old+"/inner/most", 0o755); err != nil {
		t.Fatal(err)
	}
	again, err := NewGroup("", "leftover-test", 2)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("leftover is still there: %v", err)
	}
	if _, err := os.Stat(g.Path()); err != nil {
		t.Errorf("a group of our own went away: %v", err)
	}
	for _, g := range []*Group{g, again} {
		if err := g.Remove(); err != nil {
			t.Error(err)
		}
	}
}

func TestOwnGroupText(t *testing.T) {
	v1 := "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n"
	tests := []struct{ mounts, own, want string }{
		{v1 + "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n", "9:name=systemd:/x\n0::/\n", "/sys/fs/cgroup/unified"},
		{"41 31 0:38 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n", "0::/system.slice/web.service\n", "/sys/fs/cgroup/system.slice/web.service"},
		{"41 31 0:38 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n", "0::/docker/abc/x\n", "/sys/fs/cgroup/x"},
		{"41 31 0:38 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n", "0::/docker/abcd\n", ""},
		{"41 31 0:38 / /mnt/a\\040b rw - cgroup2 cgroup2 rw\n", "0::/y\n", "/mnt/a b/y"},
		{"41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "0::/../outside\n", ""},
		{v1, "0::/\n", ""},
		{v1, "9:name=systemd:/x\n", ""},
		{"", "", ""},
	}
	for _, test := range tests {
		got, err := ownGroup(test.mounts, test.own)
		if got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("ownGroup(%q, %q) = %q, %v", test.mounts, test.own, got, err)
		}
	}
}

func FuzzOwnGroup(f *testing.F) {
	f.Add("41 31 0:38 / /mnt/a\\040b rw - cgroup2 cgroup2 rw\n", "0::/y\n")
	f.Fuzz(func(t *testing.T, mounts, own string) {
		if got, err := ownGroup(mounts, own); err == nil && got == "" {
			t.Error("neither a directory nor an error")
		}
	})
}

func TestParseStat(t *testing.T) {
	line := "77 (a) b ) S 5 6 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 3 0 9876 4321 0\n"
	s, err := parseStat([]byte(line))
	if want := (stat{'S', 5, 6, 7, 3, 9876, 4321}); err != nil || s != want {
		t.Errorf("stat is %+v, %v; want %+v", s, err, want)
	}
	for i := range strings.Index(line, "9876") {
		if _, err := parseStat([]byte(line[:i])); err == nil {
			t.Errorf("%q was accepted", line[:i])
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("77 (a) b ) S 5 6 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 3 0 9876 4321 0\n"))
	f.Fuzz(func(t *testing.T, line []byte) { _, _ = parseStat(line) })
}

func FuzzMarker(f *testing.F) {
	f.Add([]byte("A=1\x00INVOCATION_ID=00ff\x00"), "00ff")
	f.Fuzz(func(t *testing.T, env []byte, ours string) {
		if findMarker(env, ours) == markerOurs && !strings.Contains("\x00"+string(env)+"\x00", "\x00INVOCATION_ID="+ours+"\x00") {
			t.Errorf("found %q in %q", ours, env)
		}
	})
}
