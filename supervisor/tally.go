package supervisor

import (
	"slices"
	"time"

	"github.com/supervise/supervise/supervisor/metrics"
)

// tally is what is counted and remembered of a service for --http: numbers, and
// the past of its generations. It looks at the machine before and after each
// step and is told nothing by it. Without --http there is none.
type tally struct {
	metrics.Tally
	past  []*pastGeneration // oldest first
	began time.Time         // of the time without a generation that serves; zero: one does
	kept  int               // clients that were seen waiting in that time

	before struct {
		restarts, done, failed, sick, lastN int

		rollout *rollout
		current *generation
		gens    []*generation
	}
}

// pastGeneration is one that lives or has lived.
type pastGeneration struct {
	Generation int       `json:"generation"`
	Started    time.Time `json:"started"`
	Ended      time.Time `json:"ended,omitzero"`
	Failed     bool      `json:"failed,omitempty"`
	Reason     string    `json:"reason,omitempty"` // how it ended
	Phases     []phaseAt `json:"phases"`
	ready      bool
}

// phaseAt is when a phase of a generation began: starting, ready, serving,
// draining, ending.
type phaseAt struct {
	Phase string    `json:"phase"`
	At    time.Time `json:"at"`
}

// How much of the past is kept of each service: some 40 kB at most.
const (
	maxPast   = 60
	maxPhases = 16
)

// look is called before a step.
func (t *tally) look(s *service) {
	if t == nil {
		return
	}
	b := &t.before
	b.restarts, b.done, b.failed, b.sick, b.lastN = s.restarts, s.rolloutsDone, s.rolloutsFail, s.sickDone, s.lastN
	b.rollout, b.current = s.rollout, s.current
	b.gens = append(b.gens[:0], s.gens...)
}

// note is called after it.
func (t *tally) note(now time.Time, s *service, ev event) {
	if t == nil {
		return
	}
	b := &t.before
	t.Starts += s.lastN - b.lastN
	t.Done += s.rolloutsDone - b.done
	t.Failed += s.rolloutsFail - b.failed
	t.Sick += s.sickDone - b.sick
	for range s.restarts - b.restarts {
		t.Restart(endWord(s))
	}
	switch ev := ev.(type) {
	case evGate:
		t.gate(ev)
	case evStranded:
		t.Keep("stranded", ev.clients)
	}
	for _, g := range s.gens {
		t.live(now, s, g)
	}
	for _, g := range b.gens {
		if !slices.Contains(s.gens, g) {
			t.gone(now, s, g)
		}
	}
	if b.rollout != nil && s.rollout == nil && s.rolloutsDone > b.done && b.rollout.told.IsZero() {
		t.Rollout.Observe(now.Sub(b.rollout.started)) // the old one had died by itself
	}
	serves := s.current != nil && !s.current.exited
	switch {
	case !serves && b.current != nil && t.began.IsZero() && (s.state == starting || s.state == backoff):
		t.began, t.kept = now, 0
	case !t.began.IsZero() && (s.state == stopping || s.state == down || s.state == failed):
		t.began = time.Time{}
	case serves && !t.began.IsZero():
		t.Outage.Observe(now.Sub(t.began))
		t.Keep("crash", t.kept)
		t.began = time.Time{}
	}
}

// waits is called with the number of clients that are seen waiting while
// nobody serves.
func (t *tally) waits(clients int) {
	if t != nil && !t.began.IsZero() {
		t.kept = max(t.kept, clients)
	}
}

// outage reports whether it is worth looking for clients that wait.
func (t *tally) outage() bool { return t != nil && !t.began.IsZero() }

// dropped counts output of a generation that is gone.
func (t *tally) dropped(lines, bytes int64) {
	if t != nil {
		t.DroppedLine, t.DroppedByte = t.DroppedLine+lines, t.DroppedByte+bytes
	}
}

func (t *tally) gate(ev evGate) {
	i := slices.IndexFunc(t.before.gens, func(g *generation) bool { return g.n == ev.gen })
	if i < 0 {
		return
	}
	t.Gate.Observe(ev.result.Gate)
	t.Shield.Observe(ev.result.Shield)
	t.Leave("queued", ev.result.Queued)
	t.Leave("in_flight", ev.result.InFlight)
	t.Leave("unanswered", ev.result.Unanswered)
}

// live notes what a generation does now.
func (t *tally) live(now time.Time, s *service, g *generation) {
	p := t.of(g.n)
	if p == nil {
		p = &pastGeneration{Generation: g.n, Started: g.started}
		t.past = append(t.past, p)
		if len(t.past) > maxPast {
			t.past = slices.Delete(t.past, 0, 1)
		}
	}
	if !p.ready && !g.readyAt.IsZero() {
		p.ready = true
		if !g.elder {
			t.Start.Observe(g.readyAt.Sub(g.started))
		}
	}
	word := phaseWord(s, g)
	if n := len(p.Phases); n == 0 || p.Phases[n-1].Phase != word && n < maxPhases {
		p.Phases = append(p.Phases, phaseAt{Phase: word, At: now})
	}
}

func (t *tally) gone(now time.Time, s *service, g *generation) {
	if r := g.replaced; r != nil {
		t.Rollout.Observe(now.Sub(r.started))
	}
	p := t.of(g.n)
	if p == nil {
		return
	}
	p.Ended, p.Reason = now, g.exit.String()
	if g.cause != causeAsked {
		p.Reason = failure(s.cfg, g)
		p.Failed = g.cause != causeNone || !clean(s.cfg, g.exit)
	}
}

func (t *tally) of(n int) *pastGeneration {
	for _, p := range slices.Backward(t.past) {
		if p.Generation == n {
			return p
		}
	}
	return nil
}

func phaseWord(s *service, g *generation) string {
	switch g.state {
	case genPreparing, genSpawned, genWaiting, genPosting:
		return "starting"
	case genReady:
		if g == s.current {
			return "serving"
		}
		return "ready"
	case genDraining:
		return "draining"
	case genEnding, genKilling, genCleaning, genGone, genStates:
	}
	return "ending"
}

// endWord is why the last generation ended, as metrics.Causes has it.
func endWord(s *service) string {
	switch s.lastCause {
	case causeTimeout:
		return "timeout"
	case causeWatchdog:
		return "watchdog"
	case causeSick:
		return "liveness"
	case causeRuntime:
		return "runtime"
	case causeCommand:
		return "command"
	case causeNoStart:
		return "no-start"
	case causeNone, causeAsked:
	}
	if s.lastExit != nil && s.lastExit.Signal != 0 {
		return "signal"
	}
	return "exit"
}

// clone is a copy that another goroutine may read.
func (t *tally) clone() (metrics.Tally, []pastGeneration) {
	past := make([]pastGeneration, len(t.past))
	for i, p := range t.past {
		past[i] = *p
		past[i].Phases = slices.Clone(p.Phases)
	}
	return t.Tally.Clone(), past
}
