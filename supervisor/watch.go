package supervisor

import (
	"errors"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor/config"
	"github.com/supervise/supervise/supervisor/proc"
	"github.com/supervise/supervise/supervisor/ready"
)

// readReport hears whether execve(2) succeeded, or which stage before it failed.
func (r *runner) readReport(in *instance) {
	if in.child == nil {
		return
	}
	fd := in.child.Report
	done, err := in.child.ReadReport()
	if !done && err == nil {
		return
	}
	r.poll.forget(fd) // when done it is closed already
	r.closeReport(in)
	if err != nil {
		r.send(evExecFailed{gen: in.n, err: err})
	} else {
		r.send(evExec{gen: in.n})
	}
}

func (r *runner) closeReport(in *instance) {
	if in.child == nil {
		return
	}
	if fd := in.child.Report; fd >= 0 {
		r.poll.remove(fd)
		_ = unix.Close(fd)
	}
	in.child = nil
}

func (r *runner) dropPidfd(in *instance) {
	if in.pidfd < 0 {
		return
	}
	r.poll.remove(in.pidfd)
	_ = unix.Close(in.pidfd)
	in.pidfd = -1
}

// mainDied: the pidfd of a main process says that it ended.
func (r *runner) mainDied(in *instance) {
	if in.exited {
		return
	}
	r.reap()
}

// reap looks at every child that ended, acts, and then takes it out of the
// kernel's table: until then its pid cannot mean anybody else.
func (l *loop) reap() {
	for {
		n, e, ok, err := proc.ReapOrphans(l.isKnown, reapBatch)
		if err != nil {
			l.log.Error("cannot wait for children", "error", err)
			return
		}
		if n > 0 {
			l.orphansGone()
		}
		if !ok {
			if n == reapBatch { // let others have their turn
				l.poll.post(l.reap)
			}
			return
		}
		if h := l.helpers[e.PID]; h != nil {
			delete(l.helpers, e.PID)
			if h.pidfd >= 0 {
				l.poll.remove(h.pidfd)
				_ = unix.Close(h.pidfd)
				h.pidfd = -1
			}
			_, _ = proc.Reap(e.PID)
			h.done(e)
			continue
		}
		in := l.mains[e.PID]
		r := in.of
		if r.launched(in, exitOf(e)) || r.succeeded(in, exitOf(e)) {
			continue // it is an orphan now, like others
		}
		if r.mayBeStopped(in, exitOf(e)) {
			return // until it is looked at again
		}
		r.exit(in, exitOf(e))
		l.decide() // act: the next generation may start now
		delete(l.mains, e.PID)
		in.tree.MainReaped()
		if _, err := proc.Reap(e.PID); err != nil {
			r.warn(in, "cannot reap the main process", err)
		}
		r.dropPidfd(in)
		r.checkEmpty(in)
	}
}

// stopPause is how long a stop signal of ours may take from the kernel to the
// loop, on a busy machine.
const stopPause = 50 * time.Millisecond

// mayBeStopped puts off looking at the end of a main process that a stop of us
// would explain. systemd with KillMode=control-group signals us first and then
// the command, but our signal comes by way of the runtime, and the command may be
// seen dead before: that would be an end by itself, with the status of the signal.
func (r *runner) mayBeStopped(in *instance, e Exit) bool {
	stopped := e.Signal == int(unix.SIGTERM) || e.Signal == int(r.cfg.KillSignal) || e.Code == 128+int(unix.SIGTERM) || e == Exit{}
	if !stopped || r.s.stop != nil || in.exited || !r.managed() {
		return false
	}
	if in.lookAt.IsZero() {
		in.lookAt = time.Now().Add(stopPause)
		if in.pidfd >= 0 {
			r.poll.remove(in.pidfd) // it would wake us all the while
		}
		r.after(stopPause, r.reap)
	}
	return time.Now().Before(in.lookAt)
}

// managed says that a systemd started us: systemd.exec(5).
func (l *loop) managed() bool {
	return slices.ContainsFunc(l.environ, func(kv string) bool { return strings.HasPrefix(kv, "INVOCATION_ID=") })
}

// reapBatch bounds how many orphans are reaped before anything else has its turn.
const reapBatch = 4096

func (l *loop) isKnown(pid int) bool {
	return l.mains[pid] != nil || l.helpers[pid] != nil
}

// helper is a process of ours beside the main ones: a command around one, or a
// probe's.
type helper struct {
	pid, pidfd int // pidfd is -1 when there is none, and when it has ended
	done       func(proc.Exit)
}

// watchHelper calls done with the exit of a child that was just started. It owns
// the pidfd.
func (l *loop) watchHelper(pid, pidfd int, done func(proc.Exit)) *helper {
	h := &helper{pid: pid, pidfd: pidfd, done: done}
	l.helpers[pid] = h
	if pidfd >= 0 {
		if err := l.poll.add(pidfd, unix.EPOLLIN, l.reap); err != nil {
			l.log.Debug("the end of a command will be seen a little late", "pid", pid, "error", err)
		}
	}
	return h
}

// signal sends sig, to nobody when the helper has ended.
func (h *helper) signal(sig unix.Signal) error {
	if h.pidfd < 0 {
		return unix.ESRCH
	}
	return proc.Signal(h.pidfd, sig)
}

func exitOf(e proc.Exit) Exit {
	return Exit{Code: e.Status, Signal: int(e.Signal), Core: e.Dumped}
}

// exit tells the machine of a death, after everything that the dead said
// before: its report, its notify messages, its output.
func (r *runner) exit(in *instance, e Exit) {
	if in == nil || in.exited {
		return
	}
	in.exited = true
	r.noteStopKills(in, e)
	r.readReport(in)
	r.readNotify(in)
	if in.output != nil {
		in.output.Drain()
	}
	if in.watching != nil {
		in.watching()
	}
	if in.pidfd >= 0 {
		r.poll.remove(in.pidfd) // it stays open: signals go through it until the pid is reaped
	}
	r.send(evExited{gen: in.n, exit: e, terminal: r.terminalEnd(in, e)})
}

// orphansGone: members of dying trees may have been among what was reaped.
func (l *loop) orphansGone() {
	for _, r := range l.runners {
		for _, in := range r.instances {
			if in.exited && in.tree.EventsFD() < 0 {
				r.checkEmpty(in)
			}
		}
	}
}

// checkEmpty tells the machine when nobody of a tree whose main process is
// dead is left. Where the kernel does not say so by itself it looks again.
func (r *runner) checkEmpty(in *instance) {
	if !in.exited || in.empty || in.tree == nil || r.mains[in.pid] == in {
		if in.tree != nil && in.tree.EventsFD() >= 0 {
			_, _ = in.tree.Empty() // makes the descriptor wait again
		}
		return
	}
	empty, err := in.tree.Empty()
	switch {
	case err != nil:
		r.warn(in, "cannot see whether processes are left", err)
	case empty:
		in.empty = true
		r.send(evEmpty{gen: in.n})
	case in.tree.EventsFD() < 0:
		// Their parents reap them, so no SIGCHLD of ours will tell.
		in.recheck = min(max(2*in.recheck, 5*time.Millisecond), 200*time.Millisecond)
		r.after(in.recheck, func() {
			if r.instances[in.n] == in {
				r.checkEmpty(in)
			}
		})
	}
}

// kill sends SIGKILL to all of the tree, or to the main process alone where
// that is what KillMode= says.
func (r *runner) kill(in *instance, mode config.KillMode) {
	r.endCommand(in, true)
	if mode == config.KillProcess {
		if in.pidfd >= 0 {
			_ = proc.Signal(in.pidfd, unix.SIGKILL)
		}
		return
	}
	if _, err := in.tree.Kill(); err != nil {
		r.warn(in, "cannot kill all of it", err)
	}
}

// readNotify hears everything that is in the notify socket of a generation.
func (r *runner) readNotify(in *instance) {
	if in.notify == nil {
		return // an adopted server does not know us
	}
	for range notifyBatch {
		m, ok, err := in.notify.Recv()
		if err != nil {
			r.warn(in, "cannot read the notify socket", err)
			return
		}
		if !ok {
			return
		}
		r.hear(in, &m)
		// Closing what came with it answers BARRIER=1: it comes after the effect.
		r.decide()
		m.Close()
	}
}

// notifyBatch bounds how long one chatty child may hold the loop.
const notifyBatch = 256

func (r *runner) hear(in *instance, m *ready.Message) {
	for _, p := range m.Problems {
		r.log.Debug("notify message with a fault", "service", r.cfg.Name, "generation", in.n, "sender", m.PID, "fault", p)
	}
	member := func(pid int) bool { return r.isMember(in, pid) || ready.Gone(pid) }
	if !ready.Accept(in.access, m.PID, in.pid, member) {
		r.log.Warn("notify message of a stranger ignored", "service", r.cfg.Name, "generation", in.n, "sender", m.PID)
		return
	}
	if m.NotifyAccess != "" {
		in.access = m.NotifyAccess
	}
	if m.MainPID > 0 {
		r.changeMain(in, m.MainPID)
	}
	if m.Status != nil {
		r.send(evStatus{gen: in.n, text: *m.Status})
	}
	if m.WatchdogUsec != nil {
		r.send(evWatchdogUsec{gen: in.n, every: time.Duration(*m.WatchdogUsec) * time.Microsecond})
	}
	if m.ExtendTimeout > 0 {
		r.send(evExtend{gen: in.n, by: m.ExtendTimeout})
	}
	switch {
	case m.Ready && in.pid == 0:
		// One of the commands before the main process: not its word.
	case m.Ready:
		in.said, r.speaks = true, true
		if !r.asksOtherwise(in) {
			r.becameReady(in, "READY=1", true)
		}
	case m.Reloading:
		r.send(evReloading{gen: in.n})
	case m.Stopping:
		r.send(evStopping{gen: in.n})
	}
	if m.Watchdog {
		r.send(evPing{gen: in.n})
	}
	if m.WatchdogTrigger {
		r.send(evWatchdogTrigger{gen: in.n})
	}
}

// asksOtherwise reports whether Ready= says what makes the generation ready, and
// that has not happened yet. Some servers say READY=1 before they can serve:
// gunicorn before it has a worker, Traefik before it knows a route.
func (r *runner) asksOtherwise(in *instance) bool {
	if kind := r.cfg.Ready.Kind; kind == config.ReadyAuto || kind == config.ReadyNotify {
		return false
	}
	return in.watchCtx == nil || in.watchCtx.Err() == nil
}

func (r *runner) isMember(in *instance, pid int) bool {
	pids, err := in.tree.Pids()
	if err != nil {
		return false
	}
	for _, p := range pids {
		if p == pid {
			return true
		}
	}
	return false
}

// changeMain follows MAINPID=: another process of the tree is the main one.
func (r *runner) changeMain(in *instance, pid int) {
	if pid == in.pid || in.exited {
		return
	}
	pidfd, err := proc.Open(pid)
	if err != nil {
		r.warn(in, "cannot follow MAINPID", err)
		return
	}
	if !r.isMember(in, pid) { // looked at after it was opened: the number cannot have changed hands
		_ = unix.Close(pidfd)
		r.log.Warn("MAINPID of a stranger ignored", "service", r.cfg.Name, "generation", in.n, "mainpid", pid)
		return
	}
	r.dropPidfd(in)
	delete(r.mains, in.pid) // from now on a member like the others: reaped as an orphan
	in.pid, in.pidfd = pid, pidfd
	r.mains[pid] = in
	in.tree.SetMain(pid, pidfd)
	if err := r.poll.add(pidfd, unix.EPOLLIN, func() { r.foreignMainDied(in, pid) }); err != nil {
		r.warn(in, "cannot watch the main process", err)
	}
	r.send(evMainPID{gen: in.n, pid: pid})
}

// foreignMainDied: a main process that we did not start ended. When it is our
// child by now, its exit status is to be had; else nobody tells us.
func (r *runner) foreignMainDied(in *instance, pid int) {
	r.reap()
	if in.exited || in.pid != pid {
		return
	}
	if _, err := proc.Reap(pid); errors.Is(err, unix.ECHILD) {
		delete(r.mains, pid)
		r.exit(in, Exit{Unknown: true})
		r.decide()
		in.tree.MainReaped()
		r.dropPidfd(in)
		r.checkEmpty(in)
	}
}
