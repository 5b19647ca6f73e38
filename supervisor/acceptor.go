package supervisor

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/handoff/wire"
	"github.com/supervise/supervise/supervisor/config"
	"github.com/supervise/supervise/supervisor/listen"
)

// acceptor is a socket unit with Accept=yes: for each connection a service is
// made of its template, which has that connection and no listener, and which is
// forgotten when it has ended. See systemd.socket(5), Accept=.
type acceptor struct {
	*loop
	unit   *config.SocketUnit
	set    *listen.Set
	count  int                // connections so far
	living map[*runner]string // by the source of the connection
	recent []time.Time        // connections within TriggerLimitIntervalSec=
	toldAt time.Time          // when it was last said that there are too many
}

// acceptBatch bounds how many connections are accepted before others have their turn.
const acceptBatch = 16

// openAcceptor opens the listeners of a socket unit with Accept=yes.
func (l *loop) openAcceptor(unit *config.SocketUnit) error {
	set, warnings, err := listen.Open(unit.Sockets, nil)
	for _, w := range warnings {
		l.log.Warn(w.String(), "socket", unit.Name)
	}
	if err != nil {
		return listenError(err)
	}
	a := &acceptor{loop: l, unit: unit, set: set, living: map[*runner]string{}}
	l.acceptors = append(l.acceptors, a)
	for _, lane := range set.Lanes() {
		if err := l.poll.add(lane.FD(), unix.EPOLLIN, func() { a.accept(lane.FD()) }); err != nil {
			return &StartError{Status: ExitSoftware, Err: err}
		}
		l.log.Info("listening", "service", unit.Template.Name, "socket", lane.Socket().Name(), "address", lane.Socket().Addr(), "accept", "yes")
	}
	return nil
}

// close gives the listeners up. Who has a connection goes on.
func (a *acceptor) close() {
	for _, lane := range a.set.Lanes() {
		a.poll.remove(lane.FD())
	}
	a.set.Close()
	a.loop.acceptors = slices.DeleteFunc(a.loop.acceptors, func(o *acceptor) bool { return o == a })
	a.anyFinished = true
}

// accept takes the connections that wait.
func (a *acceptor) accept(listener int) {
	for range acceptBatch {
		fd, from, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return
		case err != nil: // of one connection, or we have no descriptor left: the next look tries again
			a.log.Debug("cannot accept", "socket", a.unit.Name, "error", err)
			return
		}
		if !a.serve(fd, from) {
			return
		}
	}
}

// serve starts a service for a connection. It reports whether to go on accepting.
func (a *acceptor) serve(fd int, from unix.Sockaddr) bool {
	now := time.Now()
	source, remote := sourceOf(fd, from)
	same := 0
	for _, s := range a.living {
		if s == source {
			same++
		}
	}
	switch {
	case a.unit.MaxConnections > 0 && len(a.living) >= a.unit.MaxConnections,
		a.unit.MaxPerSource > 0 && same >= a.unit.MaxPerSource:
		_ = unix.Close(fd)
		if now.Sub(a.toldAt) > time.Second {
			a.toldAt = now
			a.log.Warn("too many connections, some are closed at once", "socket", a.unit.Name, "connections", len(a.living), "of_the_source", same)
		}
		return true
	case a.tooOften(now):
		_ = unix.Close(fd)
		a.log.Error("activated too often, its sockets are closed", "socket", a.unit.Name)
		a.close()
		return false
	}
	if err := a.start(fd, source, remote); err != nil {
		_ = unix.Close(fd)
		a.log.Error("a connection cannot be served", "socket", a.unit.Name, "from", source, "error", err)
	}
	return true
}

func (a *acceptor) tooOften(now time.Time) bool {
	if a.unit.TriggerBurst <= 0 || a.unit.TriggerInterval <= 0 {
		return false
	}
	a.recent = slices.DeleteFunc(a.recent, func(t time.Time) bool { return now.Sub(t) >= a.unit.TriggerInterval })
	a.recent = append(a.recent, now)
	return len(a.recent) > a.unit.TriggerBurst
}

// start makes a service of the template and starts it.
func (a *acceptor) start(fd int, source string, remote []string) error {
	a.count++
	cfg, err := a.unit.Template.Instance(a.instance(fd, source))
	if err != nil {
		return err
	}
	cfg.Restart = config.RestartNo // nobody is left whom it could serve
	cfg.Handoff = []string{"none"}
	cfg.Env = append(slices.Clone(cfg.Env), remote...)
	if cfg.Ready.Kind == config.ReadyAuto && cfg.Type != config.Notify && cfg.Type != config.NotifyReload {
		cfg.Ready.Kind = config.ReadyExec
	}
	r := newRunner(a.loop, cfg, rand.Uint64())
	r.conn, r.removed = fd, true
	if err := r.check(); err != nil {
		return err
	}
	if err := r.openPlaces(); err != nil {
		return err
	}
	if r.set, _, err = listen.Open(nil, nil); err != nil {
		return err
	}
	a.living[r] = source
	r.atEnd = func() { delete(a.living, r) }
	a.loop.runners = append(a.loop.runners, r)
	a.loop.order = a.loop.order.with(a.loop.runners)
	a.order.begin(r)
	return nil
}

// instance names a service as systemd does: the number of the connection and
// its ends, or of a unix socket the peer.
func (a *acceptor) instance(fd int, source string) string {
	if local, err := unix.Getsockname(fd); err == nil {
		if at, ok := addrPort(local); ok {
			return fmt.Sprintf("%d-%s-%s", a.count, at, peer(fd))
		}
	}
	return fmt.Sprintf("%d-%s", a.count, source)
}

func peer(fd int) string {
	if from, err := unix.Getpeername(fd); err == nil {
		if at, ok := addrPort(from); ok {
			return at.String()
		}
	}
	return "unknown"
}

// sourceOf says who connected, and what REMOTE_ADDR and REMOTE_PORT are.
func sourceOf(fd int, from unix.Sockaddr) (source string, env []string) {
	if at, ok := addrPort(from); ok {
		host := at.Addr().Unmap().String()
		return host, []string{"REMOTE_ADDR=" + host, "REMOTE_PORT=" + strconv.Itoa(int(at.Port()))}
	}
	if c, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
		return fmt.Sprintf("%d-%d", c.Pid, c.Uid), nil
	}
	return "unknown", nil
}

func addrPort(sa unix.Sockaddr) (netip.AddrPort, bool) {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)), true
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port)), true
	}
	return netip.AddrPort{}, false
}

// connection is how a service is told of the one connection that it is for.
func (r *runner) connection() (wire.Plan, error) {
	if r.cfg.Input == "socket" {
		return wire.Plan{}, nil
	}
	return wire.For(wire.Request{Protocols: []string{"systemd"}, Listeners: []wire.Listener{{FD: r.conn, Name: "connection", Network: "tcp"}}})
}

// ownsOutput reports whether standard output is the connection or listener that
// standard input is: by StandardOutput=socket, and by default (systemd.exec(5)).
func (r *runner) ownsOutput() bool {
	return r.cfg.Input == "socket" && (r.cfg.Output == "socket" || r.cfg.Output == "inherit" || r.cfg.Output == "prefix")
}

func (r *runner) closeConnection() {
	if r.conn >= 0 {
		_ = unix.Close(r.conn)
		r.conn = -1
	}
}
