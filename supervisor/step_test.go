package supervisor

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/supervise/supervise/supervisor/config"
)

func testConfig() *config.Service {
	return &config.Service{
		Name: "web", Command: []string{"web"},
		Type: config.Auto, KillMode: config.KillControlGroup, KillSignal: syscall.SIGTERM,
		SendSIGKILL: true, TimeoutStart: 90 * time.Second, TimeoutStop: 30 * time.Second,
		Restart: config.RestartOnFailure, RestartSec: 100 * time.Millisecond, RestartMaxDelay: 30 * time.Second, RestartBackoff: true,
		GateBound: 2 * time.Second, Ready: config.Ready{Kind: config.ReadyNotify},
	}
}

// world plays the operating system for one service: it carries out actions on
// a list of imaginary processes and checks every promise that an action makes.
type world struct {
	t      interface{ Fatalf(string, ...any) }
	s      *service
	now    time.Time
	procs  map[int]*process // by generation
	steer  int              // generation that new connections go to
	ended  bool
	status int
	log    []string
	closed bool // listeners
	tally  *tally

	answers []int // how often each ask was answered; the first is not used
}

// ask makes one ask.
func (w *world) ask() []int {
	if w.answers == nil {
		w.answers = []int{1}
	}
	w.answers = append(w.answers, 0)
	return []int{len(w.answers) - 1}
}

// unanswered lists the asks that wait.
func (w *world) unanswered() (all []int) {
	for n, times := range w.answers {
		if times == 0 {
			all = append(all, n)
		}
	}
	return all
}

type process struct {
	alive    bool // main process
	others   int  // other processes of the tree
	stuck    bool // SIGKILL does not end the others
	gate     bool // a gate is waited for
	stopped  bool // got its stop signal
	killed   bool
	released bool
	returned bool // lanes
	spawned  bool
	command  *actCommand // that runs
	asked    bool        // a liveness probe is under way
}

// commandEnds ends the command that runs, if there is one.
func (p *process) commandEnds(gen int, e Exit) []event {
	c := p.command
	if c == nil {
		return nil
	}
	p.command = nil
	return []event{evCommand{gen: gen, phase: c.phase, line: c.line, exit: e}}
}

// empty reports whether the loop would say that nobody is left.
func (p *process) empty() bool {
	return p.spawned && !p.alive && p.others == 0 && p.command == nil
}

func newWorld(t interface{ Fatalf(string, ...any) }, cfg *config.Service) *world {
	return &world{t: t, s: newService(cfg, 1), now: time.Unix(1e9, 0), procs: map[int]*process{}, tally: &tally{}}
}

func (w *world) fatalf(format string, args ...any) {
	w.t.Fatalf("%s\nstate %s, log:\n%s", fmt.Sprintf(format, args...), w.s.state, strings.Join(w.log, "\n"))
}

func (w *world) proc(gen int) *process {
	p := w.procs[gen]
	if p == nil {
		w.fatalf("action for generation %d, which was never spawned", gen)
	}
	return p
}

// send gives ev to the machine, carries out what it answers and checks the invariants.
func (w *world) send(ev event) {
	if w.ended {
		return
	}
	queue := []event{ev}
	for len(queue) > 0 {
		ev, queue = queue[0], queue[1:]
		before := w.s.current
		wasRolling := w.s.state == replacing
		w.tally.look(w.s)
		actions := w.s.step(w.now, ev)
		w.tally.note(w.now, w.s, ev)
		for _, a := range actions {
			queue = append(queue, w.perform(a)...)
		}
		w.invariants(ev, before, wasRolling)
	}
}

func (w *world) perform(a action) []event {
	if s, ok := a.(actSteer); ok && w.procs[s.gen] == nil && w.s.gen(s.gen) != nil && w.s.gen(s.gen).elder {
		w.procs[s.gen] = &process{alive: true, spawned: true} // it was there before us
	}
	switch a := a.(type) {
	case actSpawn:
		if p := w.procs[a.gen]; p != nil && (p.spawned || p.command != nil) {
			w.fatalf("generation %d spawned twice, or while a command runs", a.gen)
		}
		if g := w.s.gen(a.gen); g != nil && g.standby && (w.s.current == nil || w.s.current.unheld || w.s.candidate != nil) {
			w.fatalf("standby %d is started beside %+v", a.gen, w.s.current)
		}
		for _, g := range w.s.gens {
			if g.unheld && g.n != a.gen && w.s.current == nil {
				w.fatalf("generation %d spawned while %d lives, whose listeners are not held", a.gen, g.n)
			}
		}
		if c := w.s.current; c != nil && c.unheld {
			w.fatalf("generation %d spawned beside %d, whose listeners are not held", a.gen, c.n)
		}
		w.procs[a.gen] = &process{alive: true, spawned: true}
		return []event{evSpawned{gen: a.gen, pid: 1000 + a.gen}}
	case actCommand:
		p := w.procs[a.gen]
		if p == nil {
			p = &process{}
			w.procs[a.gen] = p
		}
		if p.command != nil || p.released {
			w.fatalf("generation %d runs a command beside another, or is gone", a.gen)
		}
		p.command = &a
		p.stopped = p.stopped || a.phase == phaseStop
	case actCommandEnd:
		if p := w.proc(a.gen); a.hard {
			return p.commandEnds(a.gen, Exit{Signal: 9})
		}
	case actSteer:
		if p := w.proc(a.gen); p.returned {
			w.fatalf("steered to generation %d, whose lanes were returned", a.gen)
		}
		w.steer = a.gen
	case actGate:
		w.proc(a.gen).gate = true
	case actGateCancel:
		w.proc(a.gen).gate = false
	case actReturnLanes:
		w.proc(a.gen).returned = true
	case actSignal:
		p := w.proc(a.gen)
		if p.released {
			w.fatalf("signal to generation %d, which is gone", a.gen)
		}
		p.stopped = true
	case actKill:
		p := w.proc(a.gen)
		if p.released {
			w.fatalf("SIGKILL to generation %d, which is gone", a.gen)
		}
		p.killed = true
		evs := p.commandEnds(a.gen, Exit{Signal: 9})
		if !p.stuck {
			p.others = 0
		}
		if p.alive {
			p.alive = false
			evs = append(evs, evExited{gen: a.gen, exit: Exit{Signal: 9}})
		}
		return evs
	case actCheckEmpty:
		if p := w.proc(a.gen); p.empty() {
			return []event{evEmpty(a)}
		}
	case actRelease:
		p := w.proc(a.gen)
		if p.released {
			w.fatalf("generation %d released twice", a.gen)
		}
		p.released, p.returned = true, true
	case actReload:
		return []event{evReload(a)}
	case actAnswer:
		for _, n := range a.asks {
			if w.answers[n]++; w.answers[n] > 1 {
				w.fatalf("ask %d answered twice", n)
			}
		}
	case actGiveBack:
	case actCloseListeners:
		w.closed = true
	case actEnd:
		if !a.stays {
			w.ended, w.status = true, a.status
		}
	case actLog:
		w.log = append(w.log, fmt.Sprintf("%s gen=%d %v", a.message, a.gen, a.fields))
		if strings.HasPrefix(a.message, "cannot happen") {
			w.fatalf("%s", a.message)
		}
	case actRetire:
		if p := w.proc(a.gen); !p.stopped && !p.released && w.s.cfg.KillMode != config.KillNone {
			w.fatalf("generation %d is retired before it was told to stop", a.gen)
		}
	case actProbe:
		if p := w.proc(a.gen); !p.alive || p.stopped {
			w.fatalf("generation %d is asked whether it lives, and is dead or told to stop", a.gen)
		}
		w.proc(a.gen).asked = true
	case actWatchReady, actForeground, actNotify, actCheckStranded:
	}
	return nil
}

func (w *world) invariants(ev event, before *generation, wasRolling bool) {
	s := w.s
	candidates := 0
	for _, g := range s.gens {
		switch g.state {
		case genPreparing, genSpawned, genWaiting, genPosting:
			if g == s.standby {
				break
			}
			candidates++
			if g != s.candidate && s.state != stopping {
				w.fatalf("generation %d is %s and not the candidate", g.n, g.state)
			}
		case genGone:
			w.fatalf("generation %d is gone and still listed", g.n)
		case genDraining:
			if s.state != replacing {
				w.fatalf("generation %d is draining while the service is %s", g.n, s.state)
			}
		case genReady, genEnding, genKilling, genCleaning, genStates:
		}
		if g.waits() && g.deadline.IsZero() && s.cfg.SendSIGKILL && s.cfg.TimeoutStop > 0 && s.cfg.TimeoutStart > 0 {
			w.fatalf("generation %d is %s without a deadline", g.n, g.state)
		}
	}
	if candidates > 1 {
		w.fatalf("%d candidates", candidates)
	}
	switch s.state {
	case up, replacing:
		if s.current == nil {
			w.fatalf("%s without a current generation after %#v", s.state, ev)
		}
		if s.current.state == genReady && w.steer != s.current.n {
			w.fatalf("%s: new connections go to %d, current is %d", s.state, w.steer, s.current.n)
		}
	case starting:
		if s.candidate == nil || s.current != nil {
			w.fatalf("starting with candidate %v, current %v", s.candidate, s.current)
		}
	case backoff:
		if s.deadline.IsZero() || s.candidate != nil {
			w.fatalf("backoff without a deadline or with a candidate")
		}
	case down, stopping, failed, serviceStates:
	}
	standbys := 0
	for _, g := range s.gens {
		if g.standby {
			standbys++
		}
		if g.standby != (g == s.standby) || g.standby && (s.state != up || g == s.current || w.steer == g.n) {
			w.fatalf("standby %d while %s, steered %d", g.n, s.state, w.steer)
		}
	}
	if standbys > 1 {
		w.fatalf("%d standbys", standbys)
	}
	if s.probed(s.current) && s.current.live.next.IsZero() && !w.proc(s.current.n).asked {
		w.fatalf("generation %d is never asked again whether it lives", s.current.n)
	}
	if !s.pausedAt.IsZero() && s.state != up && (s.state != replacing || !s.rollout.moved.IsZero()) {
		w.fatalf("paused while %s", s.state)
	}
	if (s.state == down || s.state == failed) && len(w.unanswered()) > 0 && len(s.gens) == 0 {
		w.fatalf("%v are not answered", w.unanswered())
	}
	if s.state == replacing && s.rollout == nil {
		w.fatalf("replacing without a rollout")
	}
	// A rollout that failed changes nothing: who was current still is, untouched.
	if wasRolling && s.state == up && before != nil && s.current == before && s.stop == nil {
		if p := w.proc(before.n); p.stopped && before.state == genReady {
			w.fatalf("generation %d stays current but was signalled", before.n)
		}
	}
}

// pass lets time pass until the next deadline that is at most d away.
func (w *world) pass(d time.Duration) {
	end := w.now.Add(d)
	for n := 0; !w.ended; n++ {
		next := w.s.nextDeadline()
		if next.IsZero() || next.After(end) {
			break
		}
		if n > 10000 {
			w.fatalf("deadlines without end")
		}
		if next.After(w.now) {
			w.now = next
		}
		w.send(evDeadline{})
	}
	w.now = end
}

func (w *world) ready(gen int) {
	if p := w.procs[gen]; p == nil || !p.spawned {
		return
	}
	w.send(evExec{gen: gen})
	w.send(evReady{gen: gen, how: "READY=1", evidence: true})
}

func (w *world) die(gen int, e Exit) {
	w.proc(gen).alive = false
	w.send(evExited{gen: gen, exit: e})
}

func (w *world) must(ok bool, format string, args ...any) {
	if !ok {
		w.fatalf(format, args...)
	}
}

func (w *world) logged(message string) bool {
	for _, l := range w.log {
		if strings.Contains(l, message) {
			return true
		}
	}
	return false
}

func TestRolloutStory(t *testing.T) {
	w := newWorld(t, testConfig())
	w.send(evStart{})
	w.ready(1)
	w.must(w.s.state == up, "not up")
	w.send(evReload{cause: "SIGHUP"})
	w.must(w.s.state == replacing, "not replacing")
	w.send(evReload{cause: "SIGHUP"}) // remembered once
	w.send(evReload{cause: "SIGHUP"})
	w.ready(2)
	w.must(w.steer == 2 && w.proc(1).gate && !w.proc(1).stopped, "the old generation was told before its gate was over")
	w.send(evGate{gen: 1})
	w.must(w.proc(1).stopped, "the old generation was not told")
	w.must(w.s.state == replacing && w.s.candidate.n == 3, "the remembered reload did not come")
	w.die(1, Exit{})
	w.must(w.logged("rollout done"), "no rollout done")
	w.ready(3)
	w.send(evGate{gen: 2})
	w.die(2, Exit{})
	w.must(w.s.state == up && w.s.rolloutsDone == 2, "a reload was doubled: %d", w.s.rolloutsDone)
	w.send(evStop{cause: "SIGTERM"})
	w.die(3, Exit{Signal: 15})
	w.must(w.ended && w.status == 0, "ended %t status %d", w.ended, w.status)
	order := []string{"rollout started", "candidate started", "candidate ready", "new connections moved", "old generation drained", "old generation gone", "rollout done"}
	i := 0
	for _, l := range w.log {
		if i < len(order) && strings.HasPrefix(l, order[i]) {
			i++
		}
	}
	w.must(i == len(order), "messages out of order, missing %q", order[min(i, len(order)-1)])
}

func TestRollback(t *testing.T) {
	fail := map[string]func(w *world){
		"fork fails":    func(w *world) { w.send(evSpawnFailed{gen: 2, err: fmt.Errorf("no memory")}) },
		"exec fails":    func(w *world) { w.send(evExecFailed{gen: 2, err: fmt.Errorf("gone")}); w.die(2, Exit{Code: 127}) },
		"exits at once": func(w *world) { w.die(2, Exit{Code: 1}) },
		"exits after 2 s": func(w *world) {
			w.send(evExec{gen: 2})
			w.pass(2 * time.Second)
			w.die(2, Exit{Code: 1})
		},
		"never ready": func(w *world) { w.send(evExec{gen: 2}); w.pass(91 * time.Second) },
		"dies after taking over": func(w *world) {
			w.ready(2)
			w.die(2, Exit{Signal: 11})
		},
	}
	for name, f := range fail {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, testConfig())
			w.send(evStart{})
			w.ready(1)
			w.send(evReload{cause: "SIGHUP"})
			f(w)
			w.must(w.s.state == up && w.s.current.n == 1 && w.s.current.state == genReady, "generation 1 is not current")
			w.must(w.steer == 1 && !w.proc(1).stopped, "generation 1 was touched")
			w.must(w.logged("rollout failed, keeping generation 1"), "no word of it")
			w.pass(time.Minute)
			w.send(evReload{cause: "SIGHUP"})
			w.must(w.s.state == replacing, "the next rollout does not start")
			w.ready(w.s.candidate.n)
			w.send(evGate{gen: 1})
			w.die(1, Exit{})
			w.must(w.s.state == up && w.s.rolloutsDone == 1, "the next rollout does not work")
		})
	}
}

func TestProbation(t *testing.T) {
	cfg := testConfig()
	cfg.Probation = 5 * time.Second
	w := newWorld(t, cfg)
	w.send(evStart{})
	w.ready(1)
	w.send(evReload{})
	w.ready(2)
	w.send(evGate{gen: 1})
	w.must(!w.proc(1).stopped, "told to stop during the probation")
	w.pass(4 * time.Second)
	w.must(!w.proc(1).stopped, "told to stop during the probation")
	w.pass(2 * time.Second)
	w.must(w.proc(1).stopped && w.s.state == up, "not told after the probation")
}

func TestCurrentDiesDuringRollout(t *testing.T) {
	w := newWorld(t, testConfig())
	w.send(evStart{})
	w.ready(1)
	w.send(evReload{})
	w.die(1, Exit{Signal: 9})
	w.must(w.s.state == starting && w.steer == 2, "new connections do not wait for the candidate")
	w.ready(2)
	w.must(w.s.state == up && w.s.current.n == 2, "candidate did not become current")
	w.send(evStranded{lanes: 1, clients: 3})
	w.must(w.s.state == replacing, "no rollout for the stranded clients")
}

// A rollout for stranded clients that fails is tried again, later and later.
func TestStrandedIsTriedAgain(t *testing.T) {
	w := newWorld(t, testConfig())
	w.send(evStart{})
	w.ready(1)
	for range 3 {
		w.send(evStranded{lanes: 1, clients: 3})
		w.must(w.s.state == replacing, "no rollout for the stranded clients")
		w.die(w.s.candidate.n, Exit{Signal: 9})
		w.send(evStranded{lanes: 1, clients: 3})
		w.must(w.s.state == up, "tried again at once")
		next := w.s.nextDeadline()
		w.must(!next.IsZero() && next.Sub(w.now) >= 80*time.Millisecond, "no time to try again")
		w.pass(next.Sub(w.now))
	}
}

// Clients that wait while a generation is on its way are no reason for another
// one: it may bind the address a moment later, and is lent the queue then. A
// listener that was replaced under the generation (no clients) is one.
func TestStrandedWhileStarting(t *testing.T) {
	w := newWorld(t, testConfig())
	w.send(evStart{})
	w.ready(1)
	w.die(1, Exit{Signal: 9})
	w.must(w.s.state == starting, "not started again")
	w.send(evStranded{lanes: 1, clients: 3})
	w.ready(2)
	w.must(w.s.state == up, "a rollout for clients that generation 2 was lent")
	w.send(evReload{})
	w.send(evStranded{lanes: 1, clients: 3})
	w.must(!w.s.pending, "remembered, before the candidate could bind")
	w.die(2, Exit{Signal: 9})
	w.send(evStranded{lanes: 1})
	w.ready(3)
	w.must(w.s.state == replacing && w.s.candidate.n == 4, "no rollout for a listener that was replaced")
}

// A generation that listens on what is not held is stopped before the next one
// is started: no process of it may be left, for a worker could have the port.
func TestPlainRestart(t *testing.T) {
	w := newWorld(t, testConfig())
	w.send(evStart{})
	w.ready(1)
	w.send(evUnheld{gen: 1, because: "io_uring"})
	w.send(evUnheld{gen: 1, because: "again"})
	w.procs[1].others = 1
	w.send(evReload{cause: "SIGHUP"})
	w.must(w.procs[1].stopped && w.procs[2] == nil && w.s.state == backoff, "not stopped first")
	w.send(evReload{cause: "SIGHUP"}) // it is on its way
	w.send(evStart{})
	w.die(1, Exit{Signal: 15})
	w.must(w.procs[2] == nil, "started while a process is left")
	w.procs[1].others = 0
	w.send(evEmpty{gen: 1})
	w.must(w.procs[2] != nil && w.s.state == starting, "not started again")
	w.ready(2)
	w.must(w.s.state == up && w.s.rolloutsDone == 0 && w.s.restarts == 0 && w.s.failures == 0, "not as asked")

	// What is not held is asked of each generation: this one rolls over.
	w.send(evReload{cause: "SIGHUP"})
	w.must(w.s.state == replacing && !w.procs[2].stopped, "a rollout")
	w.send(evUnheld{gen: 3}) // the new version: it cannot have bound what the old one holds
	w.ready(3)

	// A crash: left-overs end before the next start.
	w.send(evGate{gen: 2})
	w.die(2, Exit{})
	w.procs[3].others = 1
	w.die(3, Exit{Signal: 11})
	w.must(w.procs[4] == nil && w.s.state == backoff, "started beside a left-over")
	w.procs[3].others = 0
	w.send(evEmpty{gen: 3})
	w.must(w.procs[4] != nil, "not started after a crash")

	// What ignores its stop signal is killed in time, and the stop of a service
	// that is being restarted is a stop.
	w.ready(4)
	w.send(evUnheld{gen: 4})
	w.send(evReload{cause: "SIGHUP"})
	w.pass(31 * time.Second)
	w.must(w.procs[5] != nil, "a deaf one is not replaced")
	w.ready(5)
	w.send(evUnheld{gen: 5})
	w.send(evReload{cause: "SIGHUP"})
	w.send(evStop{cause: "SIGTERM"})
	w.die(5, Exit{Signal: 15})
	w.must(w.ended && w.status == 0 && w.procs[6] == nil, "not stopped")
}

// A server that was there before us is the first generation, and keeps all that
// it has until the command took over.
func TestAdopt(t *testing.T) {
	w := newWorld(t, testConfig())
	w.send(evElder{pid: 4711})
	w.must(w.s.state == replacing && w.s.current.n == 1 && w.procs[2] != nil, "no rollout")
	w.die(2, Exit{Code: 1})
	w.must(w.s.state == up && w.s.current.n == 1 && !w.procs[1].stopped, "a failed one changed something")
	w.send(evReload{cause: "SIGHUP"})
	w.ready(3)
	w.procs[1].gate = false
	w.send(evGate{gen: 1})
	w.must(w.procs[1].stopped && w.s.current.n == 3, "not taken over")
	w.die(1, Exit{Unknown: true})
	w.must(w.procs[1].released, "not released")
	w.send(evStop{})
	w.die(3, Exit{})
	w.must(w.ended && w.status == 0, "status %d", w.status)

	// It goes on without us, also when we are told to hurry.
	for _, hard := range []bool{false, true} {
		w = newWorld(t, testConfig())
		w.send(evElder{pid: 4711})
		w.die(2, Exit{Code: 1})
		w.send(evStop{hard: hard})
		w.must(w.ended && w.status == 0 && !w.procs[1].stopped && !w.procs[1].killed, "the server before us was harmed")
	}

	// When it dies, the command is what is started again.
	w = newWorld(t, testConfig())
	w.send(evElder{pid: 4711})
	w.die(2, Exit{Code: 1})
	w.die(1, Exit{Unknown: true})
	w.must(w.procs[3] != nil && w.s.state == starting, "not started")
}

func TestStopEndsInTime(t *testing.T) {
	for _, at := range []string{"starting", "up", "replacing", "gate", "killing", "backoff"} {
		t.Run(at, func(t *testing.T) {
			w := newWorld(t, testConfig())
			w.send(evStart{})
			switch at {
			case "up":
				w.ready(1)
			case "replacing":
				w.ready(1)
				w.send(evReload{})
			case "gate":
				w.ready(1)
				w.send(evReload{})
				w.ready(2)
			case "killing":
				w.ready(1)
				w.send(evReload{})
				w.ready(2)
				w.send(evGate{gen: 1})
			case "backoff":
				w.die(1, Exit{Code: 1})
				w.die(2, Exit{Code: 1})
				w.must(w.s.state == backoff, "not in backoff")
			}
			w.send(evStop{cause: "SIGTERM"})
			for _, p := range w.procs { // nobody listens to SIGTERM
				w.must(p.stopped || !p.alive, "somebody was not told to stop")
			}
			w.must(w.closed, "listeners still open")
			w.pass(w.s.cfg.TimeoutStop + time.Second)
			w.must(w.ended, "did not end")
			for n, p := range w.procs {
				w.must(p.released, "generation %d was not released", n)
			}
		})
	}
}

func TestSecondStopKills(t *testing.T) {
	w := newWorld(t, testConfig())
	w.send(evStart{})
	w.ready(1)
	w.send(evStop{cause: "SIGINT"})
	w.must(!w.ended, "ended without its process")
	w.send(evStop{cause: "SIGINT"})
	w.must(w.ended && w.status == 128+9, "status %d", w.status)
}

// How the only generation ends after a stop is the status, also when it was
// not ready yet; it is 0 when nobody can tell.
func TestStatusOfStop(t *testing.T) {
	for _, ready := range []bool{false, true} {
		for e, want := range map[Exit]int{{Code: 9}: 9, {}: 0, {Signal: 15}: 0, {Signal: 11}: 139, {Unknown: true}: 0} {
			w := newWorld(t, testConfig())
			w.send(evStart{})
			if ready {
				w.ready(1)
			}
			w.send(evStop{cause: "SIGTERM"})
			w.die(1, e)
			w.must(w.ended && w.status == want, "ready %t, %v: ended %t with %d, want %d", ready, e, w.ended, w.status, want)
		}
	}
}

// Whoever ends the command at the terminal wants it ended, whatever Restart= says
// and whatever was under way: no generation is started any more, and none is left.
func TestTerminalStop(t *testing.T) {
	const sigHUP, sigINT, sigQUIT = int(syscall.SIGHUP), int(syscall.SIGINT), int(syscall.SIGQUIT)
	for _, c := range []struct {
		terminal int
		exit     Exit
		want     int
	}{
		{sigINT, Exit{Signal: sigINT}, 130},
		{sigINT, Exit{}, 130},
		{sigINT, Exit{Code: 130}, 130},
		{sigINT, Exit{Code: 3}, 3},
		{sigINT, Exit{Unknown: true}, 130},
		{sigQUIT, Exit{Signal: sigQUIT, Core: true}, 131},
		{sigQUIT, Exit{}, 131},
		{sigHUP, Exit{Signal: sigHUP}, 0},
		{sigHUP, Exit{}, 0},
		{sigHUP, Exit{Code: 3}, 3},
	} {
		for _, restart := range []config.Restart{config.RestartNo, config.RestartOnFailure, config.RestartAlways} {
			for _, when := range []string{"starting", "up", "up, others left", "replacing, current", "replacing, candidate"} {
				cfg := testConfig()
				cfg.Restart = restart
				w := newWorld(t, cfg)
				w.send(evStart{})
				dead := 1
				if when != "starting" {
					w.ready(1)
				}
				switch when {
				case "up, others left":
					w.proc(1).others = 2
				case "replacing, candidate":
					dead = 2
					fallthrough
				case "replacing, current":
					w.send(evReload{cause: "SIGHUP"})
				}
				w.proc(dead).alive = false
				w.send(evExited{gen: dead, exit: c.exit, terminal: c.terminal})
				for gen, p := range w.procs {
					w.must(gen == dead && p.others == 0 || p.stopped, "%s: generation %d was not told to stop", when, gen)
					if p.alive {
						w.die(gen, Exit{Signal: int(syscall.SIGTERM)})
					}
				}
				w.pass(time.Minute)
				w.must(w.ended, "%s, %+v: has not ended", when, c)
				w.must(len(w.procs) <= 2 && w.procs[3] == nil, "%s: started again", when)
				if dead == 1 && !strings.HasPrefix(when, "replacing") {
					w.must(w.status == c.want, "%s, restart %v, %+v: status %d", when, restart, c, w.status)
				}
			}
		}
	}
}

func TestCrashPolicy(t *testing.T) {
	w := newWorld(t, testConfig())
	w.send(evStart{})
	w.ready(1)
	w.pass(time.Minute)
	w.die(1, Exit{Signal: 11})
	w.must(w.s.state == starting && w.s.candidate.n == 2, "first restart does not come at once")
	w.must(w.proc(1).returned, "lanes of the dead generation were not given back before the restart")
	w.die(2, Exit{Code: 1})
	w.must(w.s.state == backoff, "second restart comes at once")
	last := time.Duration(0)
	for range 12 {
		wait := w.s.deadline.Sub(w.now)
		w.must(wait >= last*3/4 && wait <= 30*time.Second, "waits %v after %v", wait, last)
		last = wait
		w.pass(wait)
		w.must(w.s.state == starting, "did not start again")
		w.die(w.s.candidate.n, Exit{Code: 1})
	}
	w.must(last > 20*time.Second, "backoff does not grow: %v", last)
	w.pass(last)
	w.ready(w.s.candidate.n)
	w.pass(2 * time.Second)
	w.die(w.s.current.n, Exit{Code: 1})
	w.must(w.s.state == starting, "a healthy run did not reset the backoff")
}

// Whoever kills a server again and again sees it come back each time.
func TestKilledFromOutside(t *testing.T) {
	w := newWorld(t, testConfig())
	w.send(evStart{})
	for range 200 {
		g := w.s.candidate
		w.must(g != nil, "no generation on its way")
		w.now = w.now.Add(5 * time.Millisecond)
		w.die(g.n, Exit{Signal: 9})
		if w.s.state == backoff {
			w.must(w.s.deadline.Sub(w.now) <= 120*time.Millisecond, "waits %v", w.s.deadline.Sub(w.now))
			w.pass(w.s.deadline.Sub(w.now))
		}
	}
	w.now = w.now.Add(time.Second)
	w.die(w.s.candidate.n, Exit{Signal: 9})
	w.must(w.s.state == starting, "one that lived for a second does not come back at once")
}

func TestRestartTable(t *testing.T) {
	// systemd.service(5), table 1: rows are exits, columns are Restart=.
	columns := []config.Restart{
		config.RestartNo, config.RestartAlways, config.RestartOnSuccess, config.RestartOnFailure,
		config.RestartOnAbnormal, config.RestartOnAbort, config.RestartOnWatchdog,
	}
	rows := []struct {
		name  string
		cause cause
		exit  Exit
		want  string
	}{
		{"clean exit code", causeNone, Exit{}, "-XX----"},
		{"clean signal", causeNone, Exit{Signal: 15}, "-XX----"},
		{"unclean exit code", causeNone, Exit{Code: 1}, "-X-X---"},
		{"unclean signal", causeNone, Exit{Signal: 11}, "-X-XXX-"},
		{"timeout", causeTimeout, Exit{}, "-X-XX--"},
		{"watchdog", causeWatchdog, Exit{}, "-X-XX-X"},
		{"not alive", causeSick, Exit{}, "-X-XX-X"},
	}
	for _, r := range rows {
		for i, c := range columns {
			cfg := testConfig()
			cfg.Restart = c
			if got, want := mayRestart(cfg, r.cause, r.exit), r.want[i] == 'X'; got != want {
				t.Errorf("%s, Restart=%s: %t, want %t", r.name, c, got, want)
			}
		}
	}
	cfg := testConfig()
	cfg.RestartPrevent.Status[1] = true
	if mayRestart(cfg, causeNone, Exit{Code: 1}) {
		t.Error("RestartPreventExitStatus= does not prevent")
	}
	cfg.Restart = config.RestartNo
	cfg.RestartForce.Signals[9] = true
	if !mayRestart(cfg, causeNone, Exit{Signal: 9}) {
		t.Error("RestartForceExitStatus= does not force")
	}
}

// What a crash leaves behind is killed for as long as it takes on a busy
// machine; a stop, and a main process that nothing ends, are not waited for so long.
func TestLeftOversThatDoNotDie(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(w *world)
		most time.Duration
	}{
		{"crash", func(w *world) { w.die(1, Exit{Signal: 9}) }, killGiveUpLeft},
		{"crash, then stop", func(w *world) { w.die(1, Exit{Signal: 9}); w.send(evStop{cause: "SIGTERM"}) }, killGiveUp},
		{"stop", func(w *world) { w.send(evStop{cause: "SIGTERM"}); w.die(1, Exit{}) }, killGiveUp},
	} {
		cfg := testConfig()
		cfg.KillMode = config.KillMixed
		w := newWorld(t, cfg)
		w.send(evStart{})
		w.ready(1)
		p := w.proc(1)
		p.others, p.stuck = 1, true
		c.do(w)
		if g := w.s.candidate; g != nil && c.most == killGiveUpLeft {
			w.ready(g.n)
		}
		w.pass(c.most - 2*killAgain)
		w.must(!p.released, "%s: given up too early", c.name)
		w.pass(4 * killAgain)
		w.must(p.released && w.logged("giving up"), "%s: not given up", c.name)
	}
}

// Every exit status and every signal, as a shell would show it.
func TestExitStatus(t *testing.T) {
	for code := range 256 {
		for _, sig := range []bool{false, true} {
			e, want := Exit{Code: code}, code
			if sig {
				if code == 0 || code > 64 {
					continue
				}
				e, want = Exit{Signal: code}, 128+code
			}
			cfg := testConfig()
			cfg.Restart = config.RestartNo
			w := newWorld(t, cfg)
			w.send(evStart{})
			w.ready(1)
			w.die(1, e)
			if !w.ended || w.status != want {
				t.Fatalf("%v: ended %t with %d, want %d", e, w.ended, w.status, want)
			}
		}
	}
}

func TestNeverReady(t *testing.T) {
	cfg := testConfig()
	cfg.Restart = config.RestartNo
	w := newWorld(t, cfg)
	w.send(evStart{})
	w.send(evExec{gen: 1})
	w.pass(3 * time.Minute)
	w.must(w.ended && w.status == exitNeverReady, "status %d", w.status)
}

// arrange brings a world into a state of the service.
var arrange = map[serviceState]func(w *world){
	down:     func(*world) {},
	starting: func(w *world) { w.send(evStart{}) },
	up:       func(w *world) { w.send(evStart{}); w.ready(1) },
	replacing: func(w *world) {
		w.send(evStart{})
		w.ready(1)
		w.send(evReload{})
	},
	stopping: func(w *world) { w.send(evStart{}); w.ready(1); w.send(evStop{}) },
	backoff: func(w *world) {
		w.send(evStart{})
		w.die(1, Exit{Code: 1})
		w.die(2, Exit{Code: 1})
	},
	failed: func(w *world) {
		w.s.cfg.Restart = config.RestartNo
		w.send(evStart{})
		w.die(1, Exit{Code: 3})
		w.ended = false // the loop would be over
	},
}

// Every service state meets every event about every generation: nothing
// impossible, and the invariants hold (world.send checks them).
func TestEveryPair(t *testing.T) {
	for state := range serviceStates {
		build := arrange[state]
		if build == nil {
			t.Fatalf("no way to state %s", state)
		}
		events := []event{
			evStart{},
			evElder{pid: 1},
			evReload{},
			evStop{},
			evStop{hard: true},
			evStop{signal: 3},
			evStranded{lanes: 1, clients: 1},
			evDeadline{},
			evReload{rollout: true, asks: []int{1}},
			evReload{asks: []int{1}},
			evRestart{asks: []int{1}},
			evStop{stays: true},
			evPaused{how: "x"},
			evResume{},
		}
		for gen := range 5 {
			events = append(events, evExec{gen}, evExecFailed{gen, fmt.Errorf("x")}, evReady{gen: gen}, evReloading{gen}, evStopping{gen},
				evStatus{gen, "text"}, evExtend{gen, time.Second}, evPing{gen}, evWatchdogUsec{gen, time.Second}, evWatchdogTrigger{gen},
				evMainPID{gen, 77}, evUnheld{gen: gen, because: "x"}, evCommand{gen: gen, phase: phasePre}, evEmpty{gen}, evGate{gen: gen}, evProbed{gen: gen}, evProbed{gen, "x"}, evExited{gen: gen, exit: Exit{Code: 1}})
		}
		for _, ev := range events {
			w := newWorld(t, testConfig())
			build(w)
			w.must(w.s.state == state, "arranged %s, is %s", state, w.s.state)
			if e, ok := ev.(evReload); ok && len(e.asks) > 0 {
				w.ask()
			}
			if e, ok := ev.(evRestart); ok && len(e.asks) > 0 {
				w.ask()
			}
			if e, ok := ev.(evExited); ok {
				if p := w.procs[e.gen]; p == nil || !p.alive {
					continue // it cannot die twice
				}
				w.procs[e.gen].alive = false
			}
			if e, ok := ev.(evEmpty); ok && w.procs[e.gen] != nil && w.procs[e.gen].alive {
				continue // the loop sends it when the tree is empty
			}
			w.send(ev)
			// And from wherever that led, a stop ends it.
			w.send(evStop{})
			w.pass(31 * time.Second)
			w.must(w.ended, "%s, %#v: a stop does not end it", state, ev)
		}
	}
}

// Random histories: whatever happens in whatever order, the invariants hold,
// and a stop ends everything in time with nothing left.
func TestRandomHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := testConfig()
		cfg.Restart = rapid.SampledFrom([]config.Restart{config.RestartAlways, config.RestartOnFailure, config.RestartNo}).Draw(t, "restart")
		cfg.KillMode = rapid.SampledFrom([]config.KillMode{config.KillControlGroup, config.KillMixed, config.KillProcess, config.KillNone}).Draw(t, "killmode")
		cfg.Probation = rapid.SampledFrom([]time.Duration{0, time.Second}).Draw(t, "probation")
		cfg.Watchdog = rapid.SampledFrom([]time.Duration{0, 3 * time.Second}).Draw(t, "watchdog")
		cfg.Standby = rapid.Bool().Draw(t, "standby")
		if rapid.Bool().Draw(t, "live") {
			cfg.Live, cfg.LiveInterval, cfg.LiveFailures = config.Ready{Kind: config.ReadyHTTP}, time.Second, 2
			cfg.LiveAction = rapid.SampledFrom([]config.LiveAction{config.LiveRestart, config.LiveRollout}).Draw(t, "action")
		}
		if rapid.Bool().Draw(t, "limit") {
			cfg.StartLimitBurst, cfg.StartLimitInterval = 3, 10*time.Second
		}
		if rapid.Bool().Draw(t, "commands") {
			line := config.ExecLine{Path: "/bin/true", Argv: []string{"true"}}
			for _, list := range []*[]config.ExecLine{&cfg.Condition, &cfg.StartPre, &cfg.StartPost, &cfg.Reload, &cfg.Stop, &cfg.StopPost} {
				for range rapid.IntRange(0, 2).Draw(t, "lines") {
					*list = append(*list, line)
				}
			}
			if rapid.Bool().Draw(t, "oneshot") {
				cfg.Type, cfg.Start, cfg.Command = config.Oneshot, []config.ExecLine{line, line}, nil
				cfg.RemainExited = rapid.Bool().Draw(t, "remain")
			}
			cfg.RuntimeMax = rapid.SampledFrom([]time.Duration{0, 7 * time.Second}).Draw(t, "runtime")
		}
		w := newWorld(t, cfg)
		w.send(evStart{})
		for range rapid.IntRange(1, 60).Draw(t, "events") {
			if w.ended {
				break
			}
			gen := 0
			if n := len(w.s.gens); n > 0 {
				gen = w.s.gens[rapid.IntRange(0, n-1).Draw(t, "gen")].n
			}
			switch rapid.IntRange(0, 22).Draw(t, "event") {
			case 17:
				w.send(evRestart{cause: "control", asks: w.ask()})
			case 18:
				w.send(evReload{cause: "control", rollout: rapid.Bool().Draw(t, "rollout"), asks: w.ask()})
			case 19:
				w.send(evPaused{how: "silenced"})
			case 20:
				w.send(evResume{})
			case 21:
				w.send(evStop{cause: "control", stays: true})
			case 22:
				w.send(evStart{})
			case 0:
				w.send(evReload{cause: "SIGHUP"})
			case 1:
				if p := w.procs[gen]; p != nil && p.alive {
					p.others = rapid.IntRange(0, 2).Draw(t, "left")
					w.die(gen, Exit{Code: rapid.IntRange(0, 2).Draw(t, "code")})
				}
			case 2:
				if p := w.procs[gen]; p != nil && p.spawned && !p.alive && p.command == nil {
					p.others = 0
					w.send(evEmpty{gen: gen})
				}
			case 3:
				if p := w.procs[gen]; p != nil && p.spawned {
					w.send(evExec{gen: gen})
				}
			case 16:
				if p := w.procs[gen]; p != nil && p.asked {
					p.asked = false
					w.send(evProbed{gen: gen, failure: rapid.SampledFrom([]string{"", "no", "no"}).Draw(t, "answer")})
				}
			case 14, 15:
				if p := w.procs[gen]; p != nil {
					for _, ev := range p.commandEnds(gen, Exit{Code: rapid.SampledFrom([]int{0, 0, 0, 1, 255}).Draw(t, "command")}) {
						w.send(ev)
					}
				}
			case 4, 5:
				w.ready(gen)
			case 6:
				if p := w.procs[gen]; p != nil && p.gate {
					p.gate = false
					w.send(evGate{gen: gen})
				}
			case 7:
				w.pass(time.Duration(rapid.IntRange(0, 120_000).Draw(t, "ms")) * time.Millisecond)
			case 8:
				w.send(evStranded{lanes: 1, clients: 1})
			case 9:
				w.send(evPing{gen: gen})
			case 10:
				w.send(evExtend{gen: gen, by: 3 * time.Second})
			case 11:
				w.send(evWatchdogTrigger{gen: gen})
			case 13:
				w.send(evUnheld{gen: gen, because: "io_uring"})
			case 12:
				if p := w.procs[gen]; p != nil && p.alive {
					w.send(evExecFailed{gen: gen, err: fmt.Errorf("no such file")})
				}
			}
		}
		w.send(evStop{cause: "SIGTERM"})
		// Everything has been told; extensions ended with the events.
		w.pass(4*cfg.TimeoutStop + 5*time.Second)
		w.must(w.ended, "a stop did not end it")
		w.must(len(w.unanswered()) == 0, "not answered: %v", w.unanswered())
		for n, p := range w.procs {
			w.must(p.released, "generation %d was not released", n)
		}
	})
}
