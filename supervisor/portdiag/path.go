package portdiag

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor/sockdiag"
)

// maxUnixPath is what sun_path of sockaddr_un has room for, with the NUL at
// the end that most programs insist on (unix(7)).
const maxUnixPath = 107

// explainPath finds out what bind(2) would say to a unix path. It does not
// try: a bind makes a file.
func (r *Report) explainPath() error {
	t := r.target
	if strings.HasPrefix(t.Path, "@") {
		return r.explainAbstract()
	}
	r.Verdict = Held
	r.errno = unix.EADDRINUSE
	if len(t.Path) > maxUnixPath {
		r.Verdict, r.Cause, r.errno = Refused, PathTooLong, unix.EINVAL
		return nil
	}
	fi, err := os.Lstat(t.Path)
	switch {
	case err == nil:
	case errors.Is(err, unix.ENOENT):
		r.explainDirectory()
		if r.Verdict == Available {
			return r.lostPath()
		}
		return nil
	default:
		r.explainDirectory()
		return nil
	}
	if fi.Mode()&fs.ModeSymlink != 0 {
		to, err := os.Stat(t.Path)
		if err != nil {
			r.Cause = DanglingLink
			return nil
		}
		fi = to
	}
	if fi.Mode()&fs.ModeSocket == 0 {
		r.Cause = NotASocket
		return nil
	}
	if r.Holders, err = PathHolders(t.Path); err != nil {
		return err
	}
	if len(r.Holders) > 0 {
		r.Cause = UnixLive
		return r.lostPath()
	}
	// Sockets of other network namespaces are not shown to us, and they may
	// have the path. A connection tells; it is made only when we know of no
	// server.
	switch err := knock(t.Path); {
	case errors.Is(err, unix.ECONNREFUSED):
		r.Cause = UnixDead
	case err == nil:
		r.Cause = UnixLiveElsewhere
		r.Unseen = append(r.Unseen, "unix sockets of other network namespaces are not shown")
	case errors.Is(err, unix.ENOENT):
		r.Verdict, r.Cause, r.errno = Available, Free, 0
	default:
		r.Verdict, r.Cause = Unknown, UnixUnknown
		r.Unseen = append(r.Unseen, "whether the socket has a server: connecting to it fails with "+errnoName(err))
	}
	return r.lostPath()
}

// knock connects to a unix socket and closes at once: nil when a server has
// it, ECONNREFUSED when none does. It does not wait for a full queue.
func knock(path string) error {
	var last error
	for _, typ := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_SEQPACKET} {
		fd, err := unix.Socket(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		last = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		unix.Close(fd)
		switch last {
		case unix.EAGAIN: // the queue is full: somebody is there
			return nil
		case unix.EPROTOTYPE: // there is one, of another type
			continue
		}
		return last
	}
	return last
}

func (r *Report) explainAbstract() error {
	var err error
	if r.Holders, err = PathHolders(r.target.Path); err != nil {
		return err
	}
	r.Verdict, r.Cause = Available, Free
	if len(r.Holders) > 0 {
		r.Verdict, r.Cause, r.errno = Held, AbstractHeld, unix.EADDRINUSE
	}
	return nil
}

// explainDirectory says what is wrong with the way to a path that does not
// exist.
func (r *Report) explainDirectory() {
	refuse := func(c Cause, e unix.Errno) { r.Verdict, r.Cause, r.errno = Refused, c, e }
	dir := filepath.Dir(r.target.abs())
	// The first part that is not there or is no directory decides.
	at := "/"
	for _, part := range strings.Split(strings.Trim(dir, "/"), "/") {
		at = filepath.Join(at, part)
		fi, err := os.Stat(at)
		switch {
		case errors.Is(err, unix.EACCES):
			refuse(Unwritable, unix.EACCES)
			return
		case errors.Is(err, unix.ENOTDIR):
			refuse(NotADirectory, unix.ENOTDIR)
			return
		case err != nil:
			refuse(NoDirectory, unix.ENOENT)
			return
		case !fi.IsDir():
			refuse(NotADirectory, unix.ENOTDIR)
			return
		}
	}
	// Effective ids, as bind(2) uses them.
	switch err := unix.Faccessat2(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS); err {
	case nil:
		r.Verdict, r.Cause, r.errno = Available, Free, 0
	case unix.EROFS:
		refuse(ReadOnly, unix.EROFS)
	default:
		refuse(Unwritable, unix.EACCES)
	}
}

// lostPath finds servers that were bound to this name and whose file is gone
// or is another by now.
func (r *Report) lostPath() error {
	path := r.target.abs()
	all, err := sockdiag.Unix(sockdiag.UnixQuery{})
	if err != nil {
		return err
	}
	match, err := pathMatcher(path)
	if err != nil {
		return err
	}
	var cs []candidate
	for _, s := range all {
		if s.Name != path || match(s) || s.VfsInode == 0 || s.State == sockdiag.Established && s.Type != unix.SOCK_DGRAM {
			continue
		}
		cs = append(cs, candidate{Holder: unixHolder(s), inodes: []uint64{uint64(s.Inode)}})
	}
	if len(cs) == 0 {
		return nil
	}
	if err := attribute(cs); err != nil {
		return err
	}
	for _, c := range cs {
		pid := 0
		if len(c.Processes) > 0 {
			pid = c.Processes[0].PID
		}
		r.find(PathLost, pid, c.who()+" was bound to this path too, and its file was removed or replaced: it runs, and nobody can reach it there")
		r.Others = append(r.Others, c.Holder)
	}
	return nil
}

// concludePath writes the sentence for a unix path.
func (r *Report) concludePath(who string) {
	t := r.target
	path := printable(t.abs(), 0)
	dir := printable(filepath.Dir(t.abs()), 0)
	switch r.Cause {
	case AbstractHeld:
		r.Sentence = fmt.Sprintf("the abstract name %s is in use: %s %s", path, who, r.Holders[0].verb())
	case UnixLive:
		r.Sentence = fmt.Sprintf("%s is in use: %s %s", path, who, r.Holders[0].verb())
	case UnixLiveElsewhere:
		r.Sentence = path + " is in use: a server answers there, from a network namespace (a container) that we cannot see into"
	case UnixDead:
		r.Sentence = path + " is a socket without a server: its server ended without removing it, and bind does not replace a file"
	case UnixUnknown:
		r.Sentence = path + " is a socket, and whether a server has it cannot be found out with our rights"
	case NotASocket:
		r.Sentence = path + " is no socket but " + describeFile(t.Path) + ", and bind does not replace a file"
	case DanglingLink:
		to, _ := os.Readlink(t.Path)
		r.Sentence = fmt.Sprintf("%s is a symbolic link to %s, which does not exist; bind does not follow it", path, printable(to, 0))
	case PathTooLong:
		r.Sentence = fmt.Sprintf("the path has %d bytes, and the address of a socket has room for %d", len(t.Path), maxUnixPath)
	case NoDirectory:
		r.Sentence = "the directory " + dir + " does not exist"
	case NotADirectory:
		r.Sentence = "a part of " + dir + " is no directory"
	case Unwritable:
		if r.Symptom != nil && unix.Access(filepath.Dir(t.abs()), unix.W_OK) == nil {
			r.Sentence = fmt.Sprintf("the user of %s may not write in %s%s; user %s may", programName(r.Symptom.Program), dir, describeOwner(filepath.Dir(t.abs())), userName(uint32(os.Geteuid())))
			break
		}
		r.Sentence = fmt.Sprintf("the user %s may not write in %s%s", userName(uint32(os.Geteuid())), dir, describeOwner(filepath.Dir(t.abs())))
	case ReadOnly:
		r.Sentence = "the directory " + dir + " is on a read-only file system"
	}
}

func describeFile(path string) string {
	fi, err := os.Stat(path)
	if err != nil {
		return "a file"
	}
	switch m := fi.Mode(); {
	case m.IsRegular():
		return fmt.Sprintf("a file of %d bytes, changed %s", fi.Size(), fi.ModTime().Format("2006-01-02 15:04:05"))
	case m.IsDir():
		return "a directory"
	case m&fs.ModeNamedPipe != 0:
		return "a named pipe"
	}
	return "a device"
}

func describeOwner(dir string) string {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return ": " + errnoName(err)
	}
	return fmt.Sprintf(" (it belongs to %s, mode %04o)", userName(st.Uid), st.Mode&0o7777)
}

func errnoName(err error) string {
	var e unix.Errno
	if errors.As(err, &e) {
		return unix.ErrnoName(e)
	}
	return err.Error()
}
