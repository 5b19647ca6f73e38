package supervisor

import (
	"fmt"
	"syscall"
	"time"

	"github.com/supervise/supervise/supervisor/config"
)

// finalSignalGrace is how long FinalKillSignal= has where it is not SIGKILL,
// so that a stop still ends within a second after its timeout.
const finalSignalGrace = 50 * time.Millisecond

// strandAgain is the shortest wait after a failed rollout for stranded clients.
const strandAgain = 100 * time.Millisecond

// How often SIGKILL is repeated while processes are left, and how long before
// it is given up: what survives that long hangs in the kernel (state D). A stop
// has to end in time. Where only what a dead main process has left behind is
// waited for, nobody is held up; and to die takes a busy machine its time.
const (
	killAgain      = 20 * time.Millisecond
	killGiveUp     = 850 * time.Millisecond
	killGiveUpLeft = 30 * time.Second
)

// step applies ev to s as of now and returns what must be done about it, in
// order. It performs no I/O and reads no clock.
func (s *service) step(now time.Time, ev event) []action {
	s.out = nil
	switch ev := ev.(type) {
	case evStart:
		s.onStart(now)
	case evElder:
		s.onElder(now, ev.pid)
	case evReload:
		s.onReload(now, ev)
	case evRestart:
		s.onRestart(now, ev)
	case evPaused:
		s.onPaused(now, ev)
	case evResume:
		s.onResumed(now)
	case evStop:
		s.onStop(now, ev)
	case evStranded:
		s.onStranded(now, ev)
	case evUnheld:
		if g := s.gen(ev.gen); g != nil {
			s.onUnheld(g, ev)
		}
	case evDeadline:
		s.onDeadline(now)
	case evSpawned:
		if g := s.gen(ev.gen); g != nil {
			g.pid = ev.pid
		}
	case evSpawnFailed:
		if g := s.gen(ev.gen); g != nil {
			s.onSpawnFailed(now, g, ev.err)
		}
	case evExec:
		if g := s.gen(ev.gen); g != nil {
			s.onExec(now, g)
		}
	case evExecFailed:
		if g := s.gen(ev.gen); g != nil {
			// The child exits by itself; its exit is what ends the generation.
			g.err, g.cause = ev.err, causeNoStart
		}
	case evReady:
		if g := s.gen(ev.gen); g != nil {
			s.onReady(now, g, ev)
		}
	case evReloading:
		if g := s.gen(ev.gen); g != nil && g.state == genReady {
			g.reloading = true
			s.log(levelInfo, g, "generation is reloading")
		}
	case evStopping:
		if g := s.gen(ev.gen); g != nil {
			s.log(levelInfo, g, "generation says that it is stopping")
		}
	case evStatus:
		if g := s.gen(ev.gen); g != nil {
			g.status = ev.text
			if g == s.current {
				s.do(actNotify{status: s.statusText()})
			}
		}
	case evExtend:
		if g := s.gen(ev.gen); g != nil {
			s.onExtend(now, g, ev.by)
		}
	case evPing:
		if g := s.gen(ev.gen); g != nil && g.state == genReady && g.watchdog > 0 {
			g.deadline = g.readyDeadline(now)
		}
	case evWatchdogUsec:
		if g := s.gen(ev.gen); g != nil {
			g.watchdog = ev.every
			if g.state == genReady {
				g.deadline = g.readyDeadline(now)
			}
		}
	case evWatchdogTrigger:
		if g := s.gen(ev.gen); g != nil && g.state == genReady && !g.exited {
			s.onWatchdog(now, g, "it asked for it")
		}
	case evMainPID:
		if g := s.gen(ev.gen); g != nil {
			s.log(levelInfo, g, "main process changed", "from", g.pid)
			g.pid = ev.pid
		}
	case evExited:
		if g := s.gen(ev.gen); g != nil {
			s.onExited(now, g, ev.exit, ev.terminal)
		}
	case evEmpty:
		if g := s.gen(ev.gen); g != nil {
			s.onEmpty(now, g)
		}
	case evCommand:
		if g := s.gen(ev.gen); g != nil {
			s.onCommand(now, g, ev)
		}
	case evProbed:
		if g := s.gen(ev.gen); g != nil {
			s.onProbed(now, g, ev.failure)
		}
	case evGate:
		if g := s.gen(ev.gen); g != nil && g.state == genDraining {
			s.onGate(now, g, ev.result)
		}
	}
	s.keepStandby(now)
	return s.out
}

func (s *service) onStart(now time.Time) {
	switch s.state {
	case down, failed:
		s.failures, s.starts, s.stop = 0, nil, nil
		s.spawn(now)
	case backoff:
		s.deadline = now
		s.onBackoffDue(now)
	case starting, up, replacing, stopping:
		// It runs, or is being ended by somebody who meant it.
	case serviceStates:
	}
}

// onElder takes over a running server: it is the first generation, and the
// command is the candidate that replaces it.
func (s *service) onElder(now time.Time, pid int) {
	switch s.state {
	case down:
	case starting, up, replacing, stopping, backoff, failed, serviceStates:
		return // adopted at the start or never
	}
	s.lastN++
	g := &generation{n: s.lastN, pid: pid, started: now, readyAt: now, how: "adopted", evidence: true, elder: true}
	s.setGen(now, g, genReady, time.Time{})
	s.gens = append(s.gens, g)
	s.current = g
	s.setState(now, up)
	s.watchLive(now, g)
	s.log(levelInfo, g, "adopted")
	s.do(actSteer{gen: g.n}, actNotify{ready: true, status: s.statusText()})
	s.beginRollout(now, "adopt")
}

// spawn begins a new generation as candidate: the first one, the one after a
// crash, or that of a rollout.
func (s *service) spawn(now time.Time) {
	if s.startLimitHit(now) {
		s.log(levelError, nil, "start limit reached, not starting again",
			"starts", s.cfg.StartLimitBurst, "within", s.cfg.StartLimitInterval)
		if s.current != nil { // a rollout: nothing happened
			return
		}
		s.giveUp(now)
		return
	}
	s.lastN++
	s.restartAlone = false
	g := &generation{n: s.lastN, started: now, watchdog: s.cfg.Watchdog}
	s.setGen(now, g, genSpawned, after(now, s.cfg.TimeoutStart))
	s.gens = append(s.gens, g)
	s.candidate = g
	if s.current == nil {
		s.setState(now, starting)
	}
	s.prepared(now, g, phaseCondition)
}

// startLimitHit counts the start that is about to be made.
func (s *service) startLimitHit(now time.Time) bool {
	if s.startLimitReached(now) {
		return true
	}
	if s.cfg.StartLimitBurst > 0 && s.cfg.StartLimitInterval > 0 {
		s.starts = append(s.starts, now)
	}
	return false
}

// startLimitReached forgets old starts and looks at what is left.
func (s *service) startLimitReached(now time.Time) bool {
	if s.cfg.StartLimitBurst <= 0 || s.cfg.StartLimitInterval <= 0 {
		return false
	}
	recent := s.starts[:0]
	for _, t := range s.starts {
		if now.Sub(t) < s.cfg.StartLimitInterval {
			recent = append(recent, t)
		}
	}
	s.starts = recent
	return len(s.starts) >= s.cfg.StartLimitBurst
}

func (s *service) onReload(now time.Time, ev evReload) {
	switch s.state {
	case up:
		if s.cfg.Type == config.NotifyReload && !ev.rollout {
			s.current.asks = append(s.current.asks, ev.asks...)
			sig := syscall.SIGHUP
			if s.cfg.ReloadSignal != 0 {
				sig = s.cfg.ReloadSignal
			}
			s.log(levelInfo, s.current, "reload: "+config.SignalName(sig)+" sent to the main process")
			s.do(actSignal{gen: s.current.n, signal: int(sig), mode: config.KillProcess})
			return
		}
		if len(s.cfg.Reload) > 0 && !ev.rollout {
			s.current.asks = append(s.current.asks, ev.asks...)
			if s.current.phase != phaseNone {
				s.pending, s.pendingCause = true, ev.cause
				return
			}
			s.log(levelInfo, s.current, "reload: running its commands", "cause", ev.cause)
			s.do(actNotify{reloading: true, extend: s.cfg.TimeoutStart, status: s.statusText()})
			s.begin(s.current, phaseReload)
			return
		}
		if s.current.unheld {
			s.startAsks = append(s.startAsks, ev.asks...)
			s.plainRestart(now, ev.cause, plainWords)
			return
		}
		s.beginRollout(now, ev.cause)
		if s.rollout == nil {
			s.answer(ev.asks, "start limit reached")
			return
		}
		s.rollout.asks = append(s.rollout.asks, ev.asks...)
	case starting, replacing:
		if !s.pending {
			s.log(levelInfo, nil, "reload remembered until the service is up", "cause", ev.cause)
		}
		s.pending, s.pendingCause = true, ev.cause
		s.pendingRollout = s.pendingRollout || ev.rollout
		s.pendingAsks = append(s.pendingAsks, ev.asks...)
	case backoff:
		s.startAsks = append(s.startAsks, ev.asks...)
		s.log(levelInfo, nil, "reload: starting now instead of waiting", "cause", ev.cause)
		s.deadline = now
		s.onBackoffDue(now)
	case down, failed:
		s.startAsks = append(s.startAsks, ev.asks...)
		s.onStart(now)
	case stopping:
		s.answer(ev.asks, "the service is being stopped")
		s.log(levelWarn, nil, "reload ignored: the service is being stopped")
	case serviceStates:
	}
}

// onUnheld: what the generation listens on could not be handed over. That is
// no failure; but no other generation can be started beside it.
func (s *service) onUnheld(g *generation, ev evUnheld) {
	if g.unheld {
		return
	}
	g.unheld = true
	if s.roleOf(g) != roleOld && s.unheldSaid != ev.because {
		s.unheldSaid = ev.because // once, not for each generation
		s.log(levelWarn, g, "the command listens on what cannot be handed over: a reload is a stop and a start",
			"because", ev.because, "do", ev.do)
	}
}

// plainRestart stops the current generation and starts the next one when no
// process of it is left: nobody else could bind what it listens on. It goes
// through backoff, whose deadline waits for that (see startable).
func (s *service) plainRestart(now time.Time, why, words string) {
	if s.startLimitReached(now) {
		s.log(levelError, nil, "start limit reached, not restarting",
			"starts", s.cfg.StartLimitBurst, "within", s.cfg.StartLimitInterval)
		s.answerStarts("start limit reached")
		return
	}
	s.unpause(now, "restart")
	g := s.current
	s.current = nil
	s.plainDone++
	s.failures = 0
	s.setState(now, backoff)
	s.deadline = now
	s.log(levelInfo, g, words, "cause", why)
	s.do(actNotify{reloading: true, extend: s.stopTime(), status: s.statusText()})
	s.end(now, g, causeAsked)
}

// plainWords say why a reload is a restart.
const plainWords = "restart: stopped first, since what it listens on cannot be handed over"

func (s *service) beginRollout(now time.Time, why string) {
	from := s.current
	s.spawn(now)
	if s.candidate == nil {
		return // start limit
	}
	s.rollout = &rollout{from: from.n, to: s.candidate.n, cause: why, started: now}
	s.setState(now, replacing)
	// actSpawn stands before these: the new process is on its way while we write.
	s.log(levelInfo, s.candidate, "rollout started", "cause", why, "from", from.n)
	s.do(actNotify{reloading: true, extend: s.rolloutTime(), status: s.statusText()})
}

// rolloutTime is the longest that a rollout may take until the old generation
// is told to stop; 0 when there is no limit.
func (s *service) rolloutTime() time.Duration {
	if s.cfg.TimeoutStart <= 0 {
		return 0
	}
	return s.cfg.TimeoutStart + s.gateTime() + s.cfg.Probation + time.Second
}

// gateTime is the bound of the gate and of the shield together.
func (s *service) gateTime() time.Duration { return 2 * s.cfg.GateBound }

func (s *service) onStranded(now time.Time, ev evStranded) {
	if !s.strandAt.IsZero() || s.cfg.Type == config.NotifyReload {
		return
	}
	if !s.pausedAt.IsZero() && ev.clients > 0 {
		return // they are meant to wait
	}
	switch s.state {
	case up:
		if s.standby != nil && s.standby.readyAt.IsZero() {
			return // it may have been lent the lane; looked for again when it is ready
		}
		if s.current.unheld { // to restart it would harm more clients than it helps
			s.log(levelWarn, s.current, "clients wait in a queue that nobody serves until the next restart",
				"clients", ev.clients, "lanes", ev.lanes)
			return
		}
		s.log(levelWarn, s.current, "clients wait in a queue that nobody serves: a new generation will be given it",
			"clients", ev.clients, "lanes", ev.lanes)
		s.beginRollout(now, causeStranded)
	case starting, replacing:
		if ev.clients > 0 && (s.rollout == nil || s.rollout.moved.IsZero()) {
			return // a lane may yet be lent, at its bind, to the one on its way; looked for again when it takes over
		}
		if !s.pending {
			s.pending, s.pendingCause = true, causeStranded
		}
	case down, stopping, backoff, failed, serviceStates:
		// The next generation is lent the lane.
	}
}

// causeStranded is the cause of a rollout that nobody asked for.
const causeStranded = "clients wait in a queue without a server"

func (s *service) onSpawnFailed(now time.Time, g *generation, err error) {
	g.err, g.cause, g.exited = err, causeNoStart, true
	s.setGen(now, g, genGone, time.Time{})
	s.do(actRelease{gen: g.n})
	s.remove(g)
	s.ended(now, g)
}

func (s *service) onExec(now time.Time, g *generation) {
	switch g.state {
	case genSpawned:
		s.setGen(now, g, genWaiting, g.deadline)
		if g.standby {
			s.log(levelInfo, g, "standby started")
		} else if s.state == replacing {
			s.log(levelInfo, g, "candidate started")
		} else {
			s.log(levelInfo, g, "started")
		}
		s.do(actWatchReady{gen: g.n}, actForeground{gen: s.frontGen().n})
	case genWaiting, genPosting, genReady, genDraining, genEnding, genKilling, genCleaning, genGone:
		// READY=1, or a stop, was faster than the report of execve(2).
	case genPreparing:
		s.impossible(g, "executed before it was spawned")
	case genStates:
	}
}

// frontGen is the generation that a terminal should belong to.
func (s *service) frontGen() *generation {
	if s.current != nil {
		return s.current
	}
	return s.candidate
}

func (s *service) onReady(now time.Time, g *generation, ev evReady) {
	switch g.state {
	case genSpawned, genWaiting:
		g.readyAt, g.how, g.evidence = now, ev.how, ev.evidence
		g.until = after(now, s.runtimeMax())
		if s.begin(g, phasePost) {
			s.setGen(now, g, genPosting, g.deadline)
			return
		}
		s.becameReady(now, g)
	case genReady:
		if g.reloading {
			g.reloading = false
			s.log(levelInfo, g, "generation has reloaded")
		}
		if s.cfg.Type == config.NotifyReload {
			s.answer(g.asks, "")
			g.asks = nil
		}
	case genPosting:
		// It said so again.
	case genDraining, genEnding, genKilling, genCleaning, genGone:
		// Too late: it was told to go.
	case genPreparing:
		// A command of ExecStartPre= said so: there is no main process yet.
	case genStates:
	}
}

// becameReady: the generation can be used.
func (s *service) becameReady(now time.Time, g *generation) {
	s.setGen(now, g, genReady, g.readyDeadline(now))
	if g.standby {
		s.standbyFails = 0
		s.log(levelInfo, g, "standby ready", "how", g.how, "after", now.Sub(g.started))
		s.do(actCheckStranded{})
	}
	if g == s.candidate {
		s.promote(now, g)
	}
}

// runtimeMax is RuntimeMaxSec= with its random part, of one generation.
func (s *service) runtimeMax() time.Duration {
	if s.cfg.RuntimeMax <= 0 || s.oneshot() { // systemd.service(5): it has no effect on Type=oneshot
		return 0
	}
	return s.cfg.RuntimeMax + time.Duration(s.rng.Float64()*float64(s.cfg.RuntimeRandom))
}

// promote makes the candidate current: this is the moment of a rollout.
func (s *service) promote(now time.Time, g *generation) {
	old := s.current
	s.candidate, s.current = nil, g
	s.strandFails, s.strandAt = 0, time.Time{}
	took := now.Sub(g.started)
	switch s.state {
	case starting:
		s.setState(now, up)
		s.watchLive(now, g)
		s.do(actSteer{gen: g.n})
		if s.rollout != nil { // the generation that was to be replaced died meanwhile
			s.log(levelInfo, g, "candidate ready", "how", g.how, "after", took)
			s.log(levelInfo, g, "rollout done", "took", now.Sub(s.rollout.started))
			s.rolloutsDone++
			s.endRollout(now, "")
		} else {
			s.log(levelInfo, g, "ready", "how", g.how, "after", took)
		}
		s.answerStarts("")
		s.do(actForeground{gen: g.n}, actNotify{ready: true, status: s.statusText()})
		s.runPending(now)
	case replacing:
		s.unpause(now, "rollout")
		s.do(actSteer{gen: g.n})
		s.rollout.moved = now
		s.watchLive(now, g)
		if old.state == genReady {
			s.setGen(now, old, genDraining, now.Add(s.gateTime()+killGiveUp))
			s.do(actGate{gen: old.n, bound: s.cfg.GateBound})
		}
		s.log(levelInfo, g, "candidate ready", "how", g.how, "after", took)
		s.log(levelInfo, g, "new connections moved", "from", old.n)
		s.do(actForeground{gen: g.n})
		if old.state == genKilling { // its watchdog had it told before
			s.tookOver(now, old)
		}
	case down, up, stopping, backoff, failed, serviceStates:
		s.impossible(g, "promoted")
	}
}

// runPending carries out a reload that was remembered.
func (s *service) runPending(now time.Time) {
	if !s.pending || s.state != up {
		return
	}
	s.pending = false
	s.do(actReload{cause: s.pendingCause, rollout: s.pendingRollout, asks: s.pendingAsks})
	s.pendingRollout, s.pendingAsks = false, nil
}

// onGate: nothing more is on its way to the old generation, or a bound was met.
func (s *service) onGate(now time.Time, g *generation, r GateResult) {
	if s.rollout == nil || s.rollout.from != g.n {
		s.impossible(g, "gate reported without a rollout")
		return
	}
	if until := s.current.readyAt.Add(s.cfg.Probation); now.Before(until) {
		// The gate is clean; the old generation waits, silent, in case the new one dies.
		g.gate, g.deadline = &r, until
		return
	}
	level, fields := levelInfo, []any{"gate", r.Gate, "shield", r.Shield}
	if !r.clean() {
		level = levelWarn
		fields = append(fields, "queued", r.Queued, "in_flight", r.InFlight, "unanswered", r.Unanswered)
	}
	if r.Note != "" {
		fields = append(fields, "note", r.Note)
	}
	s.end(now, g, causeAsked)
	s.do(actRetire{gen: g.n})
	s.log(level, g, "old generation drained", fields...)
	s.tookOver(now, g)
}

// tookOver ends the part of a rollout that can be taken back: the service is
// up with its new generation, and what is left is that the old one ends.
func (s *service) tookOver(now time.Time, old *generation) {
	s.rollout.told = now
	old.replaced, s.rollout = s.rollout, nil
	if old.state == genGone { // KillMode=none: it was let go at once
		s.replacedBy(now, old)
	}
	s.setState(now, up)
	s.do(actNotify{ready: true, status: s.statusText()})
	s.runPending(now)
}

// end tells a generation to stop. It does nothing to one that was told already.
func (s *service) end(now time.Time, g *generation, why cause) {
	switch g.state {
	case genDraining:
		s.do(actGateCancel{gen: g.n})
	case genEnding, genKilling, genCleaning, genGone:
		return
	case genPreparing, genSpawned, genWaiting, genPosting, genReady:
	case genStates:
	}
	if g.cause == causeNone {
		g.cause = why
	}
	if g.elder && g.state == genReady && s.state == stopping && !g.exited {
		// Nobody took over from it: it is what it was before us.
		s.log(levelInfo, g, "the adopted server goes on without us")
		g.exited, g.exit = true, Exit{Unknown: true}
		s.gone(now, g)
		return
	}
	g.endedAt = now
	switch was := g.state; {
	case was == genPreparing: // at most a command runs
		s.setGen(now, g, genKilling, after(now, s.cfg.TimeoutStop))
		if g.phase != phaseNone {
			s.do(actCommandEnd{gen: g.n})
		}
		return
	case (was == genReady || was == genDraining) && (!g.exited || s.oneshot()) && why == causeAsked && s.begin(g, phaseStop):
		s.setGen(now, g, genEnding, after(now, s.cfg.TimeoutStop))
		return
	}
	s.signalStop(now, g)
}

// signalStop sends the stop signal.
func (s *service) signalStop(now time.Time, g *generation) {
	sig, timeout := int(stopSignal(s.cfg)), s.cfg.TimeoutStop
	if s.cfg.RestartSignal != 0 && s.state != stopping {
		sig = int(s.cfg.RestartSignal)
	}
	if g.cause == causeTimeout && s.cfg.StartFailure == config.FailKill {
		g.endedAt, g.timedOut = now, true
		s.kill(now, g)
		return
	}
	if g.cause == causeWatchdog || g.cause == causeTimeout && s.cfg.StartFailure == config.FailAbort {
		sig = int(syscall.SIGABRT)
		if s.cfg.WatchdogSignal != 0 {
			sig = int(s.cfg.WatchdogSignal)
		}
		if s.cfg.TimeoutAbort > 0 {
			timeout = s.cfg.TimeoutAbort
		}
	}
	if s.stop != nil && s.stop.signal != 0 {
		sig = s.stop.signal
	}
	s.setGen(now, g, genKilling, after(now, timeout))
	mode := s.cfg.KillMode
	if g.exited {
		// Only left-overs are meant now; with mixed they get SIGKILL.
		switch mode {
		case config.KillMixed:
			s.kill(now, g)
			return
		case config.KillControlGroup:
		case config.KillProcess, config.KillNone:
			if g.emptied || s.oneshot() {
				s.empty(now, g)
			}
			return // else onExited sees to it
		}
	}
	if mode == config.KillNone {
		s.log(levelWarn, g, "left running, as KillMode=none asks")
		s.onExited(now, g, Exit{Unknown: true}, 0)
		return
	}
	s.do(actSignal{gen: g.n, signal: sig, mode: mode, stop: true})
	if s.cfg.SendSIGHUP {
		s.do(actSignal{gen: g.n, signal: int(syscall.SIGHUP), mode: mode})
	}
	// A stopped process hears nothing: systemd.kill(5) sends this as well.
	s.do(actSignal{gen: g.n, signal: int(syscall.SIGCONT), mode: mode})
	if g.emptied {
		s.empty(now, g)
	}
}

// impossible notes a cell of the tables that cannot be reached. It is an
// error that tests look for, and no reason for a supervisor to die.
func (s *service) impossible(g *generation, what string) {
	s.log(levelError, g, "cannot happen: "+what, "state", s.state.String(), "generation_state", g.state.String())
}

// kill sends SIGKILL to all of a generation, now and again until it is empty.
func (s *service) kill(now time.Time, g *generation) {
	if !g.final {
		g.final, g.finalAt = true, now
	}
	s.setGen(now, g, genKilling, now.Add(killAgain))
	s.do(actKill{gen: g.n, mode: s.cfg.KillMode}, actCheckEmpty{gen: g.n})
}

func (s *service) onWatchdog(now time.Time, g *generation, why string) {
	s.log(levelError, g, "watchdog: the generation is ended", "reason", why, "interval", g.watchdog)
	s.end(now, g, causeWatchdog)
}

func (s *service) onExtend(now time.Time, g *generation, by time.Duration) {
	switch g.state {
	case genPreparing, genSpawned, genWaiting, genPosting, genEnding, genKilling, genCleaning:
		if g.final || g.deadline.IsZero() {
			return
		}
		if t := now.Add(by); t.After(g.deadline) {
			g.deadline = t
			s.do(actNotify{extend: by})
		}
	case genReady, genDraining, genGone:
		// No timeout runs that it could mean.
	case genStates:
	}
}

// onExited: the main process is dead. What is left of its tree is told to go.
func (s *service) onExited(now time.Time, g *generation, e Exit, terminal int) {
	if g.exited {
		return
	}
	g.exited, g.exit, g.exitedAt = true, e, now
	s.answer(g.asks, g.exit.String())
	g.asks = nil
	was := g.state
	role := s.roleOf(g)
	if s.oneshot() && role == roleCandidate && (was == genSpawned || was == genWaiting) &&
		terminal == 0 && g.cause == causeNone && clean(s.cfg, e) {
		s.finished(now, g)
		s.do(actCheckEmpty{gen: g.n})
		return
	}
	if terminal != 0 && role != roleOld && role != roleStandby && s.state != stopping {
		s.do(actReturnLanes{gen: g.n})
		s.terminalStop(now, g, terminal)
	} else if role != roleOld {
		// Its lanes, with the clients in their queues, are for the next generation.
		s.do(actReturnLanes{gen: g.n})
		s.ended(now, g) // first: the next generation is started before anything is cleaned up
	} else if was == genDraining {
		s.oldDied(now, g)
	}
	s.end(now, g, causeNone)
	switch s.cfg.KillMode {
	case config.KillProcess, config.KillNone:
		s.onEmpty(now, g) // the others are none of our business, says the user
	case config.KillControlGroup:
		s.do(actCheckEmpty{gen: g.n})
	case config.KillMixed:
		if !g.final { // told to stop before: the rest is not asked
			s.kill(now, g)
		}
	}
	s.onBackoffDue(now)
}

// terminalStop: the user ended the generation that has the terminal, by Ctrl-C,
// Ctrl-\ or by closing it, which ended it as it would have without us. That is a
// stop, whatever Restart= says. After a key the exit status is that of a shell,
// unless the command found one of its own.
func (s *service) terminalStop(now time.Time, g *generation, sig int) {
	words := map[int]string{int(syscall.SIGINT): "Ctrl-C at the terminal", int(syscall.SIGQUIT): "Ctrl-\\ at the terminal"}[sig]
	if words == "" {
		words = "the terminal is gone"
	}
	if s.rollout != nil {
		s.rolloutsFail++
		s.endRollout(now, words)
	}
	s.onStop(now, evStop{cause: words}) // it tells the left-overs of this one, too
	s.noteStop(g)
	if s.status == 0 && sig != int(syscall.SIGHUP) {
		s.status = 128 + sig
	}
	s.current, s.candidate = nil, nil
}

// onBackoffDue starts again when the time for it has come and nothing that
// failed is still alive.
func (s *service) onBackoffDue(now time.Time) {
	if s.state == backoff && !s.deadline.IsZero() && !s.deadline.After(now) && s.startable() {
		s.spawn(now)
	}
}

type role uint8

const (
	roleOld role = iota
	roleCurrent
	roleCandidate
	roleStandby
)

func (s *service) roleOf(g *generation) role {
	switch g {
	case s.current:
		return roleCurrent
	case s.candidate:
		return roleCandidate
	case s.standby:
		return roleStandby
	}
	return roleOld
}

// oldDied: an old generation died before it was told to.
func (s *service) oldDied(now time.Time, g *generation) {
	s.do(actGateCancel{gen: g.n})
	s.log(levelWarn, g, "old generation ended before it was told to", "exit", g.exit.String())
	s.tookOver(now, g)
}

// ended decides what follows when the current or the candidate ended by
// itself, could not be started, or was ended because it failed.
func (s *service) ended(now time.Time, g *generation) {
	if g.standby {
		s.standbyEnded(now, g)
		return
	}
	role := s.roleOf(g)
	if role == roleOld && g.state != genGone {
		return
	}
	if s.stop == nil {
		s.remember(g)
	} else if role == roleCurrent {
		s.noteStop(g)
	}
	if s.current == g {
		s.current = nil
	}
	if s.candidate == g {
		s.candidate = nil
	}
	switch s.state {
	case replacing:
		switch {
		case s.rollout.moved.IsZero() && role == roleCurrent:
			s.currentDiedInRollout(now, g)
		case s.rollout.moved.IsZero():
			s.rolloutFailed(now, g)
		default:
			s.takeBack(now, g)
		}
	case starting, up:
		s.crashed(now, g)
	case stopping, backoff, down, failed:
		// Everything else has been decided already.
	case serviceStates:
	}
}

// noteExit keeps whose the last exit was.
func (s *service) noteExit(g *generation) {
	e := g.exit
	s.lastExit, s.lastCause = &e, g.cause
	s.lastGen, s.lastWhen, s.lastReason = g.n, g.exitedAt, failure(s.cfg, g)
}

// remember keeps how the last main process ended.
func (s *service) remember(g *generation) {
	s.noteExit(g)
	e := g.exit
	switch {
	case g.cause == causeNoStart:
		s.status = startStatus(g.err)
	case g.cause == causeTimeout && g.readyAt.IsZero():
		s.status = exitNeverReady
	default:
		s.status = e.shellStatus()
	}
}

// currentDiedInRollout: the candidate goes on as the only hope.
func (s *service) currentDiedInRollout(now time.Time, g *generation) {
	s.unpause(now, "the generation ended")
	s.setState(now, starting)
	s.do(actSteer{gen: s.candidate.n})
	s.restarts++
	s.log(levelWarn, g, "current generation ended during the rollout, going on with the candidate",
		"exit", g.exit.String(), "candidate", s.candidate.n)
}

// rolloutFailed: the candidate failed before it took over. The current
// generation was never touched.
func (s *service) rolloutFailed(now time.Time, g *generation) {
	s.do(actLog{
		level: levelError, message: fmt.Sprintf("rollout failed, keeping generation %d", s.current.n), gen: g.n,
		fields: []any{"reason", failure(s.cfg, g), "took", now.Sub(s.rollout.started)}, lastLines: true,
	})
	s.closeRollout(now)
}

// takeBack: the new generation died after it took over and before the old one
// was told to stop: the old one becomes current again.
func (s *service) takeBack(now time.Time, g *generation) {
	old := s.gen(s.rollout.from)
	if old == nil || old.state != genDraining {
		s.impossible(g, "nobody to take back")
		s.crashed(now, g)
		return
	}
	s.do(actGateCancel{gen: old.n}, actSteer{gen: old.n})
	s.setGen(now, old, genReady, old.readyDeadline(now))
	old.gate = nil
	s.current = old
	s.watchLive(now, old)
	s.do(actForeground{gen: old.n})
	s.do(actLog{
		level: levelError, message: fmt.Sprintf("rollout failed, keeping generation %d", old.n), gen: g.n,
		fields: []any{"reason", failure(s.cfg, g) + fmt.Sprintf(", %s after it took over", now.Sub(g.readyAt).Round(time.Millisecond))}, lastLines: true,
	})
	s.closeRollout(now)
}

// closeRollout ends a rollout that failed.
func (s *service) closeRollout(now time.Time) {
	if s.rollout.cause == causeStranded {
		s.strandFails++
		s.strandAt = now.Add(max(restartDelay(s.cfg, s.strandFails+1, s.rng.Float64()), strandAgain))
	}
	s.rolloutsFail++
	s.endRollout(now, s.lastReason)
	s.setState(now, up)
	s.do(actNotify{ready: true, status: "rollout failed, " + s.statusText()})
	s.runPending(now)
}

// failure says in words why a generation failed.
func failure(cfg *config.Service, g *generation) string {
	switch g.cause {
	case causeNoStart:
		return fmt.Sprint(g.err)
	case causeTimeout:
		return fmt.Sprintf("not ready within %s", cfg.TimeoutStart)
	case causeWatchdog:
		return "missed its watchdog"
	case causeSick:
		return "not alive: " + g.sick
	case causeCommand:
		return fmt.Sprint(g.err)
	case causeRuntime:
		return fmt.Sprintf("ran for RuntimeMaxSec=, %s", cfg.RuntimeMax)
	case causeNone, causeAsked:
	}
	if g.readyAt.IsZero() {
		return g.exit.String() + " before it was ready"
	}
	return g.exit.String()
}

// crashed: nobody serves now. The next generation is started at once, later,
// or not at all.
func (s *service) crashed(now time.Time, g *generation) {
	if healthy(g, now) {
		s.failures = 0
	}
	s.unpause(now, "the generation ended")
	if s.rollout != nil {
		s.rolloutsFail++
		s.endRollout(now, failure(s.cfg, g))
	}
	s.answerStarts(failure(s.cfg, g))
	ok := g.cause == causeNone && clean(s.cfg, g.exit)
	ended := "ended"
	if g.readyAt.IsZero() && !ok {
		ended = "failed to start"
	}
	level := levelError
	if ok {
		level = levelInfo
	}
	if !mayRestart(s.cfg, g.cause, g.exit) || s.cannotEverStart(g) {
		s.do(actLog{level: level, message: ended, gen: g.n, fields: []any{"reason", failure(s.cfg, g), "restart", string(s.cfg.Restart)}, lastLines: !ok})
		s.giveUp(now)
		return
	}
	s.failures++
	if killed(g) {
		s.failures = min(s.failures, 2)
	}
	s.restarts++
	delay := restartDelay(s.cfg, s.failures, s.rng.Float64())
	if s.takeOver(now, g, delay) {
		return
	}
	if delay == 0 && s.startable() && !g.unheld {
		s.spawn(now)
	} else {
		s.setState(now, backoff)
		s.deadline = now.Add(delay)
		s.do(actNotify{status: s.statusText()})
	}
	s.do(actLog{
		level: level, message: ended + ", starting again", gen: g.n,
		fields: []any{"reason", failure(s.cfg, g), "in", delay.Round(time.Millisecond), "failures", s.failures}, lastLines: !ok,
	})
}

// cannotEverStart: the very first start failed in a way that time does not heal.
func (s *service) cannotEverStart(g *generation) bool {
	return g.cause == causeNoStart && s.rolloutsDone == 0 && s.plainDone == 0 && s.restarts == 0
}

// startable reports whether a new generation may start: one that failed and is
// still being killed must be dead first, and of one with listeners that are not
// held no process may be left.
func (s *service) startable() bool {
	for _, g := range s.gens {
		if s.restartAlone && g.state != genGone {
			return false
		}
		if len(s.cfg.StopPost) > 0 && g.state != genGone {
			return false // it cleans up what the next one makes
		}
		if g.unheld && g.state != genGone {
			return false
		}
		if g.state == genKilling && !g.exited && g.cause != causeAsked {
			return false
		}
	}
	return true
}

// giveUp: the service ends by itself. Whatever is left of it goes too.
func (s *service) giveUp(now time.Time) {
	s.unpause(now, "the service ended")
	s.refuseAsks(now, "the service ended")
	s.setState(now, stopping)
	s.do(actNotify{stopping: true}, actCloseListeners{})
	for _, g := range s.gens {
		s.end(now, g, causeAsked)
	}
	s.finish(now)
}

func (s *service) onStop(now time.Time, ev evStop) {
	hard := ev.hard
	switch s.state {
	case down, failed:
		if s.stop == nil || s.stop.stays {
			s.stop = &ev
		}
		s.do(actCloseListeners{}, actEnd{status: s.status, stays: ev.stays})
		return
	case stopping:
		switch {
		case s.stop == nil, s.stop.stays && !ev.stays:
			s.stop = &ev // it was ending by itself, or another one would have let us stay
		case !ev.stays:
			hard = true // a second one
		}
	case starting, up, replacing, backoff:
		if s.state == starting {
			// Nobody else runs: how it ends is how the service ends.
			s.current, s.candidate = s.candidate, nil
		}
		s.unpause(now, "stop")
		s.refuseAsks(now, "the service is being stopped")
		s.stop = &ev
		s.status = 0
		s.setState(now, stopping)
		s.log(levelInfo, nil, "stopping", "cause", ev.cause, "timeout", s.cfg.TimeoutStop)
	case serviceStates:
	}
	if hard {
		s.log(levelWarn, nil, "stopping at once", "cause", ev.cause)
	}
	s.do(actGiveBack{})
	for _, g := range append([]*generation(nil), s.gens...) {
		if hard && !(g.elder && g.state == genReady) {
			g.timedOut = true
			if g.state == genDraining {
				s.do(actGateCancel{gen: g.n})
			}
			if g.cause == causeNone {
				g.cause = causeAsked
			}
			s.kill(now, g)
		} else {
			s.end(now, g, causeAsked)
		}
	}
	// After the signals: from here on a client is refused, as without us.
	s.do(actCloseListeners{}, actNotify{stopping: true, extend: s.stopTime(), status: "stopping"})
	s.candidate = nil
	s.finish(now)
}

func (s *service) stopTime() time.Duration {
	if s.cfg.TimeoutStop <= 0 {
		return 0
	}
	return s.cfg.TimeoutStop + 2*time.Second
}

// finish ends the supervisor once nothing is left to wait for.
func (s *service) finish(now time.Time) {
	if s.state != stopping || len(s.gens) > 0 {
		return
	}
	if s.stop == nil && s.status != 0 {
		s.setState(now, failed)
	} else {
		s.setState(now, down)
	}
	s.log(levelInfo, nil, "stopped", "status", s.status)
	s.do(actEnd{status: s.status, stays: s.stop != nil && s.stop.stays})
}

// onEmpty: no process of the generation is left.
func (s *service) onEmpty(now time.Time, g *generation) {
	if !g.exited {
		return // its main process will be reported first
	}
	if g.state != genKilling {
		g.emptied = true // a task that is done, or commands have still to run
		return
	}
	s.empty(now, g)
}

// empty: what comes after the last process.
func (s *service) empty(now time.Time, g *generation) {
	if g.phase != phaseNone { // of those that stand beside the main process
		g.emptied = true
		s.setGen(now, g, genKilling, now.Add(killAgain))
		s.do(actCommandEnd{gen: g.n, hard: true})
		return
	}
	if s.begin(g, phaseClean) {
		s.setGen(now, g, genCleaning, after(now, s.cfg.TimeoutStop))
		return
	}
	s.gone(now, g)
}

func (s *service) gone(now time.Time, g *generation) {
	s.setGen(now, g, genGone, time.Time{})
	s.remove(g)
	s.do(actRelease{gen: g.n})
	s.answer(g.asks, "the generation ended")
	g.asks = nil
	if g.replaced != nil {
		s.replacedBy(now, g)
	} else if s.state != stopping {
		s.log(levelDebug, g, "generation gone", "exit", g.exit.String())
	}
	s.finish(now)
	s.onBackoffDue(now)
}

// replacedBy: the rollout that ended an old generation is over.
func (s *service) replacedBy(now time.Time, old *generation) {
	r := old.replaced
	s.log(levelInfo, old, "old generation gone", "exit", old.exit.String(), "after", now.Sub(r.told))
	s.do(actLog{level: levelInfo, message: "rollout done", gen: r.to, fields: []any{"from", old.n, "took", now.Sub(r.started)}})
	s.rolloutsDone++
	s.noteRollout(now, r, "")
}

// noteStop takes the exit of the current generation, which was asked to stop,
// as the supervisor's own: 0 when it was clean, or is not known and nothing
// had to be killed.
func (s *service) noteStop(g *generation) {
	s.noteExit(g)
	if !g.timedOut && (g.exit.Unknown || clean(s.cfg, g.exit)) {
		s.status = 0
	} else {
		s.status = g.exit.shellStatus()
	}
}

func (s *service) onDeadline(now time.Time) {
	s.onBackoffDue(now)
	s.onLiveDue(now)
	if s.state == up && !s.strandAt.IsZero() && !s.strandAt.After(now) {
		s.strandAt = time.Time{}
		s.do(actCheckStranded{})
	}
	for _, g := range append([]*generation(nil), s.gens...) {
		if g.deadline.IsZero() || g.deadline.After(now) {
			continue
		}
		switch g.state {
		case genPreparing, genSpawned, genWaiting, genPosting:
			s.startTimeout(now, g)
		case genReady:
			if !g.until.IsZero() && !g.until.After(now) {
				s.runtimeOver(now, g)
				continue
			}
			if s.cfg.Live.Kind == config.ReadyNotify && s.cfg.LiveAction == config.LiveRollout && g == s.current {
				g.deadline = g.readyDeadline(now)
				s.sick(now, g, "no WATCHDOG=1 in time")
				continue
			}
			s.onWatchdog(now, g, "no WATCHDOG=1 in time")
		case genEnding:
			s.log(levelWarn, g, "ExecStop= takes too long, sending the stop signal", "timeout", s.cfg.TimeoutStop)
			s.do(actCommandEnd{gen: g.n, hard: true})
			g.phase, g.line, g.queued = phaseNone, 0, phaseNone
			s.signalStop(now, g)
		case genCleaning:
			s.cleanTimeout(now, g)
		case genDraining:
			r := GateResult{Note: "the gate did not report in time"}
			if g.gate != nil {
				r = *g.gate
			}
			s.onGate(now, g, r)
		case genKilling:
			s.killDeadline(now, g)
		case genGone, genStates:
		}
	}
}

// startTimeout: not ready within TimeoutStartSec.
func (s *service) startTimeout(now time.Time, g *generation) {
	if g.state == genWaiting && s.state == starting && s.cfg.Ready.Kind == config.ReadyAuto &&
		(s.cfg.Type == config.Auto || s.cfg.Type == config.Exec || s.cfg.Type == config.Simple) {
		// Nothing says what this command does when it is ready, and it lives.
		s.log(levelWarn, g, "not seen listening in time, taken as ready because it runs", "timeout", s.cfg.TimeoutStart)
		s.onReady(now, g, evReady{gen: g.n, how: "alive"})
		return
	}
	g.cause = causeTimeout
	s.end(now, g, causeTimeout)
	if g.state == genKilling && g.pid == 0 && g.phase != phaseNone {
		s.ended(now, g) // its command is being ended
		return
	}
	if !g.exited { // else (KillMode=none) it has been dealt with
		s.ended(now, g)
	}
}

// runtimeOver: it ran for as long as it may.
func (s *service) runtimeOver(now time.Time, g *generation) {
	s.log(levelWarn, g, "ran for RuntimeMaxSec=, and is ended", "runtime", s.cfg.RuntimeMax)
	g.until = time.Time{}
	s.end(now, g, causeRuntime)
}

// cleanTimeout: the commands of ExecStopPost= do not end.
func (s *service) cleanTimeout(now time.Time, g *generation) {
	if g.final {
		s.gone(now, g)
		return
	}
	s.log(levelWarn, g, "ExecStopPost= takes too long, killing it", "timeout", s.cfg.TimeoutStop)
	g.final, g.finalAt = true, now
	g.deadline = now.Add(killGiveUp)
	s.do(actCommandEnd{gen: g.n, hard: true})
}

// patience is how long SIGKILL is tried on a generation.
func (s *service) patience(g *generation) time.Duration {
	if g.exited && s.state != stopping && !g.unheld {
		return killGiveUpLeft
	}
	return killGiveUp
}

// killDeadline: the stop signal was not enough.
func (s *service) killDeadline(now time.Time, g *generation) {
	switch {
	case !g.final && !s.cfg.SendSIGKILL:
		g.deadline = time.Time{}
		s.log(levelWarn, g, "still there at its stop timeout, and SendSIGKILL=no", "timeout", s.cfg.TimeoutStop)
	case !g.final && !g.timedOut && s.cfg.StopFailure == config.FailAbort:
		g.timedOut = true
		sig := syscall.SIGABRT
		if s.cfg.WatchdogSignal != 0 {
			sig = s.cfg.WatchdogSignal
		}
		g.deadline = after(now, s.cfg.TimeoutStop)
		if s.cfg.TimeoutAbort > 0 {
			g.deadline = now.Add(s.cfg.TimeoutAbort)
		}
		s.log(levelWarn, g, "still there at its stop timeout, asking for a dump", "signal", config.SignalName(sig))
		s.do(actSignal{gen: g.n, signal: int(sig), mode: config.KillControlGroup})
	case !g.final && !g.timedOut && s.cfg.FinalSignal != syscall.SIGKILL && s.cfg.FinalSignal != 0:
		g.timedOut = true
		g.deadline = now.Add(finalSignalGrace)
		s.log(levelWarn, g, "still there at its stop timeout, sending the final signal", "signal", config.SignalName(s.cfg.FinalSignal))
		s.do(actSignal{gen: g.n, signal: int(s.cfg.FinalSignal), mode: config.KillControlGroup})
	case !g.final:
		g.timedOut = true
		s.log(levelWarn, g, "still there at its stop timeout, killing all of it", "timeout", now.Sub(g.endedAt).Round(time.Millisecond))
		s.kill(now, g)
	case now.Sub(g.finalAt) < s.patience(g):
		s.kill(now, g)
	default:
		s.log(levelError, g, "processes are left that SIGKILL cannot end, giving up on them")
		if !g.exited {
			g.exited, g.exit = true, Exit{Unknown: true}
			if s.roleOf(g) != roleOld {
				s.do(actReturnLanes{gen: g.n})
				s.ended(now, g)
			}
		}
		s.gone(now, g)
	}
}
