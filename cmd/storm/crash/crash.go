// Package crash kills a server the hard way, and tells afterwards which failed
// connections it took with it.
//
// When a server is killed, the connections that it has accepted are lost, and
// nobody can help that. Those that are still in the kernel's queue need not be
// lost. To the client both look alike, so Kill looks into the process: it is
// stopped (SIGSTOP), the peers of all its sockets are read (pidfd_getfd(2),
// getpeername(2)), and then it is killed, never having run in between. The
// account is therefore exact, at the cost of about a millisecond of standing
// still. Accepted is the other way, for a kill with no stop before it.
//
// Only processes that descend from one that the caller started are signalled,
// by pidfd, so a pid that is used anew is never hit.
package crash

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// bound of each wait for the kernel to stop, or to end, a process.
const bound = 10 * time.Second

// Death is the end of one process.
type Death struct {
	Pid     int
	Stopped time.Time // it did nothing after this
	Ended   time.Time
	Clock   uint64 // CLOCK_MONOTONIC of Stopped in ns, to compare with other processes

	taken    map[string]bool // peers of its sockets
	accepted *Accepted
}

// Kill stops, examines and kills pid, a descendant of root.
func Kill(root, pid int) (Death, error) {
	d := Death{Pid: pid, taken: map[string]bool{}}
	pidfd, err := open(root, pid)
	if err != nil {
		return d, err
	}
	defer unix.Close(pidfd)
	if err := signal(pidfd, pid, unix.SIGSTOP); err != nil {
		return d, err
	}
	if err := awaitStop(pid); err != nil {
		return d, errors.Join(err, signal(pidfd, pid, unix.SIGKILL))
	}
	d.Stopped, d.Clock = time.Now(), monotonic()
	peersErr := d.peers(pidfd)
	if err := signal(pidfd, pid, unix.SIGKILL); err != nil {
		return d, errors.Join(peersErr, err)
	}
	err = awaitEnd(pidfd, pid)
	d.Ended = time.Now()
	return d, errors.Join(peersErr, err)
}

// KillNoted kills pid, a descendant of root, with nothing before it. What it
// had accepted is read from a, where it noted it itself; with a nil Accepted
// nothing is known of that.
func KillNoted(root, pid int, a *Accepted) (Death, error) {
	d := Death{Pid: pid, accepted: a}
	pidfd, err := open(root, pid)
	if err != nil {
		return d, err
	}
	defer unix.Close(pidfd)
	d.Stopped, d.Clock = time.Now(), monotonic()
	if err := signal(pidfd, pid, unix.SIGKILL); err != nil {
		return d, err
	}
	err = awaitEnd(pidfd, pid)
	d.Ended = time.Now()
	return d, err
}

// Took says whether the connection whose client end was local, which was opened
// at began or soon after and failed at ended, had been accepted by the dead process and
// died with it.
func (d *Death) Took(local string, began, ended time.Time) bool {
	if local == "" || ended.Before(d.Stopped) {
		return false
	}
	if d.accepted != nil {
		pid, at := d.accepted.at(local)
		since := d.Clock - uint64(max(d.Stopped.Sub(began), 0))
		return pid == uint64(d.Pid) && at >= since
	}
	return d.taken[local] && !began.After(d.Stopped)
}

// open gives a pidfd of pid, which must descend from root.
func open(root, pid int) (int, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, fmt.Errorf("cannot open process %d: %w", pid, err)
	}
	// Looked at after the pidfd was opened: if it is the right one now, then
	// it was when it was opened, unless it is dead, and then no signal goes
	// anywhere.
	if ok, err := Descends(pid, root); err != nil || !ok {
		unix.Close(pidfd)
		if err == nil {
			err = fmt.Errorf("cannot kill process %d: it does not descend from %d, which was started here", pid, root)
		}
		return -1, err
	}
	return pidfd, nil
}

func signal(pidfd, pid int, s unix.Signal) error {
	if err := unix.PidfdSendSignal(pidfd, s, nil, 0); err != nil {
		return fmt.Errorf("cannot send %s to process %d: %w", unix.SignalName(s), pid, err)
	}
	return nil
}

// Descends says whether pid is a descendant of root, which it is not itself.
func Descends(pid, root int) (bool, error) {
	// 64 is far more than any process tree here is deep; it bounds a chain
	// that changes while it is read.
	for range 64 {
		_, ppid, err := stat(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
		if err != nil {
			return false, err
		}
		if ppid == root {
			return true, nil
		}
		if ppid <= 1 {
			return false, nil
		}
		pid = ppid
	}
	return false, fmt.Errorf("cannot follow the parents of process %d", pid)
}

// stat reads the state and the parent from a stat file of proc(5). The name
// before them may contain anything, so they come after the last parenthesis.
func stat(path string) (state byte, ppid int, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, err
	}
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 2 {
		return 0, 0, fmt.Errorf("cannot read %s: %.80q", path, text)
	}
	ppid, err = strconv.Atoi(string(fields[1]))
	return fields[0][0], ppid, err
}

// awaitStop waits until every thread of pid has stopped. There is no news of
// that for anybody but the parent, so it is asked for again and again.
func awaitStop(pid int) error {
	for end := time.Now().Add(bound); time.Now().Before(end); time.Sleep(100 * time.Microsecond) {
		threads, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "task", "*", "stat"))
		if err != nil {
			return err
		}
		stopped := 0
		for _, t := range threads {
			if state, _, err := stat(t); err == nil && (state == 'T' || state == 'Z' || state == 'X') {
				stopped++
			}
		}
		if len(threads) > 0 && stopped == len(threads) {
			return nil
		}
	}
	return fmt.Errorf("cannot stop process %d within %v", pid, bound)
}

func awaitEnd(pidfd, pid int) error {
	end := time.Now().Add(bound)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(time.Until(end).Milliseconds()))
		if err == unix.EINTR && time.Now().Before(end) {
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot wait for process %d: %w", pid, err)
		}
		if n == 0 {
			return fmt.Errorf("cannot wait for process %d: alive %v after SIGKILL", pid, bound)
		}
		return nil
	}
}

// peers notes the peers of all connected sockets of a stopped process.
func (d *Death) peers(pidfd int) error {
	dir := filepath.Join("/proc", strconv.Itoa(d.Pid), "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		link, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil || !strings.HasPrefix(link, "socket:") {
			continue
		}
		number, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		fd, err := unix.PidfdGetfd(pidfd, number, 0)
		if err != nil {
			return fmt.Errorf("cannot look at descriptor %d of process %d: %w", number, d.Pid, err)
		}
		peer, err := unix.Getpeername(fd)
		unix.Close(fd)
		if err != nil {
			continue // ENOTCONN: a listener, or a client that has gone
		}
		switch a := peer.(type) {
		case *unix.SockaddrInet4:
			d.taken[netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)).String()] = true
		case *unix.SockaddrInet6:
			d.taken[netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port)).String()] = true
		case *unix.SockaddrUnix:
			d.taken[a.Name] = true
		}
	}
	return nil
}
