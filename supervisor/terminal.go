package supervisor

import (
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/handoff/shim"
	"github.com/supervise/supervise/supervisor/config"
	"github.com/supervise/supervise/supervisor/proc"
)

// terminal is the one that stdin is. While we are its foreground job, the
// process group of the front generation has it, so that reads, Ctrl-C and
// Ctrl-Z work as without us. We get it back when that generation ends, when it
// stops, and when we end.
//
// What the keys do reaches the generation's group and not us:
//
//   - Ctrl-C and Ctrl-\ are for the command, which may handle them (a shell, a
//     debugger). A watch in its group tells us; when the command then ends, however
//     it does, that was the user's wish, and not a crash.
//   - Ctrl-Z stops the command. We are told as its parent, and stop the rest of
//     the shell's job, ourselves included, with the same signal.
//   - The window's size reaches the command directly.
type terminal struct {
	fd   int
	pgrp int // our own process group, that of the shell's job
	gave int // the group we gave it to, 0 if none

	watch    *shim.GroupWatch // in the group that has the terminal, or nil
	watching *instance        // whose group that is
}

// openTerminal finds the terminal; nil when stdin is not the one that controls
// our session. In the background it is nobody's to give yet.
func openTerminal() *terminal {
	if !proc.IsTerminal(0) {
		return nil
	}
	if _, err := proc.ForegroundGroup(0); err != nil {
		return nil
	}
	return &terminal{fd: 0, pgrp: unix.Getpgrp()}
}

// ours reports whether the terminal is ours to give: our group, or the one we
// gave it to, is in the foreground.
func (t *terminal) ours() bool {
	fg, err := proc.ForegroundGroup(t.fd)
	return err == nil && (fg == t.pgrp || t.gave != 0 && fg == t.gave)
}

// has reports whether a group is in the foreground.
func (t *terminal) has(pgid int) bool {
	fg, err := proc.ForegroundGroup(t.fd)
	return err == nil && fg == pgid
}

func (t *terminal) give(pgid int) error {
	if err := proc.Foreground(t.fd, pgid); err != nil {
		return err
	}
	t.gave = pgid
	return nil
}

// takeBack makes our own group the foreground one again.
func (t *terminal) takeBack() {
	if t.gave != 0 && t.has(t.gave) {
		_ = proc.Foreground(t.fd, t.pgrp)
	}
	t.gave = 0
}

// hungUp reports whether the terminal was disconnected: then SIGHUP does not
// come from somebody who wants a reload.
func (t *terminal) hungUp() bool {
	fds := []unix.PollFd{{Fd: int32(t.fd)}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1 && fds[0].Revents&unix.POLLHUP != 0
}

// nohup says that SIGHUP was ignored when we were started, as nohup(1) has it:
// then the end of the terminal ends neither us nor the command. SIGHUP from
// anybody else is a reload all the same.
type nohup struct {
	is       bool
	terminal bool // we had one that controls our session, and it was there when we looked last
}

// findNohup is called before any signal is caught.
func findNohup() nohup {
	if !signal.Ignored(syscall.SIGHUP) {
		return nohup{}
	}
	return nohup{is: true, terminal: controlled()}
}

// controlled reports whether a terminal controls our session, be it that none
// of our descriptors is that one: tty(4).
func controlled() bool {
	fd, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	_ = unix.Close(fd)
	return true
}

// hungUp reports, once, that a SIGHUP which just came is the end of our
// terminal, and that this is nothing to us.
func (n *nohup) hungUp(t *terminal) bool {
	if !n.terminal || controlled() && (t == nil || !t.hungUp()) {
		return false
	}
	n.terminal = false
	return true
}

// ignoreTTOU lets us write our log and give the terminal while we are not in
// the foreground, which is whenever the command is. With a handler, a write
// under "stty tostop" would be signalled and repeated for ever.
func (t *terminal) ignoreTTOU() {
	if t != nil {
		signal.Ignore(syscall.SIGTTOU)
	}
}

// foreground gives the terminal to a generation, and sees to it that we hear of
// its Ctrl-C.
func (r *runner) foreground(in *instance) {
	if r.tty == nil || in.elder || in.exited || in.pid == 0 || !r.tty.ours() {
		return
	}
	r.watchKeys(in) // first: the next key may come at once
	if !r.tty.has(in.pid) {
		if err := r.tty.give(in.pid); err != nil {
			r.log.Debug("cannot give the terminal to the command", "generation", in.n, "error", err)
			return
		}
	}
	if in.stopped { // it read before it had the terminal
		in.stopped = false
		_ = in.tree.Signal(unix.SIGCONT, config.KillControlGroup)
	}
}

// watchKeys hears of Ctrl-C in the group of an instance that has the terminal.
func (r *runner) watchKeys(in *instance) {
	if r.tty.watching == in {
		return
	}
	r.unwatchKeys()
	w, err := shim.WatchGroup(in.pid)
	if err == nil {
		if err = r.poll.add(w.FD, unix.EPOLLIN, func() { r.readKeys(in) }); err != nil {
			w.Close()
		}
	}
	if err != nil {
		r.log.Debug("Ctrl-C cannot be told from an end of its own accord when the command handles it", "generation", in.n, "error", err)
		return
	}
	r.tty.watch, r.tty.watching = w, in
}

func (r *runner) unwatchKeys() {
	if r.tty == nil || r.tty.watch == nil {
		return
	}
	r.poll.remove(r.tty.watch.FD)
	r.tty.watch.Close()
	r.tty.watch, r.tty.watching = nil, nil
}

// readKeys: a key was pressed. A watch hears one, so there is a next one.
func (r *runner) readKeys(in *instance) {
	if r.tty.watching != in {
		return
	}
	sig, over := r.tty.watch.Read()
	if sig != 0 {
		in.key, in.keyAt = int(sig), time.Now()
	}
	if !over {
		return
	}
	r.unwatchKeys()
	if sig != 0 && !in.exited && r.tty.has(in.pid) {
		r.watchKeys(in)
	}
}

// terminalEnd says which signal of the terminal made the main process of an
// instance end: SIGINT or SIGQUIT from its keys, SIGHUP when it was hung up, 0
// when the end has nothing to do with it. Afterwards the terminal is ours again.
func (r *runner) terminalEnd(in *instance, e Exit) (sig int) {
	if r.tty == nil {
		return 0
	}
	if r.tty.watching == in {
		if sig := r.tty.watch.Ask(); sig != 0 {
			in.key, in.keyAt = int(sig), time.Now()
		}
		defer r.unwatchKeys()
	}
	had := r.tty.has(in.pid)
	if had {
		defer r.tty.takeBack()
	}
	patience := r.cfg.TimeoutStop
	if patience <= 0 {
		patience = time.Minute
	}
	switch {
	case in != r.front():
		return 0
	case r.tty.hungUp() && !r.nohup.is:
		return int(syscall.SIGHUP)
	case in.key != 0 && time.Since(in.keyAt) <= patience:
		return in.key
	case !had || e.Unknown:
		return 0
	}
	for _, key := range []int{int(syscall.SIGINT), int(syscall.SIGQUIT)} {
		if e.Signal == key || e.Signal == 0 && e.Code == 128+key {
			return key
		}
	}
	return 0
}

// stopped passes on what job control did to the front generation: when the
// terminal stopped it (Ctrl-Z, or it read in the background), our whole job
// stops, so that the shell gets its prompt back.
func (r *runner) stopped() {
	if r.tty == nil {
		return
	}
	for _, in := range r.instances {
		if in.exited || in.pid == 0 {
			continue
		}
		st, ok, err := proc.TakeStopped(in.pid)
		if err != nil || !ok {
			continue
		}
		switch st.Signal {
		case unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU:
			in.stopped = true
			if in == r.front() {
				r.stopJob(in, st.Signal)
			}
		case 0:
			in.stopped = false
		}
	}
}

// stopJob stops us with the command, and continues it with us.
func (r *runner) stopJob(in *instance, sig unix.Signal) {
	had := r.tty.has(in.pid)
	if sig != unix.SIGTSTP && r.tty.ours() {
		// It read as a candidate, or before the shell brought us to the
		// foreground, and may go on: our job is in the foreground.
		r.foreground(in)
		return
	}
	r.tty.takeBack()
	stopped, err := proc.StopOwnGroup(r.tty.fd, sig)
	if err != nil {
		r.warn(in, "cannot stop with the command", err)
	}
	if !stopped && (had || r.tty.ours()) {
		// Nobody could ever continue us: a session of our own, as in a
		// container (Ctrl-Z does nothing there without us, either), or the shell
		// brought us to the foreground at this moment.
		r.continued()
	}
	// Else the shell continued us already, and SIGCONT is on its way to say so.
}

// continued: the shell put us in the foreground or background again.
func (r *runner) continued() {
	in := r.front()
	if in == nil || in.exited || in.pid == 0 {
		return
	}
	in.stopped = false
	r.foreground(in)
	_ = in.tree.Signal(unix.SIGCONT, config.KillControlGroup)
}

// front is the instance that a terminal belongs to.
func (r *runner) front() *instance {
	if g := r.s.frontGen(); g != nil {
		return r.instances[g.n]
	}
	return nil
}
