package proc

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor/config"
)

// TreeConfig says whose tree it is.
type TreeConfig struct {
	Name       string // service
	Generation int
	Marker     string // INVOCATION_ID of the generation's environment: 32 hex digits

	UseCgroup bool
	Parent    string // cgroup directory to make ours in; "" is our own

	// Sole says that there is no other tree now: what is adopted and nobody
	// else's is then this one's. nil is never.
	Sole func() bool
	// Others returns the pids of our children that belong to somebody else:
	// main processes of other trees, probes, commands. They and what descends
	// from them are not members. nil is none.
	Others func() []int
}

// Tree is all processes of one generation.
//
// With a cgroup its members are those of the cgroup. Without, they are
// descendants of this process, in this order of precedence:
//
//  1. the main process, and who was found to be a member before (pid and start
//     time); never one of Others;
//  2. who descends from a member, whatever its environment says (a service
//     may have a supervisor of its own, which marks anew);
//  3. who has our Marker in the environment of its last exec; then
//     nobody with a parent other than us, since that parent is no member;
//  4. of those that we adopted: whose process group or session is a member's,
//     unless it is also ours or one of Others';
//  5. of those that we adopted: all if Sole; else those with no other marker
//     that started since our main process did and before that of the
//     successor (see SetSuccessor) did.
type Tree struct {
	cfg   TreeConfig
	group *Group
	err   error // why there is no cgroup

	main      int // 0: none, or reaped
	pidfd     int // borrowed
	mainStart uint64
	next      *Tree

	elder bool // started by somebody else: see ElderTree

	read  reader
	known map[int]uint64 // members seen so far: pid to start time
	own   map[int]bool   // process groups and sessions that members had
}

// NewTree makes the tree, with a cgroup if it is wanted and can be made; why
// not is told by CgroupError. End it with Close.
func NewTree(cfg TreeConfig) *Tree {
	t := newTree(cfg)
	if cfg.UseCgroup {
		t.group, t.err = NewGroup(cfg.Parent, cfg.Name, cfg.Generation)
	}
	return t
}

// AdoptTree is NewTree for a generation that exists, as after a re-exec:
// cgroup is what CgroupPath said, or "".
func AdoptTree(cfg TreeConfig, cgroup string) *Tree {
	t := newTree(cfg)
	if cgroup != "" {
		t.group, t.err = OpenGroup(cgroup)
	}
	return t
}

func newTree(cfg TreeConfig) *Tree {
	return &Tree{cfg: cfg, pidfd: -1, known: make(map[int]uint64), own: make(map[int]bool)}
}

// CgroupFD returns what a member is born into, or -1. Do not close it.
func (t *Tree) CgroupFD() int {
	if t.group == nil {
		return -1
	}
	return t.group.FD()
}

// CgroupPath returns the cgroup's directory, or "".
func (t *Tree) CgroupPath() string {
	if t.group == nil {
		return ""
	}
	return t.group.Path()
}

// CgroupError says why there is no cgroup although one was wanted.
func (t *Tree) CgroupError() error { return t.err }

// DropCgroup removes the cgroup, which nobody has entered, and goes on
// without: for kernels that let us make one and refuse to start a process in it. cause is kept for
// CgroupError.
func (t *Tree) DropCgroup(cause error) {
	if t.group == nil {
		return
	}
	if t.group.Remove() != nil {
		t.group.Close()
	}
	t.group, t.err = nil, cause
}

// Join moves pid into the cgroup, if there is one, where it was not born in it
// (shim.Child.InCgroup false).
func (t *Tree) Join(pid int) error {
	if t.group == nil {
		return nil
	}
	return t.group.Add(pid)
}

// Way says in words how members are known.
func (t *Tree) Way() string {
	if t.group != nil {
		return "cgroup"
	}
	return "process group and descent"
}

// SetMain says which process is the main one. pidfd is borrowed, until
// MainReaped or the next SetMain.
func (t *Tree) SetMain(pid, pidfd int) {
	t.main, t.pidfd = pid, pidfd
	if s, err := t.read.stat(pid); err == nil {
		t.remember(pid, s)
		t.mainStart = s.start
	}
}

// MainReaped says that the main process was reaped: its number means nothing
// any more.
func (t *Tree) MainReaped() {
	delete(t.known, t.main)
	t.main, t.pidfd = 0, -1
}

// SetSuccessor says which tree was started after this one.
func (t *Tree) SetSuccessor(next *Tree) { t.next = next }

// EventsFD returns a descriptor that is ready for EPOLLPRI when Empty may
// have become true (calling Empty makes it wait again), or -1: then ask after each SIGCHLD.
func (t *Tree) EventsFD() int {
	if t.group == nil {
		return -1
	}
	return t.group.EventsFD()
}

// Pids returns the living members, the main process first if it lives.
func (t *Tree) Pids() ([]int, error) {
	if t.group != nil {
		pids, err := t.group.Procs()
		mainFirst(pids, t.main)
		return pids, err
	}
	if t.elder {
		return t.elders()
	}
	return t.members()
}

// Empty says whether nobody of the tree lives. Zombies do not count. Without
// a cgroup it says no, too, while our children end faster than it can look.
func (t *Tree) Empty() (bool, error) {
	if t.group != nil {
		populated, err := t.group.Populated()
		return !populated, err
	}
	if t.elder {
		pids, err := t.elders()
		return len(pids) == 0, err
	}
	return t.nobody()
}

// Signal sends sig as mode says: to all (control-group), to the main process
// (mixed, process) or to nobody (none). The main process is first. Members that
// are born meanwhile get it too, unless they come faster than a few rounds.
//
// To end stopped processes as systemd does, send SIGCONT after the stop signal.
func (t *Tree) Signal(sig unix.Signal, mode config.KillMode) error {
	switch mode {
	case config.KillNone:
		return nil
	case config.KillMixed, config.KillProcess:
		return t.signalMain(sig)
	}
	if t.elder {
		return t.signalMain(sig)
	}
	err := t.signalMain(sig)
	round := t.groupRound
	if t.group == nil {
		round = t.descentRound
	}
	return errors.Join(err, round(sig, map[int]bool{t.main: true}))
}

// maxRounds bounds how often Signal looks for members born since.
const maxRounds = 8

func (t *Tree) signalMain(sig unix.Signal) error {
	if t.main == 0 {
		return nil
	}
	if t.pidfd < 0 {
		// Not reaped, so the number is still its own.
		return ignoreGone(unix.Kill(t.main, sig))
	}
	return ignoreGone(unix.PidfdSendSignal(t.pidfd, sig, nil, 0))
}

func ignoreGone(err error) error {
	if err == nil || err == unix.ESRCH {
		return nil
	}
	return fmt.Errorf("cannot signal the main process: %w", err)
}

// groupRound signals all of the cgroup that are not in done, until nobody new comes.
func (t *Tree) groupRound(sig unix.Signal, done map[int]bool) error {
	for range maxRounds {
		pids, err := t.group.Procs()
		if err != nil {
			return err
		}
		fresh := false
		for _, pid := range pids {
			if !done[pid] {
				done[pid] = true
				fresh = t.group.signal(pid, sig) || fresh
			}
		}
		if !fresh {
			break
		}
	}
	return nil
}

// descentRound is groupRound without a cgroup. It ends with a look that finds
// the same members as the one before it, and nobody who ended meanwhile: a
// main process that takes the signal at once may end after we looked at it
// and before we looked at its children, which are then ours.
func (t *Tree) descentRound(sig unix.Signal, done map[int]bool) error {
	w := t.newWalk(time.Now().Add(killBudget))
	var before []member
	for first := true; ; first = false {
		fresh := false
		err := w.look(func(m *member) {
			if !done[m.pid] {
				done[m.pid], fresh = true, true
				_ = unix.PidfdSendSignal(m.pidfd, sig, nil, 0) // gone is fine
			}
		})
		same := !first && !fresh && !w.busy && len(before) == len(w.found)
		if err != nil || same || w.late() {
			return err
		}
		before = w.found
	}
}

// killBudget is how long one call of Kill may work.
const killBudget = 20 * time.Millisecond

// Kill sends SIGKILL to all of the tree and returns how many are left. Call it
// again, after reaping, until it says 0: processes need a moment to die, and
// without a cgroup some may be born faster than they are found. One call
// takes at most about 20 ms and never waits.
func (t *Tree) Kill() (left int, err error) {
	if t.group != nil {
		if err := t.group.Kill(); err != nil {
			return -1, err
		}
		if populated, err := t.group.Populated(); err != nil || !populated {
			return 0, err
		}
		pids, err := t.group.Procs()
		return max(1, len(pids)), err
	}
	if t.elder {
		return t.killElders()
	}
	return t.chase(time.Now().Add(killBudget))
}

// Close removes the cgroup and forgets the tree. It fails, and can be
// repeated, while somebody lives in the cgroup.
func (t *Tree) Close() error {
	if t.group == nil {
		return nil
	}
	if err := t.group.Remove(); err != nil {
		return err
	}
	t.group = nil
	return nil
}

// Rest gives back what is needed only while the tree is looked at. There may be
// thousands of trees.
func (t *Tree) Rest() { t.read = reader{} }
