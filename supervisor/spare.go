package supervisor

import (
	"encoding/hex"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor/config"
	"github.com/supervise/supervise/supervisor/proc"
	"github.com/supervise/supervise/supervisor/ready"
)

// spareAfter is how long after a generation was executed, and again after it
// became ready, the next one is prepared: not while the machine is busy with the
// new server's first steps or first clients.
const spareAfter = 100 * time.Millisecond

// tidyAfter is how long after the last start memory is given back.
const tidyAfter = 10 * time.Millisecond

// spareServices is up to how many services the next generation of each is made
// ahead: it costs a few descriptors and a sleeping thread.
const spareServices = 32

// prepareSpare makes what the next generation will need and does not depend
// on when it starts: notify socket, output pipes, cgroup, a thread with the filter. When the current one
// crashes, clients wait; what has been done by then they need not wait for (it
// is half of the time from a death to the next main). It costs a few
// descriptors and no wake-up.
func (r *runner) prepareSpare() {
	next := r.s.lastN + 1
	if r.spare != nil && r.spare.n == next || r.s.frontGen() == nil || r.s.state == stopping {
		return
	}
	r.dropSpare()
	// What starting left behind in the heap is given back: a fifth of our
	// memory, and nothing happens now anyway.
	r.timers.set(&r.tidy, time.Now().Add(tidyAfter))
	if len(r.runners) > spareServices {
		return
	}
	in := &instance{of: r, n: next, pidfd: -1, access: r.access()}
	err := r.prepare(in)
	if err == nil {
		in.output, err = r.newOutput(in)
	}
	if err == nil && r.intercepts() {
		in.cradle, err = newCradle()
	}
	r.spare = in
	if err != nil {
		r.log.Debug("cannot prepare the next generation yet", "generation", next, "error", err)
		r.dropSpare()
	}
}

// prepare makes what of a generation can be made ahead of its start. What is
// there already stays.
func (r *runner) prepare(in *instance) error {
	if in.tree != nil {
		return nil
	}
	var id [16]byte
	if _, err := unix.Getrandom(id[:], 0); err != nil { // 0.2 ms cheaper than the first use of crypto/rand
		return fmt.Errorf("cannot make an invocation id: %w", err)
	}
	in.marker = hex.EncodeToString(id[:])
	var err error
	if in.notify, err = ready.ListenNotify(r.runDir, fmt.Sprintf("%s.%d", r.cfg.Name, in.n)); err != nil {
		return err
	}
	in.tree = proc.NewTree(proc.TreeConfig{
		Name: r.cfg.Name, Generation: in.n, Marker: in.marker, UseCgroup: r.cfg.Cgroup,
		Sole:   func() bool { return len(r.instances) == 1 },
		Others: func() []int { return r.otherPids(in) },
	})
	return nil
}

// access is whose notify messages count: NotifyAccess=, or what it is by
// default. Where nothing depends on them, everybody's of the service do.
func (r *runner) access() string {
	switch {
	case r.cfg.NotifyAccess != "":
		return string(r.cfg.NotifyAccess)
	case r.cfg.At.File != "" && (r.cfg.Type == config.Notify || r.cfg.Type == config.NotifyReload):
		return string(config.NotifyMain)
	}
	return string(config.NotifyAll)
}

// takeSpare gives the prepared instance if there is one for this generation,
// else an empty one.
func (r *runner) takeSpare(gen int) *instance {
	if in := r.spare; in != nil && in.n == gen {
		r.spare = nil
		return in
	}
	return &instance{of: r, n: gen, pidfd: -1, access: r.access()}
}

// dropAhead gives back a cradle that no first child was born in.
func (r *runner) dropAhead() {
	if r.ahead == nil {
		return
	}
	if c := <-r.ahead; c != nil {
		c.close()
	}
	r.ahead = nil
}

// dropSpare gives back what was prepared.
func (r *runner) dropSpare() {
	in := r.spare
	if in == nil {
		return
	}
	r.spare = nil
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
