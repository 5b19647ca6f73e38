package proc

import (
	"os"
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

// descent walks from us down the lists of children, and returns the living
// members; f, if not nil, is called for each with its pidfd. Only our own
// descendants are looked at, however many others the machine has.
func (t *Tree) descent(f func(*member)) ([]member, error) {
	w := walk{t: t, self: os.Getpid(), others: t.others(), f: f, seen: make(map[int]bool)}
	if err := w.below(w.self, false); err != nil {
		return t.scan(f) // no lists of children in this kernel
	}
	t.forget(len(w.found))
	// The main process first.
	for i := range w.found {
		if w.found[i].pid == t.main {
			w.found[0], w.found[i] = w.found[i], w.found[0]
		}
	}
	return w.found, nil
}

type walk struct {
	t      *Tree
	self   int
	others map[int]bool
	f      func(*member)
	seen   map[int]bool
	found  []member
}

// below visits the children of pid; in says whether pid is a member.
func (w *walk) below(pid int, in bool) error {
	var list []int
	if err := w.t.read.children(pid, func(c int) { list = append(list, c) }); err != nil {
		return err
	}
	for _, c := range list {
		if w.seen[c] || w.others[c] {
			continue
		}
		w.seen[c] = true
		in, live := w.visit(c, in)
		if live {
			_ = w.below(c, in) // gone meanwhile: its children came to us, and are found there next time
		}
	}
	return nil
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
		return false, true
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

// scan is descent by reading all of /proc: slower on a machine with many
// processes, and sure.
func (t *Tree) scan(f func(*member)) ([]member, error) {
	self := os.Getpid()
	stats := make(map[int]stat)
	var order []int
	err := t.read.names("/proc", func(pid int) {
		if s, err := t.read.stat(pid); err == nil {
			stats[pid] = s
			order = append(order, pid)
		}
	})
	if err != nil {
		return nil, os.NewSyscallError("read /proc", err)
	}
	w := walk{t: t, self: self, others: t.others(), f: f, seen: make(map[int]bool)}
	belongs := make(map[int]bool)
	var visit func(pid int) (in, ours bool)
	visit = func(pid int) (in, ours bool) {
		if pid == self {
			return false, true
		}
		s, ok := stats[pid]
		if !ok || w.others[pid] || pid == 0 {
			return false, false
		}
		if w.seen[pid] {
			return belongs[pid], true
		}
		parentIn, ours := visit(s.parent)
		if !ours {
			// A parent that ended meanwhile leaves its children to us: only
			// the marker can tell then.
			if _, ok := stats[s.parent]; ok || s.parent == 0 {
				return false, false
			}
		}
		w.seen[pid] = true
		in, _ = w.visit(pid, parentIn)
		belongs[pid] = in
		return in, true
	}
	for _, pid := range order {
		visit(pid)
	}
	return w.found, nil
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
	killed := make(map[int]bool)
	for {
		if err := t.stopAll(deadline); err != nil {
			return -1, err
		}
		fresh := false
		members, err := t.descent(func(m *member) {
			_ = unix.PidfdSendSignal(m.pidfd, unix.SIGKILL, nil, 0)
			fresh = fresh || !killed[m.pid]
			killed[m.pid] = true
		})
		if err != nil {
			return -1, err
		}
		if len(members) == 0 {
			// The lists of children can miss one while others end.
			members, err = t.scan(nil)
			if err != nil || len(members) == 0 {
				return 0, err
			}
			fresh = true
		}
		// When nobody new came, those found are dying: no use in watching.
		if !fresh || !time.Now().Before(deadline) {
			return len(members), nil
		}
	}
}

// stopAll stops members until a round finds nobody new.
func (t *Tree) stopAll(deadline time.Time) error {
	stopped := make(map[int]bool)
	for fresh := true; fresh && time.Now().Before(deadline); {
		fresh = false
		_, err := t.descent(func(m *member) {
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
