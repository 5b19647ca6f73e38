package supervisor

import (
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/supervise/supervise/supervisor/config"
	"github.com/supervise/supervise/supervisor/proc"
)

// catchSignals has the signals of the command line's contract sent to a
// channel. SIGPIPE is among them so that a reader of our log that goes away does
// not end us; SIGCHLD is not, see watchChildren. They stay ours until the
// process ends: one that comes in its last moment must not change its exit
// status.
//
// Each of them costs the runtime four switches of threads, 0.5 ms in all, so it
// is done while other things are; caught is closed when it is done.
func catchSignals() (signals <-chan os.Signal, caught <-chan struct{}) {
	ch, done := make(chan os.Signal, 128), make(chan struct{})
	go func() {
		defer close(done)
		signal.Notify(ch, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP,
			syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGCONT, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGPIPE)
	}()
	return ch, done
}

// watchSignals turns signals into events, until the loop ends.
func (l *loop) watchSignals(signals <-chan os.Signal) {
	go func() {
		for {
			select {
			case sig := <-signals:
				s := sig.(syscall.Signal)
				l.poll.post(func() { l.signalled(s) })
			case <-l.over:
				return
			}
		}
	}()
	if err := proc.QuietChildren(); err != nil {
		l.log.Debug("reaping costs more than it should", "error", err)
	}
	go l.watchChildren()
}

const (
	// reapPause is how long orphans wait to be reaped, so that many that die
	// together cost one round and not one each. Whom we started is not concerned:
	// the loop has a pidfd of each.
	reapPause = 20 * time.Millisecond

	// noChildPause is how often it is looked for children while there is none:
	// between a failed start and the next. Orphans that we adopt without having
	// been their ancestor (PID 1 of a container) are reaped that much later.
	noChildPause = 100 * time.Millisecond
)

// watchChildren tells the loop that some child ended, stopped or continued. It
// waits in waitid(2) and not for SIGCHLD, whose handler in Go's runtime costs
// more than reaping does when thousands of orphans die. At the end of the
// process it is still in there.
func (l *loop) watchChildren() {
	if !l.pause(reapPause) { // a command that ends at once costs no thread for this
		return
	}
	for {
		news, err := proc.Await()
		switch {
		case err != nil:
			l.log.Error("cannot wait for children", "error", err)
			return
		case news == proc.NoChild:
			if !l.pause(noChildPause) {
				return
			}
			continue
		case news == proc.ChildEnded:
			if !l.pause(reapPause) {
				return
			}
		}
		done := make(chan struct{})
		l.poll.post(func() {
			l.childrenChanged()
			close(done)
		})
		select {
		case <-done:
		case <-l.over:
			return
		}
		if news == proc.ChildStopped && !l.pause(reapPause) { // it may go on and off
			return
		}
	}
}

// pause waits for d, or is false at the end of the loop. For other goroutines.
func (l *loop) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.over:
		return false
	}
}

// childrenChanged: some child ended, stopped or continued.
func (l *loop) childrenChanged() {
	l.reap()
	if r := l.only(); r != nil {
		r.stopped()
	}
	proc.DropStops()
}

// signalled does what the command line's contract says of a signal: a stop or
// a reload is for all services, and what is passed on is for those that run.
func (l *loop) signalled(sig syscall.Signal) {
	name := config.SignalName(sig)
	switch sig {
	case syscall.SIGTERM, syscall.SIGINT:
		l.stopAll(evStop{cause: name})
	case syscall.SIGQUIT:
		l.stopAll(evStop{cause: name, signal: int(syscall.SIGQUIT)})
	case syscall.SIGHUP:
		if l.nohup.hungUp(l.tty) {
			l.log.Info("the terminal is gone, going on: SIGHUP was ignored at the start")
			return
		}
		if !l.nohup.is && l.tty != nil && l.tty.hungUp() {
			l.stopAll(evStop{cause: "the terminal is gone"})
			return
		}
		if l.reread != nil {
			l.rereadUnits(name)
			return
		}
		l.reloadAll(name)
	case syscall.SIGCONT:
		if r := l.only(); r != nil {
			r.continued()
		}
	case syscall.SIGUSR1:
		l.reopenLogs()
		l.passOn(sig)
	case syscall.SIGWINCH, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU:
		l.passOn(sig)
	case syscall.SIGUSR2:
		l.log.Warn("upgrading the supervisor in place is not supported yet")
	}
}

// passOn gives a signal to the main process of each service.
func (l *loop) passOn(sig syscall.Signal) {
	for _, r := range l.runners {
		if in := r.front(); in != nil && !in.exited && in.pid != 0 {
			_ = in.tree.Signal(sig, config.KillProcess)
		}
	}
}

// reloadAll has every service reloaded.
func (l *loop) reloadAll(cause string) {
	for _, r := range l.runners {
		if r.crew == nil {
			r.reload(evReload{cause: cause})
		}
	}
	for _, c := range l.crews() {
		c.reload(evReload{cause: cause}, nil)
	}
}

// stopAll ends everything: no connection is accepted any more, and every
// service is told to stop.
func (l *loop) stopAll(ev evStop) {
	for _, a := range slices.Clone(l.acceptors) {
		a.close()
	}
	l.order.endAll(l.runners, ev)
}
