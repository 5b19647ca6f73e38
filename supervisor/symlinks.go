package supervisor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/supervise/supervise/supervisor/config"
)

// makeSymlinks makes Symlinks= of the socket units: other names of their unix
// path. One that cannot be made is a warning and no more, as systemd.socket(5)
// says; what is no link is left alone.
func (r *runner) makeSymlinks() {
	for _, u := range r.cfg.SocketUnits {
		target := unixPath(u)
		for _, link := range u.Symlinks {
			if err := makeSymlink(target, link); err != nil {
				r.log.Warn("a link to the socket cannot be made", "service", r.cfg.Name, "socket", u.Name, "link", link, "error", err)
			}
		}
	}
}

func makeSymlink(target, link string) error {
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return err
	}
	if old, err := os.Readlink(link); err == nil {
		if old == target {
			return nil
		}
		if err := os.Remove(link); err != nil { // of a former life
			return err
		}
	}
	return os.Symlink(target, link)
}

// removeSymlinks removes them where RemoveOnStop= says so.
func (r *runner) removeSymlinks() {
	for _, u := range r.cfg.SocketUnits {
		if !u.RemoveOnStop {
			continue
		}
		for _, link := range u.Symlinks {
			if old, err := os.Readlink(link); err != nil || old != unixPath(u) {
				continue // not ours
			}
			if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
				r.log.Warn("a link to the socket cannot be removed", "service", r.cfg.Name, "link", link, "error", err)
			}
		}
	}
}

// unixPath is the one unix path of a socket unit, "" if it has none.
func unixPath(u *config.SocketUnit) string {
	for _, s := range u.Sockets {
		if s.IsUnix() && s.Path[0] == '/' {
			return s.Path
		}
	}
	return ""
}
