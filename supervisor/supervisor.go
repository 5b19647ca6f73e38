package supervisor

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/handoff/shim"
	"github.com/supervise/supervise/supervisor/config"
	"github.com/supervise/supervise/supervisor/listen"
	"github.com/supervise/supervise/supervisor/portdiag"
	"github.com/supervise/supervise/supervisor/proc"
	"github.com/supervise/supervise/supervisor/ready"
)

// Options are what Run needs to know. All of it is plain: nothing was started
// or opened for it.
type Options struct {
	Services  []*config.Service // at least one; each with a name of its own
	Log       hclog.Logger
	Environ   []string             // ours; what was meant for us is kept from the child
	Inherited []listen.Inherited   // LISTEN_FDS that we were given; Run owns them
	Accept    []*config.SocketUnit // with Accept=yes: a service for each connection
	// Reread reads the configuration again, at SIGHUP; nil: it cannot change.
	// Warnings are its own business. It is called in a goroutine of its own.
	Reread func() ([]*config.Service, error)
	Adopt  int    // a running server that the only service takes over from; 0: none
	HTTP   string // where metrics, health and the status page are served; "": nowhere
	Dev    Dev    // of the only service

	Control      string        // path of the control socket; "": the usual one of the first service; NoControl: none
	ControlGroup uint32        // a group that may use it, beside root and us; 0: none
	Version      func() string // ours, for status
}

// StartError is why nothing was started. Its text may have several lines: what
// failed, then what to do.
type StartError struct {
	Status int // the exit status that says it: see the man page
	Err    error
	Hint   string // what to do, "" where nobody knows
}

func (e *StartError) Error() string {
	if e.Hint != "" {
		return e.Err.Error() + "\n" + e.Hint
	}
	return e.Err.Error()
}

// Unwrap returns the cause.
func (e *StartError) Unwrap() error { return e.Err }

// Run runs services until they are stopped or have ended, and returns the exit
// status of supervise. A *StartError says that nothing was started and that
// nothing is left behind. The caller has called proc.Setup.
func Run(o Options) (int, error) {
	hup := findNohup()
	signals, caught := catchSignals()
	l, err := newLoop(o)
	if err != nil {
		return 0, err
	}
	l.nohup = hup
	defer l.close()
	<-caught
	l.tty.ignoreTTOU()
	l.watchSignals(signals)
	// A child is born of the thread that starts it, and some of its ties are to
	// that thread (PR_SET_PDEATHSIG): the loop keeps to one.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	l.watchdogUp()
	for _, r := range l.runners {
		if r.elder != nil {
			r.adopt(r.elder)
		} else if !r.cfg.OnDemand {
			l.order.want(r)
		}
	}
	l.order.advance()
	return l.run()
}

// newLoop does everything that can fail before anything is started.
func newLoop(o Options) (*loop, error) {
	l := &loop{
		log: o.Log, environ: o.Environ, reread: o.Reread,
		mains: map[int]*instance{}, helpers: map[int]*helper{},
		over: make(chan struct{}), counts: o.HTTP != "",
	}
	l.desk = &desk{l: l, notes: &notebook{}, version: o.Version, since: time.Now()}
	if o.Control != NoControl {
		l.log = &noting{Logger: o.Log, notes: l.desk.notes}
	}
	l.tidy = timer{index: -1, f: func() { l.children.Go(restMemory) }}
	for _, cfg := range o.Services {
		var members []*runner
		for _, c := range expand(cfg) {
			members = append(members, newRunner(l, c, rand.Uint64()))
		}
		newCrew(cfg, members)
		if err := members[0].check(); err != nil {
			return nil, err
		}
		for _, r := range members[1:] {
			r.credential, r.userEnv, r.dir = members[0].credential, members[0].userEnv, members[0].dir
		}
		l.runners = append(l.runners, members...)
	}
	l.single = len(l.runners) == 1 && len(o.Accept) == 0
	l.order = newOrder(l.runners)
	if len(l.runners) > spareServices {
		// Little happens while nothing is started or stopped: collect often.
		debug.SetGCPercent(25)
	}
	var err error
	if l.poll, err = newPoller(); err != nil {
		return nil, &StartError{Status: ExitSoftware, Err: err}
	}
	if r := l.only(); r != nil && !r.cfg.OnDemand && o.Adopt == 0 && r.intercepts() {
		r.ahead = cradleAhead() // it takes as long as all that is opened meanwhile
	}
	if err := l.open(o); err != nil {
		for _, r := range l.runners {
			r.dropAhead()
			r.elder.close()
			r.closeListeners()
		}
		for _, a := range slices.Clone(l.acceptors) {
			a.close()
		}
		l.desk.close()
		l.closeLogs()
		l.closeWeb()
		l.closeDev()
		l.poll.close()
		return nil, err
	}
	return l, nil
}

// open opens what the supervisor has for as long as it lives. On error the
// caller gives back what was opened by then.
func (l *loop) open(o Options) (err error) {
	inherited := l.deal(o.Inherited)
	for _, r := range l.runners {
		if o.Adopt != 0 && l.only() != nil {
			if r.elder, err = r.findElder(o.Adopt); err != nil {
				return err
			}
		}
		if err := r.openPlaces(); err != nil {
			return &StartError{Status: ExitUsage, Err: err}
		}
		if err := r.openListeners(inherited[r]); err != nil {
			return err
		}
	}
	if l.up, err = ready.NewUpward(os.Getenv); err != nil {
		l.log.Warn("the service manager above cannot be told anything", "error", err)
	}
	l.runDir = makeRunDir(l.name())
	if l.runDir == "" {
		l.log.Debug("no private directory to be had, using abstract notify sockets")
	}
	for _, unit := range o.Accept {
		if err := l.openAcceptor(unit); err != nil {
			return err
		}
	}
	if err := l.openDesk(o); err != nil {
		return err
	}
	for _, r := range l.runners {
		if err := r.openHandoff(); err != nil {
			return &StartError{Status: ExitUsage, Err: err}
		}
	}
	if l.only() != nil {
		l.tty = openTerminal()
	} else if l.stdin, err = unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return &StartError{Status: ExitSoftware, Err: fmt.Errorf("cannot open /dev/null: %w", err)}
	}
	if err := l.watchFiles(o.Dev); err != nil {
		return err
	}
	return l.openWeb(o.HTTP)
}

// name is what the supervisor as a whole is called.
func (l *loop) name() string {
	if len(l.runners) > 0 {
		return l.runners[0].cfg.Name
	}
	return "sockets"
}

// deal says which service each inherited listener is for: the only one, or the
// one with a socket of that name.
func (l *loop) deal(inherited []listen.Inherited) map[*runner][]listen.Inherited {
	dealt := map[*runner][]listen.Inherited{}
	for _, fd := range inherited {
		r := l.only()
		if len(l.runners) == 0 {
			_ = unix.Close(fd.FD)
			continue
		}
		if c := l.runners[0].crew; c != nil && len(c.members) == len(l.runners) {
			r = l.runners[0]
		}
		for _, o := range l.runners {
			if r == nil && slices.ContainsFunc(o.cfg.Sockets, func(s config.Socket) bool { return s.Name == fd.Name }) {
				r = o
			}
		}
		if r == nil {
			l.log.Warn("an inherited listener is for no service and is closed", "name", fd.Name)
			_ = unix.Close(fd.FD)
			continue
		}
		dealt[r] = append(dealt[r], fd)
	}
	return dealt
}

// check looks at all that can be known to fail before anything is opened.
func (r *runner) check() error {
	if err := r.cfg.Validate(); err != nil {
		return &StartError{Status: ExitUsage, Err: err}
	}
	if err := checkSupported(r.cfg); err != nil {
		return &StartError{Status: ExitUsage, Err: err}
	}
	for _, s := range r.cfg.Sockets {
		if unused := s.Unused(); len(unused) > 0 {
			r.log.Warn("options without a meaning for this socket", "service", r.cfg.Name, "socket", s.Source, "options", strings.Join(unused, ", "))
		}
	}
	if err := r.readPlaces(); err != nil {
		return &StartError{Status: ExitUsage, Err: err}
	}
	if err := r.resolveUser(); err != nil {
		return &StartError{Status: ExitUsage, Err: err}
	}
	r.tellLimits()
	return r.resolveCommand()
}

// checkSupported refuses what the configuration knows and this version does not do.
func checkSupported(cfg *config.Service) error {
	if cfg.Standby && (cfg.Type == config.Oneshot || len(cfg.Condition)+len(cfg.StartPre) > 0) {
		return errors.New("cannot do Standby= with Type=oneshot, ExecCondition= or ExecStartPre=: they are for a start that is meant")
	}
	return checkHandoff(cfg)
}

// close gives back everything that belongs to the supervisor as a whole. What
// was read of the children's output is written first.
func (l *loop) close() {
	l.desk.close()
	close(l.over)
	l.closeWeb()
	l.closeDev()
	for _, a := range slices.Clone(l.acceptors) {
		a.close()
	}
	for _, r := range l.runners {
		r.giveBack()
	}
	if l.tty != nil {
		l.only().unwatchKeys()
		l.tty.takeBack()
	}
	l.children.Wait()
	if l.pump != nil {
		_ = l.pump.Close()
	}
	l.closeLogs()
	if err := l.up.Close(); err != nil {
		l.log.Debug("cannot close the socket to the service manager", "error", err)
	}
	if l.runDir != "" {
		_ = os.RemoveAll(l.runDir)
	}
	if l.stdin != 0 {
		_ = unix.Close(l.stdin)
	}
	l.poll.close()
}

// resolveCommand finds the command, its directory and its environment files
// before anything is opened: a typing error must not take a port.
func (r *runner) resolveCommand() error {
	env, err := r.cfg.Environ(r.baseEnv())
	if err != nil {
		return &StartError{Status: ExitUsage, Err: err}
	}
	if err := r.resolveDir(); err != nil {
		return &StartError{Status: ExitUsage, Err: err}
	}
	path, err := shim.LookPath(r.mainLine().Path, r.dir, env)
	if err == nil {
		r.lookAtProgram(path)
		return nil
	}
	e := &StartError{Status: ExitNotFound, Err: err}
	var look *shim.LookError
	if errors.As(err, &look) {
		e.Status = look.Code
	}
	if e.Status == ExitNotExec {
		e.Hint = "make it executable (chmod +x), or name the interpreter that runs it"
	} else if !strings.Contains(r.mainLine().Path, "/") {
		e.Hint = "it was looked for in PATH; a command of this directory is written ./" + r.mainLine().Path
	}
	return e
}

// resolveUser looks up User= and Group=.
func (r *runner) resolveUser() error {
	if r.cfg.User == "" && r.cfg.Group == "" && len(r.cfg.ExtraGroups) == 0 {
		return nil
	}
	c := &shim.Credential{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
	if r.cfg.User != "" {
		u, err := user.Lookup(r.cfg.User)
		if err != nil {
			if u, err = user.LookupId(r.cfg.User); err != nil {
				return fmt.Errorf("cannot find user %q: no such name or number", r.cfg.User)
			}
		}
		uid, _ := strconv.ParseUint(u.Uid, 10, 32)
		gid, _ := strconv.ParseUint(u.Gid, 10, 32)
		c.UID, c.GID = uint32(uid), uint32(gid)
		groups, _ := u.GroupIds()
		for _, g := range groups {
			if n, err := strconv.ParseUint(g, 10, 32); err == nil {
				c.Groups = append(c.Groups, uint32(n))
			}
		}
		// As systemd does for User=: systemd.exec(5), environment variables.
		r.userEnv = []string{"USER=" + u.Username, "LOGNAME=" + u.Username, "HOME=" + u.HomeDir}
	}
	if r.cfg.Group != "" {
		g, err := user.LookupGroup(r.cfg.Group)
		if err != nil {
			if g, err = user.LookupGroupId(r.cfg.Group); err != nil {
				return fmt.Errorf("cannot find group %q: no such name or number", r.cfg.Group)
			}
		}
		gid, _ := strconv.ParseUint(g.Gid, 10, 32)
		c.GID = uint32(gid)
	}
	for _, name := range r.cfg.ExtraGroups {
		g, err := user.LookupGroup(name)
		if err != nil {
			if g, err = user.LookupGroupId(name); err != nil {
				return fmt.Errorf("cannot find group %q of SupplementaryGroups=: no such name or number", name)
			}
		}
		gid, _ := strconv.ParseUint(g.Gid, 10, 32)
		c.Groups = append(c.Groups, uint32(gid))
	}
	if os.Getuid() != 0 && len(r.cfg.ExtraGroups) > 0 {
		return fmt.Errorf("cannot give groups %s: only root can; leave SupplementaryGroups= out, or run supervise as root", strings.Join(r.cfg.ExtraGroups, " "))
	}
	if os.Getuid() != 0 && (c.UID != uint32(os.Getuid()) || c.GID != uint32(os.Getgid())) {
		return fmt.Errorf("cannot run as user %q group %q: only root can change users; leave --user and --group out, or run supervise as root", r.cfg.User, r.cfg.Group)
	}
	r.credential = c
	return nil
}

// openListeners opens all sockets before any process exists. Where one is
// taken, the error says by whom.
func (r *runner) openListeners(inherited []listen.Inherited) error {
	if mate := r.holder(); mate != nil {
		r.set, r.crew.set = mate.set, mate.set
		return nil
	}
	set, warnings, err := listen.Open(r.elder.without(r.cfg.Sockets), inherited)
	if err != nil {
		return listenError(err)
	}
	for _, w := range warnings {
		r.log.Warn(w.String(), "service", r.cfg.Name)
	}
	r.set = set
	if r.crew != nil {
		r.crew.set, r.crew.steered = set, map[*runner][]*listen.Lane{}
	}
	if err := r.holdElder(); err != nil {
		set.Close()
		r.set = nil
		return err
	}
	for _, s := range set.Sockets() {
		fields := []any{"service", r.cfg.Name, "socket", s.Name(), "address", s.Addr()}
		if shared, why := s.Shared(); shared {
			fields = append(fields, "lanes", "no", "because", why)
		}
		r.log.Info("listening", fields...)
	}
	r.makeSymlinks()
	if r.cfg.OnDemand {
		return r.awaitClients()
	}
	return r.watchSet()
}

// listenError makes the words for an address that could not be opened.
func listenError(err error) error {
	e := &StartError{Status: ExitUnavailable, Err: err}
	var open *listen.OpenError
	if !errors.As(err, &open) {
		e.Status = ExitSoftware
		return e
	}
	lines := explain(portdiag.Ask{Target: portdiag.TargetOf(open.Socket)})
	if hint := open.Hint(); hint != "" && (len(lines) == 0 || open.Errno != unix.EADDRINUSE) {
		lines = append(lines, hint)
	}
	if open.Errno != unix.EADDRINUSE {
		e.Status = ExitUsage
	}
	e.Hint = strings.Join(lines, "\n")
	return e
}

// makeRunDir makes a directory for notify sockets that other users may pass
// through and not read: a child of another user must reach its socket. "" when
// no place allows it (a container with nothing writable): abstract sockets then.
func makeRunDir(name string) string {
	var parents []string
	if os.Getuid() == 0 {
		parents = append(parents, "/run/supervise")
	} else if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		parents = append(parents, filepath.Join(dir, "supervise"))
	}
	parents = append(parents, os.TempDir())
	for _, p := range parents {
		if err := os.MkdirAll(p, 0o755); err != nil {
			continue
		}
		dir, err := os.MkdirTemp(p, "supervise-"+name+"-*")
		if err != nil {
			continue
		}
		if err := os.Chmod(dir, 0o711); err != nil {
			_ = os.Remove(dir)
			continue
		}
		return dir
	}
	return ""
}

// startHelper starts a command of our own, such as a probe's, with nothing but
// its standard streams; done gets its exit through the one reaper.
func (r *runner) startHelper(argv []string, done func(proc.Exit)) (*helper, error) {
	env := append(config.CleanEnv(r.environ), r.cfg.Env...)
	env = lastWins(env)
	path, err := shim.LookPath(argv[0], r.dir, env)
	if err != nil {
		return nil, err
	}
	spec := shim.New(path, argv, env)
	spec.Dir, spec.Setpgid, spec.Credential = r.dir, true, r.credential
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open /dev/null: %w", err)
	}
	defer unix.Close(null)
	spec.Files = []int{null, null, null}
	c, err := shim.Start(spec)
	if err != nil {
		return nil, err
	}
	_ = unix.Close(c.Report) // a failed exec ends with a status that says so
	return r.watchHelper(c.PID, c.PIDFD, done), nil
}
