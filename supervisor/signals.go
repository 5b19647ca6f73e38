package supervisor

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/supervise/supervise/supervisor/config"
)

// catchSignals has the signals of the command line's contract sent to a
// channel. SIGCHLD is among them for orphans and job control (main processes are
// watched by pidfd), SIGPIPE so that a reader of our log that goes away does
// not end us. They stay ours until the process ends: one that comes in its last
// moment must not change its exit status.
//
// Each of them costs the runtime four switches of threads, 0.5 ms in all, so it
// is done while other things are; caught is closed when it is done.
func catchSignals() (signals <-chan os.Signal, caught <-chan struct{}) {
	ch, done := make(chan os.Signal, 128), make(chan struct{})
	go func() {
		defer close(done)
		signal.Notify(ch, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGCHLD,
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
}

func (l *loop) signalled(sig syscall.Signal) {
	name := config.SignalName(sig)
	switch sig {
	case syscall.SIGCHLD:
		l.reap()
		l.stopped()
	case syscall.SIGTERM, syscall.SIGINT:
		l.send(evStop{cause: name})
	case syscall.SIGQUIT:
		l.send(evStop{cause: name, signal: int(syscall.SIGQUIT)})
	case syscall.SIGHUP:
		if l.tty != nil && l.tty.hungUp() {
			l.send(evStop{cause: "the terminal is gone"})
			return
		}
		l.send(evReload{cause: name})
	case syscall.SIGCONT:
		l.continued()
	case syscall.SIGUSR1, syscall.SIGWINCH, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU:
		if in := l.front(); in != nil && !in.exited && in.pid != 0 {
			_ = in.tree.Signal(sig, config.KillProcess)
		}
	case syscall.SIGUSR2:
		l.log.Warn("upgrading the supervisor in place is not supported yet")
	}
}
