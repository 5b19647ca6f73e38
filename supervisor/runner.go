package supervisor

import (
	"time"

	"github.com/supervise/supervise/handoff/shim"
	"github.com/supervise/supervise/supervisor/config"
	"github.com/supervise/supervise/supervisor/listen"
)

// runner carries out, for one service, what its machine decides. What it
// shares with the others is the loop's.
type runner struct {
	*loop
	cfg *config.Service
	s   *service
	due timer // the machine's next deadline

	crew      *crew // of a service with several instances, else nil
	set       *listen.Set
	instances map[int]*instance // by generation, until released
	spare     *instance         // prepared for the next generation, or nil
	ahead     <-chan *cradle    // for the first child; nil when it has been used

	served       map[*listen.Socket]bool // sockets that the last ready generation was seen to serve; nil: none was ready yet
	numbered     []*listen.Socket        // each socket by its number, for settlers
	noFilter     error                   // why bind(2) is not intercepted
	unheld       map[string]bool         // reasons for which a listener could not be kept, as logged
	speaks       bool                    // a generation said READY=1, or acknowledged
	unserved     map[*listen.Socket]bool // offered and not served, as logged
	ack          *ackSocket              // of Einhorn's workers, or nil
	standinFails bool                    // a SIGHUP did not make it upgrade to the stand-in
	stopKills    bool                    // it was seen not to handle its stop signal
	way          string                  // how processes are found, as logged

	places places // of its output

	userEnv    []string         // HOME and its like of User=
	credential *shim.Credential // nil: ours
	dir        string           // working directory, "" is ours

	lookForStranded bool // lanes were returned or steered

	upward upState // of several services: what it told the manager above

	conn  int    // the connection that it is for, of Accept=yes; else -1
	atEnd func() // called once it has come to its end; nil: nobody asked

	elder *elder // the server that we took over from, until it is an instance

	triggers []time.Time // recent activations

	kept      []config.Socket // the configured ones with their ports, once closed
	park      *parked         // what was done for a pause, or nil
	lastWords []string        // of the last main process that failed

	startError string // why it was not even tried to start it; "" if it was

	removed bool // it is not configured any more
	asked   bool // evStart or evStop is on its way

	tally *tally // nil without --http

	finished bool // the machine has come to its end
	result   int  // then: what the supervisor exits with, were this the only service
}

func newRunner(l *loop, cfg *config.Service, seed uint64) *runner {
	r := &runner{loop: l, cfg: cfg, s: newService(cfg, seed), instances: map[int]*instance{}, conn: -1}
	if l.counts {
		r.tally = &tally{}
	}
	r.due = timer{index: -1, f: func() { r.send(evDeadline{}) }}
	return r
}

// send queues an event for the machine.
func (r *runner) send(ev event) { r.pending = append(r.pending, news{r, ev}) }

// post queues an event from another goroutine.
func (r *runner) post(ev event) { r.poll.post(func() { r.send(ev) }) }

// take gives an event to the machine and carries out what it answers.
func (r *runner) take(ev event) {
	was := r.s.state
	switch ev.(type) {
	case evExec, evReady:
		r.lookAtOutage()
	}
	r.tally.look(r.s)
	now := time.Now()
	actions := r.s.step(now, ev)
	r.tally.note(now, r.s, ev)
	for _, a := range actions {
		r.perform(a)
	}
	r.timers.set(&r.due, r.s.nextDeadline())
	r.asked = false
	if r.s.state != was {
		r.order.changed(r)
		if r.crew != nil {
			r.crew.changed(r)
		}
	}
}

// instance finds what a generation owns; nil when it was released.
func (r *runner) instance(gen int) *instance { return r.instances[gen] }

// lookAtLanes has the loop look, once it has nothing else to do, whether
// clients wait in a lane that nobody serves.
func (r *runner) lookAtLanes() {
	if !r.lookForStranded {
		r.lookForStranded = true
		r.looks = append(r.looks, r)
	}
}

// only is the service of a supervisor that runs one; nil when there are several.
func (l *loop) only() *runner {
	if l.single && len(l.runners) == 1 {
		return l.runners[0]
	}
	return nil
}

// finish notes that the service has come to its end.
func (r *runner) finish(status int, stays bool) {
	r.removeDirectories()
	if stays || r.sleeps() {
		return
	}
	r.finished, r.result = true, status
	r.loop.anyFinished = true
	if r.atEnd != nil {
		r.atEnd()
		r.atEnd = nil
	}
	if r.removed {
		r.after(0, func() { r.forget(r) })
	}
}

// giveBack frees everything that belongs to the service. What was read of
// its output is written first.
func (r *runner) giveBack() {
	r.dropAhead()
	for _, in := range r.instances {
		r.cancelGate(in)
		if in.watching != nil {
			in.watching()
		}
		if in.output != nil {
			r.closeOutput(in)
		}
	}
	for _, in := range r.instances {
		r.closeFlip(in)
	}
	r.closeAck()
	r.dropSpare()
	r.closeConnection()
	r.elder.close()
	r.closeListeners()
}
