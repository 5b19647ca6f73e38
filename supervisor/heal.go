package supervisor

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor/listen"
)

// watchSet watches what children may do to listeners behind our back: a unix
// path that is unlinked or replaced, a description that is shut down.
func (l *loop) watchSet() error {
	if fd := l.set.WatchFD(); fd >= 0 && !l.poll.watches(fd) {
		if err := l.poll.add(fd, unix.EPOLLIN, l.healPaths); err != nil {
			return &StartError{Status: ExitSoftware, Err: err}
		}
	}
	l.watchLanes()
	return nil
}

func (l *loop) unwatchSet() {
	if fd := l.set.WatchFD(); fd >= 0 {
		l.poll.remove(fd)
	}
	for _, lane := range l.set.Lanes() {
		l.poll.remove(lane.FD())
	}
}

// watchLanes sees to it that every open lane is watched for EPOLLHUP, which
// needs no asking: shutdown(2) on a copy stops a listener for all.
func (l *loop) watchLanes() {
	for _, lane := range l.set.Lanes() {
		fd := lane.FD()
		if l.poll.watches(fd) {
			continue
		}
		if err := l.poll.add(fd, unix.EPOLLRDHUP, func() { l.healLane(lane) }); err != nil {
			l.log.Debug("cannot watch a lane", "lane", lane.Number(), "error", err)
		}
	}
}

// healPaths puts back what children removed, and says so.
func (l *loop) healPaths() {
	for _, ev := range l.set.Heal() {
		fields := []any{"service", l.cfg.Name, "socket", ev.Socket.Name(), "address", ev.Socket.Addr(), "was", ev.What}
		if ev.Err != nil {
			l.log.Error("a socket's path was taken away and cannot be put back", append(fields, "error", ev.Err)...)
		} else {
			l.log.Warn("a socket's path was taken away and has been put back", fields...)
		}
	}
}

// healLane makes a listener listen again that a child shut down.
func (l *loop) healLane(lane *listen.Lane) {
	if lane.Healthy() {
		return
	}
	s := lane.Socket()
	fields := []any{"service", l.cfg.Name, "socket", s.Name(), "address", s.Addr(), "lane", lane.Number()}
	l.poll.remove(lane.FD())
	if in := l.endsWith(lane); in != nil { // shutdown(2) is how some close a listener
		left, err := l.set.LeaveLane(lane)
		if err != nil {
			l.warn(in, "cannot follow a listener that was shut down", err)
		}
		if left {
			in.lanes = slices.DeleteFunc(slices.Clone(in.lanes), func(o *listen.Lane) bool { return o == lane })
			return
		}
	}
	err := l.set.HealLane(lane)
	switch {
	case err == nil:
		l.log.Warn("a listener was shut down by the command and listens again", fields...)
		l.watchLanes()
	case errors.Is(err, listen.ErrReplaced):
		l.log.Error("a listener was shut down by the command; a new one took its place, for the next generation", fields...)
		l.watchLanes()
		l.send(evStranded{lanes: 1})
	default:
		l.log.Error("a listener was shut down by the command and cannot be healed", append(fields, "error", err)...)
	}
}

// endsWith is the one instance that has the lane, if it was told to stop.
func (l *loop) endsWith(lane *listen.Lane) *instance {
	var one *instance
	for _, in := range l.instances {
		if slices.Contains(in.lanes, lane) {
			if g := l.s.gen(in.n); one != nil || g == nil || g.state != genKilling {
				return nil
			}
			one = in
		}
	}
	return one
}
