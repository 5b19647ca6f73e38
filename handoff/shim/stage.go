package shim

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// Stage is a step between fork and exec; a failed start names the one that
// failed. The order here is the order in which the child takes them.
type Stage uint32

const (
	_ Stage = iota
	StagePrepare
	StageCgroup
	StageFork
	StageSignals
	StagePgid
	StageForeground
	StageFiles
	StageCloexec
	StageUmask
	StageNice
	StageOOM
	StagePID
	StagePIDFD
	StageLimits
	StageBounding
	StageGroups
	StageGID
	StageUID
	StageAmbient
	StageDir
	StagePdeathsig
	StageNoNewPrivs
	StageFilter
	StageMask
	StageExec
	stageEnd
)

// String returns the stage in words that complete "cannot start: ...".
func (s Stage) String() string {
	switch s {
	case StagePrepare:
		return "preparing the start"
	case StageCgroup:
		return "joining the cgroup"
	case StageFork:
		return "creating the process"
	case StageSignals:
		return "resetting signals"
	case StagePgid:
		return "making a process group"
	case StageForeground:
		return "taking the terminal's foreground"
	case StageFiles:
		return "placing descriptors"
	case StageCloexec:
		return "closing other descriptors"
	case StageUmask:
		return "setting the umask"
	case StageNice:
		return "setting the nice level"
	case StageOOM:
		return "setting the out of memory score"
	case StagePID:
		return "reading its own pid"
	case StagePIDFD:
		return "reading its own pidfd"
	case StageLimits:
		return "setting resource limits"
	case StageBounding:
		return "reducing the capability bounding set"
	case StageAmbient:
		return "keeping capabilities"
	case StageGroups:
		return "setting supplementary groups"
	case StageGID:
		return "setting the group"
	case StageUID:
		return "setting the user"
	case StageDir:
		return "changing directory"
	case StagePdeathsig:
		return "setting the parent death signal"
	case StageNoNewPrivs:
		return "giving up new privileges"
	case StageFilter:
		return "installing the system call filter"
	case StageMask:
		return "unblocking signals"
	case StageExec:
		return "executing"
	}
	return "stage " + strconv.Itoa(int(s))
}

// Error is a start that failed: at which step, on what, and the kernel's
// number. Unwrap gives the Errno.
type Error struct {
	Stage   Stage
	Errno   unix.Errno
	Subject string // what the step was about, "" if there is nothing to add
}

func (e *Error) Error() string {
	name := unix.ErrnoName(e.Errno)
	if name == "" {
		name = "errno " + strconv.Itoa(int(e.Errno))
	}
	if e.Subject == "" {
		return fmt.Sprintf("cannot start: %v: %v (%s)", e.Stage, e.Errno.Error(), name)
	}
	return fmt.Sprintf("cannot start: %v: %s: %v (%s)", e.Stage, e.Subject, e.Errno.Error(), name)
}

// Unwrap returns the errno.
func (e *Error) Unwrap() error { return e.Errno }

// ExitCode is what a shell would end with: 127 when the file was not found,
// 126 when it was found and could not be executed, 0 when the fault lies
// elsewhere.
func (e *Error) ExitCode() int {
	switch {
	case e.Stage != StageExec:
		return 0
	case e.Errno == unix.ENOENT || e.Errno == unix.ENOTDIR:
		return 127
	default:
		return 126
	}
}

// subject names what call number index of a stage was about.
func (s *Spec) subject(stage Stage, index int) string {
	switch stage {
	case StageFiles:
		return "descriptor " + strconv.Itoa(index)
	case StageForeground:
		return "descriptor " + strconv.Itoa(s.Foreground)
	case StageNice:
		if s.Nice != nil {
			return strconv.Itoa(*s.Nice)
		}
	case StageLimits:
		return limitName(index)
	case StageGID:
		if s.Credential != nil {
			return strconv.FormatUint(uint64(s.Credential.GID), 10)
		}
	case StageUID:
		if s.Credential != nil {
			return strconv.FormatUint(uint64(s.Credential.UID), 10)
		}
	case StageDir:
		return strconv.Quote(s.Dir)
	case StageExec:
		return strconv.Quote(s.Path)
	}
	return ""
}

// limitName returns RLIMIT_NOFILE for 7; numbers are those of
// asm-generic/resource.h, the same on amd64 and arm64.
func limitName(resource int) string {
	names := [...]string{
		"CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE",
		"MEMLOCK", "AS", "LOCKS", "SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME",
	}
	if resource >= 0 && resource < len(names) {
		return "RLIMIT_" + names[resource]
	}
	return "resource " + strconv.Itoa(resource)
}
