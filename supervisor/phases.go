package supervisor

import (
	"fmt"
	"time"

	"github.com/supervise/supervise/supervisor/config"
)

// phase is one of the lists of commands that stand around the main process of
// a generation: systemd.service(5), ExecStartPre= and its like. The commands
// of a list run one after another, in the generation's own process tree.
//
//	condition, pre, early   before the main process, in the state preparing
//	post                    when it is ready, in the state posting
//	reload                  while it serves
//	stopping                before the stop signal, in the state ending
//	cleaning                when no process is left, in the state cleaning
type phase uint8

const (
	phaseNone      phase = iota
	phaseCondition       // ExecCondition=
	phasePre             // ExecStartPre=
	phaseEarly           // all ExecStart= of Type=oneshot but the last, which is the main process
	phasePost            // ExecStartPost=
	phaseReload          // ExecReload=
	phaseStop            // ExecStop=
	phaseClean           // ExecStopPost=
	phases               // how many there are
)

func (p phase) String() string {
	switch p {
	case phaseCondition:
		return "ExecCondition"
	case phasePre:
		return "ExecStartPre"
	case phaseEarly:
		return "ExecStart"
	case phasePost:
		return "ExecStartPost"
	case phaseReload:
		return "ExecReload"
	case phaseStop:
		return "ExecStop"
	case phaseClean:
		return "ExecStopPost"
	case phaseNone, phases:
	}
	return "none"
}

// phaseLines are the commands of a phase.
func phaseLines(cfg *config.Service, p phase) []config.ExecLine {
	switch p {
	case phaseCondition:
		return cfg.Condition
	case phasePre:
		return cfg.StartPre
	case phaseEarly:
		if n := len(cfg.Start); n > 1 {
			return cfg.Start[:n-1]
		}
	case phasePost:
		return cfg.StartPost
	case phaseReload:
		return cfg.Reload
	case phaseStop:
		return cfg.Stop
	case phaseClean:
		return cfg.StopPost
	case phaseNone, phases:
	}
	return nil
}

// oneshot reports whether the service is a task: up when it has ended.
func (s *service) oneshot() bool { return s.cfg.Type == config.Oneshot }

// begin starts the commands of a phase. It reports whether there are any.
func (s *service) begin(g *generation, p phase) bool {
	if len(phaseLines(s.cfg, p)) == 0 {
		return false
	}
	if g.phase != phaseNone { // ExecReload= is cut short by a stop
		g.queued = p
		s.do(actCommandEnd{gen: g.n, hard: true})
		return true
	}
	g.phase, g.line = p, 0
	s.do(actCommand{gen: g.n, phase: p})
	return true
}

// prepared starts what comes before the main process, from a phase on, and
// the main process when there is nothing left to come before it.
func (s *service) prepared(now time.Time, g *generation, from phase) {
	for p := from; p <= phaseEarly; p++ {
		if s.begin(g, p) {
			s.setGen(now, g, genPreparing, g.deadline)
			return
		}
	}
	if from != phaseCondition && !s.roomFor(g) {
		s.startLater(now, g)
		return
	}
	s.setGen(now, g, genSpawned, g.deadline)
	s.do(actSpawn{gen: g.n})
}

// roomFor reports whether no other generation listens on what cannot be handed
// over, as one may turn out to do while commands run before the main process.
func (s *service) roomFor(g *generation) bool {
	for _, o := range s.gens {
		if o != g && o.unheld {
			return false
		}
	}
	return true
}

// startLater gives a candidate up before its main process was started, until
// there is room for it.
func (s *service) startLater(now time.Time, g *generation) {
	why := causeStranded
	if s.rollout != nil {
		why = s.rollout.cause
		s.startAsks = append(s.startAsks, s.rollout.asks...)
	}
	s.candidate, s.rollout = nil, nil
	g.exited, g.cause = true, causeAsked
	s.setGen(now, g, genKilling, now.Add(killAgain))
	if s.current != nil && s.current.unheld {
		s.setState(now, up)
		s.plainRestart(now, why, plainWords)
	} else {
		s.setState(now, backoff)
		s.deadline = now
	}
	s.empty(now, g)
}

// onCommand: a command of a phase ended.
func (s *service) onCommand(now time.Time, g *generation, ev evCommand) {
	if ev.phase != g.phase || ev.line != g.line {
		return // of a phase that was given up meanwhile
	}
	if q := g.queued; q != phaseNone {
		g.queued, g.phase = phaseNone, phaseNone
		s.begin(g, q)
		return
	}
	lines := phaseLines(s.cfg, g.phase)
	ok := ev.err == nil && !ev.exit.Unknown && ev.exit.Signal == 0 && ev.exit.Code == 0
	if g.line < len(lines) && lines[g.line].IgnoreFailure {
		ok = true
	}
	what := ev.exit.String()
	if ev.err != nil {
		what = ev.err.Error()
	}
	if !ok && !(g.phase == phaseCondition && skips(ev)) {
		s.do(actLog{level: levelWarn, message: "a command of the unit failed", gen: g.n, fields: []any{
			"directive", g.phase.String() + "=", "command", g.line + 1, "reason", what,
		}})
	}
	if g.line++; ok && g.line < len(lines) && g.state != genKilling {
		s.do(actCommand{gen: g.n, phase: g.phase, line: g.line})
		return
	}
	was := g.phase
	g.phase, g.line = phaseNone, 0
	switch g.state {
	case genPreparing:
		s.preparedOne(now, g, was, ok, ev)
	case genPosting:
		if !ok {
			s.failStart(now, g, ev.exit, fmt.Errorf("%s= failed: %s", was, what))
			return
		}
		s.becameReady(now, g)
	case genReady, genDraining:
		if was == phaseReload && s.state == up && g == s.current {
			s.reloaded(g, ok, what)
		}
	case genEnding:
		s.signalStop(now, g)
	case genCleaning:
		s.gone(now, g)
	case genKilling:
		switch {
		case g.emptied:
			s.empty(now, g)
		case g.pid == 0 && !g.exited: // there was no main process yet: this was all
			g.exited, g.exit = true, ev.exit
			s.do(actKill{gen: g.n, mode: config.KillControlGroup})
			s.empty(now, g)
		}
	case genSpawned, genWaiting, genGone:
	case genStates:
	}
}

// skips reports whether a condition says that the start is not wanted:
// systemd.service(5), ExecCondition=, exit status 1 to 254.
func skips(ev evCommand) bool {
	return ev.err == nil && ev.exit.Signal == 0 && ev.exit.Code >= 1 && ev.exit.Code <= 254
}

// preparedOne: a phase before the main process has ended.
func (s *service) preparedOne(now time.Time, g *generation, was phase, ok bool, ev evCommand) {
	switch {
	case ok:
		s.prepared(now, g, was+1)
	case was == phaseCondition && skips(ev):
		s.skipped(now, g)
	case ev.err != nil:
		s.failStart(now, g, Exit{Code: startStatus(ev.err)}, fmt.Errorf("%s= failed: %w", was, ev.err))
	default:
		s.failStart(now, g, ev.exit, fmt.Errorf("%s= failed: %s", was, ev.exit))
	}
}

// failStart ends a generation whose commands failed before it could be used.
func (s *service) failStart(now time.Time, g *generation, e Exit, err error) {
	started, done := g.state != genPreparing, g.exited // done: a task that ended well
	g.err, g.cause = err, causeCommand
	if !started || done {
		g.exited, g.exit = true, e
	}
	s.end(now, g, causeCommand)
	if started && !done && g.exited {
		return // KillMode=none: it has been dealt with
	}
	s.ended(now, g)
	if !started {
		s.empty(now, g)
	}
}

// skipped: ExecCondition= says that the service is not to be started now. That
// is no failure.
func (s *service) skipped(now time.Time, g *generation) {
	s.log(levelInfo, g, "not started: its condition does not hold")
	g.exited, g.cause = true, causeAsked
	s.candidate = nil
	rolling := s.state == replacing
	if rolling {
		s.endRollout(now, "its condition does not hold")
		s.setState(now, up)
		s.do(actNotify{ready: true, status: s.statusText()})
	}
	s.setGen(now, g, genGone, time.Time{})
	s.remove(g)
	s.do(actRelease{gen: g.n})
	if !rolling {
		s.settle(now, 0)
	}
}

// reloaded: the commands of ExecReload= have ended.
func (s *service) reloaded(g *generation, ok bool, what string) {
	status := s.statusText()
	if ok {
		s.log(levelInfo, g, "reloaded")
		s.answer(g.asks, "")
	} else {
		s.answer(g.asks, what)
		s.log(levelError, g, "reload failed, the service goes on", "reason", what)
		status = "reload failed, " + status
	}
	g.asks = nil
	s.do(actNotify{ready: true, status: status})
}

// finished: the main process of a task ended well. That is when a oneshot
// service is up: systemd.service(5), Type=oneshot.
func (s *service) finished(now time.Time, g *generation) {
	g.exited = true
	if s.cfg.RemainExited {
		g.pid = 0
		s.onReady(now, g, evReady{gen: g.n, how: "done", evidence: true})
		return
	}
	s.log(levelInfo, g, "done", "took", now.Sub(g.started))
	s.answerStarts("")
	if s.rollout != nil {
		s.endRollout(now, "")
	}
	s.refuseAsks(now, "the task is done")
	s.candidate = nil
	g.cause = causeAsked
	s.doneOnce = true
	s.setState(now, stopping)
	s.status = 0
	s.end(now, g, causeAsked)
}

// settle brings a service to rest that ended without being stopped: nothing of
// it runs and nothing will start by itself.
func (s *service) settle(now time.Time, status int) {
	s.unpause(now, "the service ended")
	s.refuseAsks(now, "not started: its condition does not hold")
	s.status = status
	s.setState(now, stopping)
	s.do(actCloseListeners{})
	s.finish(now)
}
