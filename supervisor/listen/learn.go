package listen

import (
	"slices"

	"github.com/supervise/supervise/supervisor/config"

	"golang.org/x/sys/unix"
)

// Learn takes a listener into the Set that a child made known by binding it. It
// is adopted like an inherited one, except that its O_NONBLOCK stays what the
// child made it, for the lanes that follow as well; that Lend leaves it out,
// since a generation is lent its lanes when it binds (LendOne); and that a unix
// path is removed at the end. It takes ownership of the descriptor, also on
// error.
func (s *Set) Learn(in Inherited) (*Socket, []Warning, error) {
	given, err := examine([]Inherited{in})
	if err != nil {
		for _, g := range given {
			unix.Close(g.fd)
		}
		return nil, nil, err
	}
	g := given[0]
	if in.Path != "" {
		g.found.Path = in.Path
	}
	flags, err := unix.FcntlInt(uintptr(g.fd), unix.F_GETFL, 0)
	if err != nil {
		unix.Close(g.fd)
		return nil, nil, failed("adopt", g.found, err)
	}
	g.found.Options.Blocking = flags&unix.O_NONBLOCK == 0
	g.found.Options.RemoveOnStop = true
	one, warns, err := g.adopt(nil)
	if err != nil {
		return nil, warns, err
	}
	one.learned = true
	if one.path != nil {
		one.path.ours = true
	}
	one.group.order[0].lane.lent = true
	s.sockets = append(s.sockets, one)
	w, err := s.startWatch()
	return one, append(warns, w...), err
}

// Learned says that the socket was learned from a child and not configured.
func (s *Socket) Learned() bool { return s.learned }

// Announce makes a learned socket one that Lend lends to every generation, under
// a name: as if it had been configured.
func (s *Set) Announce(one *Socket, name string) {
	one.learned = false
	one.cfg.Name = name
}

// Leave forgets that the path of a unix socket is ours to remove: whom it was
// learned from goes on with it.
func (s *Set) Leave(one *Socket) {
	if one.path != nil {
		one.path.ours = false
	}
}

// LendOne lends one more lane of one socket: to a generation that binds it, or
// binds it once more with SO_REUSEPORT. Which lane is as for Lend.
func (s *Set) LendOne(one *Socket) (*Lane, error) { return one.lend() }

// Drop closes one socket of the Set, whoever waits in it: nobody binds it any
// more. Copies that children have live on, but new connections are refused.
func (s *Set) Drop(one *Socket) {
	if i := slices.Index(s.sockets, one); i >= 0 {
		s.sockets = slices.Delete(s.sockets, i, i+1)
	}
	one.close(true)
}

// OwnsFile says that a file is the unix socket of this Set, under whatever name.
func (s *Set) OwnsFile(dev, ino uint64) bool {
	return slices.ContainsFunc(s.sockets, func(one *Socket) bool {
		return one.path != nil && one.path.dev == dev && one.path.ino == ino
	})
}

// Add opens a further socket. On error nothing has changed.
func (s *Set) Add(c config.Socket) (*Socket, []Warning, error) {
	one, warns, err := openOne(c, c.Addr.Port())
	if err != nil {
		return nil, warns, err
	}
	s.sockets = append(s.sockets, one)
	w, err := s.startWatch()
	return one, append(warns, w...), err
}

// Forget makes a configured socket one that no further generation is lent. It
// ends with the last one that serves it, as a learned one that is not bound any more.
func (s *Set) Forget(one *Socket) { one.learned = true }
