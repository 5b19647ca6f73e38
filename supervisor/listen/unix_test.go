package listen

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor/config"
)

func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestUnixPath(t *testing.T) {
	for _, network := range []string{"unix", "unixgram", "unixpacket"} {
		t.Run(network, func(t *testing.T) {
			dir := t.TempDir()
			c := unixAt(network, filepath.Join(dir, "a", "b", "s"))
			c.Options.Mode, c.Options.DirectoryMode = 0o620, 0o711
			if unix.Geteuid() == 0 {
				c.Options.User, c.Options.Group = "65534", "65533"
			}
			s := open(t, c)
			one := s.Sockets()[0]
			for path, want := range map[string]fs.FileMode{
				"a": fs.ModeDir | 0o711, "a/b": fs.ModeDir | 0o711, "a/b/s": fs.ModeSocket | 0o620,
			} {
				st, err := os.Stat(filepath.Join(dir, path))
				if err != nil || st.Mode() != want {
					t.Errorf("%s: %v, want %v (%v)", path, st.Mode(), want, err)
				}
			}
			var st unix.Stat_t
			if err := unix.Stat(c.Path, &st); err != nil {
				t.Fatal(err)
			}
			if unix.Geteuid() == 0 && (st.Uid != 65534 || st.Gid != 65533) {
				t.Errorf("owner %d:%d", st.Uid, st.Gid)
			}
			l := lend(t, s)
			if name, err := pathOf(l.FD()); err != nil || name != c.Path {
				t.Errorf("getsockname: %q, %v", name, err)
			}
			client := dial(t, one)
			if network == "unixgram" {
				if _, err := client.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
			}
			until(t, "it is queued", func() bool { n, _, err := l.Queue(); return err == nil && n > 0 })
			if _, backlog, err := l.Queue(); err != nil || (backlog > 0) == (network == "unixgram") {
				t.Error(backlog, err)
			}
			if shared, _ := one.Shared(); !shared {
				t.Error("it has lanes")
			}
			s.Close()
			if left := files(t, filepath.Join(dir, "a", "b")); len(left) != 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

func TestAbstract(t *testing.T) {
	name := "@listen-test-" + filepath.Base(t.TempDir()) + "-" + filepath.Base(os.Args[0]) + string(rune('a'+os.Getpid()%26))
	s := open(t, unixAt("unix", name))
	one := s.Sockets()[0]
	if one.Addr() != name || s.WatchFD() != -1 {
		t.Error(one.Addr(), s.WatchFD())
	}
	dial(t, one)
	where(t, lend(t, s))
	_, _, err := Open(configs(unixAt("unix", name)), nil)
	if !errors.Is(err, unix.EADDRINUSE) {
		t.Error(err)
	}
}

// The path of a dead server is replaced; of a living one it is in use, of any
// type and also before it listens; what is no socket is left alone.
func TestPathIsTaken(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	make := func(typ int, listen bool) int {
		fd, err := unix.Socket(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
			t.Fatal(err)
		}
		if listen {
			if err := unix.Listen(fd, 1); err != nil {
				t.Fatal(err)
			}
		}
		return fd
	}
	checkFDs(t)
	for _, alive := range []struct {
		typ    int
		listen bool
	}{{unix.SOCK_STREAM, true}, {unix.SOCK_STREAM, false}, {unix.SOCK_DGRAM, false}, {unix.SOCK_SEQPACKET, true}} {
		fd := make(alive.typ, alive.listen)
		_, _, err := Open(configs(unixAt("unix", path)), nil)
		var oe *OpenError
		if !errors.As(err, &oe) || oe.Errno != unix.EADDRINUSE || oe.Hint() == "" {
			t.Errorf("%+v is alive: %v", alive, err)
		}
		unix.Close(fd)
		s, _, err := Open(configs(unixAt("unix", path)), nil)
		if err != nil {
			t.Fatalf("%+v is dead: %v", alive, err)
		}
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		s.Close()
	}
	for _, what := range []func() error{
		func() error { return os.WriteFile(path, []byte("precious"), 0o600) },
		func() error { return os.Mkdir(path, 0o700) },
		func() error { return os.Symlink("/nowhere", path) },
	} {
		if err := what(); err != nil {
			t.Fatal(err)
		}
		_, _, err := Open(configs(unixAt("unix", path)), nil)
		if !errors.Is(err, unix.ENOTSOCK) {
			t.Error(err)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Error("it was touched:", err)
		}
		os.Remove(path)
	}
	_, _, err := Open(configs(unixAt("unix", filepath.Join(dir, strings.Repeat("x", 120)))), nil)
	if !errors.Is(err, unix.ENAMETOOLONG) {
		t.Error(err)
	}
}

func TestPathIsHealed(t *testing.T) {
	dir := t.TempDir()
	c := unixAt("unix", filepath.Join(dir, "s"))
	s := open(t, c)
	one := s.Sockets()[0]
	l := lend(t, s)
	readable := func(timeout int) bool {
		fds := []unix.PollFd{{Fd: int32(s.WatchFD()), Events: unix.POLLIN}}
		for {
			n, err := unix.Poll(fds, timeout)
			if err != unix.EINTR {
				return n == 1
			}
		}
	}
	s.Heal() // our own chmod and link
	if readable(0) {
		t.Fatal("news, though nothing happened")
	}
	// Other files of the directory do not wake us.
	if err := os.WriteFile(filepath.Join(dir, "other"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if readable(0) {
		t.Error("woken by another file")
	}
	for name, test := range map[string]struct {
		do   func() error
		what PathEvent
	}{
		"unlink": {func() error { return os.Remove(c.Path) }, PathRemoved},
		"move":   {func() error { return os.Rename(c.Path, filepath.Join(dir, "away")) }, PathRemoved},
		"rebind": {func() error {
			if err := os.Remove(c.Path); err != nil {
				return err
			}
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Bind(fd, &unix.SockaddrUnix{Name: c.Path})
		}, PathReplaced},
		"rename over it": {func() error {
			tmp := filepath.Join(dir, "tmp")
			return errors.Join(os.WriteFile(tmp, nil, 0o600), os.Rename(tmp, c.Path))
		}, PathReplaced},
	} {
		if err := test.do(); err != nil {
			t.Fatal(err)
		}
		if !readable(int(patience.Milliseconds())) {
			t.Fatal(name, "was not seen")
		}
		events := s.Heal()
		if len(events) != 1 || events[0].What != test.what || events[0].Err != nil || events[0].Socket != one {
			t.Errorf("%s: %+v", name, events)
		}
		dial(t, one)
		if where(t, l) != l {
			t.Error(name, "lost")
		}
		os.Remove(filepath.Join(dir, "away"))
		for readable(0) {
			if more := s.Heal(); len(more) != 0 {
				t.Errorf("again: %+v", more)
			}
		}
	}
	// The hidden link is made again, too.
	if err := os.Remove(one.path.link); err != nil {
		t.Fatal(err)
	}
	if events := s.Heal(); len(events) != 0 {
		t.Errorf("%+v", events)
	}
	if !one.path.is(one.path.link) {
		t.Error("no hidden link")
	}
	os.Remove(filepath.Join(dir, "other"))
	s.Close()
	if left := files(t, dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// At the end only what is ours is removed.
func TestCloseLeavesOthersPaths(t *testing.T) {
	dir := t.TempDir()
	keep := unixAt("unix", filepath.Join(dir, "keep"))
	keep.Options.RemoveOnStop = false
	taken := unixAt("unix", filepath.Join(dir, "taken"))
	s := open(t, keep, taken)
	if err := os.Remove(taken.Path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(taken.Path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if left := files(t, dir); len(left) != 2 || left[0] != "keep" || left[1] != "taken" {
		t.Errorf("left: %v", left)
	}
}

// A unix listener that was shut down is replaced under its path.
func TestUnixIsReplaced(t *testing.T) {
	for _, c := range []config.Socket{unixAt("unix", filepath.Join(t.TempDir(), "s")), unixAt("unixpacket", filepath.Join(t.TempDir(), "p"))} {
		c.Options.Mode = 0o640
		s := open(t, c)
		one := s.Sockets()[0]
		l := lend(t, s)
		if err := s.HealLane(l); err != nil {
			t.Fatal(err)
		}
		if err := unix.Shutdown(l.FD(), unix.SHUT_RD); err != nil {
			t.Fatal(err)
		}
		if l.Healthy() {
			t.Fatal("it is told to be healthy")
		}
		if err := s.HealLane(l); !errors.Is(err, ErrReplaced) {
			t.Fatal(err)
		}
		dial(t, one)
		if where(t, l) != l || !l.Healthy() {
			t.Error("lost")
		}
		if st, err := os.Stat(c.Path); err != nil || st.Mode().Perm() != 0o640 {
			t.Error(st, err)
		}
		if err := os.Remove(c.Path); err != nil {
			t.Fatal(err)
		}
		if events := s.Heal(); len(events) != 1 || events[0].Err != nil {
			t.Errorf("%+v", events)
		}
		s.Close()
		if left := files(t, filepath.Dir(c.Path)); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
	}
}
