package ready

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// next waits for one message.
func next(t *testing.T, n *Notify) Message {
	t.Helper()
	for end := time.Now().Add(deadline); ; {
		m, ok, err := n.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			return m
		}
		left := time.Until(end)
		if left <= 0 {
			t.Fatal("no message came")
		}
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(n.FD()), Events: unix.POLLIN}}, int(left.Milliseconds()))
	}
}

// sockets gives one of each kind of address.
func sockets(t *testing.T) map[string]*Notify {
	t.Helper()
	all := map[string]*Notify{}
	for kind, dir := range map[string]string{
		"path":     t.TempDir(),
		"abstract": "",
		"too long": filepath.Join(t.TempDir(), strings.Repeat("d", 120)),
	} {
		n, err := ListenNotify(dir, "web.3")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.Close() })
		all[kind] = n
	}
	return all
}

func TestNotifyRealSenders(t *testing.T) {
	tool, toolErr := exec.LookPath("systemd-notify")
	for kind, n := range sockets(t) {
		t.Run(kind, func(t *testing.T) {
			if (kind == "path") != (n.Addr()[0] == '/') {
				t.Errorf("address %s", n.Addr())
			}
			env := "NOTIFY_SOCKET=" + n.Addr()
			t.Run("go-systemd", func(t *testing.T) {
				c := start(t, "notify READY=1\nSTATUS=warm", -1, env)
				pid := c.pid
				if s := c.wait(t); s != 0 {
					t.Fatalf("exit status %d", s)
				}
				m := next(t, n)
				defer m.Close()
				if !m.Ready || m.Status == nil || *m.Status != "warm" || m.PID != pid || m.UID != uint32(os.Getuid()) || m.Problems != nil {
					t.Errorf("%+v", m)
				}
				if !Gone(m.PID) {
					t.Error("a reaped sender is not gone")
				}
			})
			t.Run("barrier", func(t *testing.T) {
				c := start(t, "barrier STOPPING=1", -1, env)
				m := next(t, n)
				if !m.Stopping {
					t.Errorf("%+v", m)
				}
				m.Close()
				m = next(t, n)
				if !m.Barrier || len(m.Files) != 1 {
					t.Errorf("%+v", m)
				}
				if Gone(c.pid) {
					t.Error("it did not wait")
				}
				m.Close()
				if s := c.wait(t); s != 0 {
					t.Errorf("exit status %d", s)
				}
			})
			t.Run("systemd-notify", func(t *testing.T) {
				if toolErr != nil {
					t.Skip("systemd-notify is not installed")
				}
				cmd := exec.Command(tool, "--ready", "--status=hello world")
				cmd.Env = append(os.Environ(), env)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				m := next(t, n)
				if !m.Ready || m.Status == nil || *m.Status != "hello world" {
					t.Errorf("%+v", m)
				}
				m.Close()
				m = next(t, n)
				if !m.Barrier {
					t.Errorf("%+v", m)
				}
				m.Close()
				if err := cmd.Wait(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestNotifyPath(t *testing.T) {
	dir := t.TempDir()
	n, err := ListenNotify(dir, "a/b")
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Lstat(n.Addr())
	if err != nil || st.Mode() != os.ModeSocket|0o666 || filepath.Dir(n.Addr()) != dir {
		t.Errorf("%s: %v %v", n.Addr(), st, err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(n.Addr()); !os.IsNotExist(err) {
		t.Errorf("path is left: %v", err)
	}
	if err := n.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	if _, err := ListenNotify(filepath.Join(dir, "missing"), "x"); err == nil || !strings.Contains(err.Error(), "bind") {
		t.Errorf("in a missing directory: %v", err)
	}
}

// A child of another user reaches a socket in a directory of mode 0711.
func TestNotifyOtherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("changing the user needs root")
	}
	dir, err := os.MkdirTemp("/tmp", "ready")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	n, err := ListenNotify(dir, "web.1")
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	done := make(chan error, 1)
	go asUser(65534, done, func() error {
		s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(s)
		return unix.Sendto(s, []byte("READY=1"), 0, &unix.SockaddrUnix{Name: n.Addr()})
	})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	m := next(t, n)
	defer m.Close()
	if !m.Ready || m.UID != 65534 {
		t.Errorf("%+v", m)
	}
}

// Hostile datagrams neither harm nor leak.
func TestNotifyHostile(t *testing.T) {
	n, err := ListenNotify("", "hostile")
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s)
	to := &unix.SockaddrUnix{Name: n.Addr()}
	many := make([]int, maxFiles)
	for i := range many {
		many[i] = s
	}
	before := openFDs(t)
	long := "STATUS=" + strings.Repeat("a", maxDatagram)
	for _, c := range []struct {
		name, text string
		oob        []byte
		files      int
		problem    string
	}{
		{"plain", "READY=1", nil, 0, ""},
		{"empty", "", nil, 0, "empty"},
		{"empty with fds", "", unix.UnixRights(s, s), 2, "empty"},
		{"as long as allowed", long[:maxDatagram], nil, 0, ""},
		{"too long", long, nil, 0, "longer than"},
		{"too long with fds", long, unix.UnixRights(s), 1, "longer than"},
		{"253 fds", "FDSTORE=1\nFDNAME=x", unix.UnixRights(many...), maxFiles, ""},
		{"barrier with two", "BARRIER=1", unix.UnixRights(s, s), 2, "BARRIER=1"},
		{"barrier without", "BARRIER=1", nil, 0, "BARRIER=1"},
		{"own credentials", "READY=1", unix.UnixCredentials(&unix.Ucred{Pid: int32(os.Getpid()), Uid: uint32(os.Getuid()), Gid: uint32(os.Getgid())}), 0, ""},
		{"NUL", "READY=1\x00x", nil, 0, "NUL"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := unix.Sendmsg(s, []byte(c.text), c.oob, to, 0); err != nil {
				t.Fatal(err)
			}
			m := next(t, n)
			if m.PID != os.Getpid() || len(m.Files) != c.files {
				t.Errorf("pid %d, %d files", m.PID, len(m.Files))
			}
			for _, fd := range m.Files {
				if fl, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || fl&unix.FD_CLOEXEC == 0 {
					t.Errorf("fd %d is not close-on-exec: %v", fd, err)
				}
			}
			if p := strings.Join(m.Problems, "; "); !strings.Contains(p, c.problem) || (c.problem == "") != (p == "") {
				t.Errorf("problems %q", p)
			}
			m.Close()
			m.Close()
		})
	}
	t.Run("no descriptor free", func(t *testing.T) {
		var old, low unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
			t.Fatal(err)
		}
		if err := unix.Sendmsg(s, []byte("FDSTORE=1"), unix.UnixRights(many...), to, 0); err != nil {
			t.Fatal(err)
		}
		low = old
		low.Cur = uint64(openFDs(t) + 20)
		if err := syscall.Setrlimit(unix.RLIMIT_NOFILE, &syscall.Rlimit{Cur: low.Cur, Max: low.Max}); err != nil {
			t.Skip(err)
		}
		m, ok, err := n.Recv()
		_ = syscall.Setrlimit(unix.RLIMIT_NOFILE, &syscall.Rlimit{Cur: old.Cur, Max: old.Max})
		if !ok || err != nil || len(m.Problems) != 1 || m.FDStore {
			t.Errorf("%v %v %+v", ok, err, m)
		}
		m.Close()
	})
	if after := openFDs(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	if _, ok, err := n.Recv(); ok || err != nil {
		t.Errorf("something is left: %v", err)
	}
}

func TestAccept(t *testing.T) {
	const main, worker, stranger = 10, 11, 12
	tree := func(pid int) bool { return pid == main || pid == worker }
	for _, c := range []struct {
		access string
		sender int
		want   bool
	}{
		{"none", main, false},
		{"", main, false},
		{"nonsense", main, false},
		{"main", main, true},
		{"main", worker, false},
		{"main", stranger, false},
		{"main", 0, false},
		{"exec", main, true},
		{"exec", worker, true},
		{"exec", stranger, false},
		{"exec", 0, false},
		{"all", main, true},
		{"all", worker, true},
		{"all", stranger, false},
		{"all", 0, false},
	} {
		if got := Accept(c.access, c.sender, main, tree); got != c.want {
			t.Errorf("%s, %d: %v", c.access, c.sender, got)
		}
	}
	if Accept("main", 0, 0, tree) {
		t.Error("an unknown main process is not pid 0")
	}
}

func TestGone(t *testing.T) {
	if Gone(os.Getpid()) || Gone(0) || Gone(-1) {
		t.Error("gone, but is here")
	}
	c := start(t, "hold", -1)
	c.line(t)
	if Gone(c.pid) {
		t.Error("gone, but holds")
	}
	c.stdin.Close()
	until(t, "a zombie", func() bool { return Gone(c.pid) })
	pid := c.pid
	c.wait(t)
	if !Gone(pid) {
		t.Error("reaped, but not gone")
	}
}
