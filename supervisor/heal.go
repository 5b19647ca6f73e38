package supervisor

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor/listen"
)

// watchSet watches what children may do to listeners behind our back: a unix
// path that is unlinked or replaced, a description that is shut down.
func (r *runner) watchSet() error {
	if fd := r.set.WatchFD(); fd >= 0 && !r.poll.watches(fd) {
		if err := r.poll.add(fd, unix.EPOLLIN, r.healPaths); err != nil {
			return &StartError{Status: ExitSoftware, Err: err}
		}
	}
	r.watchLanes()
	return nil
}

func (r *runner) unwatchSet(set *listen.Set) {
	if fd := set.WatchFD(); fd >= 0 {
		r.poll.remove(fd)
	}
	for _, lane := range set.Lanes() {
		r.poll.remove(lane.FD())
	}
}

// watchLanes sees to it that every open lane is watched for EPOLLHUP, which
// needs no asking: shutdown(2) on a copy stops a listener for all.
func (r *runner) watchLanes() {
	for _, lane := range r.set.Lanes() {
		fd := lane.FD()
		if r.poll.watches(fd) {
			continue
		}
		if err := r.poll.add(fd, unix.EPOLLRDHUP, func() { r.healLane(lane) }); err != nil {
			r.log.Debug("cannot watch a lane", "lane", lane.Number(), "error", err)
		}
	}
}

// healPaths puts back what children removed, and says so.
func (r *runner) healPaths() {
	if r = r.holder(); r == nil {
		return
	}
	for _, ev := range r.set.Heal() {
		fields := []any{"service", r.cfg.Name, "socket", ev.Socket.Name(), "address", ev.Socket.Addr(), "was", ev.What}
		if ev.Err != nil {
			r.log.Error("a socket's path was taken away and cannot be put back", append(fields, "error", ev.Err)...)
		} else {
			r.log.Warn("a socket's path was taken away and has been put back", fields...)
		}
	}
}

// healLane makes a listener listen again that a child shut down.
func (r *runner) healLane(lane *listen.Lane) {
	if r = r.holder(); r == nil {
		return
	}
	if lane.Healthy() {
		return
	}
	s := lane.Socket()
	fields := []any{"service", r.cfg.Name, "socket", s.Name(), "address", s.Addr(), "lane", lane.Number()}
	r.poll.remove(lane.FD())
	if in := r.endsWith(lane); in != nil { // shutdown(2) is how some close a listener
		left, err := r.set.LeaveLane(lane)
		if err != nil {
			r.warn(in, "cannot follow a listener that was shut down", err)
		}
		if left {
			in.lanes = slices.DeleteFunc(slices.Clone(in.lanes), func(o *listen.Lane) bool { return o == lane })
			return
		}
	}
	err := r.set.HealLane(lane)
	switch {
	case err == nil:
		r.log.Warn("a listener was shut down by the command and listens again", fields...)
		r.watchLanes()
	case errors.Is(err, listen.ErrReplaced):
		r.log.Error("a listener was shut down by the command; a new one took its place, for the next generation", fields...)
		r.watchLanes()
		r.send(evStranded{lanes: 1})
	default:
		r.log.Error("a listener was shut down by the command and cannot be healed", append(fields, "error", err)...)
	}
}

// endsWith is the one instance that has the lane, if it was told to stop.
func (r *runner) endsWith(lane *listen.Lane) *instance {
	var one *instance
	for in := range r.sharing() {
		if slices.Contains(in.lanes, lane) {
			if g := in.of.s.gen(in.n); one != nil || g == nil || g.state != genKilling {
				return nil
			}
			one = in
		}
	}
	return one
}
