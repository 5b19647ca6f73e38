package supervisor

import (
	"time"

	"github.com/supervise/supervise/supervisor/config"
)

// Type=forking: the process that is started goes into the background and
// exits; what it left behind is the service. It is up when its first process has
// exited with status 0 and the main process is known: the one that PIDFile=
// names, for which is waited, or else the one that serves, or is left alone.

// forkLook is the pause between two looks for the main process.
const forkLook = 10 * time.Millisecond

// launched reports whether e is how a service of Type=forking starts, and if so
// goes on to look for its main process. The launcher is an orphan then, like others.
func (r *runner) launched(in *instance, e Exit) bool {
	g := r.s.gen(in.n)
	if r.cfg.Type != config.Forking || g == nil || g.state != genSpawned && g.state != genWaiting || e.Signal != 0 || e.Code != 0 || in.launched {
		return false
	}
	in.launched = true
	r.readReport(in)
	delete(r.mains, in.pid)
	in.tree.MainReaped()
	r.dropPidfd(in)
	r.lookForForked(in)
	return true
}

// lookForForked looks until there is a main process, or nothing is left.
func (r *runner) lookForForked(in *instance) {
	if in.exited || in.pidfd >= 0 || r.instances[in.n] != in {
		return
	}
	pids, err := in.tree.Pids()
	next, how := r.pidFromFile(pids), "PIDFile="
	if next == 0 && r.cfg.PIDFile == "" {
		if next, how = r.heir(in, pids), "it serves"; next == 0 && len(pids) == 1 {
			next, how = pids[0], "it is the only one"
		}
	}
	switch {
	case next != 0:
		r.changeMain(in, next)
	case err == nil && len(pids) == 0:
		r.exit(in, Exit{Unknown: true})
		r.decide()
		r.checkEmpty(in)
		return
	}
	if in.pidfd < 0 {
		r.after(forkLook, func() { r.lookForForked(in) })
		return
	}
	r.becameReady(in, "forked: "+how, true)
}
