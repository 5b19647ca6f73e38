package supervisor

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/supervise/supervise/supervisor/listen"
)

// perform carries out one action of the machine. What fails here ends in an
// event or in a log line; it never stops the loop.
func (r *runner) perform(a action) {
	switch a := a.(type) {
	case actSpawn:
		r.spawn(a.gen)
	case actCommand:
		r.command(a)
	case actCommandEnd:
		if in := r.instance(a.gen); in != nil {
			r.endCommand(in, a.hard)
		}
	case actWatchReady:
		if in := r.instance(a.gen); in != nil {
			r.watchReady(in)
		}
	case actSteer:
		if in := r.instance(a.gen); in != nil {
			r.steer(in)
		}
	case actGate:
		if in := r.instance(a.gen); in != nil {
			r.startGate(in, a.bound)
		}
	case actGateCancel:
		if in := r.instance(a.gen); in != nil {
			r.cancelGate(in)
		}
	case actReturnLanes:
		if in := r.instance(a.gen); in != nil {
			r.returnLanes(in)
		}
	case actSignal:
		if in := r.instance(a.gen); in != nil && !r.nobodyLeft(in) {
			r.endBySignal(in, a)
		}
	case actKill:
		if in := r.instance(a.gen); in != nil {
			r.kill(in, a.mode)
		}
	case actCheckEmpty:
		if in := r.instance(a.gen); in != nil {
			r.checkEmpty(in)
		}
	case actRelease:
		if in := r.instance(a.gen); in != nil {
			r.release(in)
		}
	case actCheckStranded:
		r.lookAtLanes()
	case actProbe:
		if in := r.instance(a.gen); in != nil {
			r.askLive(in)
		}
	case actRetire:
		if in := r.instance(a.gen); in != nil {
			r.retire(in)
		}
	case actReload:
		r.reload(evReload(a))
	case actGiveBack:
		r.handBack()
	case actUnpark:
		r.unpark()
	case actAnswer:
		r.answered(a)
	case actCloseListeners:
		if !r.cfg.OnDemand || r.s.stop != nil {
			r.closeListeners()
		}
	case actForeground:
		if in := r.instance(a.gen); in != nil {
			r.foreground(in)
		}
	case actNotify:
		r.notifyUp(a)
	case actLog:
		r.write(a)
	case actEnd:
		r.finish(a.status, a.stays)
	}
}

// nobodyLeft reports whether it is known, for the price of one read, that a
// dead main process left nobody behind.
func (r *runner) nobodyLeft(in *instance) bool {
	if !in.exited || in.tree.EventsFD() < 0 {
		return false
	}
	empty, err := in.tree.Empty()
	return empty && err == nil
}

// write is the only place where the machine's words are logged.
func (r *runner) write(a actLog) {
	fields := []any{"service", r.cfg.Name}
	in := r.instance(a.gen)
	if a.gen != 0 {
		fields = append(fields, "generation", a.gen)
	}
	if in != nil && in.pid != 0 {
		fields = append(fields, "pid", in.pid)
	}
	for _, f := range a.fields {
		if d, ok := f.(time.Duration); ok {
			f = d.Round(100 * time.Microsecond)
		}
		fields = append(fields, f)
	}
	switch a.level {
	case levelDebug:
		r.log.Debug(a.message, fields...)
	case levelInfo:
		r.log.Info(a.message, fields...)
	case levelWarn:
		r.log.Warn(a.message, fields...)
	case levelError:
		r.log.Error(a.message, fields...)
	}
	if a.lastLines && in != nil && in.output != nil {
		in.output.Drain()
		lines := in.output.Last(lastLines)
		r.lastWords = lines
		for _, line := range lines {
			r.log.Info("last words", "service", r.cfg.Name, "generation", a.gen, "line", strings.TrimRight(line, "\r"))
		}
		if !in.bindFailed { // else it has been explained when it happened
			r.explainLastWords(a.gen, lines)
		}
		if !in.output.Captured() && len(lines) == 0 {
			r.log.Debug("its last words are on the terminal", "service", r.cfg.Name, "generation", a.gen)
		}
	}
}

// lastLines is how many last lines of a failed generation are repeated in the log.
const lastLines = 10

func (r *runner) warn(in *instance, message string, err error) {
	fields := []any{"service", r.cfg.Name}
	if in != nil {
		fields = append(fields, "generation", in.n)
	}
	r.log.Warn(message, append(fields, "error", err)...)
}

// steer moves new connections to the lanes of the instance.
func (r *runner) steer(in *instance) {
	if r.set == nil || in.returned {
		return
	}
	if q := in.quiesced; q != nil { // an old generation that is taken back
		in.quiesced = nil
		if err := q.Undo(); err != nil {
			r.warn(in, "cannot wake the old generation up again", err)
		}
	}
	r.unmute(in)
	if err := r.steerTo(in.lanes); err != nil {
		r.warn(in, "cannot move new connections", err)
	}
	r.lookAtLanes()
}

// checkStranded looks for clients in lanes that nobody serves. It comes after
// all that an event led to: the next generation may have been lent the lane.
func (r *runner) checkStranded() {
	r.lookForStranded = false
	if r.set == nil {
		return
	}
	if lanes, clients := r.stranded(); clients > 0 {
		r.send(evStranded{lanes: lanes, clients: clients})
	}
}

// stranded counts the lanes, and the clients in their queues, that no living
// generation was lent. The steered lane is not among them while a generation
// is on its way to it.
func (r *runner) stranded() (lanes, clients int) {
	lent := map[*listen.Lane]bool{}
	for in := range r.sharing() {
		if !in.returned {
			for _, lane := range in.lanes {
				lent[lane] = true
			}
		}
	}
	for _, lane := range r.set.Lanes() {
		if lent[lane] {
			continue
		}
		if queued, _, err := lane.Queue(); err == nil && queued > 0 {
			lanes++
			clients += queued
		}
	}
	return lanes, clients
}

// startGate waits in the background until nothing is on its way to the
// instance, and everything that it accepted is answered. Where generations
// share a listener there is no lane to steer away from: the old one is silenced
// by taking the listener out of its epoll sets.
func (r *runner) startGate(in *instance, bound time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	in.gate = cancel
	pids, err := in.tree.Pids()
	if err != nil {
		r.warn(in, "cannot see the processes of the old generation", err)
	}
	note := r.quiesce(in, pids)
	r.mute(in)
	gen, lanes := in.n, in.lanes
	r.children.Go(func() {
		defer cancel()
		result := waitGate(ctx, lanes, pids, bound)
		if result.Note == "" {
			result.Note = note
		}
		if ctx.Err() == nil {
			r.post(evGate{gen: gen, result: result})
		}
	})
}

// quiesce silences the instance on the listeners that it shares with the next
// generation, and says what could not be done.
func (r *runner) quiesce(in *instance, pids []int) (note string) {
	var inodes []uint64
	for _, lane := range in.lanes {
		if shared, _ := lane.Socket().Shared(); shared {
			inodes = append(inodes, lane.Inode())
		}
	}
	if len(inodes) == 0 {
		return ""
	}
	q, err := listen.Quiesce(pids, inodes)
	if err != nil {
		return "shared listener, silenced by the stop signal alone: " + err.Error()
	}
	in.quiesced = q
	if len(q.Left) > 0 {
		return "shared listener, silenced by the stop signal alone: no epoll"
	}
	return "shared listener, taken out of epoll"
}

// waitGate is called in a goroutine of its own.
func waitGate(ctx context.Context, lanes []*listen.Lane, pids []int, bound time.Duration) GateResult {
	if len(lanes) == 0 {
		return GateResult{}
	}
	r, err := listen.WaitGate(ctx, lanes, bound)
	out := GateResult{Queued: r.Queued, InFlight: r.InFlight, Unanswered: r.Unanswered, Gate: r.GateFor, Shield: r.ShieldFor}
	for _, lane := range lanes {
		if shared, _ := lane.Socket().Shared(); !shared || err != nil {
			continue
		}
		began := time.Now()
		var left int
		left, err = listen.WaitRead(ctx, pids, lane, bound)
		out.Unanswered += left
		out.Shield += time.Since(began)
	}
	if err != nil && ctx.Err() == nil {
		out.Note = err.Error()
	}
	return out
}

func (r *runner) cancelGate(in *instance) {
	if in.gate != nil {
		in.gate()
		in.gate = nil
	}
}

// returnLanes gives the lanes of an instance back to the set.
func (r *runner) returnLanes(in *instance) {
	if in.returned || r.set == nil {
		return
	}
	in.returned = true
	for _, lane := range in.lanes { // before the set closes them: a child's copy would keep the watch
		r.poll.remove(lane.FD())
	}
	if r.crew != nil {
		if err := r.crew.leave(r, in.lanes); err != nil {
			r.warn(in, "cannot move new connections to the other instances", err)
		}
	}
	r.set.Return(in.lanes)
	r.watchLanes()
	r.lookAtLanes()
}

// handBack lets clients wait for the next of us, where the manager above holds
// the address as well.
func (r *runner) handBack() {
	if r.set == nil || slices.ContainsFunc(r.mates(), func(mate *runner) bool { return mate != r && mate.set != nil }) {
		return
	}
	if err := r.set.GiveBack(); err != nil {
		r.log.Warn("new connections may be refused during a restart of supervise", "service", r.cfg.Name, "error", err)
	}
}

func (r *runner) closeListeners() {
	if r.set == nil {
		return
	}
	r.keepPorts()
	set := r.set
	r.set = nil
	if r.holder() != nil {
		return // another instance has them
	}
	r.unwatchSet(set)
	set.Close()
	r.removeSymlinks()
}
