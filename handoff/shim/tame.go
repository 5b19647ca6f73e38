package shim

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// TameFilter is a seccomp filter (for Spec.Filter) under which no signal of the
// child or its descendants reaches pid: kill(2) and its kin say that it was sent,
// and pidfd_open(2) of that pid is refused, upon which Go's os.FindProcess falls
// back to kill. Some handoff libraries end their parent once they serve, in
// the belief that it is the old server.
//
// All else is allowed without a look. It returns nil for machines other than
// amd64 and arm64, and does not see calls of 32-bit programs.
func TameFilter(pid int) []unix.SockFilter {
	var arch, kill, tkill, tgkill uint32
	switch runtime.GOARCH {
	case "amd64":
		arch, kill, tkill, tgkill = unix.AUDIT_ARCH_X86_64, 62, 200, 234
	case "arm64":
		arch, kill, tkill, tgkill = unix.AUDIT_ARCH_AARCH64, 129, 130, 131
	default:
		return nil
	}
	const (
		dataNr, dataArch, firstArg = 0, 4, 16 // struct seccomp_data, linux/seccomp.h
		pidfdOpen                  = 434
		load                       = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal                      = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		ret                        = unix.BPF_RET | unix.BPF_K
	)
	return []unix.SockFilter{
		{Code: load, K: dataArch},
		{Code: equal, K: arch, Jf: 10},
		{Code: load, K: dataNr},
		{Code: equal, K: pidfdOpen, Jt: 3},
		{Code: equal, K: kill, Jt: 2},
		{Code: equal, K: tkill, Jt: 1},
		{Code: equal, K: tgkill, Jf: 5},
		{Code: load, K: firstArg},
		{Code: equal, K: uint32(pid), Jf: 3},
		{Code: load, K: dataNr},
		{Code: equal, K: pidfdOpen, Jt: 2},
		{Code: ret, K: unix.SECCOMP_RET_ERRNO}, // errno 0: done
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
		{Code: ret, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
	}
}
