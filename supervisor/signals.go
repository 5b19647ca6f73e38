package supervisor

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor/config"
)

// watchSignals turns signals into events. The signals are those of the
// command line's contract; SIGCHLD is here for orphans and job control (main
// processes are watched by pidfd), SIGPIPE so that a reader of our log that
// goes away does not end us.
func (l *loop) watchSignals() (stop func()) {
	ch := make(chan os.Signal, 128)
	signal.Notify(ch, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGCHLD,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGCONT, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGPIPE)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case sig := <-ch:
				s := sig.(syscall.Signal)
				l.poll.post(func() { l.signalled(s) })
			case <-done:
				return
			}
		}
	}()
	return func() { signal.Stop(ch); close(done) }
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
		if l.tty != nil && hungUp(l.tty.fd) {
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

// hungUp reports whether a terminal was disconnected: then SIGHUP does not
// come from somebody who wants a reload.
func hungUp(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd)}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1 && fds[0].Revents&unix.POLLHUP != 0
}
