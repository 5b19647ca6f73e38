package portdiag

import (
	"path/filepath"
	"strings"
	"time"
)

// adopted says that the process was not started by the one that is its parent
// now: its parent has ended, and the kernel gave it to PID 1 or to a subreaper
// (PR_SET_CHILD_SUBREAPER). The kernel keeps no record of that, so it is
// claimed only where what can be seen leaves no other way to come to it; a
// process that PID 1 started itself, as the main process of a container or
// behind `docker exec`, must not be called a left-over. A daemon that made
// itself the leader of a session cannot be told from one that PID 1 started.
func adopted(p Party, all table) bool {
	parent, ok := all[p.PPID]
	if !ok || p.PID == 1 {
		return false
	}
	return foreignSession(p.Process, parent) ||
		foreignGroup(p.Process, parent, all) ||
		inScopeOf(parent, p.Place) ||
		beyondOnlyChild(p.Process, parent, all)
}

// foreignSession: a child has its parent's session, or leads one of its own.
func foreignSession(p, parent Process) bool {
	return p.session != p.PID && p.session != parent.session
}

// foreignGroup: a child has its parent's process group, or one of its own, or,
// below a shell, that of its pipeline.
func foreignGroup(p, parent Process, all table) bool {
	switch p.pgrp {
	case 0, p.PID, parent.PID, parent.pgrp: // 0: of another PID namespace
		return false
	}
	leader, led := all[p.pgrp] // its number belongs to nobody else while the group lives
	if led && leader.PPID != parent.PID {
		// A process puts itself and its children into groups, not itself or
		// them into one that a child of its child made.
		return descends(leader, parent, all)
	}
	// The leader was a child of the parent too, or that cannot be known. PID 1
	// may be a shell; it starts all of a pipeline at once.
	if parent.PID != 1 {
		return false
	}
	if led {
		return p.ticks > leader.ticks+uint64(pipelineStart/time.Second)*clockTicks
	}
	return parent.tty == 0
}

// pipelineStart is how long after its first process the last one of a pipeline
// may be started, on a very busy machine.
const pipelineStart = 5 * time.Second

// descends says that p is below ancestor.
func descends(p, ancestor Process, all table) bool {
	for range 64 {
		if p.PPID == ancestor.PID {
			return true
		}
		var ok bool
		if p, ok = all[p.PPID]; !ok {
			return false
		}
	}
	return false
}

// inScopeOf: systemd starts services itself; what is in a scope was started by
// others and put there (systemd.scope(5)). But its own helpers are in init.scope.
func inScopeOf(parent Process, place Place) bool {
	return parent.Comm == "systemd" && strings.HasSuffix(place.Unit, ".scope") && place.Unit != "init.scope"
}

// beyondOnlyChild: the small inits of containers start one process, or none,
// and live no longer than it does. So that one is their eldest child.
func beyondOnlyChild(p, parent Process, all table) bool {
	name := parent.Comm
	if parent.Exe != "" {
		name = filepath.Base(parent.Exe)
	}
	switch name {
	case "pause": // of a Kubernetes pod
		return parent.PID == 1
	case "tini", "tini-static", "docker-init", "catatonit", "dumb-init":
		for _, q := range all {
			if q.PPID == parent.PID && q.PID != p.PID && younger(p, q) {
				return true
			}
		}
	}
	return false
}
