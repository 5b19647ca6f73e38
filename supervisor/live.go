package supervisor

import (
	"fmt"
	"time"

	"github.com/supervise/supervise/supervisor/config"
)

// liveness is what is known of the health of the current generation.
type liveness struct {
	next  time.Time // when it is asked again; zero while it is being asked, or never is
	fails int       // in a row
	last  string    // what the last one failed of; "" when it did not
}

// probed reports whether g is one that is asked whether it lives: the current
// one, for as long as it is left alone.
func (s *service) probed(g *generation) bool {
	return s.cfg.Live.Probes() && g != nil && g == s.current && g.state == genReady && !g.exited && !s.oneshot() &&
		(s.state == up || s.state == replacing)
}

// watchLive begins to ask a generation that became current.
func (s *service) watchLive(now time.Time, g *generation) {
	g.live = liveness{}
	if s.probed(g) {
		g.live.next = now.Add(s.cfg.LiveInterval)
	}
}

// liveDue is when the next probe is due; zero: none.
func (s *service) liveDue() time.Time {
	if !s.probed(s.current) {
		return time.Time{}
	}
	return s.current.live.next
}

func (s *service) onLiveDue(now time.Time) {
	if due := s.liveDue(); !due.IsZero() && !due.After(now) {
		s.current.live.next = time.Time{}
		s.do(actProbe{gen: s.current.n})
	}
}

// onProbed: a probe of the current generation has an answer, "" for a good one.
func (s *service) onProbed(now time.Time, g *generation, failure string) {
	if !s.probed(g) || !g.live.next.IsZero() {
		return // it is none of our business any more
	}
	g.live.next, g.live.last = now.Add(s.cfg.LiveInterval), failure
	if failure == "" {
		if g.live.fails > 0 {
			s.log(levelInfo, g, "lives again", "failures", g.live.fails)
		}
		g.live.fails = 0
		return
	}
	g.live.fails++
	if g.live.fails < s.cfg.LiveFailures {
		s.log(levelWarn, g, "liveness probe failed", "answer", failure, "failures", g.live.fails, "of", s.cfg.LiveFailures)
		return
	}
	s.sick(now, g, fmt.Sprintf("%d liveness probes failed in a row: %s", g.live.fails, failure))
}

// sick does what LiveAction= says with a generation that does not serve any more.
func (s *service) sick(now time.Time, g *generation, why string) {
	g.live.fails = 0
	s.sickDone++
	if s.cfg.LiveAction != config.LiveRollout {
		s.log(levelError, g, "not alive: the generation is ended", "reason", why)
		g.sick = why
		s.end(now, g, causeSick)
		return
	}
	if s.state != up {
		s.log(levelError, g, "not alive, and its successor is on its way already", "reason", why)
		return
	}
	s.log(levelError, g, "not alive: a new generation takes over", "reason", why)
	if g.unheld {
		s.plainRestart(now, causeNotAlive, plainWords)
		return
	}
	s.beginRollout(now, causeNotAlive)
}

// causeNotAlive is the cause of a rollout that a liveness probe asked for.
const causeNotAlive = "not alive"
