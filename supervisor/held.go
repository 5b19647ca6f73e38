package supervisor

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/handoff/intercept"
	"github.com/supervise/supervise/supervisor/config"
	"github.com/supervise/supervise/supervisor/listen"
	"github.com/supervise/supervise/supervisor/ready"
)

// What a generation listens on must be held, or else no other one can bind it
// meanwhile. Most ways of binding are seen; what went past all of them
// (io_uring, a rename after bind, another supervisor's filter, a process that
// may not be looked into) is found by a look at what it listens on. That look
// comes when it is ready, and again before a rollout.

// reload looks once more at the current generation, and then tells the machine.
func (r *runner) reload(ev evReload) {
	g := r.s.current
	if g == nil || r.s.state != up || !ev.rollout && (r.cfg.Type == config.NotifyReload || len(r.cfg.Reload) > 0) {
		r.send(ev)
		return
	}
	r.lookForUnheld(r.instances[g.n], func() { r.send(ev) })
}

// lookForUnheld looks in the background for listeners of the instance that are
// not held, tells the machine of them, and calls done.
func (r *runner) lookForUnheld(in *instance, done func()) {
	if in == nil || in.exited || in.tree == nil || r.set == nil {
		done()
		return
	}
	pids, err := in.tree.Pids()
	if err != nil {
		r.warn(in, "cannot see the processes of the generation", err)
	}
	var held []uint64
	for _, lane := range slices.Concat(r.set.Lanes(), in.lanes) {
		held = append(held, lane.Inode())
	}
	if in.binds != nil { // the next one is given another port
		held = append(held, in.binds.Anonymous()...)
	}
	r.children.Go(func() {
		first, found, err := unheldListener(pids, held)
		r.poll.post(func() {
			switch {
			case in.exited || r.set == nil:
			case found:
				r.unheldFound(in, first)
			case err != nil && in.unheld != nil && !in.configured():
				// It may not be looked into, and a bind of it went to the kernel.
				r.send(evUnheld{gen: in.n, because: unheldCause(in.unheld), do: interceptHint(in.unheld)})
			}
			done()
		})
	})
}

// configured reports whether the instance was told of listeners, which it can
// use without a bind of its own.
func (in *instance) configured() bool {
	return slices.ContainsFunc(in.lanes, func(lane *listen.Lane) bool { return !lane.Socket().Learned() })
}

// unheldListener finds a listener of the processes that is none of held and
// that a further process could not bind. It is called in a goroutine of its own.
func unheldListener(pids []int, held []uint64) (ready.Listener, bool, error) {
	own, err := ready.Listening(pids)
	for _, o := range own {
		if o.Ephemeral || slices.Contains(held, o.Inode) || sharesPort(o) {
			continue
		}
		return o, true, nil
	}
	return ready.Listener{}, false, err
}

// sharesPort reports whether another process of the same user may bind the port
// as well, because this listener has SO_REUSEPORT.
func sharesPort(o ready.Listener) bool {
	if !o.Addr.IsValid() {
		return false
	}
	fd, err := intercept.Take(o.PID, o.Inode)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	share, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT)
	return err == nil && share != 0
}

// listenerName is a listener in words: "tcp 127.0.0.1:80".
func listenerName(o ready.Listener) string {
	if o.Addr.IsValid() {
		return o.Network + " " + o.Addr.String()
	}
	return o.Network + " " + o.Path
}

// unheldFound tells the machine of a listener that is not held, and why.
func (r *runner) unheldFound(in *instance, o ready.Listener) {
	what := listenerName(o)
	because, do := "it was bound in a way that is not seen (io_uring, or a rename after bind)", "let the command bind by bind(2), or use --listen with LISTEN_FDS"
	switch {
	case o.Network == "udp" && !r.cfg.InterceptUDP:
		because, do = "datagram sockets are not intercepted", "--intercept-udp, where two generations may read from one port; or --listen udp://... with LISTEN_FDS"
	case !r.offers("intercept"):
		because, do = "interception is off", "--handoff auto, or --listen with LISTEN_FDS"
	case r.noFilter != nil:
		because, do = r.noFilter.Error(), interceptHint(r.noFilter)
	case in.unheld != nil:
		because, do = unheldCause(in.unheld), interceptHint(in.unheld)
	}
	r.send(evUnheld{gen: in.n, because: what + ": " + because, do: do})
}
