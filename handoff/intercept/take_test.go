package intercept

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTake: a duplicate of the very socket, and of no other.
func TestTake(t *testing.T) {
	s, err := serve(unix.AF_INET, "127.0.0.1", 0, 5)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	var st unix.Stat_t
	if err := unix.Fstat(s.fd, &st); err != nil {
		t.Fatal(err)
	}
	dup, err := Take(os.Getpid(), st.Ino)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(dup) }()
	a, errA := Cookie(s.fd)
	b, errB := Cookie(dup)
	if a != b || errA != nil || errB != nil {
		t.Error("another socket:", a, b, errA, errB)
	}
	if flags, err := unix.FcntlInt(uintptr(dup), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Error("not close-on-exec")
	}
	if _, err := Take(os.Getpid(), 1); !errors.Is(err, unix.ENOENT) {
		t.Error(err)
	}
}
