package proc

import (
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// member is a process that was found to belong to a tree, opened before it was looked at.
type member struct {
	pid   int
	pidfd int // valid during the callback only
	stat  stat
}

func (t *Tree) remember(pid int, s stat) {
	t.known[pid] = s.start
	self := unix.Getpid()
	if ours, err := unix.Getpgid(self); err != nil || s.group != ours {
		t.own[s.group] = true
	}
	if ours, err := unix.Getsid(self); err != nil || s.session != ours {
		t.own[s.session] = true
	}
}

// forget drops members that are gone, once there are many more of them than
// the living.
func (t *Tree) forget(living int) {
	if len(t.known) < 2*living+256 {
		return
	}
	for pid, start := range t.known {
		if s, err := t.read.stat(pid); err != nil || s.start != start || s.dead() {
			delete(t.known, pid)
		}
	}
}

// others returns the set of cfg.Others.
func (t *Tree) others() map[int]bool {
	set := make(map[int]bool)
	if t.cfg.Others == nil {
		return set
	}
	for _, pid := range t.cfg.Others() {
		set[pid] = true
		delete(t.own, pid) // a number that was a group of ours once, and is theirs now
	}
	return set
}

// judge says whether pid, whose parent is a member or not, belongs to the
// tree. The rules and their order are those of Tree.
func (t *Tree) judge(pid int, s stat, parentIn bool, self int) bool {
	if start, ok := t.known[pid]; ok && start == s.start {
		return true
	}
	if parentIn {
		return true
	}
	mark := t.read.marker(pid, t.cfg.Marker)
	if mark == markerOurs {
		return true
	}
	if s.parent != self {
		return false
	}
	if t.own[s.group] || t.own[s.session] {
		return true
	}
	if t.cfg.Sole != nil && t.cfg.Sole() {
		return true
	}
	return mark == markerNone && t.mainStart != 0 && s.start >= t.mainStart &&
		t.next != nil && t.next.mainStart != 0 && s.start < t.next.mainStart
}

// walk is one or several looks at our descendants with no reaping in
// between: what was found dead once then stays dead, under its number.
type walk struct {
	t        *Tree
	self     int
	others   map[int]bool
	deadline time.Time // zero: none

	dead  map[int]bool // our children that were found dead, over all looks
	seen  map[int]bool // of this look
	f     func(*member)
	found []member // living members of this look
	// busy says that this look met, among our own children, somebody who
	// died since the last one, or ran out of time. Whom the dead had as children
	// may have escaped it: a chain of forks, each ending at once, is faster
	// than any look. Only a look that is not busy, after another one, shows that nobody is there.
	busy bool
}

func (t *Tree) newWalk(deadline time.Time) *walk {
	return &walk{t: t, self: os.Getpid(), others: t.others(), deadline: deadline, dead: make(map[int]bool)}
}

// look goes down the lists of children, so only at our own descendants,
// however many processes the machine has. f, if not nil, is called
// for each living member with its pidfd.
func (w *walk) look(f func(*member)) error {
	w.f, w.found, w.busy, w.seen = f, nil, false, make(map[int]bool)
	if err := w.below(w.self, false); err != nil {
		return w.scan() // no lists of children in this kernel
	}
	w.t.forget(len(w.found))
	return nil
}

// below visits the children of pid; in says whether pid is a member. The
// newest come first: in a chain of forks they are the living ones.
func (w *walk) below(pid int, in bool) error {
	var list []int
	if err := w.t.read.children(pid, func(c int) { list = append(list, c) }); err != nil {
		return err
	}
	for _, c := range slices.Backward(list) {
		if w.late() {
			return nil
		}
		if w.seen[c] || w.others[c] || w.dead[c] {
			continue
		}
		w.seen[c] = true
		if pid == w.self && w.ended(c) {
			continue
		}
		in, live := w.visit(c, in)
		if live {
			_ = w.below(c, in) // gone meanwhile: its children came to us, and are found there next time
		} else if pid == w.self {
			w.busy = true
		}
	}
	return nil
}

func (w *walk) late() bool {
	if w.deadline.IsZero() || time.Now().Before(w.deadline) {
		return false
	}
	w.busy = true
	return true
}

// ended says whether our child pid has ended, with one system call: there may
// be thousands of those.
func (w *walk) ended(pid int) bool {
	info, err := wait(unix.P_PID, pid, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	if err != nil || info.pid == 0 {
		return false
	}
	w.dead[pid] = true
	w.busy = true
	return true
}

// visit opens pid, looks at it, and calls f if it is a member.
func (w *walk) visit(pid int, parentIn bool) (in, live bool) {
	t := w.t
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false, false
	}
	defer unix.Close(fd)
	s, err := t.read.stat(pid)
	if err != nil || s.dead() {
		return false, false
	}
	if !t.judge(pid, s, parentIn, w.self) {
		// One that ended while it was looked at had no environment any more: it
		// may have been a member, and has left its children to us.
		s, err := t.read.stat(pid)
		return false, err == nil && !s.dead() && s.memory > 0
	}
	t.remember(pid, s)
	m := member{pid: pid, pidfd: fd, stat: s}
	if w.f != nil {
		w.f(&m)
	}
	m.pidfd = -1
	w.found = append(w.found, m)
	return true, true
}

// scan is look by reading all of /proc, for kernels without
// CONFIG_PROC_CHILDREN: slower on a machine with many processes.
func (w *walk) scan() error {
	children := make(map[int][]int)
	err := w.t.read.names("/proc", func(pid int) {
		if s, err := w.t.read.stat(pid); err == nil {
			children[s.parent] = append(children[s.parent], pid)
		}
	})
	if err != nil {
		return os.NewSyscallError("read /proc", err)
	}
	var below func(pid int, in bool)
	below = func(pid int, in bool) {
		for _, c := range slices.Backward(children[pid]) {
			if w.seen[c] || w.others[c] || w.dead[c] {
				continue
			}
			w.seen[c] = true
			if pid == w.self && w.ended(c) {
				continue
			}
			if in, live := w.visit(c, in); live {
				below(c, in)
			} else {
				w.busy = true
			}
		}
	}
	below(w.self, false)
	return nil
}

// members returns the living members of one look.
func (t *Tree) members() ([]int, error) {
	w := t.newWalk(time.Time{})
	err := w.look(nil)
	pids := make([]int, 0, len(w.found))
	for _, m := range w.found {
		pids = append(pids, m.pid)
	}
	mainFirst(pids, t.main)
	return pids, err
}

func mainFirst(pids []int, main int) {
	if i := slices.Index(pids, main); i > 0 {
		pids[0], pids[i] = pids[i], pids[0]
	}
}

// nobody says whether nobody is left, and is sure when it says so.
func (t *Tree) nobody() (bool, error) {
	w := t.newWalk(time.Now().Add(killBudget))
	for {
		if err := w.look(nil); err != nil || len(w.found) > 0 {
			return false, err
		}
		if !w.busy {
			return true, nil
		}
		if w.late() {
			return false, nil
		}
	}
}

// chase is Kill without a cgroup. First the main process's group, which the
// kernel kills without letting anyone be born into it. Then, for who left the
// group: stop all, so that they cannot fork and so stay below a known parent,
// until a round finds nobody new; then kill.
func (t *Tree) chase(deadline time.Time) (left int, err error) {
	if t.main != 0 {
		// Not reaped: the number is still its own, zombie or not.
		if group, err := unix.Getpgid(t.main); err == nil && group == t.main {
			_ = unix.Kill(-t.main, unix.SIGKILL)
		}
		_ = t.signalMain(unix.SIGKILL)
	}
	w := t.newWalk(deadline)
	killed := make(map[int]bool)
	for {
		if err := w.stopAll(); err != nil {
			return -1, err
		}
		fresh := false
		err := w.look(func(m *member) {
			_ = unix.PidfdSendSignal(m.pidfd, unix.SIGKILL, nil, 0)
			fresh = fresh || !killed[m.pid]
			killed[m.pid] = true
		})
		if err != nil {
			return -1, err
		}
		if len(w.found) == 0 && !w.busy {
			return 0, nil
		}
		// When nobody new came, those found are dying: no use in watching.
		if !fresh && !w.busy || w.late() {
			return max(1, len(w.found)), nil
		}
	}
}

// stopAll stops members until a look finds nobody new.
func (w *walk) stopAll() error {
	stopped := make(map[int]bool)
	for fresh := true; fresh && !w.late(); {
		fresh = false
		err := w.look(func(m *member) {
			if !stopped[m.pid] {
				_ = unix.PidfdSendSignal(m.pidfd, unix.SIGSTOP, nil, 0)
				stopped[m.pid], fresh = true, true
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}
