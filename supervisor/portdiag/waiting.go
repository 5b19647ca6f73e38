package portdiag

import (
	"bytes"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// waits says whether a process waits for something to come in at its
// descriptors p.FDs, which are the socket with the inode. known is false when
// that cannot be told: its files may not be read, a thread runs or waits for a
// set of descriptors (poll, select, io_uring).
//
// A listener that nobody waits on is one that was inherited and forgotten, or
// of a server that hangs.
func waits(p Process, inode uint64) (yes, known bool) {
	dir := "/proc/" + strconv.Itoa(p.PID)
	known = !p.poller.uring
	for _, fd := range p.poller.epolls {
		info, err := os.ReadFile(dir + "/fdinfo/" + strconv.Itoa(fd))
		if err != nil {
			known = false
			continue
		}
		if epollHas(info, p.FDs, inode) {
			return true, true
		}
	}
	tasks, err := os.ReadDir(dir + "/task")
	if err != nil {
		return false, false
	}
	for _, t := range tasks {
		line := threadCall(dir + "/task/" + t.Name() + "/syscall")
		switch y, k := blockedOn(line, p.FDs); {
		case y:
			return true, true
		case !k:
			known = false
		}
	}
	return false, known
}

// threadCall reads /proc/PID/task/TID/syscall. A thread that runs just now is
// looked at a few times more: most of them sleep most of the time. "" when it
// may not be read.
func threadCall(file string) string {
	for try := 0; ; try++ {
		b, err := os.ReadFile(file)
		if err != nil {
			return ""
		}
		if try == 3 || string(bytes.TrimSpace(b)) != "running" {
			return string(b)
		}
		time.Sleep(time.Millisecond)
	}
}

// epollHas reads the "tfd:" lines of the fdinfo of an epoll descriptor
// (proc_pid_fdinfo(5)): the number under which a file was added, and its
// inode in hexadecimal, which tells it from an earlier file of that number.
func epollHas(info []byte, fds []int, inode uint64) bool {
	for line := range bytes.Lines(info) {
		f := strings.Fields(string(line))
		if len(f) < 2 || f[0] != "tfd:" {
			continue
		}
		for _, w := range f[2:] {
			if hex, ok := strings.CutPrefix(w, "ino:"); ok {
				n, err := strconv.ParseUint(hex, 16, 64)
				if err == nil && n == inode {
					return true
				}
				f = nil
				break
			}
		}
		if f == nil {
			continue // it was told, and is another
		}
		if fd, err := strconv.Atoi(f[1]); err == nil && slices.Contains(fds, fd) {
			return true
		}
	}
	return false
}

// blockedOn reads /proc/PID/task/TID/syscall (proc_pid_syscall(5)): the number
// and the arguments of the system call that a thread is in. known is false for
// a running thread and for calls that wait for a set of descriptors.
func blockedOn(line string, fds []int) (yes, known bool) {
	f := strings.Fields(line)
	if len(f) == 0 || f[0] == "running" {
		return false, false
	}
	nr, err := strconv.Atoi(f[0])
	if err != nil {
		return false, false
	}
	if nr < 0 || len(f) < 2 {
		return false, false // a page fault, perhaps on its way to a call
	}
	one, many := waitingCalls()
	if slices.Contains(many, nr) {
		return false, false
	}
	if !slices.Contains(one, nr) {
		return false, true
	}
	arg, err := strconv.ParseUint(strings.TrimPrefix(f[1], "0x"), 16, 64)
	return err == nil && slices.Contains(fds, int(int32(arg))), true
}

// waitingCalls gives the numbers of the calls that wait on the descriptor in
// their first argument (accept, accept4, recvfrom, recvmsg, recvmmsg, read),
// and of those that wait on a set (poll, ppoll, select, pselect6,
// io_uring_enter). epoll_wait is in neither: its set is read from fdinfo.
func waitingCalls() (one, many []int) {
	if runtime.GOARCH == "arm64" {
		return []int{202, 242, 207, 212, 243, 63}, []int{73, 72, 426}
	}
	return []int{43, 288, 45, 47, 299, 0}, []int{7, 271, 23, 270, 426}
}
