package supervisor

import (
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/supervise/supervise/handoff/shim"
	"github.com/supervise/supervise/supervisor/config"
	"github.com/supervise/supervise/supervisor/listen"
	"github.com/supervise/supervise/supervisor/proc"
	"github.com/supervise/supervise/supervisor/ready"
)

// loop is the one goroutine that decides. Every method of it, unless its
// comment says otherwise, is called by that goroutine only.
type loop struct {
	cfg  *config.Service
	log  hclog.Logger
	poll *poller
	s    *service

	set       *listen.Set
	instances map[int]*instance // by generation, until released
	spare     *instance         // prepared for the next generation, or nil
	mains     map[int]*instance // by pid of a living or unreaped main process
	helpers   map[int]func(proc.Exit)
	pending   []event // to be given to the machine, in order
	timers    []timer

	up     *ready.Upward
	tty    *terminal
	runDir string // for notify sockets, "" when there is none

	served   map[*listen.Socket]bool // sockets that the last ready generation was seen to serve; nil: none was ready yet
	numbered []*listen.Socket        // each socket by its number, for settlers
	noFilter error                   // why bind(2) is not intercepted
	unheld   map[string]bool         // reasons for which a listener could not be kept, as logged
	speaks   bool                    // a generation said READY=1
	way      string                  // how processes are found, as logged

	environ    []string
	userEnv    []string         // HOME and its like of User=
	credential *shim.Credential // nil: ours

	lookForStranded bool // lanes were returned or steered

	elder *elder // the server that we took over from, until it is an instance

	ended    bool
	status   int
	over     chan struct{}  // closed at the end, for goroutines that ask the loop
	children sync.WaitGroup // small goroutines that end in an event
}

// timer is a look that is due later; not a decision, those are the machine's.
type timer struct {
	at time.Time
	f  func()
}

// send queues an event for the machine.
func (l *loop) send(ev event) { l.pending = append(l.pending, ev) }

// post queues an event from another goroutine.
func (l *loop) post(ev event) { l.poll.post(func() { l.send(ev) }) }

// after calls f once, d from now.
func (l *loop) after(d time.Duration, f func()) {
	l.timers = append(l.timers, timer{time.Now().Add(d), f})
}

// run is the loop. It ends when the machine says so and returns the exit status.
func (l *loop) run() (int, error) {
	for {
		now := time.Now()
		l.runTimers(now)
		if next := l.s.nextDeadline(); !next.IsZero() && !next.After(now) {
			l.send(evDeadline{})
		}
		l.decide()
		if l.ended {
			return l.status, nil
		}
		if err := l.poll.wait(time.Now(), l.nextWake()); err != nil {
			return ExitSoftware, err
		}
	}
}

// decide gives the queued events to the machine, each followed by what it
// answers. Actions may queue further events; all are handled before the loop
// sleeps again.
func (l *loop) decide() {
	for len(l.pending) > 0 && !l.ended {
		ev := l.pending[0]
		l.pending = l.pending[1:]
		for _, a := range l.s.step(time.Now(), ev) {
			l.perform(a)
		}
		if len(l.pending) == 0 {
			l.checkStranded()
		}
	}
}

func (l *loop) runTimers(now time.Time) {
	due := l.timers
	l.timers = nil
	for _, t := range due {
		if t.at.After(now) {
			l.timers = append(l.timers, t)
		} else {
			t.f()
		}
	}
}

// nextWake is when the loop must look again though nothing happened; zero: never.
func (l *loop) nextWake() time.Time {
	next := l.s.nextDeadline()
	for _, t := range l.timers {
		if next.IsZero() || t.at.Before(next) {
			next = t.at
		}
	}
	return next
}

// instance finds what a generation owns; nil when it was released.
func (l *loop) instance(gen int) *instance { return l.instances[gen] }
