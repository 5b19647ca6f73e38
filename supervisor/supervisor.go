package supervisor

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

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
	Service   *config.Service
	Log       hclog.Logger
	Environ   []string           // ours; what was meant for us is kept from the child
	Inherited []listen.Inherited // LISTEN_FDS that we were given; Run owns them
	Adopt     int                // a running server to take over from; 0: none
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

// Run runs one service until it is stopped or ends, and returns the exit
// status of supervise. A *StartError says that nothing was started and that
// nothing is left behind. The caller has called proc.Setup.
func Run(o Options) (int, error) {
	signals, caught := catchSignals()
	l, err := newLoop(o)
	if err != nil {
		return 0, err
	}
	defer l.close()
	<-caught
	l.tty.ignoreTTOU()
	l.watchSignals(signals)
	// A child is born of the thread that starts it, and some of its ties are to
	// that thread (PR_SET_PDEATHSIG): the loop keeps to one.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	l.watchdogUp()
	if l.elder != nil {
		l.adopt(l.elder)
	} else {
		l.send(evStart{})
	}
	return l.run()
}

// newLoop does everything that can fail before anything is started.
func newLoop(o Options) (*loop, error) {
	cfg := o.Service
	if err := cfg.Validate(); err != nil {
		return nil, &StartError{Status: ExitUsage, Err: err}
	}
	if err := checkSupported(cfg); err != nil {
		return nil, &StartError{Status: ExitUsage, Err: err}
	}
	for _, s := range cfg.Sockets {
		if unused := s.Unused(); len(unused) > 0 {
			o.Log.Warn("options without a meaning for this socket", "service", cfg.Name, "socket", s.Source, "options", strings.Join(unused, ", "))
		}
	}
	l := &loop{
		cfg: cfg, log: o.Log, environ: o.Environ,
		s:         newService(cfg, rand.Uint64()),
		instances: map[int]*instance{}, mains: map[int]*instance{}, helpers: map[int]func(proc.Exit){},
		over: make(chan struct{}),
	}
	if err := l.resolveUser(); err != nil {
		return nil, &StartError{Status: ExitUsage, Err: err}
	}
	if err := l.resolveCommand(); err != nil {
		return nil, err
	}
	var err error
	if l.poll, err = newPoller(); err != nil {
		return nil, &StartError{Status: ExitSoftware, Err: err}
	}
	if o.Adopt != 0 {
		if l.elder, err = l.findElder(o.Adopt); err != nil {
			l.poll.close()
			return nil, err
		}
	}
	if err := l.openListeners(o.Inherited); err != nil {
		l.elder.close()
		l.poll.close()
		return nil, err
	}
	if l.up, err = ready.NewUpward(os.Getenv); err != nil {
		l.log.Warn("the service manager above cannot be told anything", "error", err)
	}
	l.runDir = makeRunDir(cfg.Name)
	if l.runDir == "" {
		l.log.Debug("no private directory to be had, using abstract notify sockets")
	}
	l.tty = openTerminal()
	return l, nil
}

// checkSupported refuses what the configuration knows and this version does not do.
func checkSupported(cfg *config.Service) error {
	for _, name := range cfg.Handoff {
		switch name {
		case "auto", "systemd", "fd", "intercept", "none":
		default:
			return fmt.Errorf("handoff %s is not supported yet: write auto, systemd, fd, intercept or none", name)
		}
	}
	if cfg.Output == "journal" {
		return errors.New("output journal is not supported yet: write inherit, prefix or a file; under systemd what is inherited goes to the journal")
	}
	return nil
}

// close gives back everything that belongs to the supervisor as a whole. What
// was read of the children's output is written first.
func (l *loop) close() {
	close(l.over)
	for _, in := range l.instances {
		l.cancelGate(in)
		if in.watching != nil {
			in.watching()
		}
		if in.output != nil {
			l.closeOutput(in)
		}
	}
	l.dropSpare()
	l.elder.close()
	l.closeListeners()
	if l.tty != nil {
		l.unwatchKeys()
		l.tty.takeBack()
	}
	l.children.Wait()
	if err := l.up.Close(); err != nil {
		l.log.Debug("cannot close the socket to the service manager", "error", err)
	}
	if l.runDir != "" {
		_ = os.RemoveAll(l.runDir)
	}
	l.poll.close()
}

// resolveCommand finds the command, its directory and its environment files
// before anything is opened: a typing error must not take a port.
func (l *loop) resolveCommand() error {
	env, err := l.cfg.Environ(config.CleanEnv(l.environ))
	if err != nil {
		return &StartError{Status: ExitUsage, Err: err}
	}
	if l.cfg.Dir != "" {
		if st, err := os.Stat(l.cfg.Dir); err != nil {
			return &StartError{Status: ExitUsage, Err: fmt.Errorf("cannot run in another directory: %w", err)}
		} else if !st.IsDir() {
			return &StartError{Status: ExitUsage, Err: fmt.Errorf("cannot run in another directory: %s is none", l.cfg.Dir)}
		}
	}
	_, err = shim.LookPath(l.cfg.Command[0], l.cfg.Dir, env)
	if err == nil {
		return nil
	}
	e := &StartError{Status: ExitNotFound, Err: err}
	var look *shim.LookError
	if errors.As(err, &look) {
		e.Status = look.Code
	}
	if e.Status == ExitNotExec {
		e.Hint = "make it executable (chmod +x), or name the interpreter that runs it"
	} else if !strings.Contains(l.cfg.Command[0], "/") {
		e.Hint = "it was looked for in PATH; a command of this directory is written ./" + l.cfg.Command[0]
	}
	return e
}

// resolveUser looks up User= and Group=.
func (l *loop) resolveUser() error {
	if l.cfg.User == "" && l.cfg.Group == "" {
		return nil
	}
	c := &shim.Credential{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
	if l.cfg.User != "" {
		u, err := user.Lookup(l.cfg.User)
		if err != nil {
			if u, err = user.LookupId(l.cfg.User); err != nil {
				return fmt.Errorf("cannot find user %q: no such name or number", l.cfg.User)
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
		l.userEnv = []string{"USER=" + u.Username, "LOGNAME=" + u.Username, "HOME=" + u.HomeDir}
	}
	if l.cfg.Group != "" {
		g, err := user.LookupGroup(l.cfg.Group)
		if err != nil {
			if g, err = user.LookupGroupId(l.cfg.Group); err != nil {
				return fmt.Errorf("cannot find group %q: no such name or number", l.cfg.Group)
			}
		}
		gid, _ := strconv.ParseUint(g.Gid, 10, 32)
		c.GID = uint32(gid)
	}
	if os.Getuid() != 0 && (c.UID != uint32(os.Getuid()) || c.GID != uint32(os.Getgid())) {
		return fmt.Errorf("cannot run as user %q group %q: only root can change users; leave --user and --group out, or run supervise as root", l.cfg.User, l.cfg.Group)
	}
	l.credential = c
	return nil
}

// openListeners opens all sockets before any process exists. Where one is
// taken, the error says by whom.
func (l *loop) openListeners(inherited []listen.Inherited) error {
	set, warnings, err := listen.Open(l.elder.without(l.cfg.Sockets), inherited)
	if err != nil {
		return listenError(err)
	}
	for _, w := range warnings {
		l.log.Warn(w.String(), "service", l.cfg.Name)
	}
	l.set = set
	if err := l.holdElder(); err != nil {
		set.Close()
		l.set = nil
		return err
	}
	for _, s := range set.Sockets() {
		fields := []any{"service", l.cfg.Name, "socket", s.Name(), "address", s.Addr()}
		if shared, why := s.Shared(); shared {
			fields = append(fields, "lanes", "no", "because", why)
		}
		l.log.Info("listening", fields...)
	}
	return l.watchSet()
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
func (l *loop) startHelper(argv []string, done func(proc.Exit)) (pidfd int, err error) {
	env := append(config.CleanEnv(l.environ), l.cfg.Env...)
	env = lastWins(env)
	path, err := shim.LookPath(argv[0], l.cfg.Dir, env)
	if err != nil {
		return -1, err
	}
	spec := shim.New(path, argv, env)
	spec.Dir, spec.Setpgid, spec.Credential = l.cfg.Dir, true, l.credential
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("cannot open /dev/null: %w", err)
	}
	defer unix.Close(null)
	spec.Files = []int{null, null, null}
	c, err := shim.Start(spec)
	if err != nil {
		return -1, err
	}
	_ = unix.Close(c.Report) // a failed exec ends with a status that says so
	l.helpers[c.PID] = func(e proc.Exit) {
		if c.PIDFD >= 0 {
			_ = unix.Close(c.PIDFD)
		}
		done(e)
	}
	return c.PIDFD, nil
}
