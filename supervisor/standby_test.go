package supervisor

import (
	"testing"
	"time"
)

func standbyWorld(t *testing.T) *world {
	cfg := testConfig()
	cfg.Standby = true
	w := newWorld(t, cfg)
	w.send(evStart{})
	w.must(w.s.standby == nil, "a standby before there is anybody to stand by for")
	w.ready(1)
	w.must(w.s.standby != nil && w.s.standby.n == 2 && w.proc(2).spawned, "no standby")
	return w
}

func TestStandbyTakesOver(t *testing.T) {
	w := standbyWorld(t)
	w.ready(2)
	w.must(w.steer == 1 && w.s.current.n == 1 && w.logged("standby ready"), "it must only wait")
	w.now = w.now.Add(time.Minute)
	w.die(1, Exit{Signal: 9})
	w.must(w.s.state == up && w.s.current.n == 2 && w.steer == 2, "not taken over: %s", w.s.state)
	w.must(w.logged("ended, the standby took over"), "not said")
	w.must(w.s.standby.n == 3 && w.s.restarts == 1, "no next one")
	// It is not ready when it is needed: a restart as without it. It is ended,
	// since one that is started for the purpose has the lane of the dead one.
	w.die(2, Exit{Signal: 9})
	w.must(w.s.state != up && w.s.standby == nil && w.proc(3).stopped, "%s", w.s.state)
	w.die(3, Exit{Signal: 15})
	w.pass(time.Second)
	w.ready(4)
	w.must(w.s.state == up && w.s.current.n == 4 && w.s.standby.n == 5, "%s", w.s.state)
	w.send(evStop{})
	w.pass(31 * time.Second)
	w.must(w.ended, "a stop does not end it")
}

// A rollout is of new code: the standby, which is not, is ended, and another one
// is started when all is done.
func TestStandbyAndRollout(t *testing.T) {
	w := standbyWorld(t)
	w.ready(2)
	w.send(evReload{cause: "SIGHUP"})
	w.must(w.s.state == replacing && w.s.candidate.n == 3 && w.proc(2).stopped && w.s.standby == nil, "%s", w.s.state)
	w.die(2, Exit{Signal: 15})
	w.must(w.s.state == replacing && !w.logged("the standby failed"), "it was told to end")
	w.ready(3)
	w.send(evGate{gen: 1})
	w.must(w.s.standby == nil, "a third one beside two")
	w.die(1, Exit{})
	w.must(w.s.standby != nil && w.s.standby.n == 4, "no standby after the rollout")
}

// One that fails is no failure of the service, and is not tried without end.
func TestStandbyFails(t *testing.T) {
	w := standbyWorld(t)
	starts := w.s.lastN
	for w.now.Before(time.Unix(1e9+60, 0)) {
		if g := w.s.standby; g != nil {
			w.die(g.n, Exit{Code: 1})
		}
		w.pass(100 * time.Millisecond)
	}
	w.must(w.s.state == up && w.s.current.n == 1 && w.s.failures == 0 && w.s.restarts == 0, "the service failed with it")
	if n := w.s.lastN - starts; n < 3 || n > 20 {
		t.Errorf("%d standbys in a minute", n)
	}
	w.must(w.logged("the standby failed"), "not said")
}

// A command that crashes on its first client is not taken over without end.
func TestStandbyCrashLoop(t *testing.T) {
	w := standbyWorld(t)
	for range 50 {
		for _, g := range w.s.gens {
			if g.state == genSpawned {
				w.ready(g.n)
			}
		}
		if g := w.s.current; g != nil && w.proc(g.n).alive {
			w.die(g.n, Exit{Code: 1})
		}
		w.pass(10 * time.Millisecond)
	}
	if n := w.s.lastN; n > 16 {
		t.Errorf("%d starts within half a second", n)
	}
}
