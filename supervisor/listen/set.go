package listen

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor/config"
	"github.com/supervise/supervise/supervisor/sockdiag"
)

// portTries bounds the search for one port that is free on both loopbacks.
const portTries = 32

// Inherited is a descriptor that supervise was started with (LISTEN_FDS,
// LISTEN_FDNAMES of sd_listen_fds(3)).
type Inherited struct {
	FD   int
	Name string

	// Path is where a unix socket is, absolute, if the one who knows tells it: the
	// address that the socket has may be relative to its binder's directory.
	Path string
}

// Set holds the listeners of one supervisor.
type Set struct {
	sockets []*Socket
	watch   *watch // of unix paths, nil when there are none
}

// Open opens the configured sockets, in order, and adopts the inherited ones:
// in place of a configured socket with its address or, failing that, its name,
// else as sockets of their own behind the configured ones. It takes ownership of
// inherited descriptors, also on error.
//
// It is all or nothing: on error everything is closed and the paths that it made
// are removed. The error is, or wraps, an *OpenError. Warnings are what was
// survived. The caller closes the Set.
func Open(sockets []config.Socket, inherited []Inherited) (*Set, []Warning, error) {
	s := &Set{}
	warns, err := s.open(sockets, inherited)
	if err != nil {
		s.Close()
		return nil, warns, err
	}
	return s, warns, nil
}

func (s *Set) open(sockets []config.Socket, inherited []Inherited) (warns []Warning, err error) {
	given, err := examine(inherited)
	defer func() {
		for _, g := range given {
			if g.fd >= 0 {
				unix.Close(g.fd)
			}
		}
	}()
	if err != nil {
		return nil, err
	}
	taken := match(sockets, given)
	for i := 0; i < len(sockets); i++ {
		c := sockets[i]
		var opened []*Socket
		var w []Warning
		switch {
		case taken[i] != nil:
			var one *Socket
			one, w, err = taken[i].adopt(&c)
			opened = []*Socket{one}
		case i+1 < len(sockets) && taken[i+1] == nil && bothLoopbacks(c, sockets[i+1]):
			opened, w, err = openPair(c, sockets[i+1])
			i++
		default:
			var one *Socket
			one, w, err = openOne(c, c.Addr.Port())
			opened = []*Socket{one}
		}
		warns = append(warns, w...)
		if err != nil {
			if skip, ok := optional(c, err); ok {
				warns = append(warns, skip)
				continue
			}
			return warns, err
		}
		if taken[i] != nil {
			opened[0].keep()
		}
		s.sockets = append(s.sockets, opened...)
	}
	for _, g := range given {
		if g.fd < 0 {
			continue
		}
		one, w, err := g.adopt(nil)
		warns = append(warns, w...)
		if err != nil {
			return warns, err
		}
		one.keep()
		s.sockets = append(s.sockets, one)
	}
	w, err := s.startWatch()
	return append(warns, w...), err
}

// Adopt takes a listener into the Set later on, one that was learned from a
// child for instance. It takes ownership of the descriptor, also on error.
func (s *Set) Adopt(in Inherited) (*Socket, []Warning, error) {
	given, err := examine([]Inherited{in})
	if err != nil {
		for _, g := range given {
			unix.Close(g.fd)
		}
		return nil, nil, err
	}
	one, warns, err := given[0].adopt(nil)
	if err != nil {
		return nil, warns, err
	}
	s.sockets = append(s.sockets, one)
	w, err := s.startWatch()
	return one, append(warns, w...), err
}

func openOne(c config.Socket, port uint16) (*Socket, []Warning, error) {
	switch c.Network {
	case "tcp", "udp":
		if !c.Addr.IsValid() {
			return nil, nil, failed("address", c, unix.EINVAL)
		}
		return openInet(c, port)
	case "unix", "unixgram", "unixpacket":
		return openUnix(c)
	}
	return nil, nil, failed("network", c, unix.EAFNOSUPPORT)
}

// optional says that err of an optional socket is a warning.
func optional(c config.Socket, err error) (Warning, bool) {
	if c.Optional && (errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAFNOSUPPORT)) {
		return Warning{c, "this address cannot be used here and is left out", err}, true
	}
	return Warning{}, false
}

// bothLoopbacks says that a and b are the two addresses of "localhost:0".
func bothLoopbacks(a, b config.Socket) bool {
	return a.Network == b.Network && a.Name == b.Name && a.Source == b.Source &&
		a.Addr.IsValid() && b.Addr.IsValid() && a.Addr.Port() == 0 && b.Addr.Port() == 0 &&
		a.Addr.Addr().IsLoopback() && b.Addr.Addr().IsLoopback() && a.Addr.Addr().Is4() != b.Addr.Addr().Is4()
}

// openPair opens two sockets at one port that the kernel chooses.
func openPair(a, b config.Socket) ([]*Socket, []Warning, error) {
	var err error
	for range portTries {
		one, warns, e := openOne(a, 0)
		if e != nil {
			skip, ok := optional(a, e)
			if !ok {
				return nil, nil, e
			}
			two, w, e := openOne(b, 0)
			return []*Socket{two}, append(append(warns, skip), w...), e
		}
		two, w, e := openOne(b, uint16(one.Port()))
		warns = append(warns, w...)
		if e == nil {
			return []*Socket{one, two}, warns, nil
		}
		if skip, ok := optional(b, e); ok {
			return []*Socket{one}, append(warns, skip), nil
		}
		one.close(false)
		if err = e; !errors.Is(e, unix.EADDRINUSE) {
			break
		}
	}
	return nil, nil, err
}

// Sockets gives the sockets in the order of the configuration, inherited ones
// that were not configured last.
func (s *Set) Sockets() []*Socket { return slices.Clone(s.sockets) }

// Lanes gives all open lanes: what the loop watches for EPOLLHUP.
func (s *Set) Lanes() []*Lane {
	var all []*Lane
	for _, one := range s.sockets {
		all = append(all, one.Lanes()...)
	}
	return all
}

// Lend gives one lane of each socket for a new generation: the steered one if
// nobody has it (at first, and after a crash), else an idle one in which
// clients wait, else an idle one, else a new one. New connections come to the
// lanes only after Steer. Shared sockets give their one lane each time, learned
// ones none (see Learn). On error nothing is lent.
func (s *Set) Lend() ([]*Lane, error) {
	var lent []*Lane
	for _, one := range s.sockets {
		if one.learned {
			continue
		}
		l, err := one.lend()
		if err != nil {
			s.Return(lent)
			return nil, err
		}
		lent = append(lent, l)
	}
	return lent, nil
}

func (s *Socket) lend() (*Lane, error) {
	l := s.idle()
	if l == nil {
		var err error
		if l, err = s.open(); err != nil {
			return nil, err
		}
	}
	s.group.mu.Lock()
	defer s.group.mu.Unlock()
	l.lent, l.quiet = true, false
	return l, nil
}

// idle gives the lane that needs a generation most; nil if a new one is right.
func (s *Socket) idle() *Lane {
	s.group.mu.Lock()
	defer s.group.mu.Unlock()
	var best *Lane
	rank := 0
	for _, l := range s.lanes() {
		if s.shared != "" {
			return l
		}
		if l.lent {
			continue
		}
		r := 1
		if n, _, _ := l.queue(); n > 0 {
			r = 2
		}
		if slices.Contains(s.group.steered, l) {
			r = 3
		}
		if r > rank {
			best, rank = l, r
		}
	}
	return best
}

// Steer makes all new connections come to lanes: a rollout's new ones. Several
// lanes of one socket share its connections evenly. Sockets that have no lane
// among them stay as they are, and a shared socket has nothing to steer. It tries
// all sockets and joins the errors. On return connections that were being
// received at that moment may still get into the old lane: a Gate waits for them.
func (s *Set) Steer(lanes []*Lane) error {
	var errs []error
	for _, one := range s.sockets {
		var its []*Lane
		for _, l := range lanes {
			if l.socket == one {
				its = append(its, l)
			}
		}
		if len(its) == 0 || one.shared != "" {
			continue
		}
		one.group.mu.Lock()
		errs = append(errs, one.group.steer(its))
		for _, l := range its {
			l.quiet = false
		}
		one.group.mu.Unlock()
	}
	return errors.Join(errs...)
}

// Return says that the borrower of lanes is gone. A lane that new connections
// come to, in which clients wait, or in which a handshake may be in flight, is
// kept for the next Lend; the others are closed. kept are the kept ones that are
// steered to or have clients, shared ones not included.
func (s *Set) Return(lanes []*Lane) (kept []*Lane) {
	for _, l := range lanes {
		if l.socket.shared != "" {
			continue
		}
		flight := l.inFlight()
		g := l.socket.group
		g.mu.Lock()
		l.lent = false
		n, _, err := l.queue()
		switch {
		case l.fd < 0:
		case slices.Contains(g.steered, l) || err == nil && n > 0:
			kept = append(kept, l)
		case flight || !g.tcp || l.kept:
			// A UDP lane cannot be made to leave its group while some
			// process has a copy, and one of the manager above must not; it
			// stays, empty, and is lent again.
		default:
			// Without a plug the lane is kept, as an idle one: no harm.
			_ = g.remove(l)
		}
		g.mu.Unlock()
	}
	return kept
}

// inFlight says that a handshake may be going on that ends in l's queue.
func (l *Lane) inFlight() bool {
	g := l.socket.group
	g.mu.Lock()
	known := l.quiet || !g.tcp || l.fd < 0
	g.mu.Unlock()
	if known {
		return false
	}
	half, err := l.socket.connections(sockdiag.Mask(sockdiag.SynRecv), false)
	return err != nil || len(half) > 0
}

// connections lists the server's side of the connections to the socket. What a
// dual-stack listener got over IPv4 is AF_INET6 for the kernel, half-open or not.
func (s *Socket) connections(states uint32, info bool) ([]sockdiag.Socket, error) {
	q := sockdiag.Query{Protocol: sockdiag.TCP, Family: unix.AF_INET, States: states, LocalPort: s.addr.Port(), Info: info}
	if s.addr.Addr().Is6() {
		q.Family = unix.AF_INET6
	}
	found, err := sockdiag.Inet(q)
	if err != nil {
		return nil, err
	}
	at := s.addr.Addr().WithZone("")
	return slices.DeleteFunc(found, func(c sockdiag.Socket) bool {
		return !at.IsUnspecified() && c.Src.Addr() != at && c.Src.Addr().Unmap() != at
	}), nil
}

// LeaveLane closes a TCP lane that a child shut down and that nobody needs any
// more. To let it listen again (HealLane) would put it back into the group for a
// moment in which the program still counts without it, and a client that came
// then would wait in it. It reports whether it did; false is a lane that
// listens, is steered to, or has no group.
func (s *Set) LeaveLane(l *Lane) (bool, error) {
	g := l.socket.group
	g.mu.Lock()
	defer g.mu.Unlock()
	if l.fd < 0 || !g.tcp || !g.steering || l.kept || slices.Contains(g.steered, l) || accepting(l.fd) {
		return false, nil
	}
	return true, g.leave(l)
}

// HealLane makes a listener listen again that a process shut down, puts it at
// the right place of its group and steers as before. Clients that were in its
// queue were reset by the kernel. Nothing happens to a healthy one. A Unix
// listener cannot be healed: another takes its place, under the same path, and
// the error is ErrReplaced. UDP and unixgram cannot be healed: ENOTSUP.
func (s *Set) HealLane(l *Lane) error {
	g := l.socket.group
	g.mu.Lock()
	defer g.mu.Unlock()
	if l.fd < 0 {
		return ErrClosed
	}
	if l.healthy() {
		return nil
	}
	switch l.socket.cfg.Network {
	case "tcp":
		return g.rejoin(l, backlog(l.socket.cfg))
	case "unix", "unixpacket":
		if err := l.replace(); err != nil {
			return err
		}
		return ErrReplaced
	}
	return fmt.Errorf("cannot heal %s: %w", subject(l.socket.cfg), unix.ENOTSUP)
}

// GiveBack steers new connections to the listeners that we were given: the
// manager above (a .socket unit of systemd) has them as well, so that whoever
// comes from now on waits there for the next of us instead of being refused. To
// be called before the last generation is told to stop.
func (s *Set) GiveBack() error {
	var errs []error
	for _, one := range s.sockets {
		errs = append(errs, one.giveBack())
	}
	return errors.Join(errs...)
}

func (s *Socket) giveBack() error {
	g := s.group
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, m := range g.order {
		if m.lane != nil && m.lane.kept && !slices.Equal(g.steered, []*Lane{m.lane}) {
			return g.steer([]*Lane{m.lane})
		}
	}
	return nil
}

// keep marks the listener that we were given: it is never shut down, since that
// would act on the copy of the manager above, and not closed before the end.
func (s *Socket) keep() {
	if s.shared == "" {
		s.group.order[0].lane.kept = true
	}
}

// Close closes all lanes, whoever waits in them, and removes the paths that are
// still ours and were to be removed.
func (s *Set) Close() {
	_ = s.GiveBack() // where that fails, the kernel chooses among those that are left
	for _, one := range slices.Backward(s.sockets) {
		one.close(false)
	}
	s.sockets = nil
	if s.watch != nil {
		s.watch.close()
		s.watch = nil
	}
}

// close closes all lanes of the socket. With shut they stop for whoever has a
// copy, too; without, a child that still serves one goes on until it closes its
// own: at a stop it would else meet an error in accept(2) before it hears of the
// signal.
func (s *Socket) close(shut bool) {
	if s.path != nil {
		s.path.remove()
	}
	g := s.group
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tcp = g.tcp && shut && s.shared == "" // a shared one may be somebody else's, too
	for len(g.order) > 0 {
		g.close(len(g.order) - 1)
	}
	g.steered, g.pins = nil, nil
}

// Aside opens a lane that nobody is lent for each socket that has lanes and
// gets connections: for those that are to wait. The caller steers to them; the
// next Lend, or Learn, gives them to a generation with all who wait. A socket with
// one listener for all has none, and is not among them. On error nothing is left.
func (s *Set) Aside() ([]*Lane, error) {
	var all []*Lane
	for _, one := range s.sockets {
		one.group.mu.Lock()
		can := one.shared == "" && one.group.steering && one.group.tcp
		one.group.mu.Unlock()
		if !can {
			continue
		}
		l, err := one.open()
		if err != nil {
			s.Return(all)
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}
