package supervisor

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor/config"
	"github.com/supervise/supervise/supervisor/listen"
)

// Parking: new connections wait in the kernel's queue, established ones are
// served on. There are two ways.
//
//	silenced  the listeners of the current generation are taken out of its epoll
//	          sets (INTERCEPT: "quiesce"): it does not hear of new connections,
//	          which wait in the queue of its own lanes. To resume is to put them
//	          back. Nothing is restarted. For processes that use epoll.
//	aside     new lanes that nobody has are opened, and new connections steered to
//	          them. To resume is to steer back; and since what waits in such a
//	          queue can only be taken by who is lent the lane, the next generation
//	          is: a rollout follows where somebody waits. For all other processes,
//	          on sockets that have lanes.
//
// The queue is bounded by the backlog of the listener: past it the kernel drops
// the first packet of a connection, which the client repeats after a second, so
// it still waits and is not refused; of a unix socket connect(2) blocks. A
// rollout, a restart, a crash or a stop ends a pause, since another generation
// is lent the lanes then.

// parked is what was done.
type parked struct {
	quiesced *listen.Quiesced
	lanes    []*listen.Lane // aside
}

// holdBack parks the new connections of the current generation.
func (r *runner) holdBack() (how string, err error) {
	if r.s.state != up || r.s.current == nil {
		return "", errors.New("the service is " + r.s.state.String() + ", and can only be paused when it is up")
	}
	if r.park != nil {
		return "", nil
	}
	in := r.instances[r.s.current.n]
	if in == nil || r.set == nil || len(r.set.Sockets()) == 0 {
		return "", errors.New("no listener of it is held")
	}
	if r.crew != nil {
		return "", errors.New("a service with several instances cannot be paused")
	}
	p, err := r.silence(in)
	if err == nil {
		r.park = p
		return "silenced", nil
	}
	lanes, asideErr := r.set.Aside()
	if asideErr == nil {
		asideErr = r.steerTo(lanes)
	}
	if asideErr != nil {
		r.set.Return(lanes)
		return "", errors.Join(err, asideErr)
	}
	r.park = &parked{lanes: lanes}
	return "aside: " + err.Error(), nil
}

// silence takes the listeners of an instance out of its epoll sets, all or none.
func (r *runner) silence(in *instance) (*parked, error) {
	pids, err := in.tree.Pids()
	if err != nil {
		return nil, err
	}
	var inodes []uint64
	for _, lane := range in.lanes {
		inodes = append(inodes, lane.Inode())
	}
	q, err := listen.Quiesce(pids, inodes)
	if err != nil {
		return nil, err
	}
	if len(q.Left) > 0 || len(q.Silenced) == 0 {
		if err := q.Undo(); err != nil {
			r.warn(in, "cannot wake the generation up again", err)
		}
		return nil, errors.New("a process of it waits for connections without epoll")
	}
	return &parked{quiesced: q}, nil
}

// unpark undoes it. What waits aside is looked for by whoever steers next.
func (r *runner) unpark() {
	p := r.park
	if p == nil {
		return
	}
	r.park = nil
	if p.quiesced != nil {
		if err := p.quiesced.Undo(); err != nil {
			r.warn(nil, "cannot wake the generation up again", err)
		}
	}
}

// restartShield bounds how long a restart waits for the answers that the current
// generation owes. Who waits for the next one already looks the same to the
// kernel as who waits for an answer, so under load it is met each time.
const restartShield = 500 * time.Millisecond

// restart has the service stopped and started. Before it is told to stop, new
// connections go to lanes that nobody has, and what is on its way to the current
// generation is answered: the next one is lent those lanes with all who wait.
func (r *runner) restart(ev evRestart) {
	g := r.s.current
	if g == nil || r.s.state != up || r.set == nil || r.instances[g.n] == nil || r.crew != nil {
		r.send(ev)
		return
	}
	r.unpark()
	in := r.instances[g.n]
	lanes, err := r.set.Aside()
	if err == nil {
		err = r.steerTo(lanes)
	}
	if err != nil || len(lanes) == 0 {
		r.set.Return(lanes)
		r.send(ev) // its clients wait in the queue from the signal on
		return
	}
	r.watchLanes()
	pids, err := in.tree.Pids()
	if err != nil {
		r.warn(in, "cannot see the processes of the generation", err)
	}
	old, bound := in.lanes, min(r.cfg.GateBound, restartShield)
	r.children.Go(func() {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go func() {
			select {
			case <-r.over:
				cancel()
			case <-ctx.Done():
			}
		}()
		waitGate(ctx, old, pids, bound)
		r.post(ev)
	})
}

// reopen opens the listeners of a service again that were closed when it was
// stopped, or had ended.
func (r *runner) reopen() error {
	if r.set != nil {
		return nil
	}
	r.served, r.numbered = nil, nil
	kept := r.kept
	r.kept = nil
	if slices.EqualFunc(kept, r.cfg.Sockets, func(a, b config.Socket) bool { return a.Source == b.Source }) {
		cfg := r.cfg
		again := *cfg
		again.Sockets = kept
		r.cfg = &again
		err := r.openListeners(nil)
		r.cfg = cfg
		if !errors.Is(err, unix.EADDRINUSE) {
			return err
		} // somebody was given the port that had been chosen for us
	}
	return r.openListeners(nil)
}

// keepPorts remembers which ports were chosen for sockets with port 0: they are
// the same when the service is started again, if they are still free.
func (r *runner) keepPorts() {
	r.kept = slices.Clone(r.cfg.Sockets)
	for i := range r.kept {
		c := &r.kept[i]
		if !c.Addr.IsValid() || c.Addr.Port() != 0 {
			continue
		}
		for _, one := range r.set.Sockets() {
			if own := one.Config(); own.Source == c.Source && own.Network == c.Network && one.AddrPort().Addr() == c.Addr.Addr() {
				c.Addr = netip.AddrPortFrom(c.Addr.Addr(), uint16(one.Port()))
			}
		}
	}
}

// resume serves what was parked.
func (r *runner) resume() {
	aside := r.park != nil && len(r.park.lanes) > 0
	r.send(evResume{})
	if !aside {
		return
	}
	// A handshake that was in flight when we steered back ends in a queue that
	// nobody serves: it is looked for as long as clients repeat their packets.
	for _, d := range []time.Duration{50 * time.Millisecond, 500 * time.Millisecond, 3 * time.Second} {
		r.after(d, r.lookAtLanes)
	}
}
