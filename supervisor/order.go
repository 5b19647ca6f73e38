package supervisor

import (
	"slices"
	"strings"

	"github.com/supervise/supervise/supervisor/config"
)

// order starts and stops services in the order of their dependencies, as
// systemd.unit(5) documents After=, Requires= and their like. It decides with
// what the machines of the services say of themselves, and acts by sending them
// events; the loop calls changed when a service changed its state.
type order struct {
	names    map[string]*runner
	before   map[*runner][]*runner // those that this one waits for when it starts: After=
	behind   map[*runner][]*runner // those that wait for this one: it is stopped after them
	wanted   []*runner             // to be started once it is their turn
	stopping []*runner             // to be stopped once it is their turn
	stop     evStop                // of stopping
}

func newOrder(runners []*runner) *order {
	o := &order{names: map[string]*runner{}, before: map[*runner][]*runner{}, behind: map[*runner][]*runner{}}
	for _, r := range runners {
		o.names[r.cfg.Name] = r
	}
	for _, r := range runners {
		for _, other := range o.find(r.cfg.Dependencies.After) {
			o.before[r] = append(o.before[r], other)
			o.behind[other] = append(o.behind[other], r)
		}
	}
	return o
}

// with is the order when there is another runner.
func (o *order) with(all []*runner) *order {
	now := newOrder(all)
	now.wanted, now.stopping, now.stop = o.wanted, o.stopping, o.stop
	return now
}

// without is the order of the runners that are left.
func (o *order) without(r *runner, left []*runner) *order {
	isIt := func(x *runner) bool { return x == r }
	now := newOrder(left)
	now.wanted, now.stopping, now.stop = slices.DeleteFunc(o.wanted, isIt), slices.DeleteFunc(o.stopping, isIt), o.stop
	return now
}

// find gives the services of full unit names. Sockets are no runners: they are
// open before anything is started.
func (o *order) find(names []string) []*runner {
	var found []*runner
	for _, n := range names {
		if r := o.names[strings.TrimSuffix(n, ".service")]; r != nil {
			found = append(found, r)
		}
	}
	return found
}

// begin has a service started, and what it requires or wants, each in its turn.
func (o *order) begin(r *runner) {
	o.want(r)
	o.advance()
}

func (o *order) want(r *runner) {
	if slices.Contains(o.wanted, r) || r.started() || r.s.state == starting {
		return
	}
	o.stopping = slices.DeleteFunc(o.stopping, func(x *runner) bool { return x == r })
	o.wanted = append(o.wanted, r)
	d := &r.cfg.Dependencies
	for _, other := range o.find(slices.Concat(d.Requires, d.BindsTo, d.Wants, d.Upholds)) {
		o.want(other)
	}
	for _, other := range o.find(d.Conflicts) {
		o.end(other, evStop{cause: "conflicts with " + r.cfg.Name})
	}
}

// end has a service stopped, after those that come behind it and need it.
func (o *order) end(r *runner, ev evStop) {
	o.stop = ev
	o.leave(r)
	o.advance()
}

func (o *order) leave(r *runner) {
	o.wanted = slices.DeleteFunc(o.wanted, func(x *runner) bool { return x == r })
	if slices.Contains(o.stopping, r) || r.resting() {
		return
	}
	o.stopping = append(o.stopping, r)
	for _, other := range o.names {
		d := &other.cfg.Dependencies
		if slices.Contains(o.find(slices.Concat(d.Requires, d.BindsTo, d.PartOf)), r) {
			o.leave(other)
		}
	}
}

// endAll stops everything; hard or a second time at once.
func (o *order) endAll(runners []*runner, ev evStop) {
	again := len(o.stopping) > 0 && !o.stop.stays ||
		slices.ContainsFunc(runners, func(r *runner) bool { return r.s.state == stopping && r.s.stop != nil && !r.s.stop.stays })
	o.stop, o.wanted = ev, nil
	o.stopping = nil
	for _, r := range runners {
		switch {
		case r.finished:
		case ev.hard || again:
			r.send(ev)
		default:
			o.stopping = append(o.stopping, r)
		}
	}
	o.advance()
}

// changed is called when the machine of a service has another state.
func (o *order) changed(r *runner) {
	d := &r.cfg.Dependencies
	switch {
	case r.started():
		for _, other := range o.find(d.Upholds) {
			if other.resting() {
				o.want(other)
			}
		}
	case r.resting() && len(o.stopping) == 0:
		for _, other := range o.names {
			bound := o.find(other.cfg.Dependencies.BindsTo)
			if slices.Contains(bound, r) && other.started() {
				o.stop = evStop{cause: r.cfg.Name + " ended, which it is bound to"}
				o.leave(other)
			}
			if slices.Contains(o.find(other.cfg.Dependencies.Upholds), r) && other.started() {
				o.want(r)
			}
		}
		if r.s.stop == nil {
			next := d.OnSuccess
			if r.s.state == failed {
				next = d.OnFailure
			}
			for _, other := range o.find(next) {
				o.want(other)
			}
		}
	}
	o.advance()
}

// advance starts and stops whatever has its turn.
func (o *order) advance() {
	for again := true; again; {
		again = false
		for _, r := range slices.Clone(o.wanted) {
			if slices.ContainsFunc(o.before[r], func(x *runner) bool { return o.unsettled(r, x) }) {
				continue
			}
			o.wanted = slices.DeleteFunc(o.wanted, func(x *runner) bool { return x == r })
			again = true
			if missing := o.missing(r); missing != nil {
				r.log.Error("not started: what it requires is not up", "service", r.cfg.Name, "requires", missing.cfg.Name)
				r.notStarted(ExitUnavailable, "what it requires is not up: "+missing.cfg.Name)
				continue
			}
			if c := config.Unmet(r.cfg.Conditions); c != nil {
				r.unmet(c)
				continue
			}
			if err := r.reopen(); err != nil {
				r.log.Error("not started", "service", r.cfg.Name, "error", err)
				r.notStarted(ExitUnavailable, err.Error())
				continue
			}
			r.startError = ""
			r.finished, r.asked = false, true
			r.send(evStart{})
		}
		for _, r := range slices.Clone(o.stopping) {
			if slices.ContainsFunc(o.behind[r], func(x *runner) bool { return slices.Contains(o.stopping, x) || x.asked || x.s.state == stopping }) {
				continue
			}
			o.stopping = slices.DeleteFunc(o.stopping, func(x *runner) bool { return x == r })
			again = true
			r.asked = true
			r.send(o.stop)
		}
	}
}

// unsettled reports whether r must wait for x, which is on its way to be up for
// the first time. One that failed and is tried again is waited for by who
// requires it only.
func (o *order) unsettled(r, x *runner) bool {
	if x.s.state == backoff {
		return slices.Contains(o.needs(r), x)
	}
	return slices.Contains(o.wanted, x) || x.s.state == starting || x.asked
}

// needs are the services that must be up for r to start.
func (o *order) needs(r *runner) []*runner {
	d := &r.cfg.Dependencies
	return o.find(slices.Concat(d.Requires, d.BindsTo, d.Requisite))
}

// missing is a service that r requires and that is not up, nor done.
func (o *order) missing(r *runner) *runner {
	for _, other := range o.needs(r) {
		if slices.Contains(o.before[r], other) && !other.started() && !other.s.doneOnce {
			return other
		}
	}
	return nil
}

// notStarted: it was the service's turn, and it was not even tried.
func (r *runner) notStarted(status int, why string) {
	r.startError = why
	r.finish(status, r.s.stop != nil && r.s.stop.stays) // one that somebody stopped leaves us as we are
}

// unmet: a condition does not hold, so the service is not started. Only of an
// Assert is that a failure.
func (r *runner) unmet(c *config.Condition) {
	if c.Assert() {
		r.log.Error("not started: an assertion does not hold", "service", r.cfg.Name, "assertion", c)
		r.notStarted(1, "an assertion does not hold: "+c.String())
		return
	}
	r.log.Info("not started: a condition does not hold", "service", r.cfg.Name, "condition", c)
	r.s.doneOnce = true // who requires it is started all the same: systemd.unit(5)
	r.notStarted(0, "a condition does not hold: "+c.String())
}

// started reports whether the service is up, or was and is being replaced.
func (r *runner) started() bool { return r.s.state == up || r.s.state == replacing }

// resting reports whether nothing of the service runs or will by itself.
func (r *runner) resting() bool { return r.s.state == down || r.s.state == failed }
