package supervisor

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"

	"github.com/supervise/supervise/supervisor/config"
	"github.com/supervise/supervise/supervisor/listen"
)

// A configuration that was read again is compared with the one in force. All
// that can fail (a command that is not there, an address that somebody has)
// is tried first, for all services; then all of it is taken into use: what did
// not change is not disturbed, a service that changed gets a rollout, with new
// sockets open before the old ones are closed, what is new is started and what
// is gone is stopped.

// rereadUnits reads the configuration, elsewhere, and takes it into use. Where
// nothing changed, the services are reloaded.
func (l *loop) rereadUnits(cause string) {
	l.children.Go(func() {
		services, err := l.reread()
		l.poll.post(func() {
			if err != nil {
				l.log.Error("the configuration was not taken into use, everything goes on as it is", "error", err)
				return
			}
			if !l.reconfigure(services) {
				l.reloadAll(cause)
			}
		})
	})
}

// change is what becomes of one service.
type change struct {
	r      *runner // in force; nil: the service is new
	with   *runner // what was found out about the new configuration
	opened []*listen.Socket
	gone   []*listen.Socket
}

// reconfigure takes a configuration into use, and reports whether it differs.
func (l *loop) reconfigure(services []*config.Service) (differs bool) {
	var changes []change
	named := map[string]bool{}
	var errs []error
	for _, cfg := range services {
		for _, c := range expand(cfg) {
			named[c.Name] = true
			old := l.order.names[c.Name]
			if old != nil && config.Same(old.cfg, c) {
				continue
			}
			ch := change{r: old, with: newRunner(l, c, rand.Uint64())}
			if (old == nil || old.crew == nil) != (cfg.Instances <= 1) || old != nil && old.crew != nil && len(old.crew.members) != cfg.Instances {
				errs = append(errs, fmt.Errorf("the number of instances of %s cannot change while it runs: start supervise again", cfg.Name))
				continue
			}
			if err := l.try(&ch); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", c.Name, err))
			}
			changes = append(changes, ch)
		}
	}
	if len(errs) > 0 {
		for _, ch := range changes {
			ch.undo()
		}
		l.log.Error("the configuration was not taken into use, everything goes on as it is", "error", errors.Join(errs...))
		return true
	}
	var gone []*runner
	for _, r := range l.runners {
		if !named[r.cfg.Name] {
			gone = append(gone, r)
		}
	}
	if len(changes) == 0 && len(gone) == 0 {
		return false
	}
	for _, ch := range changes {
		if ch.r == nil {
			l.runners = append(l.runners, ch.with)
		} else {
			ch.r.replaceConfig(&ch)
		}
	}
	l.order = l.order.with(l.runners)
	for _, r := range gone {
		l.log.Info("no longer configured, stopping", "service", r.cfg.Name)
		r.removed = true
		l.order.end(r, evStop{cause: "it is not configured any more"})
	}
	for _, ch := range changes {
		switch {
		case ch.r == nil:
			l.log.Info("configured", "service", ch.with.cfg.Name)
			if !ch.with.cfg.OnDemand {
				l.order.want(ch.with)
			}
		case ch.r.started() || ch.r.s.state == starting || ch.r.s.state == backoff:
			ch.r.reload(evReload{cause: "its configuration changed", rollout: true})
		}
	}
	l.order.advance()
	return true
}

// try does everything about a change that can fail. What it opened is in ch.
func (l *loop) try(ch *change) error {
	if err := ch.with.check(); err != nil {
		return err
	}
	if err := ch.with.openPlaces(); err != nil {
		return err
	}
	if ch.r == nil {
		if err := ch.with.openListeners(nil); err != nil {
			return err
		}
		return ch.with.openHandoff()
	}
	set := ch.r.set
	if set == nil {
		return nil // it is stopped: they are opened when it starts
	}
	for _, c := range ch.with.cfg.Sockets {
		if slices.ContainsFunc(ch.r.cfg.Sockets, func(o config.Socket) bool { return sameSocket(o, c) }) {
			continue
		}
		one, warnings, err := set.Add(c)
		for _, w := range warnings {
			l.log.Warn(w.String(), "service", ch.with.cfg.Name)
		}
		if err != nil {
			return listenError(err)
		}
		ch.opened = append(ch.opened, one)
	}
	for _, one := range set.Sockets() {
		if !one.Learned() && !one.Inherited() && !slices.Contains(ch.opened, one) &&
			!slices.ContainsFunc(ch.with.cfg.Sockets, func(c config.Socket) bool { return sameSocket(one.Config(), c) }) {
			ch.gone = append(ch.gone, one)
		}
	}
	return nil
}

// sameSocket compares all but where it was written.
func sameSocket(a, b config.Socket) bool {
	a.At, b.At, a.Source, b.Source, a.Unit, b.Unit = config.Position{}, config.Position{}, "", "", "", ""
	return reflect.DeepEqual(a, b)
}

// undo closes what try opened.
func (ch *change) undo() {
	if ch.r == nil {
		ch.with.giveBack()
		return
	}
	for _, one := range ch.opened {
		ch.r.drop(one)
	}
}

// replaceConfig takes a configuration into use. The machine knows it from its
// next event on.
func (r *runner) replaceConfig(ch *change) {
	r.dropSpare()
	r.cfg, r.s.cfg = ch.with.cfg, ch.with.cfg
	r.credential, r.userEnv, r.dir, r.places = ch.with.credential, ch.with.userEnv, ch.with.dir, ch.with.places
	for _, one := range ch.gone {
		r.set.Forget(one)
	}
	for _, one := range ch.opened {
		r.log.Info("listening", "service", r.cfg.Name, "socket", one.Name(), "address", one.Addr())
	}
	if r.set != nil {
		if err := r.watchSet(); err != nil {
			r.warn(nil, "cannot watch the listeners", err)
		}
	}
}

// forget ends a service that is no longer configured and has come to its end.
func (l *loop) forget(r *runner) {
	r.giveBack()
	l.runners = slices.DeleteFunc(l.runners, func(o *runner) bool { return o == r })
	l.order = l.order.without(r, l.runners)
}
