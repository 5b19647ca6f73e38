package control

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// peerGroups gives the supplementary groups of the process that connected:
// unix(7), SO_PEERGROUPS (Linux 4.13); nil when they cannot be had. x/sys has
// the constant and no function for it.
func peerGroups(fd int) []uint32 {
	for n := 64; n <= 65536; { // NGROUPS_MAX
		groups := make([]uint32, n)
		size := uint32(n * 4)
		_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case e == 0:
			return groups[:size/4]
		case e == unix.ERANGE && int(size/4) > n:
			n = int(size / 4)
		default:
			return nil
		}
	}
	return nil
}
