package supervisor

import (
	"time"

	"golang.org/x/sys/unix"
)

// Activation: a service that nothing starts at first is started by the first
// connection to one of its sockets, as systemd.socket(5) documents. Its clients
// wait in the queue meanwhile. When it ends by itself, the next one starts it again.

// awaitClients has the service started by the next client.
func (r *runner) awaitClients() error {
	for _, lane := range r.set.Lanes() {
		r.poll.remove(lane.FD())
		if err := r.poll.add(lane.FD(), unix.EPOLLIN, r.activate); err != nil {
			return &StartError{Status: ExitSoftware, Err: err}
		}
	}
	return nil
}

// activate starts the service: somebody came.
func (r *runner) activate() {
	if r.set == nil || !r.resting() {
		return
	}
	for _, lane := range r.set.Lanes() { // from now on they are watched like everybody's
		r.poll.remove(lane.FD())
	}
	if err := r.watchSet(); err != nil {
		r.warn(nil, "cannot watch the listeners", err)
	}
	if r.triggeredTooOften(time.Now()) {
		r.log.Error("activated too often, its sockets are closed", "service", r.cfg.Name)
		r.closeListeners()
		r.finish(ExitUnavailable, false)
		return
	}
	r.log.Info("a client came: starting", "service", r.cfg.Name)
	r.order.begin(r)
}

// triggeredTooOften counts activations: TriggerLimitIntervalSec= and
// TriggerLimitBurst= of systemd.socket(5).
func (r *runner) triggeredTooOften(now time.Time) bool {
	interval, burst := 2*time.Second, 20
	for _, u := range r.cfg.SocketUnits {
		interval, burst = u.TriggerInterval, u.TriggerBurst
	}
	if interval <= 0 || burst <= 0 {
		return false
	}
	recent := r.triggers[:0]
	for _, t := range r.triggers {
		if now.Sub(t) < interval {
			recent = append(recent, t)
		}
	}
	r.triggers = append(recent, now)
	return len(r.triggers) > burst
}

// sleeps reports whether the service, which ended by itself, waits for its next
// client now.
func (r *runner) sleeps() bool {
	if !r.cfg.OnDemand || r.s.stop != nil || r.set == nil {
		return false
	}
	if err := r.awaitClients(); err != nil {
		r.warn(nil, "cannot watch the listeners", err)
		return false
	}
	return true
}
