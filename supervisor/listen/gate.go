package listen

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor/sockdiag"
)

// membarrierGlobal is MEMBARRIER_CMD_GLOBAL of membarrier(2).
const membarrierGlobal = 1

const (
	// tieAge is when two equal stamps of tcp_info are old enough to be an idle
	// connection: the stamps have the resolution of the kernel's tick (1 to 10
	// ms), so within one tick nobody knows what came first.
	tieAge = 50 // milliseconds

	// lookups is how many connections are asked for one by one; more are
	// cheaper to get by a dump of the port.
	lookups = 64

	minPause = time.Millisecond
	maxPause = 5 * time.Millisecond
)

// Phase is how far a Gate is.
type Phase int

const (
	PhaseGate   Phase = iota + 1 // handshakes and accept queues of the old lanes
	PhaseShield                  // connections that the old generation took and has not answered
	PhaseDone
)

// Progress is what a Gate still waits for.
type Progress struct {
	Queued     int // connections in the accept queues of the old lanes; of UDP datagram bytes count as one
	InFlight   int // handshakes that were going on at the moment of steering
	Unanswered int // connections of the shield
	Phase      Phase
}

// Gate says when an old generation may be told to stop after new connections
// were steered away from its lanes, so that nobody is lost.
//
// First the handshakes that were in flight must end and the accept queues be
// empty, twice in a row. Then the shield: of the connections that were there,
// each must have been answered once: something received, something sent, and
// the last byte sent not before the last received (tcp_info), or something sent
// since the shield began: a keep-alive connection may be busy for ever. An idle
// keep-alive connection is answered. One that sent nothing yet is not: the caller
// bounds the wait. Connections of the new lanes are not waited for, save those
// that came in the few milliseconds around steering: a connection does not tell
// which listener of a port it came through.
//
// A Gate is for one goroutine, which need not be that of the Set. It knows
// nothing of shared sockets: see Quiesce.
type Gate struct {
	steeredAt time.Time
	ports     []*port
	others    []*Lane // UDP: the queue only
	phase     Phase
	calm      int  // polls in a row that found nothing in flight and nothing queued
	exact     bool // the first look saw everything of the old lanes
}

// port is the part of a Gate for the old lanes of one socket.
type port struct {
	socket *Socket
	lanes  []*Lane
	flight map[tuple]bool
	old    map[tuple]bool
	shield map[uint64]waiting // by cookie: not seen answered yet
}

type tuple struct{ src, dst netip.AddrPort }

// waiting is a connection of the shield.
type waiting struct {
	tuple
	sent uint64 // to the client, when the shield was made
}

// answered reports whether something was sent since: what the connection was in
// the shield for. A busy keep-alive connection has another request at nearly
// every look.
func (w waiting) answered(c *sockdiag.Socket) bool {
	return !unanswered(c) || c.Info != nil && c.Info.Bytes_sent > w.sent
}

// NewGate makes the Gate of the lanes that new connections were steered away
// from at steeredAt. It holds no resources.
func NewGate(old []*Lane, steeredAt time.Time) *Gate {
	g := &Gate{steeredAt: steeredAt, phase: PhaseGate}
	bySocket := map[*Socket]*port{}
	for _, l := range old {
		switch {
		case l.socket.shared != "":
		case l.socket.cfg.Network == "tcp":
			p := bySocket[l.socket]
			if p == nil {
				p = &port{socket: l.socket}
				bySocket[l.socket] = p
				g.ports = append(g.ports, p)
			}
			p.lanes = append(p.lanes, l)
		default:
			g.others = append(g.others, l)
		}
	}
	if len(g.ports) == 0 && len(g.others) == 0 {
		g.phase = PhaseDone
	}
	return g
}

// SteeredAt is the time that NewGate was told.
func (g *Gate) SteeredAt() time.Time { return g.steeredAt }

// Poll looks once. The first call waits for the kernel's network receive paths
// to have seen the steering, some 10 ms; the others take one to three netlink
// dumps for each port. An error means that the kernel cannot be asked: the Gate
// then knows nothing.
func (g *Gate) Poll() (Progress, error) {
	switch g.phase {
	case PhaseGate:
		return g.pollGate()
	case PhaseShield:
		return g.pollShield()
	}
	return Progress{Phase: PhaseDone}, nil
}

func (g *Gate) pollGate() (Progress, error) {
	r := Progress{Phase: PhaseGate}
	first := false
	for _, p := range g.ports {
		if p.old == nil {
			first = true
		}
	}
	if first {
		// A packet that was being received during Steer, on another CPU, may
		// have read the old program. All that goes on under RCU, and this
		// waits for a grace period: what comes now comes to the new lane.
		// Without it (nohz_full, seccomp) newcomers count as old, too.
		_, _, e := unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0)
		g.exact = e == 0
	}
	for _, p := range g.ports {
		states := sockdiag.Mask(sockdiag.SynRecv)
		if p.old == nil || !g.exact {
			states |= sockdiag.Mask(sockdiag.Established, sockdiag.CloseWait)
		}
		found, err := p.socket.connections(states, false)
		if err != nil {
			return r, err
		}
		p.look(found, g.exact)
		r.InFlight += len(p.flight)
		for _, l := range p.lanes {
			n, _, err := l.Queue()
			if err != nil && !errors.Is(err, ErrClosed) {
				return r, err
			}
			r.Queued += n
		}
	}
	for _, l := range g.others {
		if n, _, err := l.Queue(); err == nil && n > 0 {
			r.Queued++
		}
	}
	if r.InFlight > 0 || r.Queued > 0 {
		g.calm = 0
		return r, nil
	}
	if g.calm++; g.calm < 2 {
		return r, nil
	}
	for _, p := range g.ports {
		for _, l := range p.lanes {
			l.setQuiet()
		}
	}
	g.phase = PhaseShield
	return g.pollShield()
}

// look takes in one look at the connections of the port: handshakes of the
// first look are those that must end.
func (p *port) look(found []sockdiag.Socket, exact bool) {
	now := map[tuple]bool{}
	first := p.old == nil
	if first {
		p.old, p.flight = map[tuple]bool{}, map[tuple]bool{}
	}
	for _, c := range found {
		t := tuple{c.Src, c.Dst}
		half := c.State == sockdiag.SynRecv
		if half {
			now[t] = true
		}
		if first || !exact && !half {
			p.old[t] = true
		}
		if first && half {
			p.flight[t] = true
		}
	}
	for t := range p.flight {
		if !now[t] {
			delete(p.flight, t)
		}
	}
}

func (g *Gate) pollShield() (Progress, error) {
	r := Progress{Phase: PhaseShield}
	for _, p := range g.ports {
		if err := p.pollShield(); err != nil {
			return r, err
		}
		r.Unanswered += len(p.shield)
	}
	if r.Unanswered == 0 {
		g.phase, r.Phase = PhaseDone, PhaseDone
	}
	return r, nil
}

func (p *port) pollShield() error {
	states := sockdiag.Mask(sockdiag.Established, sockdiag.CloseWait)
	if p.shield == nil {
		found, err := p.socket.connections(states, true)
		if err != nil {
			return err
		}
		p.shield = map[uint64]waiting{}
		for _, c := range found {
			if t := (tuple{c.Src, c.Dst}); p.old[t] && unanswered(&c) {
				w := waiting{tuple: t}
				if c.Info != nil {
					w.sent = c.Info.Bytes_sent
				}
				p.shield[c.Cookie] = w
			}
		}
		p.old, p.flight = map[tuple]bool{}, nil
		return nil
	}
	if len(p.shield) == 0 {
		return nil
	}
	if len(p.shield) <= lookups {
		return p.lookUp(states)
	}
	found, err := p.socket.connections(states, true)
	if err != nil {
		return err
	}
	left := map[uint64]waiting{}
	for _, c := range found {
		if w, ok := p.shield[c.Cookie]; ok && !w.answered(&c) {
			left[c.Cookie] = w
		}
	}
	p.shield = left
	return nil
}

// lookUp asks for the connections of the shield one by one.
func (p *port) lookUp(states uint32) error {
	conn, err := sockdiag.Dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	for cookie, w := range p.shield {
		c, err := conn.Lookup(sockdiag.TCP, w.src, w.dst)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
		if err != nil || c.Cookie != cookie || states&(1<<c.State) == 0 || w.answered(&c) {
			delete(p.shield, cookie)
		}
	}
	return nil
}

// unanswered says that a process may have read, or be about to read, a request
// of this connection that it has not begun to answer.
func unanswered(c *sockdiag.Socket) bool {
	i := c.Info
	if i == nil {
		return true // cannot be told; the caller's bound ends it
	}
	switch {
	case i.Bytes_received == 0 || i.Bytes_sent == 0:
		return true
	case i.Last_data_recv != i.Last_data_sent:
		return i.Last_data_recv < i.Last_data_sent // both are ages
	}
	unread := c.RQueue
	if c.State == sockdiag.CloseWait && unread > 0 {
		unread-- // the FIN counts
	}
	return unread > 0 || i.Last_data_recv < tieAge
}

func (l *Lane) setQuiet() {
	g := l.socket.group
	g.mu.Lock()
	defer g.mu.Unlock()
	l.quiet = true
}

// Result is how a gate went. The counts are what was left when a bound or the
// context ended the wait; all 0 is a gate that nobody was lost at.
type Result struct {
	Queued     int
	InFlight   int
	Unanswered int
	GateFor    time.Duration
	ShieldFor  time.Duration
}

// WaitGate polls the Gate of lanes until it is done, for at most bound in each
// of its two phases, 0 is not at all. The error is that of ctx or of Poll; the
// Result holds what is known then.
func WaitGate(ctx context.Context, lanes []*Lane, bound time.Duration) (Result, error) {
	start := time.Now()
	g := NewGate(lanes, start)
	var r Result
	var shield time.Time // when the second phase began
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		began := time.Now()
		p, err := g.Poll()
		now := time.Now()
		if shield.IsZero() {
			r.GateFor, r.Queued, r.InFlight = now.Sub(start), p.Queued, p.InFlight
			switch {
			case p.Phase != PhaseGate:
				shield = now
			case err == nil && r.GateFor >= bound:
				// The shield all the same: it is about other connections.
				g.phase, shield = PhaseShield, now
				continue
			}
		}
		if p.Phase != PhaseGate {
			r.Unanswered, r.ShieldFor = p.Unanswered, now.Sub(shield)
			if p.Phase == PhaseDone || r.ShieldFor >= bound {
				return r, err
			}
		}
		if err != nil {
			return r, err
		}
		// A large table costs: never more than half of the time.
		if err := sleep(ctx, max(pause, now.Sub(began))); err != nil {
			return r, err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
