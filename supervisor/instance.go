package supervisor

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/handoff/intercept"
	"github.com/supervise/supervise/handoff/shim"
	"github.com/supervise/supervise/handoff/wire"
	"github.com/supervise/supervise/handoff/wire/standin"
	"github.com/supervise/supervise/supervisor/config"
	"github.com/supervise/supervise/supervisor/listen"
	"github.com/supervise/supervise/supervisor/logs"
	"github.com/supervise/supervise/supervisor/proc"
	"github.com/supervise/supervise/supervisor/ready"
)

// instance is what a generation owns, in the order in which it is acquired;
// release gives it back in reverse. The machine knows it by its number.
type instance struct {
	of     *runner
	n      int
	elder  bool   // adopted: not started by us
	marker string // INVOCATION_ID

	lanes    []*listen.Lane // one for each socket of the set, in its order
	returned bool
	notify   *ready.Notify
	output   *logs.Output
	tree     *proc.Tree
	child    *shim.Child // until its report was read to the end

	command *command // that runs beside the main process, or nil

	pid    int // main process; 0 before the fork
	pidfd  int // -1 when there is none
	exited bool
	lookAt time.Time // when its end is looked at, see mayBeStopped

	launched bool // of Type=forking: the process that was started has exited
	empty    bool

	cradle    *cradle               // made ahead; nil once used
	binds     *intercept.Server     // answers its bind(2); nil without interception
	claimed   map[*listen.Lane]bool // lanes that answered a bind of it
	listening map[*listen.Lane]bool // and on which it then called listen(2)
	unheld    error                 // why a bind of it could not be answered; nil: none
	isDotnet  *bool                 // nil: not looked at yet

	bindFailed bool // a bind of it failed and was explained

	access string // NotifyAccess= in force
	said   bool   // READY=1 came

	key     int       // SIGINT or SIGQUIT that the terminal sent it, or 0
	keyAt   time.Time // when
	stopped bool      // by job control

	path    string // of the file that was executed
	numbers []int  // fds of lanes in the child, for {fd:NAME}

	flip     *flip        // tableflip's pipes, or nil
	standin  *standin.Dir // by which a tableflip program can be drained, or nil
	draining int          // its FIFO while it is watched, or 0
	drained  bool         // the stand-in runs
	stopBy   int          // the stop signal that was sent, or 0

	watching context.CancelFunc // readiness
	watchCtx context.Context    // of watching
	slow     *timer             // looks at it if it takes long to be ready; nil: does not
	gate     context.CancelFunc
	quiesced *listen.Quiesced // shared listeners that it was silenced on
	muted    []*listen.Socket // sockets that end with it, and take no new connections
	recheck  time.Duration    // pause before the next look whether the tree is empty
}

// spawn starts a generation. Failure is an event: nothing of it is left then.
func (r *runner) spawn(gen int) {
	in := r.own(gen)
	if err := r.start(in); err != nil {
		r.send(evSpawnFailed{gen: gen, err: err})
		return
	}
	r.send(evSpawned{gen: gen, pid: in.pid})
}

// own gives what a generation owns, from its first command on.
func (r *runner) own(gen int) *instance {
	in := r.instances[gen]
	if in == nil {
		in = r.takeSpare(gen)
		r.instances[gen] = in
	}
	return in
}

func (r *runner) start(in *instance) error {
	var err error
	if r.set != nil {
		if in.lanes, err = r.set.Lend(); err != nil {
			return fmt.Errorf("cannot open a lane: %w", err)
		}
		r.watchLanes()
	}
	if err := r.prepare(in); err != nil {
		return err
	}
	r.followLogs()
	if in.output == nil {
		if in.output, err = r.newOutput(in); err != nil {
			return err
		}
	}
	r.noteWay(in)
	stdin, opened, err := r.input(in)
	if err != nil {
		return err
	}
	if opened {
		defer unix.Close(stdin)
	}
	spec, err := r.spec(in, stdin)
	if err != nil {
		return err
	}
	in.path = spec.Path
	if err = r.startChild(in, spec); err != nil {
		// A kernel or container that lets us make a cgroup and not be born into it.
		var e *shim.Error
		if !errors.As(err, &e) || e.Stage != shim.StageCgroup {
			return err
		}
		in.tree.DropCgroup(err)
		spec.CgroupFD = -1
		if err = r.startChild(in, spec); err != nil {
			return err
		}
	}
	in.pid, in.pidfd = in.child.PID, in.child.PIDFD
	in.tree.SetMain(in.pid, in.pidfd)
	if !in.child.InCgroup {
		if err := in.tree.Join(in.pid); err != nil {
			r.warn(in, "cannot move the process into its cgroup", err)
		}
	}
	if prev := r.instances[in.n-1]; prev != nil && prev.tree != nil {
		prev.tree.SetSuccessor(in.tree)
	}
	if spec.Foreground >= 0 {
		r.tty.gave = in.pid // the child takes it on its way to exec
		// The child does this, too; whoever is first. So the watch is there before
		// the command is.
		_ = unix.Setpgid(in.pid, in.pid)
		r.watchKeys(in)
	}
	r.closeConnection() // it is the service's now
	in.output.SetPID(in.pid)
	in.output.Started()
	r.mains[in.pid] = in
	in.tree.Rest()
	return r.watch(in)
}

// watch puts the descriptors of a started instance into the loop.
func (r *runner) watch(in *instance) error {
	if err := r.poll.add(in.child.Report, unix.EPOLLIN, func() { r.readReport(in) }); err != nil {
		return err
	}
	if in.pidfd >= 0 {
		if err := r.poll.add(in.pidfd, unix.EPOLLIN, func() { r.mainDied(in) }); err != nil {
			return err
		}
	}
	if fd := in.tree.EventsFD(); fd >= 0 {
		if err := r.poll.add(fd, unix.EPOLLPRI, func() { r.checkEmpty(in) }); err != nil {
			return err
		}
	}
	if err := r.watchFlip(in); err != nil {
		return err
	}
	return r.poll.add(in.notify.FD(), unix.EPOLLIN, func() { r.readNotify(in) })
}

// otherPids are the children that are main processes of other generations, or helpers.
func (r *runner) otherPids(in *instance) []int {
	var pids []int
	for pid, other := range r.mains {
		if other != in {
			pids = append(pids, pid)
		}
	}
	for pid := range r.helpers {
		pids = append(pids, pid)
	}
	return pids
}

// noteWay says once how the processes of a service are found and ended.
func (r *runner) noteWay(in *instance) {
	if r.way == in.tree.Way() {
		return
	}
	r.way = in.tree.Way()
	fields := []any{"service", r.cfg.Name, "by", r.way}
	if err := in.tree.CgroupError(); err != nil {
		fields = append(fields, "no_cgroup", err)
	}
	r.log.Debug("processes of a generation are known", fields...)
}

// spec says what is executed and with what.
func (r *runner) spec(in *instance, stdin int) (*shim.Spec, error) {
	path, err := r.lookPath()
	if err != nil {
		return nil, err
	}
	plan, err := r.plan(in, path)
	if err != nil {
		return nil, err
	}
	env, err := r.environment(in, plan)
	if err != nil {
		return nil, err
	}
	line := r.mainLine()
	argv := r.words(line, env)
	for i, arg := range argv {
		if argv[i], err = config.Expand(arg, r.placeholders(in)); err != nil {
			return nil, err
		}
	}
	if in.standin != nil {
		argv[0] = in.standin.Argv0(filepath.Base(path))
	}
	spec := shim.New(path, argv, env)
	spec.Files = append([]int{stdin, in.output.ChildStdout(), in.output.ChildStderr()}, plan.Files...)
	if r.ownsOutput() {
		spec.Files[1] = stdin
	}
	if plan.Stdin != 0 {
		spec.Files[0] = plan.Stdin
	}
	spec.PIDEnv = plan.PIDEnv
	spec.Ignore = r.ignoredAtStart(in)
	if plan.Tame {
		r.tame(spec)
	}
	if r.cfg.Watchdog > 0 {
		spec.PIDEnv = append(spec.PIDEnv, "WATCHDOG_PID")
	}
	spec.PIDFDIDEnv = plan.PIDFDID
	r.execute(spec, line)
	spec.Setpgid = true
	if r.tty != nil && r.s.current == nil && r.tty.ours() {
		spec.Foreground = r.tty.fd
	}
	spec.CgroupFD = in.tree.CgroupFD()
	return spec, nil
}

// environment is the child's whole environment.
func (r *runner) environment(in *instance, plan wire.Plan) ([]string, error) {
	env := r.baseEnv()
	if port := r.firstPort(); port != 0 {
		env = append(env, "PORT="+strconv.Itoa(port))
	}
	own := *r.cfg
	own.Env = make([]string, len(r.cfg.Env))
	for i, kv := range r.cfg.Env {
		var err error
		if own.Env[i], err = config.Expand(kv, r.placeholders(in)); err != nil {
			return nil, err
		}
	}
	dirs, err := r.makeDirectories()
	if err != nil {
		return nil, err
	}
	env, err = own.Environ(append(env, dirs...))
	if err != nil {
		return nil, err
	}
	env = append(env, plan.Env...)
	env = append(env, "NOTIFY_SOCKET="+in.notify.Addr(), "INVOCATION_ID="+in.marker)
	if r.cfg.Watchdog > 0 {
		env = append(env, "WATCHDOG_USEC="+strconv.FormatInt(r.cfg.Watchdog.Microseconds(), 10))
	}
	if r.cfg.TimeoutStop > 0 { // package handoff ends its drain in time for it
		env = append(env, "TIMEOUT_STOP_USEC="+strconv.FormatInt(r.cfg.TimeoutStop.Microseconds(), 10))
	}
	return r.withoutUnset(lastWins(env)), nil
}

// lastWins drops all but the last assignment of each variable.
func lastWins(env []string) []string {
	at := make(map[string]int, len(env))
	for i, kv := range env {
		k, _, _ := strings.Cut(kv, "=")
		at[k] = i
	}
	out := env[:0]
	for i, kv := range env {
		k, _, _ := strings.Cut(kv, "=")
		if at[k] == i {
			out = append(out, kv)
		}
	}
	return out
}

// firstPort is what PORT says: the port of the first TCP socket, or 0.
func (r *runner) firstPort() int {
	if r.set == nil {
		return 0
	}
	for _, s := range r.set.Sockets() {
		if s.Network() == "tcp" {
			return s.Port()
		}
	}
	return 0
}

// placeholders answers {fd:NAME}, {addr:NAME} and {port:NAME}.
func (r *runner) placeholders(in *instance) func(kind, name string) (string, bool) {
	return func(kind, name string) (string, bool) {
		name, index := config.SplitIndex(name)
		for i, lane := range in.lanes {
			s := lane.Socket()
			if s.Name() != name {
				continue
			}
			if index > 0 {
				index--
				continue
			}
			switch kind {
			case "fd":
				if i < len(in.numbers) {
					return strconv.Itoa(in.numbers[i]), true
				}
				return strconv.Itoa(wire.FirstFD + i), true // a command beside the main process: it has none
			case "addr":
				return s.Addr(), true
			case "port":
				return strconv.Itoa(s.Port()), true
			}
		}
		return "", false
	}
}

// release gives back what the instance owned: nobody of it lives.
func (r *runner) release(in *instance) {
	delete(r.instances, in.n)
	r.closeBinds(in)
	r.cancelGate(in)
	if in.watching != nil {
		in.watching()
	}
	if in.quiesced != nil {
		in.quiesced.Close()
	}
	r.returnLanes(in)
	if in.elder {
		delete(r.mains, in.pid)
		if !in.exited && r.set != nil { // it goes on without us
			for _, lane := range in.lanes {
				r.set.Leave(lane.Socket())
			}
		}
	}
	if in.notify != nil {
		r.poll.remove(in.notify.FD())
		if err := in.notify.Close(); err != nil {
			r.log.Debug("cannot remove the notify socket", "generation", in.n, "error", err)
		}
	}
	r.closeReport(in)
	r.closeFlip(in)
	r.parentsGone()
	r.dropPidfd(in)
	if in.tree != nil {
		if fd := in.tree.EventsFD(); fd >= 0 {
			r.poll.remove(fd)
		}
		r.closeTree(in, 0)
	}
	if in.output != nil {
		r.closeOutput(in)
	}
	r.releaseUnclaimed()
}

// closeTree removes the cgroup. The kernel may need a moment after the last
// process was reaped; it is tried a few times.
func (r *runner) closeTree(in *instance, tries int) {
	err := in.tree.Close()
	switch {
	case err == nil:
	case tries < 5 && !r.ended:
		r.after(20*time.Millisecond, func() { r.closeTree(in, tries+1) })
	default:
		r.warn(in, "cannot remove the cgroup", err)
	}
}
