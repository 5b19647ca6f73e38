package supervisor

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/supervise/supervise/supervisor/config"
)

// tallied is a world whose steps are counted.
func tallied(t *testing.T, cfg *config.Service) (*world, *tally) {
	w := newWorld(t, cfg)
	w.tally = &tally{}
	return w, w.tally
}

func TestTallyRollout(t *testing.T) {
	w, y := tallied(t, testConfig())
	w.send(evStart{})
	w.now = w.now.Add(200 * time.Millisecond)
	w.ready(1)
	w.now = w.now.Add(time.Minute)
	w.send(evReload{cause: "SIGHUP"})
	w.now = w.now.Add(300 * time.Millisecond)
	w.ready(2)
	w.now = w.now.Add(100 * time.Millisecond)
	w.send(evGate{gen: 1, result: GateResult{Gate: 20 * time.Millisecond, Shield: 80 * time.Millisecond, Unanswered: 2}})
	w.now = w.now.Add(time.Second)
	w.die(1, Exit{})
	w.send(evReload{cause: "SIGHUP"})
	w.die(3, Exit{Code: 9})
	if y.Starts != 3 || y.Done != 1 || y.Failed != 1 || y.Start.Count() != 2 || y.Rollout.Count() != 1 || y.Gate.Count() != 1 || y.Left["unanswered"] != 2 || len(y.Restarts) != 0 || y.Outage.Count() != 0 {
		t.Errorf("%+v", y.Tally)
	}
	_, past := y.clone()
	var got []string
	for _, p := range past {
		words := []string{fmt.Sprint(p.Generation, " ", p.Failed, " ", p.Reason)}
		for _, phase := range p.Phases {
			words = append(words, fmt.Sprintf("%s %v", phase.Phase, phase.At.Sub(past[0].Started)))
		}
		got = append(got, strings.Join(words, ", "))
	}
	want := []string{
		"1 false exit status 0, starting 0s, serving 200ms, draining 1m0.5s, ending 1m0.6s",
		"2 false , starting 1m0.2s, serving 1m0.5s",
		"3 true exit status 9 before it was ready, starting 1m1.6s, ending 1m1.6s",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
	if past[0].Ended.IsZero() || !past[1].Ended.IsZero() {
		t.Error("ended")
	}
}

func TestTallyRestarts(t *testing.T) {
	w, y := tallied(t, testConfig())
	w.send(evStart{})
	w.ready(1)
	w.now = w.now.Add(time.Hour)
	w.die(1, Exit{Signal: 9})
	y.waits(5)
	y.waits(3)
	w.now = w.now.Add(40 * time.Millisecond)
	w.ready(2)
	w.die(2, Exit{Code: 1})
	w.pass(time.Second)
	w.ready(3)
	if y.Restarts["signal"] != 1 || y.Restarts["exit"] != 1 || y.Kept["crash"] != 5 || y.Outage.Count() != 2 {
		t.Errorf("%+v", y.Tally)
	}
	y.waits(9) // nobody waits while somebody serves
	w.send(evStop{})
	w.pass(time.Minute)
	if y.Kept["crash"] != 5 || y.Outage.Count() != 2 {
		t.Errorf("%+v", y.Tally)
	}
}

// The past is bounded.
func TestTallyBound(t *testing.T) {
	w, y := tallied(t, testConfig())
	w.send(evStart{})
	for i := range 10 * maxPast {
		w.ready(i + 1)
		w.now = w.now.Add(time.Minute)
		w.die(i+1, Exit{Signal: 9})
	}
	if len(y.past) != maxPast || y.Restarts["signal"] != 10*maxPast {
		t.Error(len(y.past), y.Restarts)
	}
	known := 0
	for range y.Restarts {
		known++
	}
	if known != 1 {
		t.Error(y.Restarts)
	}
}
