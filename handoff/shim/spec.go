package shim

import (
	"golang.org/x/sys/unix"
)

// Spec says what is started and in which state its main begins. Begin with
// New: the zero value means "umask 0, foreground of terminal 0".
//
// Whatever else it says, the child begins with all signals but those of Ignore
// at their default and none blocked, with no descriptor beyond Files, and with the soft
// RLIMIT_NOFILE that this process was started with, not the one that Go's
// runtime raised, unless Limits asks otherwise.
type Spec struct {
	Path string   // file to execute, no search (see LookPath); relative to Dir
	Argv []string // Argv[0] included
	Env  []string // NAME=value, complete: nothing is inherited

	// PIDEnv names variables whose value is the child's own pid in decimal,
	// as LISTEN_PID of sd_listen_fds(3) and WATCHDOG_PID of
	// sd_watchdog_enabled(3) must be. They replace those of Env.
	PIDEnv []string
	// PIDFDIDEnv sets LISTEN_PIDFDID to the inode of the child's own pidfd,
	// where the kernel has pidfs (Linux 6.9), and else removes it from Env.
	PIDFDIDEnv bool

	// Files[i] is our descriptor that becomes i in the child; -1 leaves i
	// closed. One descriptor may appear several times. Flags of the open file
	// description (O_NONBLOCK) are not touched. Ours stay open.
	Files []int

	Dir        string // working directory, "" is inherited; entered as the new user
	Setpgid    bool   // a process group of its own, led by the child
	Foreground int    // our terminal whose foreground group the child's becomes (implies Setpgid), or -1
	CgroupFD   int    // directory of the cgroup that the child is born in, or -1
	Umask      int    // or -1
	Nice       *int   // absolute, -20 to 19
	Limits     []Limit
	Credential *Credential
	NoNewPrivs bool
	OOMScore   *int    // oom_score_adj, -1000 to 1000
	Bounding   *uint64 // capabilities that stay in the bounding set, as bits; nil: all
	Ambient    uint64  // capabilities that are kept as ambient ones
	// Pdeathsig is sent when the THREAD that called Start ends: see
	// PR_SET_PDEATHSIG. 0 is none.
	Pdeathsig unix.Signal
	// Filter is a seccomp filter, installed last. It must allow
	// rt_sigprocmask, execve, write and exit_group. Needs NoNewPrivs or
	// CAP_SYS_ADMIN after Credential.
	Filter []unix.SockFilter
	// Ignore are signals that the child begins with ignored, as nohup(1) has it.
	Ignore []unix.Signal
}

// Limit is one resource limit of prlimit(2).
type Limit struct {
	Resource   int // RLIMIT_*
	Soft, Hard uint64
}

// Credential is who the child runs as. When it is what we are already, and
// we lack the privilege to change it, it is left out.
type Credential struct {
	UID, GID uint32
	Groups   []uint32 // supplementary groups, all of them
}

// New returns a Spec that executes path with argv and env and changes
// nothing else; descriptors 0, 1 and 2 are ours.
func New(path string, argv, env []string) *Spec {
	return &Spec{
		Path: path, Argv: argv, Env: env,
		Files:      []int{0, 1, 2},
		Foreground: -1, CgroupFD: -1, Umask: -1,
	}
}
