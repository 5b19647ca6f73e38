package supervisor

import (
	"slices"
	"time"

	"github.com/supervise/supervise/handoff/intercept"
	"github.com/supervise/supervise/supervisor/listen"
)

// A new version may listen elsewhere. What it does not bind ends with the old
// generation, and must end soon: a listener that nobody serves lets clients
// hang; and of two shapes of one port the kernel prefers the old one as long as
// it is there (0.0.0.0:80 over [::]:80 for IPv4, 127.0.0.1:80 over both).
//
//	gate       new connections to the old address are dropped at their first
//	           packet, which the client sends again a second later; what is
//	           there already is served
//	stop       the old generation is told
//	retire     once its processes have let go of the listener, or shortly
//	           after, it is shut down: from now on another shape of the port
//	           gets the connections, or they are refused

// retireGrace is how long a generation that was told to stop has to close its
// listeners by itself: to shut one down while it is still accepting is an error
// that makes some servers end without finishing what they have begun.
const retireGrace = 200 * time.Millisecond

// ending lists the learned sockets that only this generation serves.
func (r *runner) ending(in *instance) []*listen.Socket {
	g := r.s.current
	if g == nil || g.n == in.n || r.set == nil || r.instances[g.n] == nil {
		return nil
	}
	var all []*listen.Socket
	for _, one := range r.set.Sockets() {
		if one.Learned() && in.uses(one) && !r.usedBy(one, in) {
			all = append(all, one)
		}
	}
	return all
}

// mute keeps new clients out of what ends with the instance. Not where the old
// generation is kept a while in case the new one dies (Probation): nobody would
// serve its address all that time.
func (r *runner) mute(in *instance) {
	if r.cfg.Probation > 0 {
		return
	}
	for _, one := range r.ending(in) {
		if err := one.Mute(); err != nil {
			r.log.Debug("clients that come now may be lost", "address", one.Addr(), "error", err)
			continue
		}
		in.muted = append(in.muted, one)
	}
}

// unmute is for an old generation that is taken back.
func (r *runner) unmute(in *instance) {
	for _, one := range in.muted {
		if err := one.Unmute(); err != nil {
			r.warn(in, "cannot let new connections in again", err)
		}
	}
	in.muted = nil
}

// retire drops what ended with the instance, which was told to stop.
func (r *runner) retire(in *instance) {
	for _, one := range r.ending(in) {
		r.retireSocket(in, one, time.Now(), time.Millisecond)
	}
}

func (r *runner) retireSocket(in *instance, one *listen.Socket, told time.Time, pause time.Duration) {
	if r.set == nil || !slices.Contains(r.set.Sockets(), one) || r.usedBy(one, in) {
		return // it is gone, or somebody bound it after all
	}
	pids, err := in.tree.Pids()
	held := err != nil
	for _, lane := range one.Lanes() {
		if !held && !in.exited {
			held, err = intercept.Holds(pids, lane.Inode())
			held = held || err != nil
		}
	}
	if held && time.Since(told) < retireGrace {
		r.after(pause, func() { r.retireSocket(in, one, told, 2*pause) })
		return
	}
	lost := 0
	for _, lane := range one.Lanes() {
		if n, _, err := lane.Queue(); err == nil {
			lost += n
		}
	}
	fields := []any{"service", r.cfg.Name, "generation", in.n, "address", one.Addr()}
	r.drop(one)
	if lost > 0 {
		r.log.Warn("address released: the new generation does not bind it; clients in its queue are reset", append(fields, "clients", lost)...)
	} else {
		r.log.Info("address released: the new generation does not bind it", fields...)
	}
}
