package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor/config"
	"github.com/supervise/supervise/supervisor/listen"
	"github.com/supervise/supervise/supervisor/proc"
	"github.com/supervise/supervise/supervisor/ready"
)

// How long a command must live when nothing but its life can be seen, and how
// long one that looks as if it would say READY=1 is waited for once it
// listens. The second matters only before any generation has shown what it does.
const (
	aliveFor  = time.Second
	noReadyIn = 300 * time.Millisecond
)

// becameReady tells the machine, once for each generation and again after a reload.
func (r *runner) becameReady(in *instance, how string, evidence bool) {
	if in.watching != nil {
		in.watching()
	}
	if in.slow != nil { // else we would wake up for nothing
		r.timers.set(in.slow, time.Time{})
	}
	for lane := range in.listening { // what it bound by itself: the next one must, too
		if r.served == nil {
			r.served = map[*listen.Socket]bool{}
		}
		r.served[lane.Socket()] = true
	}
	r.after(releaseAfter, r.releaseUnclaimed)
	r.lookForUnheld(in, func() {})
	r.lookForUnserved(context.Background(), in, unservedLooks)
	r.after(releaseAfter, func() { r.lookForUnheld(in, func() {}) })
	r.send(evReady{gen: in.n, how: how, evidence: evidence})
	r.after(spareAfter, r.prepareSpare)
}

// watchReady begins to look for readiness as the configuration says. READY=1
// needs no watching: the notify socket is always read.
func (r *runner) watchReady(in *instance) {
	r.after(spareAfter, r.prepareSpare)
	ctx, cancel := context.WithCancel(context.Background())
	in.watching, in.watchCtx = cancel, ctx
	kind := r.cfg.Ready.Kind
	if r.s.oneshot() || r.cfg.Type == config.Forking {
		return // it is ready when its first process has ended
	}
	if in.n == 1 { // one that came after another is slow for other reasons
		in.slow = &timer{index: -1, f: func() {
			if ctx.Err() == nil {
				r.lookForUnserved(ctx, in, 1)
			}
		}}
		r.timers.set(in.slow, time.Now().Add(unservedSlow))
	}
	if kind == config.ReadyAuto && (r.cfg.Type == config.Notify || r.cfg.Type == config.NotifyReload) {
		kind = config.ReadyNotify
	}
	switch kind {
	case config.ReadyNotify:
	case config.ReadyExec:
		r.becameReady(in, "executed", false)
	case config.ReadyDelay:
		r.lookAfter(ctx, r.cfg.Ready.Delay, func() {
			r.becameReady(in, "alive for "+r.cfg.Ready.Delay.String(), true)
		})
	case config.ReadyListening, config.ReadyAuto:
		if kind == config.ReadyAuto && r.speaks {
			return // the generation before said READY=1, so this one must
		}
		r.watchListening(ctx, in, kind)
		if in.unheld != nil { // it was faster than the news of its start
			r.watchUnheld(in)
		}
	case config.ReadyHTTP, config.ReadyTCP, config.ReadyCommand:
		r.watchProbe(ctx, in)
	}
}

// lookAfter calls f after d, unless ctx is over by then.
func (r *runner) lookAfter(ctx context.Context, d time.Duration, f func()) {
	r.after(d, func() {
		if ctx.Err() == nil {
			f()
		}
	})
}

// watchListening looks at the processes until they are seen to wait for
// connections on their lanes, and that has settled. The lanes are the
// candidate's own, so nobody else can be seen on them. Sockets are numbered for
// the settler, since what the previous generation served may be a lane that this
// one has not bound yet.
func (r *runner) watchListening(ctx context.Context, in *instance, kind config.ReadyKind) {
	if len(in.lanes) == 0 && !r.intercepts() {
		if kind == config.ReadyListening {
			r.watchOwnListeners(ctx, in)
			return
		}
		if r.noFilter != nil { // a server, perhaps, that we would have learned from
			r.watchOwnListeners(ctx, in)
			r.watchIdle(ctx, in, time.Now())
			return
		}
		// No socket of ours: all that can be known is that it lives.
		if r.s.current == nil {
			r.becameReady(in, "executed", false)
			return
		}
		r.lookAfter(ctx, aliveFor, func() { r.becameReady(in, "alive for "+aliveFor.String(), false) })
		return
	}
	settler := &settler{strict: ready.Settler{Settle: r.cfg.Settle}, lax: ready.Settler{Settle: fewerAfter}}
	for one := range r.served {
		settler.strict.Wants = append(settler.strict.Wants, r.numberOf(one))
	}
	if kind == config.ReadyAuto && len(r.served) == 0 && len(in.lanes) == 0 {
		r.watchIdle(ctx, in, time.Now())
	}
	settled := func(seen []uint64) {
		r.served = map[*listen.Socket]bool{}
		for _, n := range seen {
			r.served[r.numbered[n-1]] = true
		}
	}
	accepting := map[uint64]bool{}
	see := func() func(pids []int) ([]uint64, error) { return r.seeLanes(in, accepting) }
	if kind != config.ReadyAuto || r.served != nil {
		r.look(ctx, in, see, settler, settled)
		return
	}
	// Nothing is known of this command yet. To search its file for a sign that it
	// will say READY=1 takes time, and the loop has none.
	r.children.Go(func() {
		speaks := ready.SpeaksNotify(in.path)
		r.poll.post(func() {
			if ctx.Err() != nil {
				return
			}
			if speaks {
				settler.strict.Settle = max(settler.strict.Settle, noReadyIn)
			}
			r.look(ctx, in, see, settler, settled)
		})
	})
}

// settler is ready when all is listened on that the previous generation
// served; or, since a new version may serve less, when what it listens on has
// not changed for fewerAfter.
type settler struct{ strict, lax ready.Settler }

// fewerAfter is how long a generation must listen on the same sockets to be
// ready although some are missing.
const fewerAfter = 2 * time.Second

func (s *settler) Look(now time.Time, seen []uint64) (settled bool, next time.Time) {
	settled, next = s.strict.Look(now, seen)
	lax, laxNext := s.lax.Look(now, seen)
	if laxNext.Before(next) {
		next = laxNext
	}
	return settled || lax, next
}

// numberOf gives each socket a number of its own, from 1.
func (r *runner) numberOf(one *listen.Socket) uint64 {
	i := slices.Index(r.numbered, one)
	if i < 0 {
		i = len(r.numbered)
		r.numbered = append(r.numbered, one)
	}
	return uint64(i + 1)
}

// seeLanes prepares a look, for another goroutine, at which sockets the
// processes of an instance wait on.
//
// After a crash the next generation has the dead one's clients at once, and a
// server that blocks in accept(2) may be too busy ever to be seen waiting. But
// who accepts serves: where no other generation lives, an accepted connection
// is its doing. accepting remembers that from look to look, by number, since the
// connection is gone a moment later.
func (r *runner) seeLanes(in *instance, accepting map[uint64]bool) func(pids []int) ([]uint64, error) {
	number := map[uint64]uint64{} // of the socket, by the inode of the lane
	var inodes []uint64
	busy := map[uint64]*listen.Socket{} // by number: what may be accepted on by nobody else
	sole := r.sole()
	for _, lane := range in.lanes {
		n := r.numberOf(lane.Socket())
		number[lane.Inode()] = n
		inodes = append(inodes, lane.Inode())
		if sole {
			busy[n] = lane.Socket()
		}
	}
	return func(pids []int) ([]uint64, error) {
		sight, err := ready.Seen(pids, inodes)
		var seen []uint64
		for _, inode := range sight.Inodes() {
			if n := number[inode]; !slices.Contains(seen, n) {
				seen = append(seen, n)
			}
		}
		for n, one := range busy {
			if slices.Contains(seen, n) {
				continue
			}
			if !accepting[n] {
				accepted, e := one.Accepted()
				accepting[n] = accepted
				err = errors.Join(err, e)
			}
			if accepting[n] {
				seen = append(seen, n)
			}
		}
		return seen, err
	}
}

// watchIdle takes a command as ready that binds nothing and has nothing to do:
// the first generation of something that is perhaps no server. A server that is
// slow to start uses the processor meanwhile.
func (r *runner) watchIdle(ctx context.Context, in *instance, since time.Time) {
	pids, _ := in.tree.Pids()
	used := proc.CPUTime(pids)
	r.lookAfter(ctx, aliveFor/2, func() {
		pids, _ := in.tree.Pids()
		if len(in.listening) > 0 {
			return // it is a server: seen listening decides
		}
		if time.Since(since) >= aliveFor && proc.CPUTime(pids) == used {
			if r.s.current == nil || len(r.served) == 0 {
				r.becameReady(in, "alive and idle", false)
				return
			}
		}
		r.watchIdle(ctx, in, since)
	})
}

// watchUnheld looks, beside everything else, for listeners that are not held,
// once a bind is known that could not be answered.
func (r *runner) watchUnheld(in *instance) {
	if in.watchCtx == nil || in.watchCtx.Err() != nil {
		return
	}
	if kind := r.cfg.Ready.Kind; kind == config.ReadyListening || kind == config.ReadyAuto && !r.speaks &&
		r.cfg.Type != config.Notify && r.cfg.Type != config.NotifyReload {
		r.watchOwnListeners(in.watchCtx, in)
	}
}

// watchOwnListeners waits for listeners that the command bound by itself.
func (r *runner) watchOwnListeners(ctx context.Context, in *instance) {
	settler := &settler{strict: ready.Settler{Settle: r.cfg.Settle}, lax: ready.Settler{Settle: fewerAfter}}
	see := func(pids []int) ([]uint64, error) {
		own, err := ready.Listening(pids)
		var inodes []uint64
		for _, o := range own {
			if !o.Ephemeral {
				inodes = append(inodes, o.Inode)
			}
		}
		return inodes, err
	}
	r.look(ctx, in, func() func(pids []int) ([]uint64, error) { return see }, settler, func([]uint64) {})
}

// look takes one look in the background and feeds the settler; it repeats
// itself until settled. prepare is called here, what it returns elsewhere.
func (r *runner) look(ctx context.Context, in *instance, prepare func() func(pids []int) ([]uint64, error), settler *settler, settled func([]uint64)) {
	pids, err := in.tree.Pids()
	if err != nil {
		r.warn(in, "cannot see the processes of the generation", err)
	}
	see := prepare()
	r.children.Go(func() {
		seen, err := see(pids)
		r.poll.post(func() {
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				r.log.Debug("cannot look at the processes", "generation", in.n, "error", err)
			}
			ok, next := settler.Look(time.Now(), seen)
			if !ok {
				r.lookAfter(ctx, time.Until(next), func() { r.look(ctx, in, prepare, settler, settled) })
				return
			}
			if r.flipWaits(in) {
				return // Ready() will say so
			}
			settled(seen)
			r.becameReady(in, "seen listening", true)
		})
	})
}

// watchProbe asks until the answer is yes.
func (r *runner) watchProbe(ctx context.Context, in *instance) {
	probe, err := r.probe(in)
	if err != nil {
		r.warn(in, "cannot probe", err)
		return // TimeoutStartSec ends it
	}
	how := r.cfg.Ready
	r.children.Go(func() {
		var last string
		for ctx.Err() == nil {
			try, cancel := context.WithTimeout(ctx, how.Timeout)
			err := probe.Try(try)
			cancel()
			if err == nil {
				r.poll.post(func() {
					if ctx.Err() == nil {
						r.becameReady(in, probe.String(), true)
					}
				})
				return
			}
			if text := err.Error(); text != last && ctx.Err() == nil {
				last = text
				r.poll.post(func() { r.log.Debug("not ready yet", "generation", in.n, "probe", probe, "answer", text) })
			}
			select {
			case <-ctx.Done():
			case <-time.After(how.Interval):
			}
		}
	})
}

// probe makes the probe of a generation. Where it asks an address of ours the
// connection is steered to the lane of this very generation, so that nobody
// beside it can answer; elsewhere the process that accepted must be one of its
// tree.
func (r *runner) probe(in *instance) (ready.Probe, error) { return r.probeFor(in, r.cfg.Ready) }

// probeFor makes a probe that asks as how says.
func (r *runner) probeFor(in *instance, how config.Ready) (ready.Probe, error) {
	switch how.Kind {
	case config.ReadyHTTP:
		if strings.HasPrefix(how.URL, "/") {
			return r.ownHTTP(in, how.URL)
		}
		network, address, err := ready.Target(how.URL)
		if err != nil {
			return nil, err
		}
		return ready.NewHTTP(how.URL, r.dialTo(in, network, address))
	case config.ReadyTCP:
		return r.tcpProbe(in, how.Address)
	case config.ReadyCommand:
		return &ready.Command{Argv: how.Command, Run: r.runHelper}, nil
	case config.ReadyAuto, config.ReadyNotify, config.ReadyListening, config.ReadyExec, config.ReadyDelay:
	}
	return nil, errors.New("cannot happen: no probe was asked for")
}

// ownHTTP asks the first TCP socket of the service.
func (r *runner) ownHTTP(in *instance, path string) (ready.Probe, error) {
	for _, lane := range in.lanes {
		if s := lane.Socket(); s.Network() == "tcp" {
			return ready.NewHTTP("http://"+s.DialAddr()+path, r.dialLane(in, lane))
		}
	}
	return nil, fmt.Errorf("cannot ask for %s: the service has no tcp socket", path)
}

func (r *runner) tcpProbe(in *instance, address string) (ready.Probe, error) {
	for _, lane := range in.lanes {
		if s := lane.Socket(); s.Name() == address {
			return &ready.TCP{Address: address, Dial: r.dialLane(in, lane)}, nil
		}
	}
	sockets, err := config.ParseListen(address)
	if err != nil || len(sockets) == 0 {
		return nil, fmt.Errorf("cannot probe %q: neither a socket's name nor an address", address)
	}
	network, addr := sockets[0].NetworkAddr()
	return &ready.TCP{Address: address, Dial: r.dialTo(in, network, addr)}, nil
}

// dialTo dials an address: the generation's own lane where it is one of ours.
func (r *runner) dialTo(in *instance, network, address string) ready.Dial {
	for _, lane := range in.lanes {
		if serves(lane.Socket(), network, address) {
			return r.dialLane(in, lane)
		}
	}
	return r.dialOwned(in, func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	})
}

// serves reports whether what a client dials reaches this socket.
func serves(s *listen.Socket, network, address string) bool {
	if s.Network() != network {
		return false
	}
	if network == "unix" {
		return s.Addr() == address
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || port != strconv.Itoa(s.Port()) {
		return false
	}
	own := s.AddrPort().Addr()
	if host == "localhost" {
		return own.IsLoopback() || own.IsUnspecified()
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	if own.IsUnspecified() {
		return ip.IsUnspecified() || ip.Is4() == own.Is4() || ip.Is4() && !s.Config().V6Only
	}
	return ip.Unmap() == own.Unmap()
}

// dialLane dials a lane. Nothing can be steered within a shared listener: any
// of the generations may accept there, so the connection is kept only when one
// of this generation's processes did.
func (r *runner) dialLane(in *instance, lane *listen.Lane) ready.Dial {
	s := lane.Socket()
	if shared, _ := s.Shared(); !shared {
		return lane.Dial
	}
	network, address := s.Network(), s.Addr()
	return r.dialOwned(in, func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	})
}

// dialOwned takes a connection only when a process of the generation accepted it.
func (r *runner) dialOwned(in *instance, dial ready.Dial) ready.Dial {
	return ready.Owned(dial, func() []int { return r.pidsFrom(in) })
}

// pidsFrom asks the loop for the processes of a generation; for other goroutines.
func (r *runner) pidsFrom(in *instance) []int {
	answer := make(chan []int, 1)
	r.poll.post(func() {
		pids, _ := in.tree.Pids()
		answer <- pids
	})
	select {
	case pids := <-answer:
		return pids
	case <-r.over:
		return nil
	}
}

// runHelper runs a command of a probe. Its exit status comes through the one
// reaper, like everybody's. It is called by other goroutines.
func (r *runner) runHelper(ctx context.Context, argv []string) (int, error) {
	type result struct {
		e   proc.Exit
		err error
	}
	done := make(chan result, 1)
	var h *helper
	r.poll.post(func() {
		var err error
		if h, err = r.startHelper(argv, func(e proc.Exit) { done <- result{e: e} }); err != nil {
			done <- result{err: err}
		}
	})
	for {
		select {
		case got := <-done:
			return got.e.ShellStatus(), got.err
		case <-r.over:
			return 0, context.Canceled
		case <-ctx.Done():
			r.poll.post(func() {
				if h != nil {
					_ = h.signal(unix.SIGKILL)
				}
			})
			select {
			case <-done:
			case <-r.over:
			}
			return 0, ctx.Err()
		}
	}
}
