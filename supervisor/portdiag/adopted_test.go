package portdiag

import "testing"

// TestAdopted: what may be claimed of a process whose parent is the reaper,
// pid 1 if nothing else is said.
func TestAdopted(t *testing.T) {
	type tree = []Process
	const minute = 60 * clockTicks
	one := Process{PID: 1, session: 1, pgrp: 1, Comm: "init"}
	outside := Process{PID: 1, Comm: "init"} // its session and group are of another PID namespace
	for _, c := range []struct {
		name  string
		all   tree // the last one is asked about
		place string
		want  bool
	}{
		{"a child in the parent's session and group", tree{one, {PID: 9, PPID: 1, session: 1, pgrp: 1}}, "", false},
		{"a container engine's", tree{outside, {PID: 9, PPID: 1}}, "", false},
		{"a leader of a session", tree{one, {PID: 9, PPID: 1, session: 9, pgrp: 9}}, "", false},
		{"a leader of a group", tree{one, {PID: 9, PPID: 1, session: 1, pgrp: 9}}, "", false},
		{"docker exec, whose parent is outside", tree{one, {PID: 9, PPID: 0, session: 9, pgrp: 9}}, "", false},
		{"pid 1 itself", tree{{PID: 1, PPID: 0, session: 7, pgrp: 7}}, "", false},

		{"of a session that is gone", tree{one, {PID: 9, PPID: 1, session: 7, pgrp: 7}}, "", true},
		{"of a session that lives", tree{one, {PID: 7, PPID: 1, session: 7, pgrp: 7}, {PID: 9, PPID: 1, session: 7, pgrp: 7}}, "", true},
		{
			"of another session, below a subreaper",
			tree{one, {PID: 3, PPID: 1, session: 3, pgrp: 3}, {PID: 9, PPID: 3, session: 7, pgrp: 7}},
			"", true,
		},

		{"of a group that is gone", tree{outside, {PID: 9, PPID: 1, pgrp: 7}}, "", true},
		{"of a group that is gone, pid 1 a shell at a terminal", tree{{PID: 1, session: 1, pgrp: 1, tty: 5}, {PID: 9, PPID: 1, session: 1, pgrp: 7, tty: 5}}, "", false},
		{
			"of a group that is gone, below a shell",
			tree{one, {PID: 3, PPID: 1, session: 3, pgrp: 3}, {PID: 9, PPID: 3, session: 3, pgrp: 7}},
			"", false,
		},
		{
			"of a group that was made further down",
			tree{outside, {PID: 3, PPID: 1}, {PID: 7, PPID: 3, pgrp: 7}, {PID: 9, PPID: 1, pgrp: 7}},
			"", true,
		},
		{
			"of a group that was made further down, below a subreaper",
			tree{outside, {PID: 2, PPID: 1}, {PID: 3, PPID: 2}, {PID: 7, PPID: 3, pgrp: 7}, {PID: 9, PPID: 2, pgrp: 7}},
			"", true,
		},
		{
			"of a group that was made elsewhere",
			tree{one, {PID: 3, PPID: 1, session: 1, pgrp: 3}, {PID: 7, PPID: 1, session: 1, pgrp: 7}, {PID: 9, PPID: 3, session: 1, pgrp: 7}},
			"", false,
		},
		{"of a pipeline", tree{one, {PID: 7, PPID: 1, session: 1, pgrp: 7, ticks: 100}, {PID: 9, PPID: 1, session: 1, pgrp: 7, ticks: 101}}, "", false},
		{"much later than its group", tree{one, {PID: 7, PPID: 1, session: 1, pgrp: 7, ticks: 100}, {PID: 9, PPID: 1, session: 1, pgrp: 7, ticks: minute}}, "", true},
		{
			"much later than its group, below a supervisor",
			tree{one, {PID: 3, PPID: 1, session: 1, pgrp: 3}, {PID: 7, PPID: 3, session: 1, pgrp: 7, ticks: 100}, {PID: 9, PPID: 3, session: 1, pgrp: 7, ticks: minute}},
			"", false,
		},

		{"a service of systemd", tree{{PID: 1, session: 1, pgrp: 1, Comm: "systemd"}, {PID: 9, PPID: 1, session: 9, pgrp: 9}}, "0::/system.slice/web.service\n", false},
		{"left over from a login", tree{{PID: 1, session: 1, pgrp: 1, Comm: "systemd"}, {PID: 9, PPID: 1, session: 9, pgrp: 9}}, "0::/user.slice/user-0.slice/session-3.scope\n", true},
		{"in a scope, with another pid 1", tree{one, {PID: 9, PPID: 1, session: 9, pgrp: 9}}, "0::/user.slice/user-0.slice/session-3.scope\n", false},
		{"a helper of systemd", tree{{PID: 1, session: 1, pgrp: 1, Comm: "systemd"}, {PID: 9, PPID: 1, session: 9, pgrp: 9}}, "0::/init.scope\n", false},

		{"the command of tini", tree{{PID: 1, session: 1, pgrp: 1, Comm: "tini"}, {PID: 7, PPID: 1, session: 1, pgrp: 7, ticks: 1}}, "", false},
		{
			"another child of tini",
			tree{{PID: 1, session: 1, pgrp: 1, Comm: "tini"}, {PID: 7, PPID: 1, session: 1, pgrp: 7, ticks: 1}, {PID: 9, PPID: 1, session: 1, pgrp: 7, ticks: 2}},
			"", true,
		},
		{
			"the command of tini, with a younger one beside it",
			tree{{PID: 1, session: 1, pgrp: 1, Comm: "tini"}, {PID: 9, PPID: 1, session: 1, pgrp: 7, ticks: 2}, {PID: 7, PPID: 1, session: 1, pgrp: 7, ticks: 1}},
			"", false,
		},
		{"in a pod of one PID namespace", tree{{PID: 1, session: 1, pgrp: 1, Comm: "pause"}, {PID: 9, PPID: 1, session: 9, pgrp: 9}}, "", true},
	} {
		all := table{}
		for _, p := range c.all {
			all[p.PID] = p
		}
		p := Party{Process: c.all[len(c.all)-1], Place: parsePlace(c.place)}
		if got := adopted(p, all); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
