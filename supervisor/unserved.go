package supervisor

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/supervise/supervise/supervisor/listen"
	"github.com/supervise/supervise/supervisor/ready"
)

// A command may ignore what it is offered, and bind for itself or nothing at
// all. The sockets of the configuration are held all the same: their clients connect,
// and wait for ever. So a generation is looked at when it is ready, and while it
// takes long to become so.

const (
	unservedAgain = time.Second // between two looks: who serves may be busy in one
	unservedLooks = 3
	unservedSlow  = 10 * time.Second // the first start, if it takes longer, is looked at before it is ready
)

// lookForUnserved looks in the background for sockets of the configuration on
// which nobody of the generation waits, and warns of those that stay so.
func (r *runner) lookForUnserved(ctx context.Context, in *instance, looks int) {
	var inodes []uint64
	open := map[uint64]*listen.Socket{}
	for _, lane := range in.lanes {
		one := lane.Socket()
		stream := one.Network() == "tcp" || one.Network() == "unix"
		if stream && !one.Learned() && !in.listening[lane] && !r.unserved[one] {
			inodes = append(inodes, lane.Inode())
			open[lane.Inode()] = one
		}
	}
	if len(open) == 0 || in.exited || in.tree == nil {
		return
	}
	pids, err := in.tree.Pids()
	if err != nil {
		return
	}
	r.children.Go(func() {
		sight, err := ready.Seen(pids, inodes)
		own, _ := ready.Listening(pids)
		if err != nil || len(sight.Unreadable) > 0 {
			return // nothing can be said
		}
		r.poll.post(func() {
			g := r.s.gen(in.n)
			if in.exited || in.returned || r.set == nil || ctx.Err() != nil || g == nil || g.state == genKilling {
				return // who was told to stop may have stopped to listen
			}
			for _, inode := range sight.Inodes() {
				delete(open, inode)
			}
			switch {
			case len(open) == 0:
			case looks > 1:
				r.after(unservedAgain, func() { r.lookForUnserved(ctx, in, looks-1) })
			default:
				r.warnUnserved(in, open, slices.DeleteFunc(own, func(l ready.Listener) bool { return slices.Contains(inodes, l.Inode) }))
			}
		})
	})
}

// warnUnserved tells of each socket once.
func (r *runner) warnUnserved(in *instance, open map[uint64]*listen.Socket, own []ready.Listener) {
	var others []string
	for _, l := range own {
		if !l.Ephemeral {
			others = append(others, listenerName(l))
		}
	}
	listens := "nothing else"
	if len(others) > 0 {
		listens = strings.Join(others, ", ")
	}
	for _, one := range open {
		if accepted, err := one.Accepted(); accepted || err != nil {
			continue // somebody takes them, and was too busy each time to be seen waiting
		}
		if r.unserved == nil {
			r.unserved = map[*listen.Socket]bool{}
		}
		r.unserved[one] = true
		r.log.Warn("the command does not serve a socket that it was offered: clients of that address wait in vain",
			"service", r.cfg.Name, "generation", in.n, "socket", one.Name(), "address", one.Addr(), "listens_on", listens,
			"do", "--handoff PROTOCOL that it knows, or {fd:"+one.Name()+"} in its arguments; or the address that it binds in --listen")
	}
}
