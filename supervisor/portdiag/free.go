package portdiag

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// RefusedError says why Evict leaves a holder alone, and what to do instead.
type RefusedError struct {
	Why     string
	Command string // what to use instead, "" if there is nothing
}

func (e *RefusedError) Error() string { return "cannot free the address: " + e.Why }

// Eviction are the bounds of Evict.
type Eviction struct {
	Grace time.Duration // from SIGTERM to SIGKILL; 0 is 10 s
	Kill  bool          // SIGKILL when the grace is over; else that is an error
	// Step is told what is done, in a few words; may be nil.
	Step func(string)
}

// Evictable says which process Evict would end for r, or why none: it refuses
// pid 1, itself and its ancestors, the kernel's sockets, what systemd, a
// container or a supervisor of ours would start again, and what our rights do
// not reach.
func Evictable(r Report) (Process, error) {
	refuse := func(why string) (Process, error) {
		e := &RefusedError{Why: why}
		for _, m := range r.Remedies {
			if m.Command != "" {
				e.Command = m.Command
				break
			}
		}
		return Process{}, e
	}
	switch r.Verdict {
	case Available:
		return refuse("nobody holds it")
	case Refused, Unknown:
		return refuse(r.Sentence)
	}
	if r.Cause == UnixDead {
		return refuse("no process has the socket file")
	}
	p, ok := r.victim()
	if !ok {
		if r.Has(HiddenOwner) {
			return refuse("its owner cannot be seen with our rights")
		}
		return refuse("no process holds it")
	}
	for _, f := range r.Findings {
		switch f.Cause {
		case Supervised, SystemdSocket, KernelSocket:
			return refuse(f.Text) // whoever borrows it: its owner is not to be ended for it
		case SystemdUnit, InContainer, Forwarder:
			if f.PID == p.PID {
				return refuse(f.Text)
			}
		}
	}
	if p.PID == 1 {
		return refuse("pid 1 holds it")
	}
	all := readTable()
	for pid := os.Getpid(); pid > 0; pid = all[pid].PPID {
		if pid == p.PID {
			return refuse(fmt.Sprintf("pid %d is this command or what started it", pid))
		}
	}
	if uid := os.Geteuid(); uid != 0 && uint32(uid) != p.UID {
		return refuse(fmt.Sprintf("pid %d belongs to user %s", p.PID, p.User))
	}
	return p.Process, nil
}

// Evict ends the process p that Evictable gave for r: SIGTERM, the grace,
// SIGKILL. Signals go through a pidfd that is checked against what r showed
// (start time, and that it still has the socket), so that they reach this
// process or none. A process that is gone already is no error.
func Evict(ctx context.Context, r Report, p Process, how Eviction) error {
	step := how.Step
	if step == nil {
		step = func(string) {}
	}
	if how.Grace <= 0 {
		how.Grace = 10 * time.Second
	}
	if p.PID <= 1 {
		return &RefusedError{Why: fmt.Sprintf("pid %d is none to end", p.PID)}
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot end pid %d: opening it: %w", p.PID, err)
	}
	defer unix.Close(fd)
	if !p.same() {
		return nil // that pid is another process by now
	}
	if !r.stillHeldBy(p) {
		return &RefusedError{Why: fmt.Sprintf("pid %d no longer holds it", p.PID)}
	}
	step(fmt.Sprintf("SIGTERM to pid %d", p.PID))
	if err := sendSignal(fd, unix.SIGTERM); err != nil {
		return fmt.Errorf("cannot end pid %d: SIGTERM: %w", p.PID, err)
	}
	// A stopped process gets its SIGTERM only when it goes on.
	if p.State == "T" {
		if err := sendSignal(fd, unix.SIGCONT); err != nil {
			return fmt.Errorf("cannot end pid %d: SIGCONT: %w", p.PID, err)
		}
	}
	ended, err := waitEnd(ctx, fd, how.Grace)
	if err != nil || ended {
		return err
	}
	if !how.Kill {
		return fmt.Errorf("cannot end pid %d: it did not end within %v of SIGTERM", p.PID, how.Grace)
	}
	step(fmt.Sprintf("SIGKILL to pid %d, which did not end within %v", p.PID, how.Grace))
	if err := sendSignal(fd, unix.SIGKILL); err != nil {
		return fmt.Errorf("cannot end pid %d: SIGKILL: %w", p.PID, err)
	}
	ended, err = waitEnd(ctx, fd, how.Grace)
	if err == nil && !ended {
		err = fmt.Errorf("cannot end pid %d: it did not end within %v of SIGKILL", p.PID, how.Grace)
	}
	return err
}

// stillHeldBy says that the process has one of the sockets of the report open.
func (r Report) stillHeldBy(p Process) bool {
	want := map[uint64]bool{}
	for _, h := range r.Holders {
		if slices.ContainsFunc(h.Processes, func(q Process) bool { return q.PID == p.PID }) && h.Inode != 0 {
			want[h.Inode] = true
		}
	}
	found := newDescriptors()
	found.lookInto(p.PID, want)
	return len(found.holders) > 0
}

// sendSignal sends through a pidfd. A process that has ended is no error.
func sendSignal(pidfd int, sig unix.Signal) error {
	if err := unix.PidfdSendSignal(pidfd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

// waitEnd waits until the process of the pidfd has ended.
func waitEnd(ctx context.Context, pidfd int, bound time.Duration) (bool, error) {
	end := time.Now().Add(bound)
	for {
		// In slices, so that the context is seen.
		left := min(time.Until(end), 100*time.Millisecond)
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(max(left, 0)/time.Millisecond)+1)
		switch {
		case err != nil && err != unix.EINTR:
			return false, fmt.Errorf("cannot wait for the process: %w", err)
		case n > 0:
			return true, nil
		case ctx.Err() != nil:
			return false, ctx.Err()
		case time.Now().After(end):
			return false, nil
		}
	}
}

// IsFree says that a server that sets SO_REUSEADDR, as nearly all do, could
// have the address now.
func IsFree(t Target) (bool, error) {
	r, err := Explain(Ask{Target: t})
	if err != nil {
		return false, err
	}
	return r.Verdict == Available || r.Verdict == NeedsReuseAddr && r.Cause != BoundOnly, nil
}

// waitInterval is how often WaitFree looks. The kernel sends no news of an
// address that becomes free.
const waitInterval = 50 * time.Millisecond

// WaitFree waits until IsFree, or gives the error of the context.
func WaitFree(ctx context.Context, t Target) error {
	tick := time.NewTicker(waitInterval)
	defer tick.Stop()
	for {
		free, err := quickFree(t)
		if err != nil || free {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// quickFree is IsFree at the cost of two system calls while a TCP address is
// held.
func quickFree(t Target) (bool, error) {
	if t.Network == "tcp" && try("", t.Network, t.Addr, trialSet{reuseAddr: true, v6only: t.V6Only}).err == unix.EADDRINUSE {
		return false, nil
	}
	return IsFree(t)
}
