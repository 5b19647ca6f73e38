package listen

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor/config"
	"github.com/supervise/supervise/supervisor/sockdiag"
)

const sharedUnix = "a unix socket has no SO_REUSEPORT group"

// maxPath is the longest path that fits struct sockaddr_un, without its NUL.
const maxPath = 107

// path is the file of a unix socket. The supervisor's is the inode; a hard
// link beside the path keeps it reachable when a child removes or replaces the
// path.
type path struct {
	cfg      config.Socket
	name     string // as bound: what getsockname(2) shows
	link     string // hidden hard link, "" if none could be made
	dev, ino uint64
	ours     bool // we made it, so it may be removed at the end
	watching int  // inotify watch descriptor, -1 none
}

func unixType(network string) int {
	switch network {
	case "unixgram":
		return unix.SOCK_DGRAM
	case "unixpacket":
		return unix.SOCK_SEQPACKET
	}
	return unix.SOCK_STREAM
}

// openUnix opens a unix socket of any type, with its directories and its path.
func openUnix(c config.Socket) (*Socket, []Warning, error) {
	if c.Path == "" {
		return nil, nil, failed("path", c, unix.EINVAL)
	}
	abstract := c.Path[0] == '@'
	if len(c.Path) > maxPath {
		return nil, nil, failed("path", c, unix.ENAMETOOLONG)
	}
	if !abstract {
		if err := makeDirectories(c); err != nil {
			return nil, nil, err
		}
		if err := removeStale(c); err != nil {
			return nil, nil, err
		}
	}
	fd, warns, err := bindUnix(c, c.Path)
	if err != nil {
		return nil, nil, err
	}
	s := &Socket{cfg: c, shared: sharedUnix, group: &group{}}
	l, err := s.newLane(fd)
	if err != nil {
		unix.Close(fd)
		return nil, nil, failed("stat", c, err)
	}
	s.group.order = []*member{{fd: fd, lane: l}}
	s.group.steered = []*Lane{l}
	if abstract {
		return s, warns, nil
	}
	p, w, err := holdPath(c, c.Path)
	warns = append(warns, w...)
	if err != nil {
		_ = os.Remove(c.Path)
		unix.Close(fd)
		return nil, nil, err
	}
	p.ours = true
	s.path = p
	// The owner before the mode: the mode must not be for the wrong owner.
	if err := p.setOwnerAndMode(p.name); err != nil {
		p.cfg.Options.RemoveOnStop = true
		p.remove()
		unix.Close(fd)
		return nil, nil, err
	}
	return s, warns, nil
}

// bindUnix makes a listener at name, accessible by its owner alone if it is a path.
func bindUnix(c config.Socket, name string) (fd int, warns []Warning, err error) {
	flags := unix.SOCK_CLOEXEC
	if !c.Options.Blocking {
		flags |= unix.SOCK_NONBLOCK
	}
	fd, err = unix.Socket(unix.AF_UNIX, unixType(c.Network)|flags, 0)
	if err != nil {
		return -1, nil, failed("socket", c, err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
			fd = -1
		}
	}()
	o := c.Options
	if o.PassCred {
		if err := on(fd, unix.SOL_SOCKET, unix.SO_PASSCRED); err != nil {
			return fd, nil, failed("set SO_PASSCRED", c, err)
		}
	}
	for _, b := range []struct {
		name              string
		value, force, opt int
	}{
		{"ReceiveBuffer=", o.ReceiveBuffer, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF},
		{"SendBuffer=", o.SendBuffer, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF},
	} {
		if b.value > 0 {
			if err := forced(fd, b.force, b.opt, b.value); err != nil {
				warns = append(warns, Warning{c, b.name + " could not be set, and is the kernel's default now", err})
			}
		}
	}
	if name[0] != '@' {
		// bind(2) gives the path the socket's own mode less the umask: so the
		// umask, which all threads share, need not be changed.
		if err := unix.Fchmod(fd, 0o600); err != nil {
			return fd, nil, failed("chmod", c, err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: name}); err != nil {
		return fd, nil, failed("bind", c, err)
	}
	if c.Network != "unixgram" {
		if err := unix.Listen(fd, backlog(c)); err != nil {
			if name[0] != '@' {
				_ = os.Remove(name)
			}
			return fd, nil, failed("listen", c, err)
		}
	}
	return fd, warns, nil
}

// makeDirectories makes what is missing above the path, with DirectoryMode=
// whatever the umask says. What exists is left as it is.
func makeDirectories(c config.Socket) error {
	mode := c.Options.DirectoryMode.Perm()
	if mode == 0 {
		mode = 0o755
	}
	var missing []string
	for dir := filepath.Dir(c.Path); ; dir = filepath.Dir(dir) {
		_, err := os.Stat(dir)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return failed("directory", c, err)
		}
		missing = append(missing, dir)
		if dir == filepath.Dir(dir) {
			break
		}
	}
	for i := len(missing) - 1; i >= 0; i-- {
		err := os.Mkdir(missing[i], mode)
		if err == nil {
			err = os.Chmod(missing[i], mode)
		} else if errors.Is(err, fs.ErrExist) {
			err = nil // somebody else was faster
		}
		if err != nil {
			return failed("directory", c, err)
		}
	}
	return nil
}

// removeStale removes the path of a server that is dead. A living one is
// EADDRINUSE, and what is no socket is ENOTSOCK and stays.
func removeStale(c config.Socket) error {
	var st unix.Stat_t
	switch err := unix.Lstat(c.Path, &st); {
	case errors.Is(err, unix.ENOENT):
		return nil
	case err != nil:
		return failed("path", c, err)
	case st.Mode&unix.S_IFMT != unix.S_IFSOCK:
		return failed("path", c, unix.ENOTSOCK)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unixType(c.Network)|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return failed("socket", c, err)
	}
	defer unix.Close(fd)
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: c.Path})
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.EACCES):
		return failed("path", c, err)
	case !errors.Is(err, unix.ECONNREFUSED):
		// nil, EAGAIN (its queue is full), EPROTOTYPE (of another type)
		return failed("bind", c, unix.EADDRINUSE)
	}
	// One that is bound and does not listen yet refuses, too.
	all, err := sockdiag.Unix(sockdiag.UnixQuery{})
	for _, s := range all {
		if err == nil && s.VfsInode == uint32(st.Ino) && s.Name != "" && sameFile(s.Name, c.Path) {
			return failed("bind", c, unix.EADDRINUSE)
		}
	}
	if err := unix.Unlink(c.Path); err != nil && !errors.Is(err, unix.ENOENT) {
		return failed("remove the stale path", c, err)
	}
	return nil
}

// sameFile compares a name that some process bound, which may be relative to
// its directory, with a path: the inode number did match already.
func sameFile(bound, path string) bool {
	return filepath.Base(bound) == filepath.Base(path) || !filepath.IsAbs(bound)
}

// holdPath notes the inode at name and makes the hidden link.
func holdPath(c config.Socket, name string) (*path, []Warning, error) {
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		return nil, nil, failed("path", c, err)
	}
	p := &path{cfg: c, name: name, dev: st.Dev, ino: st.Ino, watching: -1}
	if err := p.makeLink(); err != nil {
		return p, []Warning{{c, "no hard link could be made beside the path: if a child removes the path, it is lost", err}}, nil
	}
	return p, nil, nil
}

// makeLink makes the hidden link from the path. A socket that is there under
// that name is from a supervisor that died.
func (p *path) makeLink() error {
	link := filepath.Join(filepath.Dir(p.name), "."+filepath.Base(p.name)+".supervise")
	var st unix.Stat_t
	if err := unix.Lstat(link, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK {
		_ = unix.Unlink(link)
	}
	if err := unix.Linkat(unix.AT_FDCWD, p.name, unix.AT_FDCWD, link, 0); err != nil {
		return err
	}
	p.link = link
	return nil
}

// is says whether the file at name is our inode.
func (p *path) is(name string) bool {
	var st unix.Stat_t
	return name != "" && unix.Lstat(name, &st) == nil && st.Dev == p.dev && st.Ino == p.ino
}

// remove ends the path and the link, each only if it is still ours.
func (p *path) remove() {
	if p.ours && p.cfg.Options.RemoveOnStop && p.is(p.name) {
		_ = unix.Unlink(p.name)
	}
	if p.is(p.link) {
		_ = unix.Unlink(p.link)
	}
}

// setOwnerAndMode gives the file at name SocketUser=, SocketGroup= and
// SocketMode=, in that order, by a descriptor, so that nobody can put another
// file in between.
func (p *path) setOwnerAndMode(name string) error {
	o := p.cfg.Options
	uid, gid, err := owner(o.User, o.Group)
	if err != nil {
		return failed("owner", p.cfg, err)
	}
	fd, err := unix.Open(name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return failed("path", p.cfg, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return failed("path", p.cfg, err)
	}
	if st.Dev != p.dev || st.Ino != p.ino {
		return failed("path", p.cfg, fmt.Errorf("somebody replaced the path: %w", unix.ESTALE))
	}
	if uid >= 0 || gid >= 0 {
		if err := unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
			return failed("chown", p.cfg, err)
		}
	}
	mode := o.Mode.Perm()
	if mode == 0 {
		mode = 0o666
	}
	if err := unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), uint32(mode)); err != nil {
		return failed("chmod", p.cfg, err)
	}
	return nil
}

// owner finds the numbers of a user and a group, by name or number; -1 is
// "leave it". A user alone brings its own group, as SocketUser= does.
func owner(name, group string) (uid, gid int, err error) {
	uid, gid = -1, -1
	if name != "" {
		u, err := user.Lookup(name)
		if err != nil {
			if n, e := strconv.Atoi(name); e == nil && n >= 0 {
				u, err = user.LookupId(name)
				if err != nil {
					u, err = &user.User{Uid: name, Gid: "-1"}, nil
				}
			}
		}
		if err != nil {
			return -1, -1, fmt.Errorf("unknown user %q: %w", name, err)
		}
		uid, _ = strconv.Atoi(u.Uid)
		gid, _ = strconv.Atoi(u.Gid)
	}
	if group != "" {
		if n, e := strconv.Atoi(group); e == nil && n >= 0 {
			return uid, n, nil
		}
		g, err := user.LookupGroup(group)
		if err != nil {
			return -1, -1, fmt.Errorf("unknown group %q: %w", group, err)
		}
		gid, _ = strconv.Atoi(g.Gid)
	}
	return uid, gid, nil
}

// replace opens another listener in place of one that was shut down, which
// listen(2) does not cure for unix sockets. The group is locked.
func (l *Lane) replace() error {
	s := l.socket
	c := s.cfg
	at := c.Path
	if s.path != nil {
		at = s.path.name
	} else {
		// The dead one holds the abstract name as long as a child has it open.
		unix.Close(l.fd)
	}
	bindAt := at
	if s.path != nil {
		bindAt = filepath.Join(filepath.Dir(at), "."+filepath.Base(at)+".new")
		if len(bindAt) > maxPath {
			return failed("replace", c, unix.ENAMETOOLONG)
		}
		_ = os.Remove(bindAt)
	}
	fd, _, err := bindUnix(c, bindAt)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return failed("stat", c, err)
	}
	if p := s.path; p != nil {
		next := *p
		var file unix.Stat_t
		err := unix.Lstat(bindAt, &file)
		if err == nil {
			next.dev, next.ino, next.watching = file.Dev, file.Ino, -1
			err = next.setOwnerAndMode(bindAt)
		}
		if err == nil {
			err = os.Rename(bindAt, at)
		}
		if err != nil {
			_ = os.Remove(bindAt)
			unix.Close(fd)
			return failed("replace", c, err)
		}
		if p.is(p.link) {
			_ = unix.Unlink(p.link)
		}
		next.link = ""
		_ = next.makeLink()
		*p = next
	}
	if s.path != nil {
		unix.Close(l.fd)
	}
	l.fd, l.inode = fd, st.Ino
	s.group.order[0].fd = fd
	return nil
}

// pathOf is the bound name of a unix socket, "@..." for abstract ones.
func pathOf(fd int) (string, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return "", err
	}
	if u, ok := sa.(*unix.SockaddrUnix); ok {
		return strings.TrimRight(u.Name, "\x00"), nil
	}
	return "", unix.EAFNOSUPPORT
}
