package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor/config"
	"github.com/supervise/supervise/supervisor/control"
	"github.com/supervise/supervise/supervisor/logs"
)

// desk is the loop's side of the control socket: it implements
// control.Backend. A request is a goroutine of the server; whatever it wants to
// know or to have done is posted to the loop, which answers by channels and never
// waits for a client.
type desk struct {
	l       *loop
	server  *control.Server
	notes   *notebook
	version func() string // may be nil
	since   time.Time

	// Of the loop.
	asks    map[int]chan string // who waits for actAnswer
	lastAsk int
	waiting []*waiter
}

// waiter waits for a service to be in a certain state.
type waiter struct {
	done   func() (over bool, failure string)
	result chan string
}

// NoControl as path of the control socket asks for none.
const NoControl = "none"

// acceptAgain is when it is tried again to take control connections for which
// there was no descriptor.
const acceptAgain = time.Second

// closeGrace is how long clients have at the end to hear how it ended.
const closeGrace = 500 * time.Millisecond

// openDesk opens the control socket. Where it was asked for by path, not to get
// it is an error; otherwise it is told, and we go on without: a second
// supervisor of a name, or a container where nothing can be written, must run.
func (l *loop) openDesk(o Options) error {
	if o.Control == NoControl {
		return nil
	}
	var end *control.Endpoint
	var taken *control.TakenError
	var err error
	name := l.name()
	if len(l.runners) > 0 && l.runners[0].crew != nil {
		name = l.runners[0].crew.name
	}
	if o.Control != "" {
		if end, err = control.Listen(o.Control, o.ControlGroup); err != nil {
			e := &StartError{Status: ExitUsage, Err: err}
			if errors.As(err, &taken) {
				e.Status, e.Hint = ExitUnavailable, "give this one another path by --control, or end the other one"
			}
			return e
		}
	} else if end, taken, err = control.ListenName(name, o.ControlGroup); err != nil {
		l.log.Info("no control socket: status, rollout and the other verbs cannot reach this supervisor, signals do", "error", err)
		return nil
	} else if taken != nil {
		l.log.Warn("another supervisor has the control socket of this name, ours has a number; --name tells them apart",
			"control", end.Path(), "taken", taken.Path, "by_pid", taken.PID)
	}
	d := l.desk
	d.server = control.NewServer(end, d, control.Options{Group: o.ControlGroup})
	if err := l.poll.add(d.server.FD(), unix.EPOLLIN, d.accept); err != nil {
		return &StartError{Status: ExitSoftware, Err: err}
	}
	l.log.Debug("control socket", "control", end.Path())
	return nil
}

func (d *desk) accept() {
	if err := d.server.Accept(); err != nil {
		d.l.log.Warn("control connections wait", "error", err)
		d.l.poll.remove(d.server.FD())
		d.l.after(acceptAgain, func() {
			if err := d.l.poll.add(d.server.FD(), unix.EPOLLIN, d.accept); err != nil {
				d.l.log.Error("the control socket is dead", "error", err)
			}
		})
	}
}

// close answers everybody who waits, and closes the socket.
func (d *desk) close() {
	d.look()
	for _, w := range d.waiting {
		w.result <- "the supervisor is ending"
	}
	for _, c := range d.asks {
		c <- "the supervisor is ending"
	}
	d.waiting, d.asks = nil, nil
	if d.server == nil {
		return
	}
	if err := d.server.Close(closeGrace); err != nil {
		d.l.log.Debug("cannot close the control socket", "error", err)
	}
}

// ask makes a number that is answered by actAnswer, into the channel.
func (d *desk) ask() (int, chan string) {
	if d.asks == nil {
		d.asks = map[int]chan string{}
	}
	d.lastAsk++
	c := make(chan string, 1)
	d.asks[d.lastAsk] = c
	return d.lastAsk, c
}

// answered passes an answer of the machine on.
func (r *runner) answered(a actAnswer) {
	for _, n := range a.asks {
		if c := r.desk.asks[n]; c != nil {
			delete(r.desk.asks, n)
			c <- a.failure
		}
	}
}

// wait has done looked at after each event until it is over.
func (d *desk) wait(done func() (bool, string)) chan string {
	w := &waiter{done: done, result: make(chan string, 1)}
	d.waiting = append(d.waiting, w)
	return w.result
}

// look looks at what is waited for.
func (d *desk) look() {
	d.waiting = slices.DeleteFunc(d.waiting, func(w *waiter) bool {
		over, failure := w.done()
		if over {
			w.result <- failure
		}
		return over
	})
}

var errEnding = control.Errorf(control.Unavailable, "the supervisor is ending")

// call has f called by the loop and waits for it.
func (d *desk) call(f func()) error {
	done := make(chan struct{})
	d.l.poll.post(func() {
		defer close(done)
		f()
	})
	select {
	case <-done:
		return nil
	case <-d.l.over:
		return errEnding
	}
}

// find gives the services of names, all when there are none.
func (l *loop) find(names []string) ([]*runner, error) {
	if len(names) == 0 {
		return l.runners, nil
	}
	var found []*runner
	for _, name := range names {
		n := len(found)
		plain := strings.TrimSuffix(name, ".service")
		for _, r := range l.runners {
			if (r.cfg.Name == plain || r.crew != nil && r.crew.name == plain) && !slices.Contains(found, r) {
				found = append(found, r)
			}
		}
		if len(found) == n && !slices.ContainsFunc(found, func(r *runner) bool { return r.cfg.Name == plain || r.crew != nil && r.crew.name == plain }) {
			e := control.Errorf(control.NoSuchService, "there is no service %q", name)
			e.Service, e.Hint = name, "there is "+strings.Join(l.serviceNames(), ", ")
			return nil, e
		}
	}
	return found, nil
}

func (l *loop) serviceNames() []string {
	var names []string
	for _, r := range l.runners {
		names = append(names, r.cfg.Name)
	}
	return names
}

// Names implements control.Backend.
func (d *desk) Names(context.Context) (names []string, err error) {
	var found []string
	if err := d.call(func() { found = d.l.serviceNames() }); err != nil {
		return nil, err
	}
	return found, nil
}

// pendingResult is one service whose part of a command is under way.
type pendingResult struct {
	service string
	result  chan string
}

// Do implements control.Backend.
func (d *desk) Do(ctx context.Context, c control.Command, step func(control.Event)) error {
	var sig syscall.Signal
	switch c.Verb {
	case control.VerbKill:
		var err error
		if c.Signal == "" {
			c.Signal = "TERM"
		}
		if sig, err = config.ParseSignal(c.Signal); err != nil {
			return control.Errorf(control.BadRequest, "%v", err)
		}
	case control.VerbUpgrade:
		return control.Errorf(control.Unsupported, "upgrading the supervisor in place is not supported yet")
	case control.VerbRollout, control.VerbReload, control.VerbRestart, control.VerbStop, control.VerbStart, control.VerbPause, control.VerbResume:
	default:
		return control.Errorf(control.BadRequest, "unknown verb %q", c.Verb)
	}
	type begun struct {
		waits []pendingResult
		err   error
		f     *follower
	}
	started := make(chan begun, 1)
	if err := d.call(func() {
		found, err := d.l.find(c.Services)
		if err != nil {
			started <- begun{err: err}
			return
		}
		var names []string
		for _, r := range found {
			names = append(names, r.cfg.Name)
		}
		b := begun{f: d.notes.follow(names)}
		b.waits, b.err = d.begin(c, sig, found)
		d.l.decide()
		started <- b
	}); err != nil {
		return err
	}
	b := <-started
	if b.f == nil {
		return b.err
	}
	defer d.notes.unfollow(b.f)
	var errs []error
	if b.err != nil {
		errs = append(errs, b.err)
	}
	if !c.NoWait {
		for _, w := range b.waits {
			failure, err := d.await(ctx, b.f, w.result, step)
			if err != nil {
				return err
			}
			if failure != "" {
				errs = append(errs, &control.Error{Code: control.Failed, Message: failure, Service: w.service})
			}
		}
	}
	for len(b.f.queue) > 0 {
		step(<-b.f.queue)
	}
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}

// await passes on what happens until there is a result.
func (d *desk) await(ctx context.Context, f *follower, result chan string, step func(control.Event)) (failure string, err error) {
	for {
		select {
		case e := <-f.queue:
			if n := d.notes.takeLost(f); n > 0 {
				step(lostEvent(n))
			}
			step(e)
		case failure = <-result:
			return failure, nil
		case <-ctx.Done():
			return "", errEnding
		}
	}
}

// begin has the loop do what was asked for.
func (d *desk) begin(c control.Command, sig syscall.Signal, found []*runner) (waits []pendingResult, err error) {
	var errs []error
	crews := map[*crew]map[*runner]int{}
	for _, r := range found {
		name := r.cfg.Name
		fail := func(code control.Code, err error) {
			errs = append(errs, &control.Error{Code: code, Message: err.Error(), Service: name})
		}
		wait := func(result chan string) { waits = append(waits, pendingResult{name, result}) }
		switch c.Verb {
		case control.VerbRollout, control.VerbReload:
			n, result := d.ask()
			wait(result)
			if whole(r.crew, found) {
				if crews[r.crew] == nil {
					crews[r.crew] = map[*runner]int{}
				}
				crews[r.crew][r] = n
				continue
			}
			r.reload(evReload{cause: c.Cause(), rollout: c.Verb == control.VerbRollout, asks: []int{n}})
		case control.VerbRestart:
			n, result := d.ask()
			wait(result)
			r.restart(evRestart{cause: c.Cause(), asks: []int{n}})
		case control.VerbStop:
			wait(d.wait(r.atRest))
			stop := evStop{cause: c.Cause(), stays: true}
			if r.resting() {
				r.send(stop)
			} else {
				d.l.order.end(r, stop)
			}
		case control.VerbStart:
			if r.s.state == stopping {
				fail(control.Conflict, errors.New("it is being stopped"))
				continue
			}
			d.l.order.begin(r)
			wait(d.wait(r.cameUp))
		case control.VerbKill:
			if err := r.signalAll(sig, c); err != nil {
				fail(control.Failed, err)
			}
		case control.VerbPause:
			how, err := r.holdBack()
			if err != nil {
				fail(control.Conflict, fmt.Errorf("cannot pause %s: %w", name, err))
			} else if how != "" {
				r.send(evPaused{how: how})
			}
		case control.VerbResume:
			r.resume()
		case control.VerbUpgrade:
		}
	}
	for crew, asks := range crews {
		crew.reload(evReload{cause: c.Cause(), rollout: c.Verb == control.VerbRollout}, asks)
	}
	return waits, errors.Join(errs...)
}

// whole reports whether all instances of a service are among found.
func whole(c *crew, found []*runner) bool {
	return c != nil && !slices.ContainsFunc(c.members, func(r *runner) bool { return !slices.Contains(found, r) })
}

// atRest is what a stop waits for.
func (r *runner) atRest() (over bool, failure string) {
	return r.resting() && len(r.s.gens) == 0 && !slices.Contains(r.order.stopping, r), ""
}

// cameUp is what a start waits for.
func (r *runner) cameUp() (over bool, failure string) {
	if r.asked || slices.Contains(r.order.wanted, r) {
		return false, ""
	}
	switch r.s.state {
	case up, replacing:
		return true, ""
	case starting:
		return false, ""
	case stopping:
		return false, ""
	case backoff:
		return true, r.s.lastReason + ", it is tried again"
	case failed:
		return true, r.s.lastReason
	case down:
		switch {
		case r.s.doneOnce:
			return true, ""
		case r.s.stop != nil:
			return true, "it was stopped"
		case r.startError != "":
			return true, r.startError
		}
		return true, "it did not start: see the log"
	case serviceStates:
	}
	return true, "cannot happen"
}

// signalAll sends a signal to all processes of a service.
func (r *runner) signalAll(sig syscall.Signal, c control.Command) error {
	some := false
	for _, in := range r.instances {
		if in.tree == nil || in.pid == 0 || r.nobodyLeft(in) {
			continue
		}
		some = true
		if err := in.tree.Signal(sig, config.KillControlGroup); err != nil {
			return fmt.Errorf("cannot send %s: %w", config.SignalName(sig), err)
		}
	}
	if !some {
		return errors.New("no process of it runs")
	}
	r.log.Info("signal sent", "service", r.cfg.Name, "signal", config.SignalName(sig), "cause", c.Cause())
	return nil
}

// Events implements control.Backend.
func (d *desk) Events(ctx context.Context, q control.EventQuery, each func(control.Event) error) error {
	if err := d.known(q.Services); err != nil {
		return err
	}
	f := d.notes.follow(q.Services)
	defer d.notes.unfollow(f)
	past := slices.DeleteFunc(d.notes.last(), func(e control.Event) bool { return e.Seq <= q.After || !wants(q.Services, e) })
	if q.Last >= 0 {
		past = past[max(0, len(past)-q.Last):]
	}
	seen := q.After
	q.Begun()
	for _, e := range past {
		if err := each(e); err != nil {
			return err
		}
		seen = e.Seq
	}
	for q.Follow {
		select {
		case e := <-f.queue:
			if n := d.notes.takeLost(f); n > 0 {
				if err := each(lostEvent(n)); err != nil {
					return err
				}
			}
			if e.Seq <= seen {
				continue // it came while we looked at the past
			}
			if err := each(e); err != nil {
				return err
			}
		case <-ctx.Done():
			for len(f.queue) > 0 { // the last words of a supervisor that ends
				if err := each(<-f.queue); err != nil {
					return err
				}
			}
			return nil
		}
	}
	return nil
}

func (d *desk) known(names []string) error {
	var unknown error
	if err := d.call(func() { _, unknown = d.l.find(names) }); err != nil {
		return err
	}
	return unknown
}

// source is the output of one generation.
type source struct {
	service string
	n       int
	out     *logs.Output
}

// outputs lists the outputs of living generations, oldest first.
func (d *desk) outputs(names []string) (all []source, err error) {
	var found []source
	var unknown error
	if err := d.call(func() {
		var rs []*runner
		if rs, unknown = d.l.find(names); unknown != nil {
			return
		}
		for _, r := range rs {
			for n, in := range r.instances {
				if in.output != nil && in.pid != 0 {
					found = append(found, source{r.cfg.Name, n, in.output})
				}
			}
		}
	}); err != nil {
		return nil, err
	}
	slices.SortFunc(found, func(a, b source) int {
		if a.service != b.service {
			return strings.Compare(a.service, b.service)
		}
		return a.n - b.n
	})
	return found, unknown
}

// Logs implements control.Backend. What is remembered are the last lines of
// each living generation; of a generation that is gone they are in the events,
// if it failed.
func (d *desk) Logs(ctx context.Context, q control.LogQuery, each func(control.Line) error) error {
	f := d.notes.follow(q.Services) // a generation that starts is an event
	defer d.notes.unfollow(f)
	sources, err := d.outputs(q.Services)
	if err != nil {
		return err
	}
	if len(sources) > 0 && !slices.ContainsFunc(sources, func(s source) bool { return s.out.Captured() }) {
		e := control.Errorf(control.Unsupported, "the output goes to the terminal of the supervisor and is not kept")
		e.Hint = "--output prefix or a file keeps its last lines"
		return e
	}
	var past []control.Line
	seen := map[*logs.Output]uint64{}
	for _, s := range sources {
		lines, _ := s.out.Since(0)
		for _, l := range lines {
			past = append(past, s.line(l))
			seen[s.out] = l.Number
		}
	}
	slices.SortStableFunc(past, func(a, b control.Line) int { return a.Time.Compare(*b.Time) })
	if q.Last >= 0 {
		past = past[max(0, len(past)-q.Last):]
	}
	q.Begun()
	for _, l := range past {
		if err := each(l); err != nil {
			return err
		}
	}
	if !q.Follow {
		return nil
	}
	lines := make(chan control.Line)
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	followed := map[*logs.Output]bool{}
	for {
		for _, s := range sources {
			if !followed[s.out] {
				followed[s.out] = true
				wg.Go(func() { s.follow(ctx, seen[s.out], lines) })
			}
		}
		select {
		case l := <-lines:
			if err := each(l); err != nil {
				return err
			}
			continue
		case <-f.queue:
		case <-ctx.Done():
			return nil
		}
		if sources, err = d.outputs(q.Services); err != nil {
			return nil // it ends
		}
	}
}

func (s source) line(l logs.Line) control.Line {
	at := l.At
	return control.Line{Time: &at, Service: s.service, Generation: s.n, Text: strings.ToValidUTF8(l.Text, "\ufffd")}
}

// follow passes lines on as they come, until the output ends.
func (s source) follow(ctx context.Context, n uint64, to chan<- control.Line) {
	for last := false; ; {
		lines, more := s.out.Since(n)
		for _, l := range lines {
			select {
			case to <- s.line(l):
			case <-ctx.Done():
				return
			}
			n = l.Number
		}
		if last {
			return
		}
		select {
		case <-more:
		case <-s.out.EOF():
			last = true // once more for what came before it
		case <-ctx.Done():
			return
		}
	}
}
