package ready

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestSeen(t *testing.T) {
	for _, c := range []struct {
		part  string
		flags int
		udp   bool
		how   How
	}{
		{"accept", 0, false, Blocked},
		{"poll", 0, false, Polled},
		{"select", 0, false, Polled},
		{"epoll", unix.SOCK_NONBLOCK, false, Epoll},
		{"recv", 0, true, Blocked},
	} {
		t.Run(c.part, func(t *testing.T) {
			t.Parallel()
			var fd int
			if c.udp {
				var err error
				if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
					t.Fatal(err)
				}
				defer unix.Close(fd)
				if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
					t.Fatal(err)
				}
			} else {
				fd, _, _ = tcpListener(t, c.flags)
			}
			inode := inodeOf(t, fd)
			_, other, _ := tcpListener(t, 0)
			k := start(t, c.part, fd)
			var s Sight
			until(t, "seen "+c.how.String(), func() bool {
				var err error
				if s, err = Seen([]int{k.pid}, []uint64{inode, other}); err != nil {
					t.Fatal(err)
				}
				return s.By[inode].How == c.how
			})
			if got := s.Inodes(); !slices.Equal(got, []uint64{inode}) || s.By[inode].PID != k.pid || s.Unreadable != nil {
				t.Errorf("%+v", s)
			}
		})
	}
}

// A process that holds the listener and does something else is not seen.
func TestSeenHolding(t *testing.T) {
	fd, inode, _ := tcpListener(t, 0)
	k := start(t, "hold", fd)
	k.line(t)
	for range 50 {
		s, err := Seen([]int{k.pid}, []uint64{inode})
		if err != nil || len(s.By) != 0 {
			t.Fatalf("%+v %v", s, err)
		}
	}
	k.stdin.Close()
	k.wait(t)
	s, err := Seen([]int{k.pid, 1 << 30}, []uint64{inode})
	if err != nil || len(s.By) != 0 || s.Unreadable != nil {
		t.Errorf("of the dead: %+v %v", s, err)
	}
}

// Where /proc does not show descriptors, sleeping must do.
func TestSeenUnreadable(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("changing the user needs root")
	}
	fd, inode, _ := tcpListener(t, 0)
	k := start(t, "accept", fd)
	var s Sight
	until(t, "asleep", func() bool {
		done := make(chan error, 1)
		go asUser(65534, done, func() (err error) {
			s, err = Seen([]int{k.pid}, []uint64{inode})
			return err
		})
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		return s.By[inode].How == Asleep
	})
	if !slices.Equal(s.Unreadable, []int{k.pid}) {
		t.Errorf("%+v", s)
	}
}

// A program with io_uring: the ring is made here, so we are that program; our
// threads do not all sleep while we look, which is the other half.
func TestSeenRing(t *testing.T) {
	var params [120]byte // struct io_uring_params
	ring, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		t.Skipf("io_uring_setup: %v", errno)
	}
	link, err := os.Readlink("/proc/self/fd/" + itoa(int(ring)))
	unix.Close(int(ring))
	if err != nil || link != "anon_inode:[io_uring]" {
		t.Errorf("%q %v", link, err)
	}
}

func TestListening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	k := start(t, "bind "+path, -1)
	said := strings.Fields(k.line(t))
	got, err := Listening([]int{k.pid})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"tcp": said[0], "udp": said[1], "unix": path}
	for _, l := range got {
		at := l.Addr.String()
		if l.Network == "unix" {
			at = l.Path
		}
		if want[l.Network] != at || l.PID != k.pid || l.Inode == 0 || l.Ephemeral != (l.Network == "udp") {
			t.Errorf("%+v", l)
		}
		delete(want, l.Network)
	}
	if len(want) != 0 {
		t.Errorf("not found: %v in %+v", want, got)
	}
	if none, err := Listening(nil); len(none) != 0 || err != nil {
		t.Errorf("of nobody: %v %v", none, err)
	}
}

func TestParseSyscall(t *testing.T) {
	nr, args, ok := parseSyscall("288 0x3 0x7ffe 0x0 0x80000 0x5 0xffffffffffffffff 0x7ffe1 0x7f2\n")
	if !ok || nr != 288 || args != [6]uint64{3, 0x7ffe, 0, 0x80000, 5, ^uint64(0)} {
		t.Errorf("%d %x %v", nr, args, ok)
	}
	for _, s := range []string{"", "running", "-1 0x7ffe 0x7f", "-1 0 0 0 0 0 0 0 0", "x 1 2 3 4 5 6", "1 2 3 4 5 6"} {
		if _, _, ok := parseSyscall(s); ok {
			t.Errorf("%q is understood", s)
		}
	}
}

func TestParseEpollSet(t *testing.T) {
	set := parseEpollSet("pos:\t0\nflags:\t02000002\nmnt_id:\t15\nino:\t13\n" +
		"tfd:        5 events: 80002019 data: 7f0000000005  pos:0 ino:1a2b sdev:8\ntfd: 6 events:\ntfd: 7 ino:\ntfd: 8 ino:zz\n")
	if len(set) != 1 || !set[0x1a2b] {
		t.Errorf("%v", set)
	}
}

func TestThreadState(t *testing.T) {
	p := filepath.Join(t.TempDir(), "stat")
	for text, want := range map[string]byte{"1 (a) S 0": 'S', "1 (a) R (x) D 0": 'D', "": 0, "1 (a)": 0} {
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := threadState(p); got != want {
			t.Errorf("%q: %c", text, got)
		}
	}
}
