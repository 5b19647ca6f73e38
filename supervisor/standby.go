package supervisor

import "time"

// With Standby= the next generation is started ahead, made ready, and gets no
// connection until the current one dies: then it takes over in the same step, in
// place of a start. Clients that were in the dead one's queue are served by the
// standby that is started next, which is lent its lane.
//
// A standby is of the code and configuration of its start. So a rollout does not
// take it over: it ends it, and the one that follows is of the new code.

// standbyEager is how many failures in a row are followed by the next standby at
// once.
const standbyEager = 2

// standbyAgain is the shortest wait after a standby that failed.
const standbyAgain = time.Second

// standbyWanted reports whether a standby should be there and is not: the service
// is up, and nothing else happens.
func (s *service) standbyWanted() bool {
	if !s.standbyAllowed() || s.standby != nil {
		return false
	}
	for _, g := range s.gens {
		if g != s.current && !g.exited {
			return false
		}
	}
	return true
}

// standbyAllowed reports whether there may be one.
func (s *service) standbyAllowed() bool {
	g := s.current
	return s.cfg.Standby && s.state == up && s.candidate == nil && s.stop == nil &&
		g != nil && g.state == genReady && !g.exited && !g.unheld && !g.elder && !s.oneshot()
}

// keepStandby comes at the end of each step: it starts a standby where one is
// wanted, and ends one where there may be none.
func (s *service) keepStandby(now time.Time) {
	if g := s.standby; g != nil && (!s.standbyAllowed() || g.unheld) {
		s.standby, g.standby = nil, false
		if !s.cfg.Standby || g.unheld {
			s.standbyAt = now.Add(standbyAgain)
		}
		s.end(now, g, causeAsked)
	}
	if !s.standbyWanted() || s.standbyAt.After(now) {
		return
	}
	s.standbyAt = time.Time{}
	s.lastN++
	g := &generation{n: s.lastN, started: now, watchdog: s.cfg.Watchdog, standby: true}
	s.setGen(now, g, genSpawned, after(now, s.cfg.TimeoutStart))
	s.gens = append(s.gens, g)
	s.standby = g
	s.do(actSpawn{gen: g.n})
}

// standbyDue is when the next standby is due; zero: none is waited for.
func (s *service) standbyDue() time.Time {
	if s.standbyAt.IsZero() || !s.standbyWanted() {
		return time.Time{}
	}
	return s.standbyAt
}

// standbyEnded: it failed, before it was of any use. The service goes on.
func (s *service) standbyEnded(now time.Time, g *generation) {
	g.standby = false
	if s.standby == g {
		s.standby = nil
	}
	s.standbyFails++
	delay := max(restartDelay(s.cfg, s.standbyFails+1, s.rng.Float64()), standbyAgain)
	s.standbyAt = now.Add(delay)
	s.do(actLog{
		level: levelWarn, message: "the standby failed", gen: g.n,
		fields: []any{"reason", failure(s.cfg, g), "next", delay.Round(time.Millisecond)}, lastLines: true,
	})
}

// takeOver makes the standby current in place of g, which died; false when there
// is none that could.
func (s *service) takeOver(now time.Time, g *generation, delay time.Duration) bool {
	next := s.standby
	if s.state != up || next == nil || next.state != genReady || next.exited || s.startLimitHit(now) {
		return false
	}
	s.standby, next.standby = nil, false
	s.current = next
	s.standbyFails = 0
	// What dies again and again is not started again and again. Else the next one is
	// started at once: it serves the clients in the queue of the dead one.
	if s.failures > standbyEager {
		s.standbyAt = now.Add(delay)
	}
	s.since = now
	s.do(actSteer{gen: next.n}, actForeground{gen: next.n}, actNotify{ready: true, status: s.statusText()})
	s.watchLive(now, next)
	s.do(actLog{
		level: levelError, message: "ended, the standby took over", gen: g.n,
		fields: []any{"reason", failure(s.cfg, g), "standby", next.n, "failures", s.failures}, lastLines: true,
	})
	return true
}
