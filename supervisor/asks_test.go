package supervisor

import (
	"testing"
	"time"
)

// Whoever asks for a rollout hears how that one ended, and not another.
func TestAsks(t *testing.T) {
	w := newWorld(t, testConfig())
	w.send(evStart{})
	w.ready(1)
	first, second := w.ask()[0], w.ask()[0]
	w.send(evReload{rollout: true, asks: []int{first}})
	w.send(evReload{rollout: true, asks: []int{second}}) // while the first goes on
	w.ready(2)
	w.send(evGate{gen: 1})
	w.must(w.answers[first] == 0, "answered before the old generation was gone")
	w.die(1, Exit{})
	w.must(w.answers[first] == 1 && w.answers[second] == 0 && w.s.lastRollout.failure == "", "the first is done")
	w.die(3, Exit{Code: 3})
	w.must(w.answers[second] == 1 && w.s.lastRollout.failure == "exit status 3 before it was ready", "the second failed: %q", w.s.lastRollout.failure)

	// One whose current generation dies is done when the candidate is up.
	w.send(evReload{rollout: true, asks: w.ask()})
	w.die(2, Exit{Signal: 9})
	w.must(len(w.unanswered()) == 1, "answered too early")
	w.ready(4)
	w.must(len(w.unanswered()) == 0, "not answered")
	w.send(evReload{asks: w.ask()})
	w.send(evStop{stays: true})
	w.must(len(w.unanswered()) == 0, "not answered by a stop")
}

// A restart is a stop and a start: no two generations live at a time.
func TestRestartVerb(t *testing.T) {
	w := newWorld(t, testConfig())
	w.send(evStart{})
	w.ready(1)
	w.procs[1].others = 1
	w.send(evRestart{cause: "control", asks: w.ask()})
	w.must(w.procs[1].stopped && w.procs[2] == nil && w.s.state == backoff && !w.closed, "not stopped first")
	w.die(1, Exit{Signal: 15})
	w.must(w.procs[2] == nil, "started beside a process that is left")
	w.procs[1].others = 0
	w.send(evEmpty{gen: 1})
	w.must(w.procs[2] != nil && len(w.unanswered()) == 1, "not started")
	w.ready(2)
	w.must(w.s.state == up && len(w.unanswered()) == 0 && w.s.restarts == 0, "not up, or not answered")

	// One that does not come up is answered when the first try failed.
	w.send(evRestart{cause: "control", asks: w.ask()})
	w.die(2, Exit{Signal: 15})
	w.die(3, Exit{Code: 7})
	w.must(len(w.unanswered()) == 0 && w.s.lastReason == "exit status 7 before it was ready", "%q", w.s.lastReason)
}

// A stop by a verb leaves the supervisor; a second one kills nobody; and a
// signal to the supervisor ends it.
func TestStopThatStays(t *testing.T) {
	w := newWorld(t, testConfig())
	w.send(evStart{})
	w.ready(1)
	w.send(evStop{stays: true})
	w.send(evStop{stays: true})
	w.must(!w.procs[1].killed && w.closed, "killed by a second one, or an address is open")
	w.die(1, Exit{Signal: 15})
	w.must(!w.ended && w.s.state == down, "the supervisor ended")
	w.send(evStart{})
	w.ready(2)
	w.must(w.s.state == up && w.s.stop == nil, "not started again")
	w.send(evStop{stays: true})
	w.send(evStop{cause: "SIGTERM"}) // the first for the supervisor
	w.must(!w.procs[2].killed, "killed at once")
	w.die(2, Exit{Signal: 15})
	w.must(w.ended && w.status == 0, "not ended")

	w = newWorld(t, testConfig())
	w.send(evStart{})
	w.ready(1)
	w.send(evStop{stays: true})
	w.die(1, Exit{})
	w.send(evStop{cause: "SIGTERM"})
	w.must(w.ended && w.status == 0, "one that rests does not end")
}

// A pause ends by itself when another generation is to serve.
func TestPause(t *testing.T) {
	for name, end := range map[string]func(w *world){
		"rollout": func(w *world) { w.send(evReload{}); w.ready(2) },
		"crash":   func(w *world) { w.die(1, Exit{Signal: 11}) },
		"restart": func(w *world) { w.send(evRestart{}) },
		"stop":    func(w *world) { w.send(evStop{}) },
		"resume":  func(w *world) { w.send(evResume{}) },
	} {
		w := newWorld(t, testConfig())
		w.send(evStart{})
		w.ready(1)
		w.send(evPaused{how: "silenced"})
		w.send(evStranded{lanes: 1, clients: 5})
		w.must(!w.s.pausedAt.IsZero() && w.s.state == up, "%s: clients that are meant to wait led to a rollout", name)
		w.pass(time.Hour)
		end(w)
		w.must(w.s.pausedAt.IsZero(), "%s: still paused", name)
	}
}
