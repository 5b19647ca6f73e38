package supervisor

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/supervise/supervise/supervisor/config"
)

// serviceState is the state of the service; see doc.go.
type serviceState uint8

const (
	down serviceState = iota
	starting
	up
	replacing
	stopping
	backoff
	failed
	serviceStates // how many there are
)

func (s serviceState) String() string {
	switch s {
	case down:
		return "down"
	case starting:
		return "starting"
	case up:
		return "up"
	case replacing:
		return "replacing"
	case stopping:
		return "stopping"
	case backoff:
		return "backoff"
	case failed:
		return "failed"
	case serviceStates:
	}
	return "impossible"
}

// service is the pure state of one service. Only step and what step calls
// change it.
type service struct {
	cfg   *config.Service
	state serviceState
	since time.Time // when state was entered

	gens      []*generation // every living one, oldest first
	current   *generation   // serves new connections; nil while nobody does
	candidate *generation   // on its way to become current
	standby   *generation   // waits, ready or on its way to it, for the current one to die
	lastN     int           // number of the newest generation

	deadline time.Time // backoff: when to start again

	pending      bool   // a reload came while it could not be carried out
	pendingCause string // of that reload

	pendingRollout bool  // nothing less than a rollout will do
	pendingAsks    []int // for that reload; see asks.go
	startAsks      []int // for the service to be up
	restartAlone   bool  // the next generation starts when no other is left

	pausedAt     time.Time // when new connections were parked; zero: they are not
	lastRollout  *rollout  // the last one that ended
	rollout      *rollout
	unheldSaid   string // why a generation has listeners that are not held, as logged
	doneOnce     bool   // a task that has ended well
	plainDone    int    // reloads that had to be restarts
	rolloutsDone int
	rolloutsFail int
	sickDone     int       // generations that were found not to live
	standbyFails int       // in a row
	standbyAt    time.Time // not before then is another one started; zero: at once
	strandFails  int       // rollouts for stranded clients that failed in a row
	strandAt     time.Time // when to look for them again; zero: when the loop sees some

	stop       *evStop     // the stop that was asked for
	failures   int         // consecutive, without a healthy run between
	starts     []time.Time // recent ones, for StartLimitBurst=
	restarts   int         // starts made without being asked
	lastExit   *Exit       // of the last current or starting generation
	lastCause  cause
	lastGen    int       // whose lastExit is
	lastWhen   time.Time // when that was
	lastReason string    // in words
	status     int       // the supervisor's exit status, once known

	rng *rand.Rand // jitter; seeded by the caller

	out []action
}

// rollout is one rollout under way, until the old generation is gone.
type rollout struct {
	from, to int
	cause    string
	started  time.Time
	moved    time.Time // zero until new connections go to the candidate
	told     time.Time // zero until the old generation got its stop signal
	asks     []int     // who waits for its end
	ended    time.Time
	failure  string // why it failed
}

func newService(cfg *config.Service, seed uint64) *service {
	return &service{cfg: cfg, rng: rand.New(rand.NewPCG(seed, 0))}
}

// do appends actions to what the current step answers.
func (s *service) do(a ...action) { s.out = append(s.out, a...) }

func (s *service) log(level logLevel, g *generation, message string, fields ...any) {
	n := 0
	if g != nil {
		n = g.n
	}
	s.do(actLog{level: level, message: message, gen: n, fields: fields})
}

// setState is the one door through which the service changes its state.
// Leaving a state drops what belongs to it.
func (s *service) setState(now time.Time, state serviceState) {
	if s.state == state {
		return
	}
	if s.state == backoff {
		s.deadline = time.Time{}
	}
	s.state, s.since = state, now
}

// setGen is the one door through which a generation changes its state. The
// deadline of the state that is left goes with it.
func (s *service) setGen(now time.Time, g *generation, state genState, deadline time.Time) {
	g.state, g.since, g.deadline = state, now, deadline
}

// after is now+d, or no deadline where d is 0 ("infinity").
func after(now time.Time, d time.Duration) time.Time {
	if d <= 0 {
		return time.Time{}
	}
	return now.Add(d)
}

// gen finds a living generation by number.
func (s *service) gen(n int) *generation {
	for _, g := range s.gens {
		if g.n == n {
			return g
		}
	}
	return nil
}

// serves reports whether a generation was not told to end and has not ended.
func (s *service) serves(n int) bool {
	g := s.gen(n)
	return g != nil && !g.exited && g.cause == causeNone && g.state != genKilling && g.state != genGone
}

// remove forgets a generation that is gone.
func (s *service) remove(g *generation) {
	for i, x := range s.gens {
		if x == g {
			s.gens = append(s.gens[:i:i], s.gens[i+1:]...)
			break
		}
	}
	if s.current == g {
		s.current = nil
	}
	if s.candidate == g {
		s.candidate = nil
	}
	if s.standby == g {
		s.standby = nil
	}
}

// nextDeadline is the earliest moment at which evDeadline is due; zero: none.
func (s *service) nextDeadline() time.Time {
	var next time.Time
	if s.startable() { // else a death is waited for, which has a deadline itself
		next = s.deadline
	}
	if s.state == up && !s.strandAt.IsZero() && (next.IsZero() || s.strandAt.Before(next)) {
		next = s.strandAt
	}
	if due := s.standbyDue(); !due.IsZero() && (next.IsZero() || due.Before(next)) {
		next = due
	}
	if due := s.liveDue(); !due.IsZero() && (next.IsZero() || due.Before(next)) {
		next = due
	}
	for _, g := range s.gens {
		if !g.deadline.IsZero() && (next.IsZero() || g.deadline.Before(next)) {
			next = g.deadline
		}
	}
	return next
}

// statusText is what STATUS= says to the supervisor above us.
func (s *service) statusText() string {
	switch s.state {
	case up:
		if s.current.status != "" {
			return fmt.Sprintf("generation %d up, pid %d: %s", s.current.n, s.current.pid, s.current.status)
		}
		return fmt.Sprintf("generation %d up, pid %d", s.current.n, s.current.pid)
	case replacing:
		return fmt.Sprintf("rollout: generation %d serves, generation %d is on its way", s.rollout.from, s.rollout.to)
	case starting:
		return fmt.Sprintf("generation %d is starting", s.lastN)
	case backoff:
		return fmt.Sprintf("failed %d times in a row, starting again", s.failures)
	case down, stopping, failed, serviceStates:
	}
	return s.state.String()
}
