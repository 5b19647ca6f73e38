package supervisor

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/supervise/supervise/supervisor/proc"
	"github.com/supervise/supervise/supervisor/ready"
)

// A server that upgrades itself (tableflip on its own SIGHUP, gunicorn and nginx on
// SIGUSR2, HAProxy in master mode) starts its successor and ends with status 0, and
// so does one that goes into the background. The service goes on: the successor
// is the main process then, and no second copy is started. Who it is is decided, in
// this order, by
//
//	MAINPID=   it was said by sd_notify (changeMain)
//	PIDFile=   it is there
//	adoption   the process that we adopted, as the nearest subreaper, and that
//	           waits on a listener of the generation, or holds one, or whose descendant does

// succeeded looks, when a main process has ended with status 0 by itself,
// for its successor, and makes that the main process. The dead one is then an orphan like others.
func (r *runner) succeeded(in *instance, e Exit) bool {
	if in.exited || e.Unknown || e.Signal != 0 || e.Code != 0 || in.tree == nil || r.s.oneshot() || !r.s.serves(in.n) {
		return false
	}
	dead := in.pid
	r.readNotify(in) // MAINPID= may have come before
	if in.pid != dead {
		return true // and it lives, or its own end comes next
	}
	if in.pid != 0 && r.mains[in.pid] != in {
		return false
	}
	pids, err := in.tree.Pids()
	pids = slices.DeleteFunc(pids, func(pid int) bool { return pid == in.pid })
	if err != nil || len(pids) == 0 {
		return false
	}
	how, next := "PIDFile=", r.pidFromFile(pids)
	if next == 0 {
		how, next = "it serves", r.heir(in, pids)
	}
	if next == 0 {
		return false
	}
	old := in.pid
	r.changeMain(in, next)
	if in.pid == old {
		return false
	}
	r.log.Info("the main process has handed over to its successor and ended", "service", r.cfg.Name, "generation", in.n, "from", old, "pid", in.pid, "because", how)
	return true
}

// pidFromFile reads PIDFile=; 0 when it names none of pids.
func (r *runner) pidFromFile(pids []int) int {
	if r.cfg.PIDFile == "" {
		return 0
	}
	text, err := os.ReadFile(r.cfg.PIDFile)
	if err != nil || len(text) > 64 {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || !slices.Contains(pids, pid) {
		return 0
	}
	return pid
}

// heir finds the process that serves on. Of pids those are eligible that have
// no parent among them: that were adopted.
func (r *runner) heir(in *instance, pids []int) int {
	root := map[int]int{} // of each process, the one at its top
	for _, pid := range pids {
		top := pid
		for range len(pids) {
			parent, err := proc.Parent(top)
			if err != nil || !slices.Contains(pids, parent) {
				break
			}
			top = parent
		}
		root[pid] = top
	}
	var inodes []uint64
	for _, lane := range in.lanes {
		inodes = append(inodes, lane.Inode())
	}
	// Who waits on a listener is surer than who just has it.
	if sight, err := ready.Seen(pids, inodes); err == nil {
		for _, inode := range sight.Inodes() {
			return root[sight.By[inode].PID]
		}
	}
	own, _ := ready.Listening(pids)
	for _, l := range own {
		if !l.Ephemeral {
			return root[l.PID]
		}
	}
	return 0
}
