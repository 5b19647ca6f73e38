package supervisor

import "time"

// Whoever asks for something by the control socket hears how it ended. An ask
// is a number; it goes with what it led to (a rollout, a start, a reload), and is
// answered once, by actAnswer, whatever happens meanwhile.

// answer answers asks: failure is "" for what was done.
func (s *service) answer(asks []int, failure string) {
	if len(asks) > 0 {
		s.do(actAnswer{asks: asks, failure: failure})
	}
}

// endRollout forgets the rollout under way, and keeps how it ended.
func (s *service) endRollout(now time.Time, failure string) {
	s.noteRollout(now, s.rollout, failure)
	s.rollout = nil
}

func (s *service) noteRollout(now time.Time, r *rollout, failure string) {
	r.ended, r.failure = now, failure
	s.lastRollout = r
	s.answer(r.asks, failure)
	r.asks = nil
}

// answerStarts answers those that wait for the service to be up.
func (s *service) answerStarts(failure string) {
	s.answer(s.startAsks, failure)
	s.startAsks = nil
}

// refuseAsks answers everybody that waits for what will not come.
func (s *service) refuseAsks(now time.Time, failure string) {
	if s.rollout != nil {
		s.endRollout(now, failure)
	}
	s.answerStarts(failure)
	s.answer(s.pendingAsks, failure)
	s.pendingAsks, s.pendingRollout = nil, false
}

// onRestart: stop, then start. The loop has moved new connections away from the
// current generation before, where it could.
func (s *service) onRestart(now time.Time, ev evRestart) {
	switch s.state {
	case up:
		if s.startLimitReached(now) {
			s.answer(ev.asks, "start limit reached")
			return
		}
		s.restartAlone = true
		s.startAsks = append(s.startAsks, ev.asks...)
		s.plainRestart(now, ev.cause, "restart: stopped first, as asked")
	case starting, replacing:
		// Somebody else's rollout came first, and it ends in a new generation.
		s.pending, s.pendingCause, s.pendingRollout = true, ev.cause, true
		s.pendingAsks = append(s.pendingAsks, ev.asks...)
	case backoff:
		s.startAsks = append(s.startAsks, ev.asks...)
		s.deadline = now
		s.onBackoffDue(now)
	case down, failed:
		s.startAsks = append(s.startAsks, ev.asks...)
		s.onStart(now)
	case stopping:
		s.answer(ev.asks, "the service is being stopped")
	case serviceStates:
	}
}

// onPaused: the loop has parked the new connections of the current generation.
func (s *service) onPaused(now time.Time, ev evPaused) {
	switch s.state {
	case up:
		s.pausedAt = now
		s.log(levelInfo, s.current, "paused: new connections wait", "how", ev.how)
	case replacing, starting, down, stopping, backoff, failed:
		s.do(actUnpark{}) // it is no more what it was when it was asked
	case serviceStates:
	}
}

// onResumed: what was parked is served again.
func (s *service) onResumed(now time.Time) {
	if s.pausedAt.IsZero() {
		return
	}
	took := now.Sub(s.pausedAt)
	s.pausedAt = time.Time{}
	s.do(actUnpark{})
	switch s.state {
	case up:
		s.log(levelInfo, s.current, "resumed", "paused", took)
		s.do(actSteer{gen: s.current.n})
	case replacing, starting, down, stopping, backoff, failed:
	case serviceStates:
	}
}

// unpause ends a pause because of something greater: another generation is to
// serve, or none.
func (s *service) unpause(now time.Time, because string) {
	if s.pausedAt.IsZero() {
		return
	}
	s.log(levelInfo, nil, "the pause ends", "because", because, "paused", now.Sub(s.pausedAt))
	s.pausedAt = time.Time{}
	s.do(actUnpark{})
}
