package supervisor

import (
	"testing"
	"time"

	"github.com/supervise/supervise/supervisor/config"
)

func liveWorld(t *testing.T, action config.LiveAction) *world {
	cfg := testConfig()
	cfg.Live, cfg.LiveInterval, cfg.LiveFailures, cfg.LiveAction = config.Ready{Kind: config.ReadyHTTP}, time.Second, 3, action
	w := newWorld(t, cfg)
	w.send(evStart{})
	w.ready(1)
	return w
}

// answer lets an interval pass and answers the probe that must have been sent.
func (w *world) answer(gen int, failure string) {
	w.pass(time.Second)
	w.must(w.proc(gen).asked, "generation %d was not asked", gen)
	w.proc(gen).asked = false
	w.send(evProbed{gen: gen, failure: failure})
}

func TestLiveRestart(t *testing.T) {
	w := liveWorld(t, config.LiveRestart)
	for range 5 { // two failures are none
		w.answer(1, "no")
		w.answer(1, "no")
		w.answer(1, "")
	}
	w.must(w.logged("lives again") && !w.proc(1).stopped, "ended for less than three")
	w.pass(time.Second)
	w.pass(time.Hour) // one probe at a time: it has a timeout of its own
	w.proc(1).asked = false
	w.send(evProbed{gen: 1, failure: "no"})
	w.answer(1, "no")
	w.answer(1, "answered with status 500")
	w.must(w.proc(1).stopped && w.s.state == up, "not ended")
	w.die(1, Exit{Signal: 15})
	w.must(w.s.state == starting && w.s.restarts == 1, "not started again: %s", w.s.state)
	w.must(w.logged("reason not alive: 3 liveness probes failed in a row: answered with status 500"), "no reason")
	w.ready(2)
	w.answer(2, "")
	w.send(evStop{})
	w.pass(time.Minute)
	w.must(w.ended, "not ended")
}

func TestLiveRollout(t *testing.T) {
	w := liveWorld(t, config.LiveRollout)
	for range 3 {
		w.answer(1, "no")
	}
	w.must(w.s.state == replacing && !w.proc(1).stopped, "no rollout: %s", w.s.state)
	// It is asked on meanwhile, and that it does not live is no news.
	for range 4 {
		w.answer(1, "no")
	}
	w.must(w.logged("its successor is on its way"), "not said")
	w.die(2, Exit{Code: 1})
	w.must(w.s.state == up && w.s.current.n == 1, "not kept")
	for range 3 {
		w.answer(1, "no")
	}
	w.ready(3)
	w.send(evGate{gen: 1})
	w.must(w.s.current.n == 3 && w.proc(1).stopped, "not taken over")
	w.answer(3, "")
}

// The state of a service that is not asked has no deadline: idle costs nothing.
func TestLiveOff(t *testing.T) {
	w := newWorld(t, testConfig())
	w.send(evStart{})
	w.ready(1)
	w.must(w.s.nextDeadline().IsZero(), "a deadline without a cause: %s", w.s.nextDeadline())
}

// Live=watchdog: who misses it is replaced first, and ended then.
func TestLiveWatchdogRollout(t *testing.T) {
	cfg := testConfig()
	cfg.Watchdog, cfg.Live, cfg.LiveAction = time.Second, config.Ready{Kind: config.ReadyNotify}, config.LiveRollout
	w := newWorld(t, cfg)
	w.send(evStart{})
	w.ready(1)
	w.pass(1500 * time.Millisecond)
	w.must(w.s.state == replacing && !w.proc(1).stopped, "no rollout: %s", w.s.state)
	w.ready(2)
	w.send(evGate{gen: 1})
	w.must(w.s.current.n == 2 && w.proc(1).stopped, "not taken over")
}
