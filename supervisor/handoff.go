package supervisor

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/supervise/supervise/handoff/shim"
	"github.com/supervise/supervise/handoff/wire"
	"github.com/supervise/supervise/supervisor/config"
	"github.com/supervise/supervise/supervisor/listen"
)

// How a generation is told of its listeners: which protocols it is offered, and
// what comes with them. What each of them is stands in handoff/wire.
//
// auto offers what fits and hurts nobody:
//
//	tableflip   where the library is in the program's file; then alone, since
//	            it and LISTEN_FDS both begin at fd 3
//	nothing     where facebookgo/grace is: with LISTEN_FDS it ends its parent
//	systemd, server-starter, einhorn   everywhere else, all at once; NGINX= and
//	            FPM_SOCKETS= too where the program has that name
//
// Interception is beside all of it: what a program binds in spite of the offer, in
// another spelling for instance, is answered with the same lane.

// offers reports whether a protocol is among those that the user asked for.
func (r *runner) offers(protocol string) bool {
	return slices.Contains(r.cfg.Handoff, protocol) || slices.Contains(r.cfg.Handoff, "auto")
}

// isAuto reports whether the protocols are ours to choose.
func (r *runner) isAuto() bool { return slices.Contains(r.cfg.Handoff, "auto") }

// protocols gives the protocols for the program in a file. listeners are what
// is to be handed over.
func (r *runner) protocols(path string, listeners []wire.Listener) []string {
	if !r.isAuto() {
		return asked(r.cfg)
	}
	switch s := r.signs.Of(r.absolute(path)); {
	case s.Tableflip:
		return []string{"tableflip"}
	case s.Grace:
		return nil
	}
	if len(listeners) == 0 {
		return nil
	}
	chosen := []string{"systemd", "server-starter", "einhorn"}
	switch name := filepath.Base(path); {
	case name == "nginx" || name == "angie":
		chosen = append(chosen, "nginx")
	case strings.HasPrefix(name, "php-fpm"):
		chosen = append(chosen, "php-fpm")
	}
	// Nobody asked for any of these, so what has no word for a socket is left out.
	return slices.DeleteFunc(chosen, func(name string) bool {
		if name == "php-fpm" && slices.ContainsFunc(listeners, func(l wire.Listener) bool { return l.Network != "tcp" }) {
			return true // it removes the path of a unix socket that no pool names
		}
		_, err := wire.For(wire.Request{Protocols: []string{name}, Listeners: listeners})
		return err != nil || name == "einhorn" && !r.hasAck()
	})
}

// asked are the protocols that were asked for by name.
func asked(cfg *config.Service) []string {
	return slices.DeleteFunc(slices.Clone(cfg.Handoff), func(name string) bool {
		return name == "auto" || name == "intercept" || name == "none"
	})
}

// checkHandoff refuses what cannot work with the sockets of the configuration,
// before anything is opened.
func checkHandoff(cfg *config.Service) error {
	names := asked(cfg)
	if len(names) == 0 {
		return nil
	}
	var listeners []wire.Listener
	for _, s := range cfg.Sockets {
		l := wire.Listener{Name: s.Name, Network: s.Network, Addr: s.Path, V6Only: s.V6Only}
		if s.Addr.IsValid() {
			l.Addr = s.Addr.String()
		}
		listeners = append(listeners, l)
	}
	_, err := wire.For(wire.Request{Protocols: names, Listeners: listeners, Words: words(cfg)})
	return err
}

// openHandoff looks whether there is anything to hand over, now that the
// listeners are open, and opens what the protocols need beside them.
func (r *runner) openHandoff() error {
	names := asked(r.cfg)
	if len(names) > 0 && (r.set == nil || len(r.set.Sockets()) == 0) && !r.offers("intercept") {
		return fmt.Errorf("handoff %s without a socket hands over nothing: write --listen ADDRESS, or --handoff auto, which learns what the command binds", strings.Join(names, ","))
	}
	if slices.Contains(names, "einhorn") {
		return r.openAck()
	}
	return nil
}

// stopSignal is the signal by which a service is asked to end: KillSignal=, or, where
// nothing was written, the one on which the programs of a protocol drain that was asked for by name.
func stopSignal(cfg *config.Service) syscall.Signal {
	names := asked(cfg)
	if len(names) == 0 || cfg.KillGiven {
		return cfg.KillSignal
	}
	plan, err := wire.For(wire.Request{Protocols: names, Listeners: []wire.Listener{{Name: "x", Network: "tcp", Addr: "127.0.0.1:1"}}})
	if err != nil || plan.Stop == 0 {
		return cfg.KillSignal
	}
	return plan.Stop
}

// words are where a program's own spelling of its addresses may stand.
func words(cfg *config.Service) []string {
	lines := cfg.ExecStart()
	if len(lines) == 0 {
		return cfg.Env
	}
	return slices.Concat(lines[len(lines)-1].Argv, cfg.Env)
}

// plan says what the child is given so that it finds its listeners.
func (r *runner) plan(in *instance, path string) (wire.Plan, error) {
	if r.conn >= 0 {
		return r.connection()
	}
	listeners := make([]wire.Listener, len(in.lanes))
	for i, lane := range in.lanes {
		listeners[i] = wireListener(lane)
	}
	req := wire.Request{
		Protocols: r.protocols(path, listeners), Listeners: listeners, Generation: in.n, Words: words(r.cfg), Path: path,
		Ack: wire.Ack{Master: os.Getpid(), Socket: r.ack.address()},
	}
	if slices.Contains(req.Protocols, "tableflip") {
		if err := r.standIn(in, path); err != nil {
			r.log.Debug("the old generation can only be told to stop by its stop signal", "service", r.cfg.Name, "generation", in.n, "error", err)
		}
		if len(listeners) == 0 && !r.othersServe(in) {
			// The first of all: to itself it is what it would be without us.
			return wire.Plan{}, nil
		}
		var err error
		if in.flip, err = newFlip(); err != nil {
			return wire.Plan{}, err
		}
		req.Pipes = in.flip.childEnds()
	}
	plan, err := wire.For(req)
	if err == nil && in.flip != nil {
		err = in.flip.tell(plan.Names)
	}
	if err != nil {
		return wire.Plan{}, err
	}
	in.numbers = plan.Numbers
	if slices.Contains(req.Protocols, "systemd") && r.signs.Of(r.absolute(path)).Grace {
		plan.Tame = true // it was asked for: grace reads the same variable, and ends its parent
	}
	if len(req.Protocols) > 0 && len(listeners) > 0 {
		r.log.Debug("listeners are offered", "service", r.cfg.Name, "generation", in.n, "by", strings.Join(req.Protocols, ","))
	}
	return plan, nil
}

// lookPath finds the file of the main process. It needs the environment's PATH
// only where the command has no '/'.
func (r *runner) lookPath() (string, error) {
	name := r.mainLine().Path
	var env []string
	if !strings.Contains(name, "/") {
		var err error
		if env, err = r.cfg.Environ(r.baseEnv()); err != nil {
			return "", err
		}
	}
	return shim.LookPath(name, r.dir, env)
}

// absolute is the path of a program that lookPath gave, for us: it may be
// relative to the child's directory.
func (r *runner) absolute(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	if a, err := filepath.Abs(filepath.Join(r.dir, path)); err == nil {
		return a
	}
	return path
}

// tame sees to it that no signal of the child reaches us.
func (r *runner) tame(spec *shim.Spec) {
	spec.Filter = shim.TameFilter(os.Getpid())
	// Without the privilege the kernel wants this before a filter.
	if os.Geteuid() != 0 || r.credential != nil && r.credential.UID != 0 {
		spec.NoNewPrivs = true
	}
}

func wireListener(lane *listen.Lane) wire.Listener {
	s := lane.Socket()
	return wire.Listener{FD: lane.FD(), Name: s.Name(), Network: s.Network(), Addr: s.Addr(), V6Only: s.Config().V6Only}
}

// othersServe reports whether another generation lives.
func (r *runner) othersServe(in *instance) bool {
	for _, o := range r.instances {
		if o != in && o.pid != 0 && !o.exited {
			return true
		}
	}
	return false
}

// lookAtProgram has the program's file looked into while other things are
// done: what it shows is known when it is started.
func (r *runner) lookAtProgram(path string) {
	if r.isAuto() {
		path = r.absolute(path)
		r.children.Go(func() { r.signs.Of(path) })
	}
}
