package control

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxPath is the room in a sockaddr_un without the closing NUL: unix(7).
const maxPath = 107

// suffix is what the sockets in a directory of ours end in.
const suffix = ".sock"

// dirVariable names a directory that is used instead of all others.
const dirVariable = "SUPERVISE_RUNTIME_DIR"

// Dirs are the directories for control sockets of our user, the usual one first:
// /run/supervise for root, else $XDG_RUNTIME_DIR/supervise; and, where that
// cannot be had, a directory of this user's in the directory for temporary
// files. $SUPERVISE_RUNTIME_DIR replaces them all.
func Dirs() []string {
	if dir := os.Getenv(dirVariable); filepath.IsAbs(dir) {
		return []string{dir}
	}
	var dirs []string
	uid := os.Geteuid()
	if uid == 0 {
		dirs = append(dirs, "/run/supervise")
	} else if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		dirs = append(dirs, filepath.Join(dir, "supervise"))
	}
	return append(dirs, filepath.Join(os.TempDir(), "supervise-"+strconv.Itoa(uid)))
}

// makeDir makes a directory for sockets, or checks the one that is there: in a
// place that everybody may write to, somebody else may have made it.
func makeDir(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("cannot make a directory for the control socket: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return fmt.Errorf("cannot look at the directory for the control socket: %w", &os.PathError{Op: "lstat", Path: dir, Err: err})
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Uid != uint32(os.Geteuid()) || st.Mode&0o022 != 0 {
		return fmt.Errorf("cannot use %s for the control socket: it is not a directory that only uid %d can write to", dir, os.Geteuid())
	}
	return nil
}

// fileName makes the base name of a socket from the name of a service; n > 1
// for a further supervisor of the same name.
func fileName(dir, name string, n int) string {
	name = strings.Map(func(r rune) rune {
		if r == '/' || r < ' ' || r == 0x7f {
			return '_'
		}
		return r
	}, name)
	name = strings.TrimLeft(name, ".")
	if name == "" {
		name = "service"
	}
	end := suffix
	if n > 1 {
		end = "-" + strconv.Itoa(n) + suffix
	}
	room := max(maxPath-len(dir)-1-len(end)-len(temporary), 8)
	return name[:min(len(name), room)] + end
}

// temporary is added to the name of a socket that does not listen yet.
const temporary = ".new"

// Endpoint is a listening control socket.
type Endpoint struct {
	fd   int
	path string
	ino  uint64
}

// TakenError says that a living supervisor has the socket.
type TakenError struct {
	Path string
	PID  int // of who listens there; 0 when that cannot be seen
}

func (e *TakenError) Error() string {
	who := "another process"
	if e.PID > 0 {
		who = "process " + strconv.Itoa(e.PID)
	}
	return fmt.Sprintf("cannot make the control socket %s: %s has it", e.Path, who)
}

// Listen makes the control socket at path, for group too unless that is 0. One
// that nobody listens on any more is replaced; a living one is a *TakenError.
// The caller closes it, or gives it to NewServer.
func Listen(path string, group uint32) (*Endpoint, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("cannot make the control socket: %w", err)
	}
	if len(path)+len(temporary) > maxPath {
		return nil, fmt.Errorf("cannot make the control socket %s: longer than %d bytes (unix(7))", path, maxPath-len(temporary))
	}
	unlock, err := lock(path)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if pid, alive := listener(path); alive {
		return nil, &TakenError{Path: path, PID: pid}
	}
	s := &Endpoint{fd: -1, path: path}
	if err := s.open(group); err != nil {
		s.Close()
		return nil, fmt.Errorf("cannot make the control socket %s: %w", path, err)
	}
	return s, nil
}

// ListenName makes the control socket of a service in the first of Dirs where
// that is possible. Where a living supervisor has NAME.sock it is NAME-2.sock,
// and so on; taken is the one that has the plain name, nil if nobody.
func ListenName(name string, group uint32) (s *Endpoint, taken *TakenError, err error) {
	var errs []error
dirs:
	for _, dir := range Dirs() {
		if err := makeDir(dir); err != nil {
			errs = append(errs, err)
			continue
		}
		for n := 1; n <= maxSame; n++ {
			s, err := Listen(filepath.Join(dir, fileName(dir, name, n)), group)
			if err == nil {
				return s, taken, nil
			}
			var t *TakenError
			if !errors.As(err, &t) {
				errs = append(errs, err)
				continue dirs
			}
			if taken == nil {
				taken = t
			}
		}
		errs = append(errs, taken)
	}
	return nil, taken, errors.Join(errs...)
}

// maxSame bounds how many supervisors of one name get a socket.
const maxSame = 999

// open makes the socket under another name and moves it to its own when it
// listens: so nobody meets it half made, and a stale one is replaced at once.
func (s *Endpoint) open(group uint32) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	s.fd = fd
	first := s.path + temporary
	_ = unix.Unlink(first) // of one that was killed at this point; we have the lock
	// Until chmod(2) nobody can connect, for it does not listen.
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: first}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	defer unix.Unlink(first)
	mode := uint32(0o600)
	if group != 0 {
		mode = 0o660
		if err := unix.Lchown(first, -1, int(group)); err != nil {
			return os.NewSyscallError("chown", err)
		}
	}
	if err := unix.Chmod(first, mode); err != nil {
		return os.NewSyscallError("chmod", err)
	}
	if err := unix.Listen(fd, 2*maxConns); err != nil {
		return os.NewSyscallError("listen", err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(first, &st); err != nil {
		return os.NewSyscallError("lstat", err)
	}
	if err := replaceable(s.path); err != nil {
		return err
	}
	if err := unix.Rename(first, s.path); err != nil {
		return os.NewSyscallError("rename", err)
	}
	s.ino = st.Ino
	return nil
}

// replaceable sees to it that nothing but a socket is replaced.
func replaceable(path string) error {
	var st unix.Stat_t
	if unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return errors.New("there is something that is no socket: move it away, or use another path")
	}
	return nil
}

// Path is where it is.
func (s *Endpoint) Path() string { return s.path }

// Close closes the socket and removes its path, if it is still its own.
func (s *Endpoint) Close() error {
	if s.fd < 0 {
		return nil
	}
	var st unix.Stat_t
	if s.ino != 0 && unix.Lstat(s.path, &st) == nil && st.Ino == s.ino {
		_ = unix.Unlink(s.path)
	}
	err := unix.Close(s.fd)
	s.fd = -1
	if err != nil {
		return fmt.Errorf("cannot close the control socket: %w", err)
	}
	return nil
}

// listener looks who listens at path. Of a full queue it is somebody.
func listener(path string) (pid int, alive bool) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, false
	}
	defer unix.Close(fd)
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		return 0, true
	}
	if err != nil {
		return 0, false
	}
	// Of the side that connected, these are the credentials of who called listen(2).
	if cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
		pid = int(cred.Pid)
	}
	return pid, true
}

// lock keeps two that start at the same moment from replacing one stale socket
// both. Nobody else can open the file, and so nobody can hold us up; whoever has
// it is done within a millisecond, or was stopped: it is waited for a second.
func lock(socket string) (unlock func(), err error) {
	path := socket + ".lock"
	fail := func(op string, err error) (func(), error) {
		return nil, fmt.Errorf("cannot make the control socket: %w", &os.PathError{Op: op, Path: path, Err: err})
	}
	for deadline := time.Now().Add(time.Second); ; time.Sleep(2 * time.Millisecond) {
		fd, err := unix.Open(path, unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return fail("open", err)
		}
		err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			var ours, there unix.Stat_t
			if unix.Fstat(fd, &ours) == nil && unix.Lstat(path, &there) == nil && ours.Ino == there.Ino {
				return func() { _ = unix.Unlink(path); unix.Close(fd) }, nil
			}
			err = unix.EWOULDBLOCK // its last owner removed it
		}
		unix.Close(fd)
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) || !time.Now().Before(deadline) {
			return fail("flock", err)
		}
	}
}
