package container

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// denied is what the default profile of Docker and containerd denies to a
// process without capabilities
// (github.com/moby/profiles/blob/main/seccomp/default.json): a list of what is
// allowed, of which these are the absences that exist on both amd64 and arm64.
// All give EPERM, as there.
var denied = []int{
	unix.SYS_ACCT, unix.SYS_ADD_KEY, unix.SYS_BPF, unix.SYS_CHROOT, unix.SYS_CLOCK_ADJTIME, unix.SYS_CLOCK_SETTIME,
	unix.SYS_DELETE_MODULE, unix.SYS_FANOTIFY_INIT, unix.SYS_FINIT_MODULE, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT,
	unix.SYS_FSOPEN, unix.SYS_FSPICK, unix.SYS_GET_MEMPOLICY, unix.SYS_INIT_MODULE, unix.SYS_IO_URING_ENTER,
	unix.SYS_IO_URING_REGISTER, unix.SYS_IO_URING_SETUP, unix.SYS_KCMP, unix.SYS_KEXEC_FILE_LOAD, unix.SYS_KEXEC_LOAD,
	unix.SYS_KEYCTL, unix.SYS_LOOKUP_DCOOKIE, unix.SYS_MBIND, unix.SYS_MIGRATE_PAGES, unix.SYS_MOUNT,
	unix.SYS_MOUNT_SETATTR, unix.SYS_MOVE_MOUNT, unix.SYS_MOVE_PAGES, unix.SYS_NFSSERVCTL, unix.SYS_OPEN_BY_HANDLE_AT,
	unix.SYS_OPEN_TREE, unix.SYS_PERF_EVENT_OPEN, unix.SYS_PIVOT_ROOT, unix.SYS_PROCESS_MADVISE, unix.SYS_QUOTACTL,
	unix.SYS_REBOOT, unix.SYS_REQUEST_KEY, unix.SYS_SET_MEMPOLICY, unix.SYS_SETDOMAINNAME, unix.SYS_SETHOSTNAME,
	unix.SYS_SETNS, unix.SYS_SETTIMEOFDAY, unix.SYS_SWAPOFF, unix.SYS_SWAPON, unix.SYS_SYSLOG, unix.SYS_UMOUNT2,
	unix.SYS_UNSHARE, unix.SYS_USERFAULTFD, unix.SYS_VHANGUP,
}

// tracing is what the profile allows with CAP_SYS_PTRACE only; ptrace(2) and
// process_vm_readv(2) it allows to all.
var tracing = []int{unix.SYS_KCMP, unix.SYS_PIDFD_GETFD}

const (
	newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP
	errno         = unix.SECCOMP_RET_ERRNO
	afVsock       = unix.AF_VSOCK
)

// installProfile denies this thread, and what it executes, what the default
// profile does. The caller has set no_new_privs or has CAP_SYS_ADMIN.
func installProfile(trace bool) error {
	var prog []unix.SockFilter
	stmt := func(code uint16, k uint32) { prog = append(prog, unix.SockFilter{Code: code, K: k}) }
	load := func(offset uint32) { stmt(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, offset) }
	// unless skips n instructions when the accumulator is not k.
	unless := func(k uint32, n uint8) {
		prog = append(prog, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: n, K: k})
	}
	ret := func(k uint32) { stmt(unix.BPF_RET|unix.BPF_K, k) }

	load(0) // seccomp_data.nr
	all := append([]int(nil), denied...)
	if !trace {
		all = append(all, tracing...)
	}
	for _, nr := range all {
		if trace && nr == unix.SYS_KCMP {
			continue
		}
		unless(uint32(nr), 1)
		ret(errno | uint32(unix.EPERM))
	}
	// clone3 has its flags in memory, where a filter cannot look: ENOSYS makes
	// the C library take clone(2).
	unless(unix.SYS_CLONE3, 1)
	ret(errno | uint32(unix.ENOSYS))
	unless(unix.SYS_CLONE, 4)
	load(16) // the low half of the first argument, the flags
	prog = append(prog, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, Jf: 1, K: newNamespaces})
	ret(errno | uint32(unix.EPERM))
	ret(unix.SECCOMP_RET_ALLOW)
	unless(unix.SYS_SOCKET, 4)
	load(16)
	unless(afVsock, 1)
	ret(errno | uint32(unix.EPERM))
	ret(unix.SECCOMP_RET_ALLOW)
	ret(unix.SECCOMP_RET_ALLOW)

	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	if _, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&fprog))); e != 0 {
		return fmt.Errorf("cannot install the seccomp profile: %w", e)
	}
	return nil
}
