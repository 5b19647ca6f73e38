package supervisor

import (
	"encoding/hex"
	"fmt"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor/logs"
	"github.com/supervise/supervise/supervisor/proc"
	"github.com/supervise/supervise/supervisor/ready"
)

// spareAfter is how long after a generation was executed, and again after it
// became ready, the next one is prepared: not while the machine is busy with the
// new server's first steps or first clients.
const spareAfter = 100 * time.Millisecond

// prepareSpare makes what the next generation will need and does not depend
// on when it starts: notify socket, output pipes, cgroup, a thread with the filter. When the current one
// crashes, clients wait; what has been done by then they need not wait for (it
// is half of the time from a death to the next main). It costs a few
// descriptors and no wake-up.
func (l *loop) prepareSpare() {
	next := l.s.lastN + 1
	if l.spare != nil && l.spare.n == next || l.s.frontGen() == nil || l.s.state == stopping {
		return
	}
	l.dropSpare()
	// What starting left behind in the heap is given back, once for each
	// generation: a fifth of our memory, and nothing happens now anyway.
	l.children.Go(debug.FreeOSMemory)
	in := &instance{n: next, pidfd: -1, access: "all"}
	err := l.prepare(in)
	if err == nil && (l.cfg.Output == "" || l.cfg.Output == "inherit" || l.cfg.Output == "prefix") {
		// A file may have been renamed by the time of the start; it is opened then.
		in.output, err = logs.New(l.outputOptions(in))
	}
	if err == nil && l.intercepts() {
		in.cradle, err = newCradle()
	}
	l.spare = in
	if err != nil {
		l.log.Debug("cannot prepare the next generation yet", "generation", next, "error", err)
		l.dropSpare()
	}
}

// prepare makes what of a generation can be made ahead of its start. What is
// there already stays.
func (l *loop) prepare(in *instance) error {
	if in.tree != nil {
		return nil
	}
	var id [16]byte
	if _, err := unix.Getrandom(id[:], 0); err != nil { // 0.2 ms cheaper than the first use of crypto/rand
		return fmt.Errorf("cannot make an invocation id: %w", err)
	}
	in.marker = hex.EncodeToString(id[:])
	var err error
	if in.notify, err = ready.ListenNotify(l.runDir, fmt.Sprintf("%s.%d", l.cfg.Name, in.n)); err != nil {
		return err
	}
	in.tree = proc.NewTree(proc.TreeConfig{
		Name: l.cfg.Name, Generation: in.n, Marker: in.marker, UseCgroup: l.cfg.Cgroup,
		Sole:   func() bool { return len(l.instances) == 1 },
		Others: func() []int { return l.otherPids(in) },
	})
	return nil
}

// takeSpare gives the prepared instance if there is one for this generation,
// else an empty one.
func (l *loop) takeSpare(gen int) *instance {
	if in := l.spare; in != nil && in.n == gen {
		l.spare = nil
		return in
	}
	return &instance{n: gen, pidfd: -1, access: "all"}
}

// dropSpare gives back what was prepared.
func (l *loop) dropSpare() {
	in := l.spare
	if in == nil {
		return
	}
	l.spare = nil
	if in.cradle != nil {
		in.cradle.close()
	}
	if in.output != nil {
		in.output.Started() // nobody will be
		_ = in.output.Close()
	}
	if in.tree != nil {
		_ = in.tree.Close()
	}
	if in.notify != nil {
		_ = in.notify.Close()
	}
}
