package supervisor

import "time"

// genState is the state of one generation; see doc.go.
type genState uint8

const (
	genSpawned genState = iota
	genWaiting
	genReady
	genDraining
	genKilling
	genGone
	genStates // how many there are
)

func (s genState) String() string {
	switch s {
	case genSpawned:
		return "spawned"
	case genWaiting:
		return "waiting"
	case genReady:
		return "ready"
	case genDraining:
		return "draining"
	case genKilling:
		return "killing"
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
	causeNoStart               // fork or exec failed
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

	cause    cause
	exited   bool // its main process is dead
	exit     Exit
	err      error // causeNoStart
	final    bool  // killing: SIGKILL was sent
	finalAt  time.Time
	endedAt  time.Time // when it was told to stop
	timedOut bool      // it was still there at TimeoutStopSec

	// unheld: it listens on what is not held. Another generation can then bind
	// only once no process of this one is left: a reload is a restart.
	unheld bool

	elder    bool        // somebody else started it
	gate     *GateResult // draining: the gate is over and the probation goes on
	replaced *rollout    // the rollout that ended it
}

// waits reports whether the state is one that must not last for ever, and so
// must have a deadline unless the configuration says "infinity".
func (g *generation) waits() bool {
	switch g.state {
	case genSpawned, genWaiting, genDraining, genKilling:
		return true
	case genReady, genGone, genStates:
	}
	return false
}
