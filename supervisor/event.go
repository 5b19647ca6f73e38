package supervisor

import (
	"time"

	"github.com/supervise/supervise/supervisor/config"
)

// event is a fact that reached the loop. The set is closed: every event type
// stands in this file, and step names each of them for each state.
type event interface{ isEvent() }

type (
	// evStart asks for the service to be started.
	evStart struct{}

	// evElder: a process that somebody else started is served by; it is the
	// current generation until COMMAND takes over.
	evElder struct{ pid int }

	// evReload asks for new code or configuration to be taken into use:
	// SIGHUP, or a control verb. rollout says that nothing less will do.
	evReload struct {
		cause   string
		rollout bool
		asks    []int
	}

	// evRestart asks for the service to be stopped, and then started.
	evRestart struct {
		cause string
		asks  []int
	}

	// evPaused: new connections are parked; evResume asks for them to be served.
	evPaused struct{ how string }
	evResume struct{}

	// evStop asks for everything to be ended. A second one, or hard, ends it
	// by SIGKILL at once. signal replaces KillSignal= when it is not 0.
	evStop struct {
		cause  string
		signal int
		hard   bool
		stays  bool // the supervisor goes on, though nothing may be left to supervise
	}

	// evSpawned: the fork succeeded.
	evSpawned struct{ gen, pid int }

	// evSpawnFailed: nothing runs. err has a stage and an errno.
	evSpawnFailed struct {
		gen int
		err error
	}

	// evExec: execve(2) succeeded in the child.
	evExec struct{ gen int }

	// evExecFailed: the child reported a failed stage and will exit.
	evExecFailed struct {
		gen int
		err error
	}

	// evReady: the generation said, or was seen, to be able to serve.
	// Evidence is false when nothing but a successful execve(2) is known.
	evReady struct {
		gen      int
		how      string
		evidence bool
	}

	// evReloading and evStopping are RELOADING=1 and STOPPING=1 of a main process.
	evReloading struct{ gen int }
	evStopping  struct{ gen int }

	// evStatus is STATUS= of a generation.
	evStatus struct {
		gen  int
		text string
	}

	// evExtend is EXTEND_TIMEOUT_USEC=.
	evExtend struct {
		gen int
		by  time.Duration
	}

	// evPing is WATCHDOG=1; evWatchdogUsec is WATCHDOG_USEC=; evWatchdogTrigger is WATCHDOG=trigger.
	evPing         struct{ gen int }
	evWatchdogUsec struct {
		gen   int
		every time.Duration
	}
	evWatchdogTrigger struct{ gen int }

	// evMainPID: another process of the tree is the main process now.
	evMainPID struct{ gen, pid int }

	// evExited: the main process died; others of its tree may live. terminal
	// is the signal of the terminal that made it (SIGINT, SIGQUIT, SIGHUP), 0 if none.
	evExited struct {
		gen      int
		exit     Exit
		terminal int
	}

	// evEmpty: no process of the generation is left.
	evEmpty struct{ gen int }

	// evProbed: a liveness probe was answered; failure is "" when well.
	evProbed struct {
		gen     int
		failure string
	}

	// evGate: the gate and the shield of a draining generation are over,
	// because nothing is left to wait for or because a bound was met.
	evGate struct {
		gen    int
		result GateResult
	}

	// evStranded: clients wait in the queue of a lane that no living
	// generation serves.
	evStranded struct{ lanes, clients int }

	// evUnheld: the generation listens on something that is not held, so that
	// another one cannot bind it meanwhile. because says why, and do what helps.
	evUnheld struct {
		gen         int
		because, do string
	}

	// evCommand: a command that stands around the main process ended, or err
	// says why it could not be started.
	evCommand struct {
		gen   int
		phase phase
		line  int
		exit  Exit
		err   error
	}

	// evDeadline: some deadline has come. Which, the machine finds itself.
	evDeadline struct{}
)

func (evStart) isEvent()           {}
func (evElder) isEvent()           {}
func (evReload) isEvent()          {}
func (evRestart) isEvent()         {}
func (evPaused) isEvent()          {}
func (evResume) isEvent()          {}
func (evStop) isEvent()            {}
func (evSpawned) isEvent()         {}
func (evSpawnFailed) isEvent()     {}
func (evExec) isEvent()            {}
func (evExecFailed) isEvent()      {}
func (evReady) isEvent()           {}
func (evReloading) isEvent()       {}
func (evStopping) isEvent()        {}
func (evStatus) isEvent()          {}
func (evExtend) isEvent()          {}
func (evPing) isEvent()            {}
func (evWatchdogUsec) isEvent()    {}
func (evWatchdogTrigger) isEvent() {}
func (evMainPID) isEvent()         {}
func (evExited) isEvent()          {}
func (evEmpty) isEvent()           {}
func (evProbed) isEvent()          {}
func (evGate) isEvent()            {}
func (evStranded) isEvent()        {}
func (evUnheld) isEvent()          {}
func (evCommand) isEvent()         {}
func (evDeadline) isEvent()        {}

// GateResult says how the gate of one draining generation ended: what was
// still there when it ended, and how long each phase took.
type GateResult struct {
	Queued     int           // connections left in the accept queues of its lanes
	InFlight   int           // handshakes left
	Unanswered int           // accepted connections without an answer
	Gate       time.Duration // until the queue was empty
	Shield     time.Duration // until everything was answered
	Note       string        // how it was done where not by lanes, or what could not be done
}

// clean reports whether nothing was left behind.
func (r GateResult) clean() bool { return r.Queued == 0 && r.InFlight == 0 && r.Unanswered == 0 }

// Exit says how a main process ended.
type Exit struct {
	Code   int  // exit status, valid when Signal is 0
	Signal int  // the signal that ended it, or 0
	Core   bool // it dumped core
	// Unknown: the process was not a child of ours, so nobody could tell how it ended.
	Unknown bool
}

// action is something that the loop must do. The set is closed.
type action interface{ isAction() }

type (
	// actSpawn lends lanes to the generation and starts it.
	actSpawn struct{ gen int }

	// actCommand starts one of the commands around the main process, in the
	// generation's tree; ends in evCommand.
	actCommand struct {
		gen   int
		phase phase
		line  int
	}

	// actCommandEnd tells the command that runs to end: SIGTERM, or SIGKILL.
	actCommandEnd struct {
		gen  int
		hard bool
	}

	// actWatchReady begins to look for readiness as the configuration says.
	actWatchReady struct{ gen int }

	// actSteer moves all new connections to the lanes of the generation.
	actSteer struct{ gen int }

	// actGate waits, in the background, until nothing is on its way to the
	// generation and everything it accepted is answered; ends in evGate.
	actGate struct {
		gen   int
		bound time.Duration
	}

	// actGateCancel ends the wait of actGate without an event.
	actGateCancel struct{ gen int }

	// actReturnLanes gives the generation's lanes back: its main process is
	// dead or it will be told to stop.
	actReturnLanes struct{ gen int }

	// actSignal sends a signal to the tree of the generation, as mode says.
	// stop says that it is the one that ends the generation.
	// stop says that it is the one that asks the generation to end.
	actSignal struct {
		gen    int
		signal int
		mode   config.KillMode
		stop   bool
	}

	// actKill sends SIGKILL to every process of the generation; called again
	// while something is left.
	actKill struct {
		gen  int
		mode config.KillMode
	}

	// actCheckEmpty looks whether the tree is empty; ends in evEmpty if so.
	actCheckEmpty struct{ gen int }

	// actRelease frees what the generation owned: nothing of it is left.
	actRelease struct{ gen int }

	// actCheckStranded looks for clients in lanes that nobody serves; ends in
	// evStranded if there are.
	actCheckStranded struct{}

	// actProbe asks the generation whether it lives; ends in evProbed.
	actProbe struct{ gen int }

	// actGiveBack lets new connections wait in the listeners that the manager
	// above has as well, from before a stop until the next of us.
	actGiveBack struct{}

	// actRetire closes, soon, the learned sockets that only this generation
	// serves: it was told to stop, and who took over has not bound them.
	actRetire struct{ gen int }

	// actReload carries out a reload that was remembered: evReload follows once
	// it is known what the current generation listens on.
	actReload struct {
		cause   string
		rollout bool
		asks    []int
	}

	// actUnpark ends what was done for a pause; where new connections go from
	// now on is another action's.
	actUnpark struct{}

	// actAnswer says to whoever asked how it ended: failure is why not, or "".
	actAnswer struct {
		asks    []int
		failure string
	}

	// actCloseListeners closes every listener: the user said stop.
	actCloseListeners struct{}

	// actForeground makes the generation the terminal's foreground group.
	actForeground struct{ gen int }

	// actNotify tells the supervisor above us.
	actNotify struct {
		ready, reloading, stopping bool
		extend                     time.Duration
		status                     string
	}

	// actLog writes one line. lastLines adds the generation's last words.
	actLog struct {
		level     logLevel
		message   string
		gen       int // 0: none
		fields    []any
		lastLines bool
	}

	// actEnd: the service has come to its end. It ends the supervisor, with an
	// exit status, when it was the last, unless stays.
	actEnd struct {
		status int
		stays  bool
	}
)

func (actSpawn) isAction()          {}
func (actCommand) isAction()        {}
func (actCommandEnd) isAction()     {}
func (actWatchReady) isAction()     {}
func (actSteer) isAction()          {}
func (actGate) isAction()           {}
func (actGateCancel) isAction()     {}
func (actReturnLanes) isAction()    {}
func (actSignal) isAction()         {}
func (actKill) isAction()           {}
func (actCheckEmpty) isAction()     {}
func (actRelease) isAction()        {}
func (actCheckStranded) isAction()  {}
func (actProbe) isAction()          {}
func (actGiveBack) isAction()       {}
func (actRetire) isAction()         {}
func (actReload) isAction()         {}
func (actUnpark) isAction()         {}
func (actAnswer) isAction()         {}
func (actCloseListeners) isAction() {}
func (actForeground) isAction()     {}
func (actNotify) isAction()         {}
func (actLog) isAction()            {}
func (actEnd) isAction()            {}

type logLevel uint8

const (
	levelDebug logLevel = iota
	levelInfo
	levelWarn
	levelError
)
