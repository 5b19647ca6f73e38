package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// errManyPins says that the steering program has no room for one more probe.
var errManyPins = errors.New("too many probes at a time")

// Dial connects to this lane, though new connections may be steered to another:
// so a probe is answered by the candidate and not by the generation beside it.
// It binds a local port first, makes the group's program send what comes from
// there to this lane, connects, and takes the rule out again; of a UDP lane at
// Close of the connection. Others are steered as before all the time.
//
// A wildcard is dialled over loopback, another address from itself. The lane
// need not be served: it is enough that it listens. Shared sockets give
// ErrShared. It is safe for concurrent use. The caller closes the connection.
func (l *Lane) Dial(ctx context.Context) (net.Conn, error) {
	s := l.socket
	if s.shared != "" {
		return nil, ErrShared
	}
	g := s.group
	to := s.dialAddr()
	var mine []*pin
	unpin := func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		n := len(g.pins)
		g.pins = slices.DeleteFunc(g.pins, func(p *pin) bool { return slices.Contains(mine, p) })
		if len(g.pins) != n && len(g.order) > 0 {
			// A rule too many does no harm; the next attach is without it.
			_ = g.attach()
		}
	}
	d := net.Dialer{
		// Called between socket(2) and connect(2), again for each new try.
		ControlContext: func(_ context.Context, _, _ string, raw syscall.RawConn) error {
			var err error
			e := raw.Control(func(fd uintptr) {
				var p *pin
				if p, err = g.pin(l, int(fd)); err == nil {
					mine = append(mine, p)
				}
			})
			return errors.Join(e, err)
		},
	}
	d.SetMultipathTCP(false)
	conn, err := d.DialContext(ctx, s.cfg.Network, to.String())
	udp := s.cfg.Network == "udp" // not of the group, which may be closed by now
	if err != nil || !udp {
		unpin()
	}
	if err != nil {
		return nil, fmt.Errorf("cannot connect to lane %d of %s: %w", l.number, s.Name(), err)
	}
	if udp {
		return &unpinConn{Conn: conn, unpin: sync.OnceFunc(unpin)}, nil
	}
	return conn, nil
}

// pin binds fd to a free port of the address that is dialled and makes the
// program send what comes from there to l.
func (g *group) pin(l *Lane, fd int) (*pin, error) {
	from := l.socket.dialAddr().Addr()
	sa, err := sockaddr(netip.AddrPortFrom(from, 0))
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, sa); err != nil {
		return nil, fmt.Errorf("cannot bind to %v: %w", from, err)
	}
	at, err := boundAddr(fd)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.index(l) < 0 {
		return nil, ErrClosed
	}
	if len(g.pins) >= maxPins {
		return nil, errManyPins
	}
	p := &pin{pinned{from: at}, l}
	g.pins = append(g.pins, p)
	if err := g.attach(); err != nil {
		g.pins = g.pins[:len(g.pins)-1]
		return nil, err
	}
	return p, nil
}

// unpinConn is a UDP flow: each of its datagrams needs the rule.
type unpinConn struct {
	net.Conn
	unpin func()
}

func (c *unpinConn) Close() error {
	c.unpin()
	return c.Conn.Close()
}
