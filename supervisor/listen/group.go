package listen

import (
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// A group is the kernel's SO_REUSEPORT group of one socket, mirrored. It is the
// one place that knows which lane has which index:
//
//   - a member that joins gets the next index (reuseport_add_sock);
//   - when one leaves, the last member moves into its gap (__reuseport_detach_sock).
//
// A lane that new connections are steered to must never move: between the move
// and the new program, its old index names another lane or none. So before a
// member leaves while a steered one is the last, a plug joins behind it: a
// listener that drops all packets and that nothing is steered to. The plug moves
// instead, and is taken out as soon as that moves nobody who matters.
//
// A shared socket has a group of one member and no program (steering false).
type group struct {
	mu       sync.Mutex
	steering bool
	tcp      bool
	order    []*member // the index in here is the index in the kernel
	steered  []*Lane
	pins     []*pin
	join     func(plug bool) (int, error) // opens one more listener; it has joined when it is returned
}

// member is one listener of the group: a lane, or a plug when lane is nil.
type member struct {
	fd   int
	lane *Lane
}

// pin sends what comes from one source address to one lane; see Lane.Dial.
type pin struct {
	pinned
	lane *Lane
}

// index gives the place of a lane, -1 if it is not in the group.
func (g *group) index(l *Lane) int {
	return slices.IndexFunc(g.order, func(m *member) bool { return m.lane == l && l != nil })
}

// still says that m must keep its index.
func (g *group) still(m *member) bool {
	if m.lane == nil {
		return false
	}
	return slices.Contains(g.steered, m.lane) ||
		slices.ContainsFunc(g.pins, func(p *pin) bool { return p.lane == m.lane })
}

// add notes a listener that joined a moment ago, and takes out plugs.
func (g *group) add(m *member) {
	g.order = append(g.order, m)
	g.unplug()
}

// unplug closes the plugs whose place can be taken without moving a lane that
// must stand still.
func (g *group) unplug() {
	for i := len(g.order) - 1; i >= 0; i-- {
		last := len(g.order) - 1
		if g.order[i].lane == nil && (i == last || !g.still(g.order[last])) {
			g.close(i)
		}
	}
}

// remove takes the lane out of the group and closes it. Whoever waits in its
// queue is reset: the caller has looked.
func (g *group) remove(l *Lane) error {
	i := g.index(l)
	if i < 0 {
		return ErrClosed
	}
	if last := len(g.order) - 1; g.steering && i != last && g.still(g.order[last]) {
		fd, err := g.join(true)
		if err != nil {
			return fmt.Errorf("cannot plug the gap: %w", err)
		}
		g.order = append(g.order, &member{fd: fd})
	}
	g.close(i)
	g.steered = slices.DeleteFunc(g.steered, func(s *Lane) bool { return s == l })
	g.unplug()
	return nil
}

// close ends the member at index i and moves the last into the gap.
func (g *group) close(i int) {
	m := g.order[i]
	if g.tcp && g.steering && (m.lane == nil || !m.lane.kept) {
		// close(2) alone would leave it in the group, and the order wrong,
		// for as long as any process still has a copy of the descriptor.
		_ = unix.Shutdown(m.fd, unix.SHUT_RD)
	}
	unix.Close(m.fd)
	m.fd = -1
	if m.lane != nil {
		m.lane.fd = -1
	}
	g.gap(i)
}

// gap does what the kernel does when the member at index i leaves.
func (g *group) gap(i int) {
	last := len(g.order) - 1
	g.order[i] = g.order[last]
	g.order = g.order[:last]
}

// attach gives the kernel the program for the present order.
func (g *group) attach() error {
	if !g.steering {
		return nil
	}
	var steer []uint32
	for _, l := range g.steered {
		if i := g.index(l); i >= 0 {
			steer = append(steer, uint32(i))
		}
	}
	var pins []pinned
	for _, p := range g.pins {
		if i := g.index(p.lane); i >= 0 {
			pins = append(pins, pinned{p.from, uint32(i)})
		}
	}
	prog := program(steer, pins)
	for _, m := range g.order {
		// On one that was shut down it would go to a group of its own. Nothing can
		// be attached to an MPTCP listener (EOPNOTSUPP), but the TCP socket within
		// it is a member like the others, and the program is the group's.
		if m.fd >= 0 && (!g.tcp || accepting(m.fd) && !isMPTCP(m.fd)) {
			return attach(m.fd, prog)
		}
	}
	if len(g.order) == 1 && isMPTCP(g.order[0].fd) {
		return nil // alone, it gets everything as it is
	}
	return fmt.Errorf("no member of the group listens: %w", unix.EINVAL)
}

// steer sends all new connections to lanes, evenly.
func (g *group) steer(lanes []*Lane) error {
	for _, l := range lanes {
		if g.index(l) < 0 {
			return fmt.Errorf("cannot steer to lane %d of %s: %w", l.number, l.socket.Name(), ErrClosed)
		}
	}
	before := g.steered
	g.steered = slices.Clone(lanes)
	if err := g.attach(); err != nil {
		g.steered = before
		return fmt.Errorf("cannot steer to lane %d of %s: %w", lanes[0].number, lanes[0].socket.Name(), err)
	}
	g.unplug()
	return nil
}

// leave follows the kernel where a copy of a lane's listener was shut down: it
// is out of the group already, and the last one is in its place. Until the
// program is attached anew an index may be too large; the kernel then chooses
// among those that are left.
func (g *group) leave(l *Lane) error {
	i := g.index(l)
	if i < 0 {
		return ErrClosed
	}
	m := g.order[i]
	g.gap(i)
	unix.Close(m.fd)
	m.fd, l.fd = -1, -1
	return g.attach()
}

// rejoin makes a lane listen again that was shut down: it left the group then,
// and becomes its last member now.
func (g *group) rejoin(l *Lane, backlog int) error {
	i := g.index(l)
	if i < 0 {
		return ErrClosed
	}
	if accepting(l.fd) {
		return nil
	}
	// Others may have left as well; each is healed by its own call, but the
	// order must be right without them now.
	m := g.order[i]
	var ill []*member
	if g.steering {
		for j := 0; j < len(g.order); {
			if o := g.order[j]; !accepting(o.fd) {
				if o != m {
					ill = append(ill, o)
				}
				g.gap(j)
				continue
			}
			j++
		}
	} else {
		g.gap(i)
	}
	again := func(fd int) error {
		// One that somebody else bound to port 0 has no port any more.
		if at, err := boundAddr(fd); err == nil && at.Port() == 0 {
			if err := bindTo(fd, l.socket.addr); err != nil {
				return err
			}
		}
		return unix.Listen(fd, backlog)
	}
	err := again(l.fd)
	g.order = append(g.order, m)
	if err != nil {
		return fmt.Errorf("cannot make lane %d of %s listen again: %w", l.number, l.socket.Name(), err)
	}
	for _, o := range ill {
		if err := again(o.fd); err == nil || o.lane != nil {
			g.order = append(g.order, o)
		}
	}
	return g.attach()
}

// isMPTCP says that fd is MPTCP, as the listeners of Go programs are.
func isMPTCP(fd int) bool {
	proto, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	return err == nil && proto == unix.IPPROTO_MPTCP
}

// accepting says that fd is a listener of a connection-oriented protocol.
func accepting(fd int) bool {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	return err == nil && n == 1
}
