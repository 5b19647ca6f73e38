package intercept

import "errors"

// unlink answers unlink(path) and unlinkat(dirfd, path).
func (s *Server) unlink(n Notification, th thread, dirfd int, addr uint64) {
	path, err := th.readPath(addr)
	if err != nil || path == "" {
		_ = s.conn.Continue(n.ID) // the kernel has an errno for that; and no socket is lost unless the address is ours
		return
	}
	f, err := th.lookup(dirfd, path)
	if err != nil || !f.socket() {
		_ = s.conn.Continue(n.ID)
		return
	}
	if !s.conn.Valid(n.ID) {
		return
	}
	if s.holder.Unlink(&Removal{TID: n.TID, Path: f.path, Dev: f.stat.Dev, Ino: f.stat.Ino}) {
		if err := s.conn.Reply(n.ID, 0, 0); err != nil && !errors.Is(err, ErrGone) {
			_ = s.conn.Continue(n.ID)
		}
		return
	}
	_ = s.conn.Continue(n.ID)
}
