package supervisor

import (
	"context"
	"strings"
	"syscall"
	"time"

	"github.com/supervise/supervise/supervisor/config"
	"github.com/supervise/supervise/supervisor/listen"
)

// perform carries out one action of the machine. What fails here ends in an
// event or in a log line; it never stops the loop.
func (l *loop) perform(a action) {
	switch a := a.(type) {
	case actSpawn:
		l.spawn(a.gen)
	case actWatchReady:
		if in := l.instance(a.gen); in != nil {
			l.watchReady(in)
		}
	case actSteer:
		if in := l.instance(a.gen); in != nil {
			l.steer(in)
		}
	case actGate:
		if in := l.instance(a.gen); in != nil {
			l.startGate(in, a.bound)
		}
	case actGateCancel:
		if in := l.instance(a.gen); in != nil {
			l.cancelGate(in)
		}
	case actReturnLanes:
		if in := l.instance(a.gen); in != nil {
			l.returnLanes(in)
		}
	case actSignal:
		if in := l.instance(a.gen); in != nil && !l.nobodyLeft(in) {
			if err := in.tree.Signal(syscall.Signal(a.signal), a.mode); err != nil {
				l.warn(in, "cannot send "+config.SignalName(syscall.Signal(a.signal)), err)
			}
		}
	case actKill:
		if in := l.instance(a.gen); in != nil {
			l.kill(in, a.mode)
		}
	case actCheckEmpty:
		if in := l.instance(a.gen); in != nil {
			l.checkEmpty(in)
		}
	case actRelease:
		if in := l.instance(a.gen); in != nil {
			l.release(in)
		}
	case actCheckStranded:
		l.lookForStranded = true
	case actRetire:
		if in := l.instance(a.gen); in != nil {
			l.retire(in)
		}
	case actReload:
		l.reload(a.cause)
	case actCloseListeners:
		l.closeListeners()
	case actForeground:
		if in := l.instance(a.gen); in != nil {
			l.foreground(in)
		}
	case actNotify:
		l.notifyUp(a)
	case actLog:
		l.write(a)
	case actEnd:
		l.ended, l.status = true, a.status
	}
}

// nobodyLeft reports whether it is known, for the price of one read, that a
// dead main process left nobody behind.
func (l *loop) nobodyLeft(in *instance) bool {
	if !in.exited || in.tree.EventsFD() < 0 {
		return false
	}
	empty, err := in.tree.Empty()
	return empty && err == nil
}

// write is the only place where the machine's words are logged.
func (l *loop) write(a actLog) {
	fields := []any{"service", l.cfg.Name}
	in := l.instance(a.gen)
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
		l.log.Debug(a.message, fields...)
	case levelInfo:
		l.log.Info(a.message, fields...)
	case levelWarn:
		l.log.Warn(a.message, fields...)
	case levelError:
		l.log.Error(a.message, fields...)
	}
	if a.lastLines && in != nil && in.output != nil {
		in.output.Drain()
		lines := in.output.Last(lastLines)
		for _, line := range lines {
			l.log.Info("last words", "service", l.cfg.Name, "generation", a.gen, "line", strings.TrimRight(line, "\r"))
		}
		if !in.bindFailed { // else it has been explained when it happened
			l.explainLastWords(a.gen, lines)
		}
		if !in.output.Captured() && len(lines) == 0 {
			l.log.Debug("its last words are on the terminal", "service", l.cfg.Name, "generation", a.gen)
		}
	}
}

// lastLines is how many last lines of a failed generation are repeated in the log.
const lastLines = 10

func (l *loop) warn(in *instance, message string, err error) {
	fields := []any{"service", l.cfg.Name}
	if in != nil {
		fields = append(fields, "generation", in.n)
	}
	l.log.Warn(message, append(fields, "error", err)...)
}

// steer moves new connections to the lanes of the instance.
func (l *loop) steer(in *instance) {
	if l.set == nil || in.returned {
		return
	}
	if q := in.quiesced; q != nil { // an old generation that is taken back
		in.quiesced = nil
		if err := q.Undo(); err != nil {
			l.warn(in, "cannot wake the old generation up again", err)
		}
	}
	l.unmute(in)
	if err := l.set.Steer(in.lanes); err != nil {
		l.warn(in, "cannot move new connections", err)
	}
	l.lookForStranded = true
}

// checkStranded looks for clients in lanes that nobody serves. It comes after
// all that an event led to: the next generation may have been lent the lane.
func (l *loop) checkStranded() {
	if !l.lookForStranded || l.set == nil {
		return
	}
	l.lookForStranded = false
	if lanes, clients := l.stranded(); clients > 0 {
		l.send(evStranded{lanes: lanes, clients: clients})
	}
}

// stranded counts the lanes, and the clients in their queues, that no living
// generation was lent. The steered lane is not among them while a generation
// is on its way to it.
func (l *loop) stranded() (lanes, clients int) {
	lent := map[*listen.Lane]bool{}
	for _, in := range l.instances {
		if !in.returned {
			for _, lane := range in.lanes {
				lent[lane] = true
			}
		}
	}
	for _, lane := range l.set.Lanes() {
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
func (l *loop) startGate(in *instance, bound time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	in.gate = cancel
	pids, err := in.tree.Pids()
	if err != nil {
		l.warn(in, "cannot see the processes of the old generation", err)
	}
	note := l.quiesce(in, pids)
	l.mute(in)
	gen, lanes := in.n, in.lanes
	l.children.Go(func() {
		defer cancel()
		r := waitGate(ctx, lanes, pids, bound)
		if r.Note == "" {
			r.Note = note
		}
		if ctx.Err() == nil {
			l.post(evGate{gen: gen, result: r})
		}
	})
}

// quiesce silences the instance on the listeners that it shares with the next
// generation, and says what could not be done.
func (l *loop) quiesce(in *instance, pids []int) (note string) {
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

func (l *loop) cancelGate(in *instance) {
	if in.gate != nil {
		in.gate()
		in.gate = nil
	}
}

// returnLanes gives the lanes of an instance back to the set.
func (l *loop) returnLanes(in *instance) {
	if in.returned || l.set == nil {
		return
	}
	in.returned = true
	for _, lane := range in.lanes { // before the set closes them: a child's copy would keep the watch
		l.poll.remove(lane.FD())
	}
	l.set.Return(in.lanes)
	l.watchLanes()
	l.lookForStranded = true
}

func (l *loop) closeListeners() {
	if l.set == nil {
		return
	}
	l.unwatchSet()
	l.set.Close()
	l.set = nil
}

// notifyUp tells the supervisor above us.
func (l *loop) notifyUp(a actNotify) {
	if !l.up.Enabled() {
		return
	}
	var err error
	switch {
	case a.stopping:
		err = l.up.Stopping(a.status)
	case a.reloading:
		err = l.up.Reloading(a.status)
	case a.ready:
		err = l.up.Ready(a.status)
	case a.status != "":
		err = l.up.Status(a.status)
	}
	if err == nil && a.extend > 0 {
		err = l.up.ExtendTimeout(a.extend)
	}
	if err != nil {
		l.warn(nil, "cannot tell the service manager", err)
	}
	l.flushUp()
}

// flushUp sends what the manager's queue did not take at once.
func (l *loop) flushUp() {
	if !l.up.Pending() {
		return
	}
	if err := l.up.Flush(); err != nil {
		l.warn(nil, "cannot tell the service manager", err)
	}
	if l.up.Pending() {
		l.after(20*time.Millisecond, l.flushUp)
	}
}

// watchdogUp keeps the watchdog of the manager above quiet: from this very
// loop, so that the pings stop when the loop hangs.
func (l *loop) watchdogUp() {
	every := l.up.WatchdogInterval() / 2
	if every <= 0 || l.ended {
		return
	}
	if err := l.up.Watchdog(); err != nil {
		l.log.Debug("cannot ping the service manager", "error", err)
	}
	l.after(every, l.watchdogUp)
}
