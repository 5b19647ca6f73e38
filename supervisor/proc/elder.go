package proc

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ElderTree is the tree of a process that somebody else started: it and its
// descendants, as far as they have been seen; no orphan of it comes to us. A
// signal goes to the main process alone, as from kill(1): it knows what to do
// with the others. pidfd is borrowed until MainReaped.
func ElderTree(cfg TreeConfig, pid, pidfd int) *Tree {
	t := newTree(cfg)
	t.elder = true
	t.SetMain(pid, pidfd)
	return t
}

// elders returns the living processes of an elder's tree, the main one first.
func (t *Tree) elders() ([]int, error) {
	living := map[int]uint64{}
	var below func(pid int) error
	below = func(pid int) error {
		s, err := t.read.stat(pid)
		if err != nil || s.dead() || living[pid] != 0 {
			return nil // gone is no error
		}
		if start, known := t.known[pid]; known && start != s.start {
			return nil // a number that changed hands
		}
		living[pid] = s.start
		return t.read.children(pid, func(c int) { _ = below(c) })
	}
	var err error
	for pid := range t.known {
		err = errors.Join(err, below(pid))
	}
	t.known = living
	pids := make([]int, 0, len(living))
	for pid := range living {
		pids = append(pids, pid)
	}
	mainFirst(pids, t.main)
	return pids, err
}

// killElders sends SIGKILL to what is left of an elder's tree.
func (t *Tree) killElders() (left int, err error) {
	pids, err := t.elders()
	for _, pid := range pids {
		pidfd, openErr := Open(pid)
		if openErr != nil {
			continue // gone
		}
		if s, statErr := t.read.stat(pid); statErr == nil && s.start == t.known[pid] {
			if sigErr := Signal(pidfd, unix.SIGKILL); sigErr != nil && !errors.Is(sigErr, unix.ESRCH) {
				err = errors.Join(err, fmt.Errorf("cannot kill process %d: %w", pid, sigErr))
			}
		}
		_ = unix.Close(pidfd)
	}
	return len(pids), err
}
