package supervisor

import (
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/handoff/shim"
	"github.com/supervise/supervise/handoff/wire"
	"github.com/supervise/supervise/supervisor/config"
	"github.com/supervise/supervise/supervisor/logs"
	"github.com/supervise/supervise/supervisor/proc"
)

// command is one of the commands around a main process while it runs.
type command struct {
	phase   phase
	line    int
	process *helper
	output  *logs.Output
}

// mainLine is the command line of the main process: the last of ExecStart=.
func (r *runner) mainLine() config.ExecLine {
	lines := r.cfg.ExecStart()
	return lines[len(lines)-1]
}

// words are the arguments of a command line, its variables replaced.
func (r *runner) words(line config.ExecLine, env []string) []string {
	return line.Args(env)
}

// command starts one of the commands around the main process. That it could
// not is an event, too.
func (r *runner) command(a actCommand) {
	in := r.own(a.gen)
	child, out, err := r.startCommand(in, a)
	if err != nil {
		r.send(evCommand{gen: a.gen, phase: a.phase, line: a.line, err: err})
		return
	}
	c := &command{phase: a.phase, line: a.line, output: out}
	in.command = c
	c.process = r.watchHelper(child.PID, child.PIDFD, func(e proc.Exit) {
		out.Drain()
		r.endOutput(out)
		if in.command == c {
			in.command = nil
		}
		r.send(evCommand{gen: a.gen, phase: a.phase, line: a.line, exit: exitOf(e)})
	})
}

func (r *runner) startCommand(in *instance, a actCommand) (*shim.Child, *logs.Output, error) {
	if err := r.prepare(in); err != nil {
		return nil, nil, err
	}
	line := phaseLines(r.cfg, a.phase)[a.line]
	env, err := r.environment(in, wire.Plan{})
	if err != nil {
		return nil, nil, err
	}
	env = append(env, r.resultEnv(in, a)...)
	path, err := shim.LookPath(line.Path, r.dir, env)
	if err != nil {
		return nil, nil, err
	}
	out, err := r.newOutput(in)
	if err != nil {
		return nil, nil, err
	}
	spec := shim.New(path, r.words(line, env), env)
	stdin, opened := r.stdin, false
	if r.cfg.Input != "socket" { // that is the main process's
		if stdin, opened, err = r.input(in); err != nil {
			_ = out.Close()
			return nil, nil, err
		}
	}
	if opened {
		defer unix.Close(stdin)
	}
	spec.Files = []int{stdin, out.ChildStdout(), out.ChildStderr()}
	spec.Setpgid, spec.CgroupFD = true, in.tree.CgroupFD()
	r.execute(spec, line)
	child, err := shim.Start(spec)
	if err == nil {
		out.SetPID(child.PID)
	}
	out.Started()
	if err != nil {
		_ = out.Close()
		return nil, nil, err
	}
	_ = unix.Close(child.Report) // a failed exec ends with a status that says so
	return child, out, nil
}

// resultEnv is what a command is told beside the service's environment:
// systemd.exec(5), MAINPID, SERVICE_RESULT, EXIT_CODE, EXIT_STATUS.
func (r *runner) resultEnv(in *instance, a actCommand) []string {
	var env []string
	g := r.s.gen(a.gen)
	if in.pid != 0 && !in.exited {
		env = append(env, "MAINPID="+strconv.Itoa(in.pid))
	}
	if g == nil || a.phase != phaseStop && a.phase != phaseClean || !g.exited {
		return env
	}
	code, status := "exited", strconv.Itoa(g.exit.Code)
	if g.exit.Signal != 0 {
		code, status = "killed", config.SignalName(syscall.Signal(g.exit.Signal))[len("SIG"):]
		if g.exit.Core {
			code = "dumped"
		}
	}
	return append(env, "SERVICE_RESULT="+serviceResult(r.cfg, g), "EXIT_CODE="+code, "EXIT_STATUS="+status)
}

// serviceResult is SERVICE_RESULT of systemd.exec(5).
func serviceResult(cfg *config.Service, g *generation) string {
	switch {
	case g.timedOut || g.cause == causeTimeout || g.cause == causeRuntime:
		return "timeout"
	case g.cause == causeWatchdog || g.cause == causeSick:
		return "watchdog"
	case g.cause == causeNoStart:
		return "resources"
	case g.cause == causeCommand:
		return "exit-code"
	case clean(cfg, g.exit):
		return "success"
	case g.exit.Core:
		return "core-dump"
	case g.exit.Signal != 0:
		return "signal"
	}
	return "exit-code"
}

// endCommand tells the command of an instance to end.
func (r *runner) endCommand(in *instance, hard bool) {
	c := in.command
	if c == nil {
		return
	}
	sig := unix.SIGTERM
	if hard {
		sig = unix.SIGKILL
	}
	if err := c.process.signal(sig); err != nil {
		r.log.Debug("cannot end a command of the unit", "service", r.cfg.Name, "directive", c.phase.String()+"=", "error", err)
	}
}
