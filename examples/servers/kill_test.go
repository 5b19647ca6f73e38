package servers

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/cmd/storm/crash"
	"github.com/supervise/supervise/cmd/storm/load"
	"github.com/supervise/supervise/supervisor/sockdiag"
)

// death is the end of a main process, with what the whole generation had
// accepted by then: where a master deals connections out to workers, they are
// for a moment in neither's descriptors but on their way between them.
type death struct {
	crash.Death
	accepted map[netip.AddrPort]bool // client addresses
}

// kill kills a main process that descends from root. Where it has children, all
// of them stand still meanwhile, so that the account is exact; and, where they
// are to die with it, until they do.
func kill(root, pid, port int, withChildren bool) (death, error) {
	var d death
	workers := children(pid)
	if len(workers) == 0 {
		var err error
		d.Death, err = crash.Kill(root, pid) // what it had accepted is among its descriptors
		return d, err
	}
	stopped, err := stop(root, append([]int{pid}, workers...))
	defer func() {
		for end := time.Now().Add(dieTogether); withChildren && !ended(stopped) && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		for _, fd := range stopped {
			_ = unix.PidfdSendSignal(fd, unix.SIGCONT, nil, 0)
			unix.Close(fd)
		}
	}()
	if err != nil {
		return d, err
	}
	found, err := sockdiag.Inet(sockdiag.Query{
		Protocol: sockdiag.TCP, LocalPort: uint16(port), States: sockdiag.Mask(sockdiag.Established, sockdiag.CloseWait),
	})
	if err != nil {
		return d, err
	}
	d.accepted = map[netip.AddrPort]bool{}
	for _, c := range found {
		if c.Inode != 0 { // some process has it, or it is in a message to one
			d.accepted[netip.AddrPortFrom(c.Dst.Addr().Unmap(), c.Dst.Port())] = true
		}
	}
	d.Death, err = crash.Kill(root, pid)
	return d, err
}

// dieTogether bounds how long children stand still after their parent's death.
const dieTogether = 5 * time.Second

// ended reports whether all of these processes have ended.
func ended(pidfds []int) bool {
	for _, fd := range pidfds {
		if unix.PidfdSendSignal(fd, 0, nil, 0) == nil {
			p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			if n, err := unix.Poll(p, 0); err == nil && n == 0 {
				return false
			}
		}
	}
	return true
}

// took says whether the connection died with the generation.
func (d *death) took(f load.Failure) bool {
	if d.Took(f.Local, f.Began, f.Ended) {
		return true
	}
	local, err := netip.ParseAddrPort(f.Local)
	return err == nil && d.accepted[local] && !f.Began.After(d.Stopped)
}

// children are the children that the threads of pid have; none on a kernel that
// does not tell (CONFIG_PROC_CHILDREN).
func children(pid int) []int {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	var pids []int
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue
		}
		for _, word := range strings.Fields(string(text)) {
			if child, err := strconv.Atoi(word); err == nil {
				pids = append(pids, child)
			}
		}
	}
	return pids
}

// stop stops processes that descend from root, and gives a pidfd of each that
// lives. The caller lets them go on, and closes.
func stop(root int, pids []int) (pidfds []int, err error) {
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue // it ended
		}
		// Looked at after it was opened, so that no other process is meant.
		if ok, err := crash.Descends(pid, root); err != nil || !ok {
			unix.Close(fd)
			continue
		}
		pidfds = append(pidfds, fd)
		if err := unix.PidfdSendSignal(fd, unix.SIGSTOP, nil, 0); err != nil {
			return pidfds, err
		}
		for end := time.Now().Add(patience); !stands(pid); time.Sleep(100 * time.Microsecond) {
			if time.Now().After(end) {
				return pidfds, fmt.Errorf("cannot stop process %d within %v", pid, patience)
			}
		}
	}
	return pidfds, nil
}

// stands reports whether all threads of pid have stopped, or are gone.
func stands(pid int) bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, t := range threads {
		text, err := os.ReadFile(t)
		if err != nil {
			continue
		}
		_, after, _ := strings.Cut(string(text), ") ")
		if after != "" && !strings.ContainsRune("TZX", rune(after[0])) {
			return false
		}
	}
	return true
}
