package listen

import (
	"slices"

	"github.com/supervise/supervise/supervisor/sockdiag"
)

// Accepted reports whether some process has now a connection open that came
// through this TCP address. One that waits in a queue belongs to nobody: the
// kernel gives it no inode before accept(2). Whose process it is, is not told.
func (s *Socket) Accepted() (bool, error) {
	if s.cfg.Network != "tcp" {
		return false, nil
	}
	found, err := s.connections(sockdiag.Mask(sockdiag.Established, sockdiag.CloseWait), false)
	return slices.ContainsFunc(found, func(c sockdiag.Socket) bool { return c.Inode != 0 }), err
}
