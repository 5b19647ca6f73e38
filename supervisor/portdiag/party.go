package portdiag

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxParties bounds how many processes are looked at closely: of a server
// with two hundred workers the first say it all.
const maxParties = 8

// table is every process at one moment, without user and directory.
type table map[int]Process

func readTable() table {
	t := table{}
	pids, err := listPIDs()
	if err != nil {
		return t
	}
	for _, pid := range pids {
		if p, err := readBrief(pid); err == nil {
			t[pid] = p
		}
	}
	return t
}

// parties looks closely at the processes of the holders.
func (r *Report) parties(all table) {
	seen := map[int]bool{}
	for _, h := range r.Holders {
		for _, p := range h.Processes {
			if seen[p.PID] || len(r.Parties) == maxParties {
				continue
			}
			seen[p.PID] = true
			party := Party{Process: p, Place: placeOf(p.PID), Waits: "unknown"}
			for a, ok := all[p.PPID]; ok && len(party.Ancestors) < 32; a, ok = all[a.PPID] {
				party.Ancestors = append(party.Ancestors, a)
			}
			for _, q := range all {
				if q.PPID == p.PID {
					party.Children++
				}
			}
			if yes, known := waits(p, h.Inode); known {
				party.Waits = map[bool]string{true: "yes", false: "no"}[yes]
			}
			if len(p.FDs) > 0 && !r.target.unix() {
				party.ReuseAddr, party.ReusePort = socketOptions(p, p.FDs[0], h.Inode)
			}
			r.Parties = append(r.Parties, party)
		}
	}
}

// socketOptions reads SO_REUSEADDR and SO_REUSEPORT of a descriptor of
// another process through a copy of it (pidfd_getfd(2), Linux 5.6), which
// needs the right to trace it; nil where that lacks. The copy is closed at
// once; a socket that its process closes at that instant lives those
// microseconds longer.
func socketOptions(p Process, fd int, inode uint64) (reuseAddr, reusePort *bool) {
	pidfd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return nil, nil
	}
	defer unix.Close(pidfd)
	if !p.same() {
		return nil, nil
	}
	copied, err := unix.PidfdGetfd(pidfd, fd, 0)
	if err != nil {
		return nil, nil
	}
	defer unix.Close(copied)
	var st unix.Stat_t
	if unix.Fstat(copied, &st) != nil || st.Ino != inode {
		return nil, nil
	}
	get := func(name int) *bool {
		n, err := unix.GetsockoptInt(copied, unix.SOL_SOCKET, name)
		if err != nil {
			return nil
		}
		yes := n != 0
		return &yes
	}
	return get(unix.SO_REUSEADDR), get(unix.SO_REUSEPORT)
}

// same says that the process is still the one that was read: a pid comes back,
// with another start time.
func (p Process) same() bool {
	now, err := readBrief(p.PID)
	return err == nil && now.ticks == p.ticks
}

// examine finds out what each party is: a left-over, a forwarder, a unit, ours.
func (r *Report) examine(all table, command []string) {
	listening := slices.ContainsFunc(r.Holders, func(h Holder) bool { return h.State == Listen })
	for _, p := range r.Parties {
		who := fmt.Sprintf("pid %d", p.PID)
		switch {
		case supervises(p.Process):
			text := who + " is a supervisor of ours: it keeps the address over restarts of its service"
			if name := superviseName(p.Process); name != "" {
				text += " " + name
			}
			r.find(Supervised, p.PID, text)
		case p.PID == 1 && p.Comm == "systemd":
			r.find(SystemdSocket, 1, "systemd itself holds it, for a .socket unit")
		case p.unitManaged():
			manager := "systemd"
			if p.Place.UserUnit {
				manager = "the systemd of user " + p.User
			}
			r.find(SystemdUnit, p.PID, fmt.Sprintf("%s belongs to %s of %s, which may start it again", who, p.Place.Unit, manager))
		}
		if p.Place.Container != "" {
			text := fmt.Sprintf("%s runs in the %s container %s", who, p.Place.Runtime, shortID(p.Place.Container))
			if p.Place.Pod != "" {
				text += " of the pod " + p.Place.Pod
			}
			r.find(InContainer, p.PID, text)
		}
		if f, ok := forwarderOf(p.Process); ok {
			r.find(Forwarder, p.PID, fmt.Sprintf("%s only forwards the port: %s", who, f.text))
		}
		if listening && p.Waits == "no" && !r.leads(p) {
			text := who + " has the socket open (fd " + joinInts(p.FDs) + ") but does not wait for connections on it"
			if others := len(r.Parties); others > 1 {
				text += ": it inherited the descriptor, and keeps the address even when the server ends"
			} else {
				text += ": it inherited the descriptor from a server that is gone, or hangs"
			}
			r.find(UnusedFD, p.PID, text)
		}
		r.leftover(p, all, command)
	}
}

// leads says whether p is the master of a server whose workers, processes of
// the same program, wait for connections in its place: nginx, gunicorn, php-fpm.
func (r *Report) leads(p Party) bool {
	return slices.ContainsFunc(r.Parties, func(q Party) bool {
		return q.PPID == p.PID && q.Waits != "no" && q.Comm == p.Comm
	})
}

// leftover says what is odd about the life of the process.
func (r *Report) leftover(p Party, all table, command []string) {
	who := fmt.Sprintf("pid %d", p.PID)
	switch p.State {
	case "T":
		r.find(Stopped, p.PID, who+" is stopped (Ctrl-Z or SIGSTOP): it holds the address and answers nobody")
	case "t":
		r.find(Stopped, p.PID, who+" is stopped by a debugger: it holds the address and answers nobody")
	case "Z":
		r.find(ZombieLeader, p.PID, fmt.Sprintf("the main thread of %s has ended; its other %s the socket open",
			who, plural(p.Threads-1, "thread keeps", "threads keep")))
	}
	leader, led := all[p.pgrp]
	if p.pgrp != p.PID && led && leader.State == "Z" && leader.Threads <= 1 {
		r.find(ZombieParent, p.PID, fmt.Sprintf("%s was left behind by pid %d (%s), which is dead and was not reaped by its parent, pid %d",
			who, leader.PID, printable(leader.Comm, 0), leader.PPID))
	}
	if adopted(p, all) && !p.unitManaged() && !supervises(p.Process) {
		r.find(Orphan, p.PID, fmt.Sprintf("the parent of %s has ended and pid %d adopted it: a left-over, or a daemon; it runs since %s",
			who, p.PPID, p.Started.Format(time.DateTime)))
	}
	if p.Deleted {
		r.find(ReplacedProgram, p.PID, fmt.Sprintf("the program file of %s, %s, was replaced or removed since it started: it runs an older version", who, printable(p.Exe, 0)))
	}
	if len(command) > 0 && sameProgram(p.Process, command) {
		r.find(OlderInstance, p.PID, fmt.Sprintf("%s is another instance of the same program, started %s", who, p.Started.Format(time.DateTime)))
		return
	}
	for _, q := range all {
		if q.PID != p.PID && q.Exe == p.Exe && p.Exe != "" && len(p.Args) > 1 && slices.Equal(q.Args, p.Args) && younger(q, p.Process) &&
			!related(p.Process, q, all) && !slices.ContainsFunc(r.Parties, func(o Party) bool { return o.PID == q.PID }) {
			r.find(OlderInstance, p.PID, fmt.Sprintf("pid %d is a younger instance of the same program as %s, started %s", q.PID, who, q.Started.Format(time.DateTime)))
			return
		}
	}
}

// younger says that q was started after p: ticks are 10 ms, and pids rise but
// for their wrap.
func younger(q, p Process) bool {
	return q.ticks > p.ticks || q.ticks == p.ticks && q.PID > p.PID
}

func related(a, b Process, all table) bool {
	return descends(a, b, all) || descends(b, a, all) || a.PPID == b.PPID && a.PPID > 1
}

// sameProgram says that argv would start what p is.
func sameProgram(p Process, argv []string) bool {
	if len(p.Args) == 0 || len(p.Args) < len(argv) {
		return false
	}
	// A script is run by its interpreter: node server.js for ./server.js.
	tail := p.Args[len(p.Args)-len(argv):]
	return filepath.Base(tail[0]) == filepath.Base(argv[0]) && slices.Equal(tail[1:], argv[1:])
}

// unitManaged says that systemd started the process as part of a service.
// What people start from a terminal, from cron or over ssh may be in the
// cgroup of those services, which must not be stopped for it.
func (p Party) unitManaged() bool {
	u := p.Place.Unit
	if !strings.HasSuffix(u, ".service") || p.tty != 0 || p.Place.Container != "" || strings.HasPrefix(u, "user@") {
		return false
	}
	switch strings.TrimSuffix(u, ".service") {
	case "cron", "crond", "atd", "ssh", "sshd", "docker", "containerd":
		// of these only the daemon itself is the service
		return strings.HasPrefix(u, p.Comm)
	}
	return true
}

// supervises says that the process is a supervisor of ours.
func supervises(p Process) bool {
	return p.Comm == "supervise" && (filepath.Base(p.Exe) == "supervise" || p.Exe == "") && len(p.Args) > 1
}

// superviseName is the name of the service, as `supervise -- COMMAND` takes it.
func superviseName(p Process) string {
	for i, a := range p.Args {
		switch {
		case a == "--":
			if i+1 < len(p.Args) {
				return filepath.Base(p.Args[i+1])
			}
			return ""
		case strings.HasPrefix(a, "--name="):
			return a[len("--name="):]
		case a == "--name" && i+1 < len(p.Args):
			return p.Args[i+1]
		}
	}
	return ""
}

func shortID(id string) string {
	if len(id) == 64 {
		return id[:12]
	}
	return printable(id, 64)
}

func joinInts(ns []int) string {
	var s []string
	for _, n := range ns {
		s = append(s, fmt.Sprint(n))
	}
	return strings.Join(s, ", ")
}
