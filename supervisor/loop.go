package supervisor

import (
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/supervise/supervise/handoff/wire/signs"
	"github.com/supervise/supervise/supervisor/config"
	"github.com/supervise/supervise/supervisor/logs"
	"github.com/supervise/supervise/supervisor/ready"
)

// loop is the one goroutine that decides, for all services. Every method of it
// and of runner, unless its comment says otherwise, is called by that
// goroutine only.
type loop struct {
	log     hclog.Logger
	poll    *poller
	environ []string // ours
	reread  func() ([]*config.Service, error)

	runners   []*runner         // in the order in which they were given
	acceptors []*acceptor       // sockets with a service for each connection
	single    bool              // one service was configured, and nothing else
	order     *order            // who waits for whom
	mains     map[int]*instance // by pid of a living or unreaped main process
	helpers   map[int]*helper   // by pid
	pending   []news            // to be given to the machines, in order
	looks     []*runner         // services with lanes that were returned or steered
	timers    timers
	signs     signs.Cache // what the programs' files show
	tidy      timer       // gives unused memory back

	files map[string]*logs.File // log files, by path; nil while there are none

	pump   *logs.Pump // of all outputs, nil until there is one
	dev    *dev       // nil without --watch
	web    *web       // nil without --http
	counts bool       // there will be one: what happens is counted

	up     *ready.Upward
	stdin  int // of the children: ours for the only service, else /dev/null
	nohup  nohup
	tty    *terminal // of the only service; nil when there are several
	runDir string    // for notify sockets, "" when there is none

	anyFinished bool // since it was last looked whether all have

	desk *desk // who talks to us by the control socket

	ended    bool
	status   int
	over     chan struct{}  // closed at the end, for goroutines that ask the loop
	children sync.WaitGroup // small goroutines that end in an event
}

// checkEnd ends the loop once all services have come to their end: with the
// status of the only one, or of the first that has one.
func (l *loop) checkEnd() {
	l.anyFinished = false
	if len(l.order.wanted) > 0 || len(l.acceptors) > 0 {
		return
	}
	status := 0
	for _, r := range l.runners {
		if !r.finished {
			return
		}
		if status == 0 {
			status = r.result
		}
	}
	l.ended, l.status = true, status
}

// news is an event and the service that it is about.
type news struct {
	r  *runner
	ev event
}

// after calls f once, d from now. It is a look that is due later and no
// decision: those are the machine's.
func (l *loop) after(d time.Duration, f func()) {
	l.timers.set(&timer{f: f, index: -1}, time.Now().Add(d))
}

// run is the loop. It ends when every service has ended and returns the exit status.
func (l *loop) run() (int, error) {
	for {
		l.timers.fire(time.Now())
		l.decide()
		if l.anyFinished {
			l.checkEnd()
		}
		if l.ended {
			return l.status, nil
		}
		if err := l.poll.wait(time.Now(), l.timers.next()); err != nil {
			return ExitSoftware, err
		}
	}
}

// decide gives the queued events to the machines, each followed by what it
// answers. Actions may queue further events; all are handled before the loop
// sleeps again.
func (l *loop) decide() {
	for len(l.pending) > 0 && !l.ended {
		n := l.pending[0]
		l.pending = l.pending[1:]
		n.r.take(n.ev)
		if l.anyFinished {
			l.checkEnd()
		}
		for len(l.pending) == 0 && len(l.looks) > 0 {
			r := l.looks[0]
			l.looks = l.looks[1:]
			r.checkStranded()
		}
	}
	if len(l.desk.waiting) > 0 {
		l.desk.look()
	}
}
