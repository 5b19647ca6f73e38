package supervisor

import "time"

// genState is the state of one generation; see doc.go.
type genState uint8

const (
	genPreparing genState = iota
	genSpawned
	genWaiting
	genPosting
	genReady
	genDraining
	genEnding
	genKilling
	genCleaning
	genGone
	genStates // how many there are
)

func (s genState) String() string {
	switch s {
	case genPreparing:
		return "preparing"
	case genSpawned:
		return "spawned"
	case genWaiting:
		return "waiting"
	case genPosting:
		return "posting"
	case genReady:
		return "ready"
	case genDraining:
		return "draining"
	case genEnding:
		return "ending"
	case genKilling:
		return "killing"
	case genCleaning:
		return "cleaning"
	case genGone:
		return "gone"
	case genStates:
	}
	return "impossible"
}

// cause says why a generation ended or is being ended: what Restart= asks about.
type cause uint8

const (
	causeNone     cause = iota // it ended by itself: its exit status tells
	causeAsked                 // a stop or a rollout ended it
	causeTimeout               // it was not ready in time
	causeWatchdog              // it missed its watchdog
	causeSick                  // its liveness probe failed too often
	causeNoStart               // fork or exec failed
	causeCommand               // a command around the main process failed
	causeRuntime               // it ran for RuntimeMaxSec=
)

// generation is the pure half of one generation: what step decides with. The
// loop keeps the other half (process, lanes, sockets) under the same number.
type generation struct {
	n     int
	pid   int // 0 until spawned
	state genState
	since time.Time // when state was entered

	// deadline is when something must happen; zero where the state does not wait.
	deadline time.Time

	started   time.Time
	readyAt   time.Time // zero until ready
	how       string    // what made it ready
	evidence  bool      // readiness was seen or said, not assumed
	status    string    // last STATUS=
	reloading bool      // RELOADING=1 and no READY=1 since
	watchdog  time.Duration
	live      liveness
	sick      string    // causeSick: why
	until     time.Time // when RuntimeMaxSec= ends it; zero: never

	phase  phase // whose commands run, phaseNone if none
	line   int   // which of them
	queued phase // whose commands run once that one has been ended

	cause    cause
	exited   bool // its main process is dead
	exitedAt time.Time
	asks     []int // for its reload
	exit     Exit
	emptied  bool  // no process of it was left, before it was asked whether
	err      error // causeNoStart and causeCommand
	final    bool  // killing: SIGKILL was sent
	finalAt  time.Time
	endedAt  time.Time // when it was told to stop
	timedOut bool      // it was still there at TimeoutStopSec

	// unheld: it listens on what is not held. Another generation can then bind
	// only once no process of this one is left: a reload is a restart.
	unheld bool

	standby  bool        // it waits for the current one to die
	elder    bool        // somebody else started it
	gate     *GateResult // draining: the gate is over and the probation goes on
	replaced *rollout    // the rollout that ended it
}

// waits reports whether the state is one that must not last for ever, and so
// must have a deadline unless the configuration says "infinity".
func (g *generation) waits() bool {
	switch g.state {
	case genPreparing, genSpawned, genWaiting, genPosting, genDraining, genEnding, genKilling, genCleaning:
		return true
	case genReady, genGone, genStates:
	}
	return false
}

// readyDeadline is when something must happen to a generation that is ready:
// the next WATCHDOG=1, or its end.
func (g *generation) readyDeadline(now time.Time) time.Time {
	at := after(now, g.watchdog)
	if g.exited { // a task that is done
		at = time.Time{}
	}
	if at.IsZero() || !g.until.IsZero() && g.until.Before(at) {
		return g.until
	}
	return at
}
