package logs

import (
	"golang.org/x/sys/unix"
)

// isTerminal is isatty(3).
func isTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}

// sameFile says that two fds are one destination, whose order of writes is worth
// keeping: the same file, and for a regular file the same description (2>&1),
// since two descriptions have positions of their own.
func sameFile(a, b int) bool {
	if a == b {
		return true
	}
	var sa, sb unix.Stat_t
	if unix.Fstat(a, &sa) != nil || unix.Fstat(b, &sb) != nil || sa.Dev != sb.Dev || sa.Ino != sb.Ino {
		return false
	}
	if sa.Mode&unix.S_IFMT != unix.S_IFREG {
		return true
	}
	const kcmpFile = 0 // KCMP_FILE of <linux/kcmp.h>
	pid := uintptr(unix.Getpid())
	r, _, errno := unix.Syscall6(unix.SYS_KCMP, pid, pid, kcmpFile, uintptr(a), uintptr(b), 0)
	if errno != 0 { // not built in, or forbidden: judge by what a description has
		fa, _ := unix.FcntlInt(uintptr(a), unix.F_GETFL, 0)
		fb, _ := unix.FcntlInt(uintptr(b), unix.F_GETFL, 0)
		oa, _ := unix.Seek(a, 0, unix.SEEK_CUR)
		ob, _ := unix.Seek(b, 0, unix.SEEK_CUR)
		return fa == fb && oa == ob
	}
	return r == 0
}
