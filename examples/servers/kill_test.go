package servers

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
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
	accepted map[string]bool // client addresses
	orphans  time.Time       // when the last worker that outlived its master had ended; zero: there was none
}

// how is what of a generation is killed.
type how int

const (
	killMain how = iota // the main process; its workers find themselves orphaned
	killAll             // and its workers, all in one moment
	killLone            // the main process, whose children are none of its workers and live on (KillMode=process)
)

// kill kills a main process that descends from root. Where it has children, all
// of them stand still meanwhile, so that the account is exact.
func kill(root, pid int, p *place, what how) (death, error) {
	var d death
	if len(children(pid)) == 0 {
		var err error
		d.Death, err = crash.Kill(root, pid) // what it had accepted is among its descriptors
		return d, err
	}
	var workers []int // pidfds
	main, err := stop(root, []int{pid})
	if err == nil { // it has no further ones from here on
		workers, err = stop(root, children(pid))
	}
	defer func() {
		for _, fd := range slices.Concat(main, workers) {
			unix.Close(fd)
		}
	}()
	resume := func(s unix.Signal) {
		for _, fd := range workers {
			_ = unix.PidfdSendSignal(fd, s, nil, 0)
		}
	}
	if err != nil {
		resume(unix.SIGCONT)
		return d, err
	}
	if d.accepted, err = accepted(p); err != nil {
		resume(unix.SIGCONT)
		return d, err
	}
	if what == killAll {
		resume(unix.SIGKILL)
	}
	d.Death, err = crash.Kill(root, pid)
	if what != killAll {
		resume(unix.SIGCONT)
	}
	if what == killMain {
		for end := time.Now().Add(patience); !ended(workers); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				return d, fmt.Errorf("workers have outlived their master by %v", patience)
			}
		}
		d.orphans = time.Now()
	}
	return d, err
}

// accepted are the clients whose connections some process has, or that are in a
// message to one.
func accepted(p *place) (map[string]bool, error) {
	all := map[string]bool{}
	if p.unix != "" {
		found, err := sockdiag.Unix(sockdiag.UnixQuery{States: sockdiag.Mask(sockdiag.Established)})
		for _, c := range found {
			all[c.Name] = all[c.Name] || c.Peer != 0
		}
		return all, err
	}
	found, err := sockdiag.Inet(sockdiag.Query{
		Protocol: sockdiag.TCP, LocalPort: uint16(p.port), States: sockdiag.Mask(sockdiag.Established, sockdiag.CloseWait),
	})
	for _, c := range found {
		all[netip.AddrPortFrom(c.Dst.Addr().Unmap(), c.Dst.Port()).String()] = c.Inode != 0
	}
	return all, err
}

// ended reports whether all of these processes have ended.
func ended(pidfds []int) bool {
	for _, fd := range pidfds {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(p, 0); err == nil && n == 0 {
			return false
		}
	}
	return true
}

// orphaned is how long after the last worker has ended its clients may hear of it.
const orphaned = 100 * time.Millisecond

// took says whether the connection died with the generation. Workers that
// outlive their master accept for a moment more, and what they lose then is
// theirs; nobody sees which that was. So it is every failure while they lived.
func (d *death) took(f load.Failure) bool {
	if d.Took(f.Local, f.Began, f.Ended) {
		return true
	}
	if f.Connected && !f.Ended.Before(d.Stopped) && f.Ended.Before(d.orphans.Add(orphaned)) {
		return true
	}
	return d.accepted[f.Local] && !f.Began.After(d.Stopped)
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
