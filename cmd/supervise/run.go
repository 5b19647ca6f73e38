package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/supervise/supervise/supervisor"
	"github.com/supervise/supervise/supervisor/config"
	"github.com/supervise/supervise/supervisor/listen"
	"github.com/supervise/supervise/supervisor/proc"
)

const runUsage = `supervise [flags] -- COMMAND [ARG...]`

const runLong = `Run a server so that its port never closes and no client sees its restarts.

The listeners belong to supervise; the command borrows them: by LISTEN_FDS where
it knows that, else in answer to its own bind(2), with no flag and no change.
Send supervise SIGHUP, and a new generation of the command starts beside the old
one, becomes ready, gets the new connections, and only then is the old one told
to stop. If the new one fails, the old one was never touched.`

const runExample = `  supervise -- ./myserver
  supervise --listen :8080 -- ./myserver
  supervise --listen http=:80 --listen https=:443 -- ./myserver --fd {fd:http}
  supervise --listen unix:/run/app.sock?mode=0660 --ready /healthz -- ./app
  kill -HUP $(pidof supervise)      # a rollout`

// newRunCommand is the root: one service in the foreground.
func newRunCommand(status *int) *cobra.Command {
	flags := newRunFlags()
	cmd := &cobra.Command{
		Use:     runUsage,
		Short:   "run a server so that no client sees its restarts",
		Long:    runLong,
		Example: runExample,

		SilenceUsage: true, SilenceErrors: true,
		DisableFlagsInUseLine: true,
		Args:                  commandArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			svc, err := flags.service(args)
			if err != nil {
				return err
			}
			return start([]*config.Service{svc}, nil, nil, 0, flags, status)
		},
	}
	flags.add(cmd.Flags())
	cmd.SetFlagErrorFunc(flagError)
	return cmd
}

func flagError(_ *cobra.Command, err error) error {
	return &usageError{err: err, hint: "supervise --help lists the flags"}
}

// runFlags are the flags of a verb that runs a service.
type runFlags struct {
	svc                       config.Service
	name, logFormat, logLevel string
	control, controlGroup     string
	set                       []string
	http                      string
	dev                       supervisor.Dev
}

func newRunFlags() *runFlags { return &runFlags{svc: config.Defaults()} }

func (r *runFlags) add(f *pflag.FlagSet) {
	f.SortFlags = false
	f.StringVar(&r.name, "name", "", "name of the service (default: base name of COMMAND)")
	addDirectives(f, &r.svc)
	f.StringArrayVar(&r.set, "set", nil, "any supported directive, `DIRECTIVE=VALUE`")
	r.addDev(f)
	r.addLog(f)
}

// addLog are the flags of the supervisor itself.
func (r *runFlags) addLog(f *pflag.FlagSet) {
	f.StringVar(&r.logFormat, "log-format", "text", "text or json")
	f.StringVar(&r.logLevel, "log-level", "info", "trace, debug, info, warn, error or off")
	f.StringVar(&r.http, "http", "", "`ADDRESS` for /metrics, /healthz, /readyz and the status page; off by default")
	f.StringVar(&r.control, "control", "", "`PATH` of the control socket, or none (default: NAME.sock in /run/supervise or $XDG_RUNTIME_DIR/supervise)")
	f.StringVar(&r.controlGroup, "control-group", "", "a `GROUP` that may use the control socket, beside root and this user")
}

// service is what the flags and the command say.
func (r *runFlags) service(args []string) (*config.Service, error) {
	svc := &r.svc
	for _, kv := range r.set {
		k, v, ok := strings.Cut(kv, "=")
		if !ok {
			return nil, &usageError{err: fmt.Errorf("--set %q: write DIRECTIVE=VALUE", kv)}
		}
		if err := svc.Set(k, v); err != nil {
			return nil, &usageError{err: fmt.Errorf("--set: %w", err)}
		}
	}
	if err := r.checkLog(); err != nil {
		return nil, err
	}
	if err := r.checkDev(); err != nil {
		return nil, err
	}
	svc.Command = args
	svc.Name = r.name
	if r.name == "" {
		svc.Name = serviceName(args[0])
	}
	if err := config.NameSockets(svc.Name, svc.Sockets); err != nil {
		return nil, &usageError{err: err}
	}
	return svc, nil
}

func (r *runFlags) checkLog() error {
	if r.logFormat != "text" && r.logFormat != "json" {
		return &usageError{err: fmt.Errorf("--log-format %q: write text or json", r.logFormat)}
	}
	if !validLevel(r.logLevel) {
		return &usageError{err: fmt.Errorf("--log-level %q: write trace, debug, info, warn, error or off", r.logLevel)}
	}
	return nil
}

// commandArgs sees to it that a command stands behind "--".
func commandArgs(cmd *cobra.Command, args []string) error {
	dash := cmd.ArgsLenAtDash()
	switch {
	case len(args) == 0 && dash < 0:
		return &usageError{err: errors.New("no command given"), hint: "usage: " + runUsage}
	case len(args) == 0:
		return &usageError{err: errors.New(`no command after "--"`), hint: "usage: " + runUsage}
	case dash < 0:
		return &usageError{err: fmt.Errorf("unknown verb %q", args[0]), hint: "to run it as a command: supervise -- " + strings.Join(args, " ")}
	case dash > 0:
		return &usageError{err: fmt.Errorf("unexpected %q before \"--\"", args[0]), hint: "usage: " + runUsage}
	}
	return nil
}

// serviceName is the base name of the command, as a unit would be named.
func serviceName(command string) string {
	name := strings.TrimSuffix(filepath.Base(command), ".service")
	if name == "" || name == "." || name == "/" {
		return "service"
	}
	return name
}

func validLevel(level string) bool {
	switch level {
	case "trace", "debug", "info", "warn", "error", "off":
		return true
	}
	return false
}

// addDirectives makes a flag of each directive that has one.
func addDirectives(f *pflag.FlagSet, svc *config.Service) {
	for _, d := range config.Directives() {
		if d.Flag == "" {
			continue
		}
		v := &directiveValue{svc: svc, d: d}
		short := ""
		if d.Flag == "listen" {
			short = "l"
		}
		flag := f.VarPF(v, d.Flag, short, help(d))
		if d.Arg == "BOOLEAN" {
			flag.NoOptDefVal = "yes"
		}
	}
}

func help(d config.Directive) string {
	h := d.Help
	if d.Name != "" {
		h += " [" + d.Name + "=]"
	}
	if d.Default != "" {
		h += " (default " + d.Default + ")"
	}
	return h
}

// directiveValue is a flag that sets a directive.
type directiveValue struct {
	svc *config.Service
	d   config.Directive
}

func (v *directiveValue) Set(s string) error { return v.d.FromFlag(v.svc, s) }
func (v *directiveValue) Type() string       { return v.d.Arg }
func (v *directiveValue) String() string     { return "" }

// start is the hinge between words and work: from here on the supervisor runs.
// adopt is the pid of a running server to take over from, or 0.
func start(services []*config.Service, accept []*config.SocketUnit, reread func() ([]*config.Service, error), adopt int, flags *runFlags, status *int) error {
	log, end := newLogger(flags.logFormat, flags.logLevel)
	defer end()
	inherited, err := inheritedListeners(os.Getenv, os.Getpid())
	if err != nil {
		return &usageError{err: err}
	}
	keep := make([]int, len(inherited))
	for i, in := range inherited {
		keep[i] = in.FD
	}
	if err := firstBuild(flags.dev); err != nil {
		return err
	}
	if _, err := proc.Setup(); err != nil {
		log.Warn("processes that lose their parent cannot be followed", "error", err)
	}
	o := supervisor.Options{
		Services: services, Log: log, Environ: os.Environ(), Inherited: inherited, Reread: reread, Adopt: adopt,
		HTTP: flags.http, Accept: accept, Dev: flags.dev, Control: flags.control, Version: version,
	}
	if o.ControlGroup, err = groupNumber(flags.controlGroup); err != nil {
		return &usageError{err: err}
	}
	*status, err = supervisor.Run(o)
	var se *supervisor.StartError
	if err != nil && !errors.As(err, &se) {
		return &supervisor.StartError{Status: supervisor.ExitSoftware, Err: err}
	}
	return err
}

// groupNumber finds a group by name or number; 0 is none.
func groupNumber(name string) (uint32, error) {
	if name == "" {
		return 0, nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		if g, err = user.LookupGroupId(name); err != nil {
			return 0, fmt.Errorf("--control-group: cannot find group %q: no such name or number", name)
		}
	}
	n, err := strconv.ParseUint(g.Gid, 10, 32)
	return uint32(n), err
}

// inheritedListeners reads what systemd, or systemd-socket-activate, gave to
// us: sd_listen_fds(3).
func inheritedListeners(getenv func(string) string, pid int) ([]listen.Inherited, error) {
	fds, names, err := parseListenFDs(getenv, pid)
	if err != nil {
		return nil, err
	}
	var out []listen.Inherited
	for i, fd := range fds {
		out = append(out, listen.Inherited{FD: fd, Name: names[i]})
	}
	return out, nil
}
