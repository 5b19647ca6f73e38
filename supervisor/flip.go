package supervisor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/handoff/wire"
	"github.com/supervise/supervise/handoff/wire/standin"
	"github.com/supervise/supervise/supervisor/config"
	"github.com/supervise/supervise/supervisor/proc"
)

// flip is our half of a tableflip generation: the parent of its library.
//
//	ready   the child writes a byte: it is ready
//	names   holds the names of its fds; closed, it says that the parent has
//	        exited: that no older generation lives
type flip struct {
	ready, names           int // ours; -1 once closed
	childReady, childNames int // the child's ends; childNames stays open here, to see whether it was read
	total                  int // bytes of names
}

func newFlip() (*flip, error) {
	f := &flip{ready: -1, names: -1, childReady: -1, childNames: -1}
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("cannot make tableflip's ready pipe: %w", err)
	}
	f.ready, f.childReady = p[0], p[1]
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		f.close()
		return nil, fmt.Errorf("cannot make tableflip's names pipe: %w", err)
	}
	f.childNames, f.names = p[0], p[1]
	// Of ours alone: the mode belongs to one end.
	err := errors.Join(unix.SetNonblock(f.ready, true), unix.SetNonblock(f.names, true))
	if err != nil {
		f.close()
		return nil, fmt.Errorf("cannot make tableflip's pipes: %w", err)
	}
	return f, nil
}

func (f *flip) childEnds() wire.Pipes { return wire.Pipes{Ready: f.childReady, Names: f.childNames} }

// tell writes the names. Nobody reads yet, so all of it must fit into the pipe.
func (f *flip) tell(names []byte) error {
	f.total = len(names)
	if len(names) > 1<<16 {
		if _, err := unix.FcntlInt(uintptr(f.names), unix.F_SETPIPE_SZ, len(names)); err != nil {
			return fmt.Errorf("cannot tell a tableflip server of its sockets: they are too many for a pipe: %w", err)
		}
	}
	if n, err := unix.Write(f.names, names); err != nil || n < len(names) {
		return fmt.Errorf("cannot tell a tableflip server of its sockets: %w", err)
	}
	return nil
}

// started closes what only the child needs.
func (f *flip) started() { closeFD(&f.childReady) }

// wasRead reports whether the child has begun to read its names: it is a
// tableflip server.
func (f *flip) wasRead() bool {
	if f.childNames < 0 {
		return true
	}
	left, err := unix.IoctlGetInt(f.childNames, unix.TIOCINQ /* FIONREAD */)
	return err == nil && left < f.total
}

func (f *flip) close() {
	for _, fd := range []*int{&f.ready, &f.names, &f.childReady, &f.childNames} {
		closeFD(fd)
	}
}

func closeFD(fd *int) {
	if *fd >= 0 {
		_ = unix.Close(*fd)
		*fd = -1
	}
}

// watchFlip listens for the ready byte of a generation that was just started.
func (r *runner) watchFlip(in *instance) error {
	f := in.flip
	if f == nil {
		return nil
	}
	f.started()
	r.parentsGone()
	return r.poll.add(f.ready, unix.EPOLLIN, func() { r.readFlip(in) })
}

// readFlip hears what a tableflip server says: one byte, or that it has ended.
func (r *runner) readFlip(in *instance) {
	f := in.flip
	var b [16]byte
	n, err := unix.Read(f.ready, b[:])
	if err == unix.EAGAIN || err == unix.EINTR {
		return
	}
	r.poll.remove(f.ready)
	closeFD(&f.ready)
	closeFD(&f.childNames)
	if n > 0 && b[0] == wire.FlipReady && r.waitsForProtocol() {
		r.becameReady(in, "tableflip Ready()", true)
	}
}

// waitsForProtocol reports whether a protocol's own word makes a generation
// ready: where the configuration does not say what else does.
func (r *runner) waitsForProtocol() bool {
	return r.cfg.Ready.Kind == config.ReadyAuto && r.cfg.Type != config.Notify && r.cfg.Type != config.NotifyReload
}

// flipWaits reports whether readiness is still to be said by tableflip's Ready:
// then to be seen listening is not enough. A program that has not read its names
// by the time when it listens is none of tableflip's.
func (r *runner) flipWaits(in *instance) bool {
	f := in.flip
	if f == nil || f.ready < 0 {
		return false
	}
	if f.wasRead() {
		return true
	}
	r.log.Warn("the command was offered its listeners by tableflip and does not use it",
		"service", r.cfg.Name, "generation", in.n, "do", "--handoff systemd, or another protocol that it knows")
	return false
}

// parentsGone tells each tableflip generation whose elders are all gone that its
// parent has exited: WaitForParent returns, and it may upgrade itself.
func (r *runner) parentsGone() {
	oldest := 0
	for n, in := range r.instances {
		if in.pid != 0 && (oldest == 0 || n < oldest) {
			oldest = n
		}
	}
	if in := r.instances[oldest]; in != nil && in.flip != nil {
		closeFD(&in.flip.names)
	}
}

// closeFlip ends what belongs to the generation.
func (r *runner) closeFlip(in *instance) {
	if f := in.flip; f != nil {
		if f.ready >= 0 {
			r.poll.remove(f.ready)
		}
		f.close()
	}
	if d := in.standin; d != nil {
		r.endDrain(in)
		d.Remove()
		in.standin = nil
	}
}

// standIn prepares that a tableflip program can be drained although it knows no
// signal for it: see handoff/wire/standin.
func (r *runner) standIn(in *instance, path string) error {
	if r.runDir == "" || in.standin != nil {
		return nil
	}
	own, err := os.Executable()
	if err != nil {
		return err
	}
	if st, err := os.Stat(own); r.credential != nil && r.credential.UID != 0 && (err != nil || st.Mode().Perm()&1 == 0) {
		return fmt.Errorf("%s is not executable for the user of the command", own)
	}
	path = r.absolute(path)
	dir := filepath.Join(r.runDir, fmt.Sprintf("%s.%d", r.cfg.Name, in.n))
	in.standin, err = standin.Make(dir, path, filepath.Base(path), own)
	return err
}

// Which signal a Go program handles can be seen for two of them: SIGHUP and SIGINT
// stay ignored where they were at the start, until the program asks for them (os/signal).
// So a tableflip program is started with both ignored, and a SIGHUP that it does
// not handle does it no harm.

// ignoredAtStart are the signals that a tableflip program is started with as ignored.
// At a terminal SIGINT is Ctrl-C, and ends a program that does not handle it; there it
// shows only by the first rollout whether the stop signal is handled.
func (r *runner) ignoredAtStart(in *instance) []unix.Signal {
	switch {
	case in.standin == nil:
		return nil
	case r.tty != nil:
		return []unix.Signal{unix.SIGHUP}
	}
	return []unix.Signal{unix.SIGHUP, unix.SIGINT}
}

// drainAgain and drainBound are how often a server is asked to upgrade to the
// stand-in, and how long.
const (
	drainAgain = 100 * time.Millisecond
	drainBound = 3 * time.Second
)

// drains reports whether the generation is to be ended by the stand-in in place
// of its stop signal: it handles SIGHUP, as tableflip's users do, and no other
// signal that it could be ended with. Who handles SIGTERM handles SIGINT, too.
func (r *runner) drains(in *instance) bool {
	if in.standin == nil || in.exited || r.standinFails {
		return false
	}
	ignored, err := proc.Ignored(in.pid)
	if err != nil || ignored.Has(unix.SIGHUP) {
		return false
	}
	return ignored.Has(unix.SIGINT) || stopSignal(r.cfg) == syscall.SIGHUP || r.stopKills
}

// drain has a tableflip server upgrade itself to the stand-in: it drains and
// ends by itself then. Where it does not, it gets the stop signal after all.
func (r *runner) drain(in *instance, stop actSignal) {
	fd, err := in.standin.Drain()
	if err == nil {
		err = r.poll.add(fd, unix.EPOLLIN, func() {
			r.endDrain(in)
			in.drained = true
			r.log.Debug("drains as after an upgrade of its own", "service", r.cfg.Name, "generation", in.n)
		})
	}
	if err != nil {
		r.warn(in, "cannot drain by a stand-in, sending the stop signal", err)
		r.signal(in, stop)
		return
	}
	in.draining = fd
	if in.flip != nil {
		closeFD(&in.flip.names) // else it says that its parent has not exited
	}
	r.askToDrain(in, stop, time.Now().Add(drainBound))
}

func (r *runner) askToDrain(in *instance, stop actSignal, until time.Time) {
	if in.exited || in.drained || r.instances[in.n] != in {
		return
	}
	if !time.Now().Before(until) {
		r.endDrain(in)
		r.standinFails = true // it means something else by SIGHUP
		r.log.Debug("SIGHUP is no upgrade to it, sending the stop signal", "service", r.cfg.Name, "generation", in.n)
		r.signal(in, stop)
		return
	}
	// Once more each time: while it has not noticed yet that its parent is gone it
	// refuses; while it upgrades it refuses, too.
	if err := in.tree.Signal(unix.SIGHUP, config.KillProcess); err != nil {
		r.warn(in, "cannot send SIGHUP", err)
	}
	r.after(drainAgain, func() { r.askToDrain(in, stop, until) })
}

// endDrain ends the watch of the FIFO; the directory closes it.
func (r *runner) endDrain(in *instance) {
	if in.draining > 0 {
		r.poll.remove(in.draining)
		in.draining = 0
	}
}

// signal carries out actSignal.
func (r *runner) signal(in *instance, a actSignal) {
	if err := in.tree.Signal(syscall.Signal(a.signal), a.mode); err != nil {
		r.warn(in, "cannot send "+config.SignalName(syscall.Signal(a.signal)), err)
	}
}

// endBySignal sends the stop signal, or what has its effect.
func (r *runner) endBySignal(in *instance, a actSignal) {
	// A watchdog's SIGABRT, or a SIGQUIT that asks for a dump, is meant as it is.
	if a.stop && syscall.Signal(a.signal) == stopSignal(r.cfg) {
		if r.drains(in) {
			r.drain(in, a)
			return
		}
		in.stopBy = a.signal
	}
	r.signal(in, a)
}

// noteStopKills learns from the end of a tableflip generation whether it
// handles its stop signal.
func (r *runner) noteStopKills(in *instance, e Exit) {
	if in.standin != nil && in.stopBy != 0 && e.Signal == in.stopBy && !r.stopKills {
		r.stopKills = true
	}
}
