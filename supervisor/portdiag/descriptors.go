package portdiag

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// descriptors is where a set of socket inodes was found among the open files
// of all processes, and where it could not be looked for.
type descriptors struct {
	holders map[uint64][]reference
	pollers map[int]poller // of the processes among the holders
	hidden  map[uint32]int // owner uid of the processes that may not be looked into: how many
}

// poller is what a process has to wait on many descriptors with.
type poller struct {
	epolls []int // descriptors of epoll(7) instances
	uring  bool  // it has an io_uring(7)
}

func newDescriptors() descriptors {
	return descriptors{holders: map[uint64][]reference{}, pollers: map[int]poller{}, hidden: map[uint32]int{}}
}

// reference is a descriptor of one process.
type reference struct{ pid, fd int }

// hiddenCount is how many processes could not be looked into.
func (d descriptors) hiddenCount() int {
	n := 0
	for _, c := range d.hidden {
		n += c
	}
	return n
}

// maxLookers bounds the threads that look through /proc at one time.
const maxLookers = 4

// findDescriptors looks through /proc/PID/fd of every process for the
// sockets with the given inodes. It costs one readlink(2) for each open file
// of the machine. A process that ends meanwhile is passed over.
func findDescriptors(want map[uint64]bool) (descriptors, error) {
	found := newDescriptors()
	if len(want) == 0 {
		return found, nil
	}
	pids, err := listPIDs()
	if err != nil {
		return found, err
	}
	// The kernel's part of the work is nearly all of it, and goes in parallel.
	lookers := min(runtime.GOMAXPROCS(0), maxLookers)
	parts := make([]descriptors, lookers)
	var next atomic.Int64
	var wg sync.WaitGroup
	for i := range parts {
		parts[i] = newDescriptors()
		wg.Go(func() {
			for {
				n := int(next.Add(1)) - 1
				if n >= len(pids) {
					return
				}
				parts[i].lookInto(pids[n], want)
			}
		})
	}
	wg.Wait()
	for _, p := range parts {
		for inode, refs := range p.holders {
			found.holders[inode] = append(found.holders[inode], refs...)
		}
		for uid, n := range p.hidden {
			found.hidden[uid] += n
		}
		maps.Copy(found.pollers, p.pollers)
	}
	return found, nil
}

// lookInto notes what one process holds of want.
func (d descriptors) lookInto(pid int, want map[uint64]bool) {
	dir := "/proc/" + strconv.Itoa(pid)
	seen, denied := d.look(pid, dir+"/fd", want)
	// A zombie shows no descriptor, and belongs to root. If only its main
	// thread has ended, the table is still there and is seen through the others.
	if seen == 0 && zombieLeader(dir) {
		threads, err := os.ReadDir(dir + "/task")
		if err != nil {
			return
		}
		for _, t := range threads {
			if t.Name() != strconv.Itoa(pid) {
				_, denied = d.look(pid, dir+"/task/"+t.Name()+"/fd", want)
				break
			}
		}
	}
	if denied {
		var st unix.Stat_t
		if unix.Stat(dir, &st) == nil {
			d.hidden[st.Uid]++
		}
	}
}

// look notes what one fd directory holds of want. It says how many
// descriptors there are, and whether they were forbidden to us.
func (d descriptors) look(pid int, dir string, want map[uint64]bool) (seen int, denied bool) {
	f, err := os.Open(dir)
	if err != nil {
		return 0, isAny(err, unix.EACCES, unix.EPERM)
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil && len(names) == 0 {
		return 0, isAny(err, unix.EACCES, unix.EPERM)
	}
	at := int(f.Fd()) // a directory: no O_NONBLOCK to lose
	var poll poller
	holds := false
	var buf [64]byte // "socket:[18446744073709551615]" is 29; what is longer is no socket
	for _, name := range names {
		n, err := unix.Readlinkat(at, name, buf[:])
		if err != nil {
			if err == unix.EACCES || err == unix.EPERM {
				// Root in a smaller capability set than the process: the numbers
				// are shown, what they are is not.
				return len(names), true
			}
			continue
		}
		inode, ok := socketInode(buf[:n])
		switch {
		case ok && want[inode]:
			if fd, err := strconv.Atoi(name); err == nil {
				d.holders[inode] = append(d.holders[inode], reference{pid, fd})
				holds = true
			}
		case !ok && string(buf[:n]) == "anon_inode:[eventpoll]":
			if fd, err := strconv.Atoi(name); err == nil {
				poll.epolls = append(poll.epolls, fd)
			}
		case !ok && string(buf[:n]) == "anon_inode:[io_uring]":
			poll.uring = true
		}
	}
	if holds {
		d.pollers[pid] = poll
	}
	return len(names), false
}

// socketInode reads "socket:[N]".
func socketInode(link []byte) (uint64, bool) {
	const head = "socket:["
	if len(link) < len(head)+2 || string(link[:len(head)]) != head || link[len(link)-1] != ']' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(link[len(head):len(link)-1]), 10, 64)
	return n, err == nil
}

// zombieLeader says that the main thread of the process has ended.
func zombieLeader(dir string) bool {
	b, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return false
	}
	p, err := parseStat(b)
	return err == nil && p.State == "Z" && p.Threads > 1
}

// listPIDs gives every process of /proc in rising order.
func listPIDs() ([]int, error) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("cannot list processes: %w", err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("cannot list processes: reading /proc: %w", err)
	}
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids, nil
}

// hidepid says that /proc is mounted so that it leaves out the processes of
// other users (hidepid=2 or invisible, proc(5)).
func hidepid() bool {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 10 || f[4] != "/proc" {
			continue
		}
		for _, opt := range strings.Split(f[len(f)-1], ",") {
			if v, ok := strings.CutPrefix(opt, "hidepid="); ok && (v == "2" || v == "4" || v == "invisible" || v == "ptraceable") {
				return true
			}
		}
	}
	return false
}

func isAny(err error, targets ...error) bool {
	return slices.ContainsFunc(targets, func(t error) bool { return errors.Is(err, t) })
}
