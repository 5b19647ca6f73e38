package shim

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/handoff/shim/nofile"
)

// call is one step of the child: a system call with its arguments, or one of
// the two pseudo calls. The assembly knows this layout; a test holds the offsets.
type call struct {
	nr   uintptr    // system call number, or callDecimal or callExpect
	args [6]uintptr // as the kernel takes them
	save uintptr    // where to store the result, 0: nowhere
	tag  tag        // goes into the report when the call fails
}

// Pseudo calls. Decimal writes the 64-bit number at args[1] to args[0] as
// text. Expect fails with ESRCH unless the 64-bit number at args[0] is args[1].
const (
	callEnd     = ^uintptr(0)
	callDecimal = ^uintptr(1)
	callExpect  = ^uintptr(2)
)

type tag struct {
	stage Stage
	index int32
}

// report is what goes up the pipe when a call fails: the tag, then the errno.
type report struct {
	tag   tag
	errno uint64
}

const reportSize = int(unsafe.Sizeof(report{}))

// header is what the assembly is given.
type header struct {
	calls  uintptr // first call; the list ends with callEnd
	fd     uintptr // report pipe in the child
	report uintptr // *report
}

// block is the memory of one child: its stack, the header, the calls and all
// that they point to. It is mapped, not allocated, because a child that still
// runs must keep it even if our side forgets it.
type block struct {
	mem  []byte
	used int
}

// stackSize is room for the child's stack, of which the assembly uses 32
// bytes: there are no Go frames, and no signal can be delivered (all are blocked).
const stackSize = 1024

// maxDecimal is the length of the longest 64-bit number and its NUL.
const maxDecimal = 21

func (b *block) alloc(n int) unsafe.Pointer {
	p := unsafe.Pointer(&b.mem[b.used : b.used+n][0])
	b.used += (n + 7) &^ 7
	return p
}

func (b *block) string(s string) uintptr {
	p := b.alloc(len(s) + 1)
	copy(unsafe.Slice((*byte)(p), len(s)), s)
	return uintptr(p)
}

func (b *block) number() uintptr { return uintptr(b.alloc(8)) }

// program is the list under construction.
type program struct {
	block
	head  *header
	calls []call
	n     int
}

func (p *program) add(stage Stage, index int, nr uintptr, args ...uintptr) *call {
	c := &p.calls[p.n]
	p.n++
	c.nr = nr
	copy(c.args[:], args)
	c.tag = tag{stage, int32(index)}
	return c
}

// build maps a block and writes the list for spec into it. reportFD is our
// number of the pipe's write end. The caller unmaps the block.
func build(spec *Spec, reportFD int) (p *program, err error) {
	env, own := environment(spec)
	if err := checkStrings(spec, env, own); err != nil {
		return nil, err
	}
	if err := checkCredential(spec); err != nil {
		return nil, err
	}
	size := stackSize + 4096
	for _, s := range spec.Argv {
		size += len(s) + 32
	}
	for _, s := range env {
		size += len(s) + 32
	}
	for _, s := range own {
		size += len(s) + 64
	}
	size += len(spec.Path) + len(spec.Dir)
	if spec.Credential != nil {
		size += 4 * len(spec.Credential.Groups)
	}
	size += int(unsafe.Sizeof(unix.SockFilter{})) * len(spec.Filter)
	size += 32 * (len(spec.Limits) + 1)
	closeBelt, others := otherDescriptors(len(spec.Files))
	maxCalls := 64 + 2*maxCaps + 8 + 3*len(spec.Files) + len(spec.Limits) + len(own) + len(others) + 32
	size += maxCalls*int(unsafe.Sizeof(call{})) + 256

	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, prepareError("memory for the child", err)
	}
	p = &program{block: block{mem: mem, used: stackSize}}
	p.head = (*header)(p.alloc(int(unsafe.Sizeof(header{}))))
	calls := p.alloc(maxCalls * int(unsafe.Sizeof(call{})))
	p.calls = unsafe.Slice((*call)(calls), maxCalls)
	p.head.calls = uintptr(calls)
	p.head.report = uintptr(p.alloc(reportSize))

	p.signals(spec.Ignore)
	pid := p.number()
	p.add(StagePID, 0, unix.SYS_GETPID).save = pid
	if spec.Setpgid || spec.Foreground >= 0 {
		p.add(StagePgid, 0, unix.SYS_SETPGID, 0, 0)
	}
	if spec.Foreground >= 0 {
		// All signals are blocked, so SIGTTOU does not stop us here.
		p.add(StageForeground, 0, unix.SYS_IOCTL, uintptr(spec.Foreground), unix.TIOCSPGRP, pid)
	}
	p.files(spec.Files, reportFD)
	if closeBelt {
		p.add(StageCloexec, 0, unix.SYS_CLOSE_RANGE, uintptr(len(spec.Files)), uintptr(^uint32(0)), unix.CLOSE_RANGE_CLOEXEC)
	}
	for _, fd := range others {
		c := p.add(StageCloexec, fd, unix.SYS_FCNTL, uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC)
		c.tag.stage = 0 // may be gone by now
	}
	if spec.Umask >= 0 {
		p.add(StageUmask, 0, unix.SYS_UMASK, uintptr(spec.Umask))
	}
	if spec.Nice != nil {
		p.add(StageNice, 0, unix.SYS_SETPRIORITY, unix.PRIO_PROCESS, 0, uintptr(*spec.Nice))
	}
	p.oomScore(spec.OOMScore)
	envv := p.variables(env, own, pid)
	p.limits(spec.Limits)
	p.bounding(spec.Bounding)
	changes := changesUser(spec.Credential)
	if changes && spec.Ambient != 0 {
		p.add(StageAmbient, 0, unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0, 0, 0)
	}
	p.credential(spec.Credential)
	if err := p.ambient(spec.Ambient, changes && spec.Credential.UID != 0); err != nil {
		_ = unix.Munmap(mem)
		return nil, err
	}
	if spec.Dir != "" {
		p.add(StageDir, 0, unix.SYS_CHDIR, p.string(spec.Dir))
	}
	if spec.Pdeathsig != 0 {
		// After the credentials, which clear it. If we died before the
		// prctl, no signal will come: look.
		p.add(StagePdeathsig, 0, unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(spec.Pdeathsig))
		parent := p.number()
		p.add(StagePdeathsig, 0, unix.SYS_GETPPID).save = parent
		p.add(StagePdeathsig, 0, callExpect, parent, uintptr(os.Getpid()))
	}
	if spec.NoNewPrivs {
		p.add(StageNoNewPrivs, 0, unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	}
	p.filter(spec.Filter)
	p.add(StageMask, 0, unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, p.number(), 0, 8)
	p.add(StageExec, 0, unix.SYS_EXECVE, p.string(spec.Path), p.vector(spec.Argv), envv)
	p.add(0, 0, callEnd)
	return p, nil
}

// signals sets every disposition to default. execve(2) does so for handlers
// but keeps what is ignored: os/signal ignores some, and nohup(1) SIGHUP.
func (p *program) signals(ignore []unix.Signal) {
	sigdfl := uintptr(p.alloc(32)) // struct sigaction of zeros
	ignored := p.alloc(32)
	*(*uintptr)(ignored) = 1 // SIG_IGN
	for sig := 1; sig <= 64; sig++ {
		if sig == int(unix.SIGKILL) || sig == int(unix.SIGSTOP) {
			continue
		}
		action := sigdfl
		if slices.Contains(ignore, unix.Signal(sig)) {
			action = uintptr(ignored)
		}
		p.add(StageSignals, sig, unix.SYS_RT_SIGACTION, uintptr(sig), action, 0, 8)
	}
}

// files places the descriptors. The child has a copy of our table and keeps
// nothing else of it, so any number beyond those in play is free to use.
func (p *program) files(files []int, reportFD int) {
	next := max(len(files), reportFD+1)
	for _, fd := range files {
		next = max(next, fd+1)
	}
	dup := func(index, from, to int, flags uintptr) {
		p.add(StageFiles, index, unix.SYS_DUP3, uintptr(from), uintptr(to), flags)
	}
	p.head.fd = uintptr(reportFD)
	if reportFD < len(files) {
		dup(-1, reportFD, next, unix.O_CLOEXEC)
		p.head.fd = uintptr(next)
		next++
	}
	// Move out of the way what another one will be placed upon.
	moved := make(map[int]int)
	for i, fd := range files {
		if fd < 0 || fd == i || fd >= len(files) || moved[fd] != 0 {
			continue
		}
		dup(i, fd, next, unix.O_CLOEXEC)
		moved[fd] = next
		next++
	}
	for i, fd := range files {
		switch {
		case fd < 0:
			p.add(0, i, unix.SYS_CLOSE, uintptr(i)) // EBADF: was not open
		case fd == i:
			p.add(StageFiles, i, unix.SYS_FCNTL, uintptr(i), unix.F_SETFD, 0)
		case moved[fd] != 0:
			dup(i, moved[fd], i, 0)
		default:
			dup(i, fd, i, 0)
		}
	}
}

// otherDescriptors says how the child keeps descriptors beyond first from
// leaking: one close_range(2) (Linux 5.11), else those that are open now.
func otherDescriptors(first int) (closeRange bool, fds []int) {
	if unix.CloseRange(^uint(0)>>32, ^uint(0)>>32, unix.CLOSE_RANGE_CLOEXEC) == nil {
		return true, nil
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return false, nil // no /proc: what is close-on-exec is all there is
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd >= first {
			fds = append(fds, fd)
		}
	}
	return false, fds
}

// environment splits spec.Env into what is copied and the names whose values
// the child itself writes.
func environment(spec *Spec) (env, own []string) {
	const pidfdID = "LISTEN_PIDFDID"
	own = append(own, spec.PIDEnv...)
	dropped := own
	if spec.PIDFDIDEnv {
		dropped = append(dropped[:len(dropped):len(dropped)], pidfdID)
		if hasPidfs() {
			own = dropped
		}
	}
	env = make([]string, 0, len(spec.Env))
next:
	for _, kv := range spec.Env {
		name, _, _ := strings.Cut(kv, "=")
		for _, d := range dropped {
			if name == d {
				continue next
			}
		}
		env = append(env, kv)
	}
	return env, own
}

// variables writes the vector for execve(2); the numbers of own are
// written by the child.
func (p *program) variables(env, own []string, pid uintptr) uintptr {
	vec := unsafe.Slice((*uintptr)(p.alloc(8*(len(env)+len(own)+1))), len(env)+len(own)+1)
	for i, kv := range env {
		vec[i] = p.string(kv)
	}
	for i, name := range own {
		at := p.alloc(len(name) + 1 + maxDecimal)
		copy(unsafe.Slice((*byte)(at), len(name)+1), name+"=")
		vec[len(env)+i] = uintptr(at)
		number, stage := pid, StagePID
		if name == "LISTEN_PIDFDID" {
			number, stage = p.pidfdInode(), StagePIDFD
		}
		p.add(stage, 0, callDecimal, uintptr(at)+uintptr(len(name))+1, number)
	}
	return uintptr(unsafe.Pointer(&vec[0]))
}

// pidfdInode has the child open its own pidfd, which stays close-on-exec, and
// returns where its inode number will be.
func (p *program) pidfdInode() uintptr {
	getpid := p.add(StagePIDFD, 0, unix.SYS_GETPID)
	open := p.add(StagePIDFD, 0, unix.SYS_PIDFD_OPEN, 0, 0)
	stat := uintptr(p.alloc(int(unsafe.Sizeof(unix.Stat_t{}))))
	fstat := p.add(StagePIDFD, 0, unix.SYS_FSTAT, 0, stat)
	getpid.save = uintptr(unsafe.Pointer(&open.args[0]))
	open.save = uintptr(unsafe.Pointer(&fstat.args[0]))
	return stat + unsafe.Offsetof(unix.Stat_t{}.Ino)
}

func (p *program) limits(limits []Limit) {
	nofile := false
	for _, l := range limits {
		nofile = nofile || l.Resource == unix.RLIMIT_NOFILE
	}
	if l, ok := originalNofile(); ok && !nofile {
		p.limit(l)
	}
	for _, l := range limits {
		p.limit(l)
	}
}

func (p *program) limit(l Limit) {
	at := p.alloc(16)
	*(*unix.Rlimit)(at) = unix.Rlimit{Cur: l.Soft, Max: l.Hard}
	p.add(StageLimits, l.Resource, unix.SYS_PRLIMIT64, 0, uintptr(l.Resource), uintptr(at), 0)
}

// originalNofile returns the limit to give back, if Go's runtime raised it.
func originalNofile() (Limit, bool) {
	var now unix.Rlimit
	soft, hard, ok := nofile.Original()
	if !ok || unix.Getrlimit(unix.RLIMIT_NOFILE, &now) != nil || !nofile.Raised(now.Cur, now.Max) {
		return Limit{}, false
	}
	return Limit{Resource: unix.RLIMIT_NOFILE, Soft: soft, Hard: hard}, true
}

// changesUser reports whether there are credentials to set: not when they are
// ours and we lack the privilege.
func changesUser(c *Credential) bool {
	if c == nil {
		return false
	}
	euid := os.Geteuid()
	return euid == 0 || uint32(euid) != c.UID || uint32(os.Getegid()) != c.GID
}

func (p *program) credential(c *Credential) {
	if !changesUser(c) {
		return
	}
	var list uintptr
	if n := len(c.Groups); n > 0 {
		at := p.alloc(4 * n)
		copy(unsafe.Slice((*uint32)(at), n), c.Groups)
		list = uintptr(at)
	}
	gid, uid := uintptr(c.GID), uintptr(c.UID)
	p.add(StageGroups, 0, unix.SYS_SETGROUPS, uintptr(len(c.Groups)), list)
	p.add(StageGID, 0, unix.SYS_SETRESGID, gid, gid, gid)
	p.add(StageUID, 0, unix.SYS_SETRESUID, uid, uid, uid)
}

// oomScore writes oom_score_adj, see proc(5).
func (p *program) oomScore(score *int) {
	if score == nil {
		return
	}
	text := strconv.Itoa(*score)
	at := unix.AT_FDCWD
	open := p.add(StageOOM, 0, unix.SYS_OPENAT, uintptr(at), p.string("/proc/self/oom_score_adj"), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	write := p.add(StageOOM, 0, unix.SYS_WRITE, 0, p.string(text), uintptr(len(text)))
	open.save = uintptr(unsafe.Pointer(&write.args[0]))
}

// bounding drops all capabilities but these: capabilities(7).
func (p *program) bounding(keep *uint64) {
	if keep == nil {
		return
	}
	for c := 0; c <= lastCap(); c++ {
		if *keep&(1<<c) == 0 {
			p.add(StageBounding, c, unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0)
		}
	}
}

// maxCaps bounds how many capabilities a kernel has.
const maxCaps = 64

// lastCap is the highest capability of this kernel.
func lastCap() int {
	b, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && n < maxCaps {
			return n
		}
	}
	return unix.CAP_LAST_CAP
}

// capHeader and capSets are what capset(2) takes in its third version.
type (
	capHeader struct {
		version uint32
		pid     int32
	}
	capSets [2]struct{ effective, permitted, inheritable uint32 }
)

// ambient makes capabilities ambient, which must be permitted and inheritable
// for that. Another user has no others.
func (p *program) ambient(set uint64, only bool) error {
	if set == 0 {
		return nil
	}
	head := (*capHeader)(p.alloc(int(unsafe.Sizeof(capHeader{}))))
	head.version = unix.LINUX_CAPABILITY_VERSION_3
	sets := (*capSets)(p.alloc(int(unsafe.Sizeof(capSets{}))))
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var now [2]unix.CapUserData
	if err := unix.Capget(&h, &now[0]); err != nil {
		return &Error{Stage: StageAmbient, Errno: err.(unix.Errno)}
	}
	for i := range sets {
		word := uint32(set >> (32 * i))
		sets[i].permitted, sets[i].effective = now[i].Permitted, now[i].Permitted
		if only {
			sets[i].permitted, sets[i].effective = word, word
		}
		sets[i].inheritable = word
	}
	p.add(StageAmbient, 0, unix.SYS_CAPSET, uintptr(unsafe.Pointer(head)), uintptr(unsafe.Pointer(sets)))
	for c := 0; c <= lastCap(); c++ {
		if set&(1<<c) != 0 {
			p.add(StageAmbient, c, unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(c), 0, 0)
		}
	}
	return nil
}

func (p *program) filter(f []unix.SockFilter) {
	if len(f) == 0 {
		return
	}
	at := p.alloc(len(f) * int(unsafe.Sizeof(f[0])))
	copy(unsafe.Slice((*unix.SockFilter)(at), len(f)), f)
	prog := p.alloc(int(unsafe.Sizeof(unix.SockFprog{})))
	*(*unix.SockFprog)(prog) = unix.SockFprog{Len: uint16(len(f)), Filter: (*unix.SockFilter)(at)}
	p.add(StageFilter, 0, unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(prog))
}

// vector writes a NULL-terminated array of strings.
func (p *program) vector(ss []string) uintptr {
	vec := unsafe.Slice((*uintptr)(p.alloc(8*(len(ss)+1))), len(ss)+1)
	for i, s := range ss {
		vec[i] = p.string(s)
	}
	return uintptr(unsafe.Pointer(&vec[0]))
}

func checkStrings(spec *Spec, lists ...[]string) error {
	for _, list := range append(lists, spec.Argv, []string{spec.Path, spec.Dir}) {
		for _, s := range list {
			if strings.IndexByte(s, 0) >= 0 {
				return prepareError(strconv.Quote(s), unix.EINVAL)
			}
		}
	}
	return nil
}

// checkCredential refuses the ids that setresuid(2) and setresgid(2) take
// for "leave it as it is": the child would keep ours.
func checkCredential(spec *Spec) error {
	const unchanged = ^uint32(0)
	stage := Stage(0)
	switch c := spec.Credential; {
	case c == nil:
		return nil
	case c.UID == unchanged:
		stage = StageUID
	case c.GID == unchanged:
		stage = StageGID
	default:
		return nil
	}
	return &Error{Stage: stage, Errno: unix.EINVAL, Subject: spec.subject(stage, 0)}
}

// hasPidfs says whether pidfds have inode numbers that mean something: Linux
// 6.9 gave them a file system of their own.
func hasPidfs() bool {
	const pidfsMagic = 0x50494446 // PID_FS_MAGIC of linux/magic.h
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Statfs_t
	return unix.Fstatfs(fd, &st) == nil && st.Type == pidfsMagic
}

func prepareError(subject string, err error) error {
	errno, _ := err.(unix.Errno)
	return &Error{Stage: StagePrepare, Errno: errno, Subject: subject}
}
