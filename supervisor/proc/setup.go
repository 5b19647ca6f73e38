package proc

import (
	"fmt"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/handoff/shim/nofile"
)

// Info is what Setup found and did.
type Info struct {
	PID1      bool // we are the init of a pid namespace: all orphans of it are ours
	Subreaper bool // orphans of our descendants come to us (PR_SET_CHILD_SUBREAPER)

	// RLIMIT_NOFILE as we were started with it, before Go's runtime raised
	// it; 0 if unknown.
	NofileSoft, NofileHard uint64
}

// Setup is the first thing that main does: it marks all descriptors beyond 2
// close-on-exec, except those of keep, and makes this process the parent of its orphaned descendants.
// An error leaves Info valid: without a subreaper the supervisor works, but
// daemons that lose their parent escape it.
func Setup(keep ...int) (Info, error) {
	info := Info{PID1: os.Getpid() == 1}
	info.NofileSoft, info.NofileHard, _ = nofile.Original()
	errFD := closeOnExec(keep)
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return info, fmt.Errorf("cannot become subreaper: %w", err)
	}
	info.Subreaper = true
	return info, errFD
}

func closeOnExec(keep []int) error {
	keep = slices.Sorted(slices.Values(keep))
	first := uint(3)
	for _, fd := range keep {
		if fd < int(first) {
			continue
		}
		if err := rangeCloseOnExec(first, uint(fd)-1); err != nil {
			return err
		}
		first = uint(fd) + 1
	}
	return rangeCloseOnExec(first, uint(^uint32(0)))
}

// rangeCloseOnExec marks first to last, inclusive.
func rangeCloseOnExec(first, last uint) error {
	if first > last {
		return nil
	}
	err := unix.CloseRange(first, last, unix.CLOSE_RANGE_CLOEXEC)
	if err != unix.EINVAL && err != unix.ENOSYS {
		if err != nil {
			return fmt.Errorf("cannot mark descriptors close-on-exec: %w", err)
		}
		return nil
	}
	// Linux 5.10 has close_range(2) without the flag.
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("cannot mark descriptors close-on-exec: %w", err)
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && uint(fd) >= first && uint(fd) <= last {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}
