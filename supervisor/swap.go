package supervisor

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/handoff/intercept"
	"github.com/supervise/supervise/handoff/shim"
	"github.com/supervise/supervise/supervisor/listen"
	"github.com/supervise/supervise/supervisor/portdiag"
)

// Interception: a child's bind(2) is answered with a lane.
//
//	first bind of an address   a socket of ours takes the place of the child's
//	                           (Give); when the child listens, it is learned
//	a held address             the generation's lane of it (Lend): the one that
//	                           it was lent at its start, the dead generation's
//	                           after a crash, else a new one
//	once more, REUSEPORT       a further lane of the same generation
//	another shape of a port    see reshape
//
// All of it happens in the loop, while the child waits in bind(2).

// intercepts reports whether children are started with the filter.
func (r *runner) intercepts() bool { return r.offers("intercept") && r.noFilter == nil }

// startChild forks the child, with the filter where that is wanted. What
// stands in its way is said once, and from then on there is none: a restart is
// then a plain one for servers that bind by themselves.
func (r *runner) startChild(in *instance, spec *shim.Spec) (err error) {
	if !r.intercepts() {
		in.child, err = shim.Start(spec)
		return err
	}
	c := in.cradle
	in.cradle = nil
	if c == nil && r.ahead != nil {
		c, r.ahead = <-r.ahead, nil
	}
	if c == nil {
		if c, err = newCradle(); err != nil {
			r.noFilter = err
			r.log.Warn("bind(2) is not intercepted: a server that binds by itself gets a plain restart",
				"service", r.cfg.Name, "because", err, "do", interceptHint(err))
			in.child, err = shim.Start(spec)
			return err
		}
	}
	var fd int
	if in.child, fd, err = c.start(spec); err != nil {
		return err
	}
	server, err := intercept.NewServer(fd, intercept.ServerOptions{UDP: r.cfg.InterceptUDP}, &swapper{r: r, in: in})
	if err != nil {
		r.warn(in, "cannot answer bind(2) of the command", err)
		return nil
	}
	in.binds = server
	return r.poll.add(server.FD(), unix.EPOLLIN, func() { r.serveBinds(in) })
}

// filterError marks what Install said, apart from what the start said.
type filterError struct{ err error }

func (e filterError) Error() string { return e.err.Error() }
func (e filterError) Unwrap() error { return e.err }

// interceptHint says what to do where interception is not to be had.
func interceptHint(err error) string {
	switch {
	case errors.Is(err, intercept.ErrNested):
		return "run supervise outside of the other supervisor, or use --listen with LISTEN_FDS"
	case errors.Is(err, intercept.ErrNotPermitted):
		return "in a container: --cap-add SYS_PTRACE and a seccomp profile that allows seccomp(2); or use --listen with LISTEN_FDS"
	}
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return "in a container: --cap-add SYS_PTRACE; elsewhere: run supervise as root, or let the command be dumpable and of our own user; or use --listen with LISTEN_FDS"
	case errors.Is(err, intercept.ErrUnsupported), errors.Is(err, unix.ENOSYS):
		return "Linux 5.9 or newer is needed; or use --listen with LISTEN_FDS"
	}
	return "let the command bind by bind(2), here and not in another namespace; or use --listen with LISTEN_FDS"
}

// unheldCause is why a bind could not be answered, without what differs each
// time: it is told once.
func unheldCause(err error) string {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return "its process may not be looked into (pidfd_getfd, /proc/PID): operation not permitted"
	}
	return err.Error()
}

// errRenamed: the path of a unix socket is gone between bind and listen.
var errRenamed = errors.New("its path is not there any more: it was renamed after bind")

// serveBinds answers the calls that wait.
func (r *runner) serveBinds(in *instance) {
	empty, err := in.binds.Serve()
	if err != nil {
		r.warn(in, "cannot answer bind(2) of the command", err)
	}
	if empty || err != nil {
		r.closeBinds(in)
	}
}

func (r *runner) closeBinds(in *instance) {
	if in.binds == nil {
		return
	}
	r.poll.remove(in.binds.FD())
	if err := in.binds.Close(); err != nil {
		r.log.Debug("cannot close the notify fd", "generation", in.n, "error", err)
	}
	in.binds = nil
}

// swapper answers for one generation.
type swapper struct {
	r      *runner
	in     *instance
	failed map[intercept.Key]bool // binds whose failure was told
}

// Bind implements intercept.Holder.
func (h *swapper) Bind(c *intercept.Call) intercept.Decision {
	r := h.r
	if r.set == nil {
		return intercept.Pass() // the supervisor is ending
	}
	if one := r.socketOf(c.Key); one != nil {
		return h.lend(one, c)
	}
	return h.fresh(c)
}

// lend answers with a lane of a held socket.
func (h *swapper) lend(one *listen.Socket, c *intercept.Call) intercept.Decision {
	r, in := h.r, h.in
	shared, _ := one.Shared()
	for _, lane := range in.lanes {
		if lane.Socket() != one {
			continue
		}
		if in.claimed[lane] && !shared && h.inUse(lane) {
			continue
		}
		return h.claim(lane, shared, c)
	}
	if in.claims(one) && !shared {
		// Every lane of this generation is in use: only a socket that asked to
		// share the port may have one more.
		if v, err := unix.GetsockoptInt(c.Socket, unix.SOL_SOCKET, unix.SO_REUSEPORT); err != nil || v == 0 {
			return intercept.Pass()
		}
	}
	lane, err := r.set.LendOne(one)
	if err != nil {
		r.warn(in, "cannot open a lane for a bind of the command", err)
		return intercept.Pass()
	}
	in.lanes = append(in.lanes, lane)
	r.watchLanes()
	return h.claim(lane, shared, c)
}

func (h *swapper) claim(lane *listen.Lane, shared bool, c *intercept.Call) intercept.Decision {
	if h.in.claimed == nil {
		h.in.claimed = map[*listen.Lane]bool{}
	}
	h.in.claimed[lane] = true
	d := intercept.Lend(lane.FD())
	d.Own = !shared
	d.NoCloexec = h.dotnet(c)
	return d
}

// inUse reports whether a process of the generation has the lane open.
func (h *swapper) inUse(lane *listen.Lane) bool {
	pids, err := h.in.tree.Pids()
	if err != nil {
		return true
	}
	held, err := intercept.Holds(pids, lane.Inode())
	return held || err != nil
}

// dotnet reports whether the caller is a .NET program, which disconnects a
// listener when it disposes of it, for all its users, unless it finds the
// descriptor without close-on-exec (SafeSocketHandle.Unix.cs).
func (h *swapper) dotnet(c *intercept.Call) bool {
	if h.in.isDotnet == nil {
		yes := false
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", c.TID)); err == nil {
			yes = filepath.Base(exe) == "dotnet"
			if _, err := os.Stat(filepath.Join(filepath.Dir(exe), "libcoreclr.so")); err == nil {
				yes = true // a self-contained program has its runtime beside it
			}
		}
		h.in.isDotnet = &yes
	}
	return *h.in.isDotnet
}

// fresh answers the first bind of an address with a plain TCP socket of ours,
// made as the child's: every lane of a group has one owner, and a Go server's
// own socket is MPTCP, to which nothing can be attached.
func (h *swapper) fresh(c *intercept.Call) intercept.Decision {
	if c.Key.Family == unix.AF_UNIX || c.Key.Type != unix.SOCK_STREAM {
		return intercept.Pass() // kept when the child listens
	}
	beside, own := h.reshape(c.Key)
	if own {
		return intercept.Pass() // as it would be without us: EADDRINUSE, mostly
	}
	fd, err := unix.Socket(c.Key.Family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
	if err != nil {
		return intercept.Pass()
	}
	if err := bindLike(fd, c, beside); err != nil {
		_ = unix.Close(fd)
		return intercept.Pass() // the kernel tells the child what it told us
	}
	d := intercept.Give(fd)
	d.Own, d.NoCloexec = true, h.dotnet(c)
	return d
}

// bindLike binds fd as the child would have bound its own socket. Without
// SO_REUSEPORT until it is bound, so that any other holder is a clean
// EADDRINUSE; with it where a lane of ours has the port in another shape.
func bindLike(fd int, c *intercept.Call, beside bool) error {
	if err := intercept.CopyOptions(fd, c.Socket); err != nil && c.Key.Family == unix.AF_INET6 {
		only := 0
		if c.Key.V6Only {
			only = 1
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only); err != nil {
			return err
		}
	}
	share, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT)
	if share != 0 && !beside {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 0); err != nil {
			return err
		}
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if beside {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return err
		}
	}
	var sa unix.Sockaddr
	if a := c.Key.Addr.Addr(); a.Is4() {
		sa = &unix.SockaddrInet4{Port: int(c.Key.Addr.Port()), Addr: a.As4()}
	} else {
		sa = &unix.SockaddrInet6{Port: int(c.Key.Addr.Port()), Addr: a.As16(), ZoneId: c.Key.Scope}
	}
	if err := unix.Bind(fd, sa); err != nil {
		return err
	}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
}

// reshape makes room for another shape of a port that is held ([::]:80 where
// 0.0.0.0:80 is held): what no living generation uses is closed. Of what one
// uses both are there until it is gone; beside reports that. What this very
// generation bound stays; own reports that.
func (h *swapper) reshape(key intercept.Key) (beside, own bool) {
	r := h.r
	for _, one := range r.set.Sockets() {
		held := keyOf(one)
		held.NetNS = key.NetNS // others are passed on
		if !held.Conflicts(key) {
			continue
		}
		if h.in.claims(one) {
			return false, true
		}
		if r.usedBy(one, h.in) {
			beside = true
			r.log.Warn("the port is bound in another shape; until the old generation is told to stop, clients come to either",
				"service", r.cfg.Name, "generation", h.in.n, "held", one.Addr(), "bound", key.String())
			continue
		}
		r.drop(one)
		r.log.Warn("the port is bound in another shape; the old one is closed",
			"service", r.cfg.Name, "generation", h.in.n, "held", one.Addr(), "bound", key.String())
	}
	return beside, false
}

// usedBy reports whether a generation other than this one was lent a lane of it.
func (r *runner) usedBy(one *listen.Socket, except *instance) bool {
	for in := range r.sharing() {
		if in != except && !in.returned && !in.exited && in.uses(one) {
			return true
		}
	}
	return false
}

// uses reports whether the instance serves the socket: it bound it, or was told
// of it and has bound nothing else of that port.
func (in *instance) uses(one *listen.Socket) bool {
	return slices.ContainsFunc(in.lanes, func(lane *listen.Lane) bool { return lane.Socket() == one })
}

// claims reports whether a lane of the socket answered a bind of the instance.
func (in *instance) claims(one *listen.Socket) bool {
	for lane := range in.claimed {
		if lane.Socket() == one {
			return true
		}
	}
	return false
}

// Listen implements intercept.Holder: a socket of the child listens now.
func (h *swapper) Listen(c *intercept.Call) (keep bool) {
	r, in := h.r, h.in
	if r.set == nil {
		return false
	}
	for _, lane := range in.lanes {
		if lane.Inode() == c.Inode {
			h.listens(lane)
			return false
		}
	}
	if !c.Bound {
		return false // its bind was not seen: it could not be handed over again
	}
	if c.Key.Family == unix.AF_UNIX && !c.Key.Abstract() {
		if err := unix.Access(c.Key.Path, unix.F_OK); errors.Is(err, unix.ENOENT) {
			h.Event(intercept.Event{Kind: intercept.Unheld, TID: c.TID, Key: c.Key, Err: errRenamed})
			return false
		}
	}
	one, warnings, err := r.set.Learn(listen.Inherited{FD: c.Socket, Name: r.cfg.Name, Path: c.Key.Path})
	for _, w := range warnings {
		r.log.Warn(w.String(), "service", r.cfg.Name, "generation", in.n)
	}
	if err != nil {
		r.warn(in, "cannot keep a listener of the command", err)
		return true // it was closed
	}
	fields := []any{"service", r.cfg.Name, "generation", in.n, "address", one.Addr()}
	if shared, why := one.Shared(); shared {
		fields = append(fields, "lanes", "no", "because", why)
	}
	r.log.Info("learned a listener of the command, and keep it", fields...)
	lane := one.Lanes()[0]
	in.lanes = append(in.lanes, lane)
	if in.claimed == nil {
		in.claimed = map[*listen.Lane]bool{}
	}
	in.claimed[lane] = true
	if err := r.watchSet(); err != nil {
		r.warn(in, "cannot watch the listener", err)
	}
	h.listens(lane)
	return true
}

// listens notes that the generation serves the lane. Where it is current
// already, or bound several, new connections are steered to all of them.
func (h *swapper) listens(lane *listen.Lane) {
	in := h.in
	if in.listening == nil {
		in.listening = map[*listen.Lane]bool{}
	}
	if in.listening[lane] {
		return
	}
	in.listening[lane] = true
	if g := h.r.s.current; g != nil && g.n == in.n {
		h.r.steer(in)
	}
}

// Unlink implements intercept.Holder: the path of a held socket stays.
func (h *swapper) Unlink(r *intercept.Removal) bool {
	return h.r.set != nil && h.r.set.OwnsFile(r.Dev, r.Ino)
}

// Event implements intercept.Holder.
func (h *swapper) Event(ev intercept.Event) {
	r, in := h.r, h.in
	fields := []any{"service", r.cfg.Name, "generation", in.n, "address", ev.Key.String()}
	switch ev.Kind {
	case intercept.BindFailed:
		if h.failed[ev.Key] {
			return // it tries again, as Go does without MPTCP
		}
		if h.failed == nil {
			h.failed = map[intercept.Key]bool{}
		}
		h.failed[ev.Key] = true
		in.bindFailed = true
		r.log.Error("the command cannot bind", append(fields, "error", ev.Err)...)
		if errors.Is(ev.Err, unix.EADDRINUSE) {
			r.explainBind(in.n, portdiag.Ask{Target: targetOf(ev.Key)})
		}
	case intercept.Unheld:
		if in.unheld == nil {
			in.unheld = ev.Err
			r.watchUnheld(in)
		}
		if text := unheldCause(ev.Err); !r.unheld[text] {
			if r.unheld == nil {
				r.unheld = map[string]bool{}
			}
			r.unheld[text] = true // once, however many there are
			if ev.Key == (intercept.Key{}) {
				fields = fields[:len(fields)-2]
			}
			r.log.Warn("a listener of the command cannot be kept: it gets a plain restart", append(fields, "because", ev.Err, "do", interceptHint(ev.Err))...)
		}
	case intercept.Damaged:
		r.log.Warn("a listener was put into the command, but not all that belongs to it", append(fields, "error", ev.Err)...)
	}
}

// targetOf is the address of a key as portdiag asks about it.
func targetOf(key intercept.Key) portdiag.Target {
	return portdiag.Target{
		Text: key.String(), Network: strings.TrimRight(key.Network(), "46"),
		Addr: key.Addr, V6Only: key.V6Only, Path: key.Path,
	}
}

// socketOf finds the held socket that answers a bind of key.
func (r *runner) socketOf(key intercept.Key) *listen.Socket {
	for _, one := range r.set.Sockets() {
		if sameKey(keyOf(one), key) {
			return one
		}
	}
	return nil
}

// keyOf is the key with which a child would bind the socket.
func keyOf(s *listen.Socket) intercept.Key {
	k := intercept.Key{Type: unix.SOCK_STREAM, Device: s.Config().Options.BindToDevice}
	switch s.Network() {
	case "udp", "unixgram":
		k.Type = unix.SOCK_DGRAM
	case "unixpacket":
		k.Type = unix.SOCK_SEQPACKET
	}
	if !s.AddrPort().IsValid() {
		k.Family, k.Path = unix.AF_UNIX, s.Config().Path
		return k
	}
	k.Addr = netip.AddrPortFrom(s.AddrPort().Addr().WithZone(""), s.AddrPort().Port())
	k.Family = unix.AF_INET
	if k.Addr.Addr().Is6() {
		k.Family, k.V6Only = unix.AF_INET6, s.Config().V6Only
	}
	return k
}

// sameKey compares what decides whether one listener can stand for another.
// The network namespace is ours (others are passed on), and V6ONLY means
// something for the wildcard only.
func sameKey(held, asked intercept.Key) bool {
	held.NetNS, held.Scope = asked.NetNS, asked.Scope
	if !asked.Addr.IsValid() || !asked.Addr.Addr().IsUnspecified() {
		held.V6Only = asked.V6Only
	}
	return held == asked
}

// drop closes a held socket that nobody serves.
func (r *runner) drop(one *listen.Socket) {
	for _, lane := range one.Lanes() {
		r.poll.remove(lane.FD())
	}
	for in := range r.sharing() {
		in.lanes = slices.DeleteFunc(in.lanes, func(lane *listen.Lane) bool { return lane.Socket() == one })
	}
	for _, mate := range r.mates() {
		delete(mate.served, one)
	}
	r.set.Drop(one)
}

// releaseUnclaimed drops the learned sockets that the current generation did
// not bind, once no other is alive: a held address that nobody serves would let
// its clients hang.
func (r *runner) releaseUnclaimed() {
	g := r.s.current
	if g == nil || r.set == nil || len(r.instances) != 1 || r.s.state != up {
		return
	}
	in := r.instances[g.n]
	if in == nil || in.exited {
		return
	}
	for _, one := range r.set.Sockets() {
		if one.Learned() && !in.uses(one) && !r.usedBy(one, in) {
			r.drop(one)
			r.log.Info("address released: the command does not bind it any more", "service", r.cfg.Name, "generation", in.n, "address", one.Addr())
		}
	}
}

// releaseAfter is how long after a generation became ready it may still bind
// what the one before it had bound.
const releaseAfter = time.Second
