package supervisor

import (
	"fmt"
	"time"
)

// upState is what a service wants the manager above us to know.
type upState uint8

const (
	upStarting upState = iota
	upReady
	upReloading
	upStopping
)

// notifyUp tells the manager above us. Of several services it hears that we
// are ready once all are, that we reload while one does, and that we stop when
// the supervisor does.
func (r *runner) notifyUp(a actNotify) {
	l := r.loop
	if !l.up.Enabled() {
		return
	}
	if l.only() == nil {
		a = l.sumUp(r, a)
	}
	var err error
	switch {
	case a.stopping:
		err = l.up.Stopping(a.status)
	case a.reloading:
		err = l.up.Reloading(a.status)
	case a.ready:
		err = l.up.Ready(a.status)
	case a.status != "":
		err = l.up.Status(a.status)
	}
	if err == nil && a.extend > 0 {
		err = l.up.ExtendTimeout(a.extend)
	}
	if err != nil {
		l.log.Warn("cannot tell the service manager", "service", r.cfg.Name, "error", err)
	}
	l.flushUp()
}

// sumUp makes of what one of several services has to say what the supervisor
// has to say.
func (l *loop) sumUp(r *runner, a actNotify) actNotify {
	was := l.upSum()
	switch {
	case a.stopping:
		r.upward = upStopping
	case a.reloading:
		r.upward = upReloading
	case a.ready:
		r.upward = upReady
	}
	now := l.upSum()
	ready := 0
	for _, o := range l.runners {
		if o.upward == upReady || o.upward == upReloading {
			ready++
		}
	}
	status := fmt.Sprintf("%d of %d services up", ready, len(l.runners))
	if a.status != "" {
		status += "; " + r.cfg.Name + ": " + a.status
	}
	changed := now != was
	return actNotify{
		ready: changed && now == upReady, reloading: changed && now == upReloading, stopping: changed && now == upStopping,
		extend: a.extend, status: status,
	}
}

// upSum is the state of all services together. One that has come to its end by
// itself, or failed, does not keep the others from being ready.
func (l *loop) upSum() upState {
	sum, stopping := upReady, 0
	for _, o := range l.runners {
		switch o.upward {
		case upStarting:
			return upStarting
		case upReloading:
			sum = upReloading
		case upStopping:
			stopping++
		case upReady:
		}
	}
	if stopping == len(l.runners) {
		return upStopping
	}
	return sum
}

// flushUp sends what the manager's queue did not take at once.
func (l *loop) flushUp() {
	if !l.up.Pending() {
		return
	}
	if err := l.up.Flush(); err != nil {
		l.log.Warn("cannot tell the service manager", "error", err)
	}
	if l.up.Pending() {
		l.after(20*time.Millisecond, l.flushUp)
	}
}

// watchdogUp keeps the watchdog of the manager above quiet: from this very
// loop, so that the pings stop when the loop hangs.
func (l *loop) watchdogUp() {
	every := l.up.WatchdogInterval() / 2
	if every <= 0 || l.ended {
		return
	}
	if err := l.up.Watchdog(); err != nil {
		l.log.Debug("cannot ping the service manager", "error", err)
	}
	l.after(every, l.watchdogUp)
}
