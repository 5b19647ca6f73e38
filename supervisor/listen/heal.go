package listen

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Event is what Heal found and did about one path.
type Event struct {
	Socket *Socket
	What   PathEvent
	Err    error // why the path could not be put back; nil: it was
}

// PathEvent is what happened to a path.
type PathEvent int

const (
	PathRemoved  PathEvent = iota + 1 // nothing was there
	PathReplaced                      // something else was there: a socket that a child bound, for instance
)

// String gives the word for a log line.
func (p PathEvent) String() string {
	switch p {
	case PathRemoved:
		return "removed"
	case PathReplaced:
		return "replaced"
	}
	return "unknown"
}

// watch tells changes of the inodes of unix paths. The inodes and not their
// directories: nothing else in /run or /tmp wakes us. An unlink or a rename over
// it changes the link count, which is IN_ATTRIB.
type watch struct{ fd int }

const watched = unix.IN_ATTRIB | unix.IN_MOVE_SELF | unix.IN_DELETE_SELF

// startWatch watches all paths that are not watched yet.
func (s *Set) startWatch() ([]Warning, error) {
	var warns []Warning
	for _, one := range s.sockets {
		p := one.path
		if p == nil || p.watching >= 0 || p.link == "" {
			continue
		}
		if s.watch == nil {
			fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
			if err != nil {
				return append(warns, Warning{one.cfg, "the path is not watched: if a child removes it, it is lost", err}), nil
			}
			s.watch = &watch{fd: fd}
		}
		n, err := unix.InotifyAddWatch(s.watch.fd, p.link, watched|unix.IN_DONT_FOLLOW)
		if err != nil {
			warns = append(warns, Warning{one.cfg, "the path is not watched: if a child removes it, it is lost", err})
			continue
		}
		p.watching = n
	}
	return warns, nil
}

func (w *watch) close() { unix.Close(w.fd) }

// WatchFD is readable when a path may need Heal: non-blocking, for epoll,
// not to be closed. -1 when there is no path to watch.
func (s *Set) WatchFD() int {
	if s.watch == nil {
		return -1
	}
	return s.watch.fd
}

// Heal puts back the paths that children removed or replaced, and tells of
// each. Clients that connected before are not touched; between the removal and
// Heal a client gets ENOENT, or whatever was put there. A path whose directory
// or hidden link is gone cannot be put back. Call it when WatchFD is readable; it
// may be called at any time.
func (s *Set) Heal() []Event {
	if s.watch != nil {
		s.watch.drain()
	}
	var events []Event
	for _, one := range s.sockets {
		p := one.path
		if p == nil {
			continue
		}
		if p.is(p.name) {
			if !p.is(p.link) {
				_ = p.makeLink()
			}
			continue
		}
		what := PathRemoved
		var st unix.Stat_t
		if unix.Lstat(p.name, &st) == nil {
			what = PathReplaced
		}
		events = append(events, Event{one, what, p.putBack()})
	}
	_, _ = s.startWatch()
	return events
}

// putBack makes the path a link to our inode again, whatever is there now.
func (p *path) putBack() error {
	if !p.is(p.link) {
		return failed("put the path back", p.cfg, unix.ENOENT)
	}
	// link(2) does not replace and rename(2) does: over a temporary name, in
	// one step. (A rename to another link of the same inode does nothing and
	// leaves the temporary name, but then the path is ours already.)
	tmp := filepath.Join(filepath.Dir(p.name), "."+filepath.Base(p.name)+".back")
	_ = os.Remove(tmp)
	err := unix.Linkat(unix.AT_FDCWD, p.link, unix.AT_FDCWD, tmp, 0)
	if err == nil {
		err = unix.Rename(tmp, p.name)
		_ = os.Remove(tmp)
	}
	if err != nil {
		return failed("put the path back", p.cfg, err)
	}
	return nil
}

// drain reads the events away, so that the descriptor is not readable any
// more. What they say is not needed: Heal looks at every path.
func (w *watch) drain() {
	buf := make([]byte, 4096)
	for {
		_, err := unix.Read(w.fd, buf)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}
