package supervisor

import (
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor/proc"
)

// terminal is the one that stdin is, while we are its foreground job. The
// process group of the current generation has it, so that its reads, Ctrl-C
// and Ctrl-Z work as without us; we get it back when we stop or end.
type terminal struct {
	fd   int
	pgrp int // our own process group, that of the shell's job
	gave int // the group we gave it to, 0 if none
}

// openTerminal finds the terminal; nil when stdin is none or we are in its
// background: then nobody's terminal is touched.
func openTerminal() *terminal {
	if !proc.IsTerminal(0) {
		return nil
	}
	pgrp := unix.Getpgrp()
	fg, err := proc.ForegroundGroup(0)
	if err != nil {
		return nil
	}
	t := &terminal{fd: 0, pgrp: pgrp}
	if fg != pgrp {
		// A background job: it may become the foreground one later.
		return t
	}
	return t
}

// ours reports whether the terminal is ours to give: our group, or one we gave
// it to, is in the foreground.
func (t *terminal) ours() bool {
	fg, err := proc.ForegroundGroup(t.fd)
	return err == nil && (fg == t.pgrp || t.gave != 0 && fg == t.gave)
}

func (t *terminal) give(pgid int) error {
	if !t.ours() {
		return nil
	}
	if err := proc.Foreground(t.fd, pgid); err != nil {
		return err
	}
	t.gave = pgid
	return nil
}

// takeBack makes our own group the foreground one again.
func (t *terminal) takeBack() {
	if t.gave != 0 && t.ours() {
		_ = proc.Foreground(t.fd, t.pgrp)
	}
	t.gave = 0
}

// foreground gives the terminal to a generation.
func (l *loop) foreground(in *instance) {
	if l.tty == nil || in.exited || in.pid == 0 {
		return
	}
	if err := l.tty.give(in.pid); err != nil {
		l.log.Debug("cannot give the terminal to the command", "generation", in.n, "error", err)
	}
}

// stopped passes on what job control did to the current generation: when the
// terminal stopped it (Ctrl-Z, or it read in the background), we stop too, so
// that the shell gets its prompt back.
func (l *loop) stopped() {
	if l.tty == nil {
		return
	}
	for _, in := range l.instances {
		if in.exited || in.pid == 0 || in != l.front() {
			continue
		}
		st, ok, err := proc.TakeStopped(in.pid)
		if err != nil || !ok || st.Signal == 0 {
			continue
		}
		switch st.Signal {
		case unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU:
			l.tty.takeBack()
			// Ourselves and whoever shares our job (a pipeline), as the terminal
			// would have stopped them. SIGSTOP: SIGTSTP is one that we pass on.
			_ = syscall.Kill(syscall.Getpid(), syscall.SIGSTOP)
		}
	}
}

// continued: the shell put us in the foreground or background again.
func (l *loop) continued() {
	in := l.front()
	if in == nil || in.exited || in.pid == 0 {
		return
	}
	if l.tty != nil {
		l.foreground(in)
	}
	_ = in.tree.Signal(unix.SIGCONT, "control-group")
}

// front is the instance that a terminal belongs to.
func (l *loop) front() *instance {
	if g := l.s.frontGen(); g != nil {
		return l.instances[g.n]
	}
	return nil
}
