package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/supervise/supervise/handoff/shim"
	"github.com/supervise/supervise/supervisor"
	"github.com/supervise/supervise/supervisor/config"
	"github.com/supervise/supervise/supervisor/portdiag"
)

const checkLong = `Read units, say what would be done and what is not supported. Nothing is started or changed.

Of each socket it says whether its address is free now, and who holds it if it is not.

Exit status: 0 all is well, with warnings perhaps; 64 a unit is wrong, or what it
names is not there; 69 an address is held by somebody else.`

const checkExample = `  supervise check web.service web.socket
  supervise check /etc/app/units`

// newCheckCommand is the verb check.
func newCheckCommand(status *int) *cobra.Command {
	var opts config.LoadOptions
	cmd := &cobra.Command{
		Use:     "check [flags] UNIT|DIR...",
		Short:   "say what unit files would do, and what is not supported",
		Long:    checkLong,
		Example: checkExample,

		DisableFlagsInUseLine: true,
		Args:                  unitArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			units, warnings, err := config.Load(args, opts)
			printWarnings(cmd.ErrOrStderr(), warnings)
			if err != nil {
				return &usageError{err: err}
			}
			for i, p := range plans(units, status) {
				if i > 0 {
					fmt.Fprintln(cmd.OutOrStdout())
				}
				printPlan(cmd.OutOrStdout(), p)
			}
			return nil
		},
	}
	addWithout(cmd, &opts)
	cmd.SetFlagErrorFunc(flagError)
	return cmd
}

// plan is what would be done with one unit.
type plan struct {
	name  string
	at    config.Position
	facts []fact
}

// fact is a line of a plan: a word, what it is, and an explanation of several
// lines where something is in the way.
type fact struct{ name, text, more string }

func (p *plan) add(name, format string, args ...any) {
	p.facts = append(p.facts, fact{name: name, text: fmt.Sprintf(format, args...)})
}

// plans says what would be done with units, and leaves in status what stands in
// the way.
func plans(units *config.Units, status *int) []plan {
	var all []plan
	worst := func(code int) {
		if *status == 0 || code == supervisor.ExitUsage {
			*status = code
		}
	}
	for _, u := range units.Sockets {
		p := plan{name: u.Name + ".socket", at: u.At}
		switch {
		case u.Accept:
			p.add("starts", "an instance of %s for each connection, %d at a time", u.Service, u.MaxConnections)
		default:
			p.add("lends", "its listeners to %s, as %s", u.Service, u.Sockets[0].Name)
		}
		for _, s := range u.Sockets {
			f, code := addressFact(s)
			p.facts = append(p.facts, f)
			worst(code)
		}
		all = append(all, p)
	}
	for _, s := range units.Services {
		p := plan{name: s.Name + ".service", at: s.At}
		describe(&p, s)
		for _, err := range lacks(s) {
			p.add("error", "%v", err)
			worst(supervisor.ExitUsage)
		}
		all = append(all, p)
	}
	return all
}

// addressFact says whether an address can be bound now.
func addressFact(s config.Socket) (fact, int) {
	network, address := s.NetworkAddr()
	f := fact{name: "listens", text: network + " " + address}
	if !s.IsUnix() && s.Addr.Port() == 0 {
		f.text += ": any free port"
		return f, 0
	}
	r, err := portdiag.Explain(portdiag.Ask{Target: portdiag.TargetOf(s)})
	switch {
	case err != nil:
		f.more = "whether it is free cannot be seen: " + err.Error()
		return f, 0
	case r.Verdict == portdiag.Available || r.Verdict == portdiag.NeedsReuseAddr:
		f.text += ": free"
		return f, 0
	case r.Verdict == portdiag.Held:
		f.text += ": held by somebody else"
		f.more = r.Text(portdiag.Style{})
		return f, supervisor.ExitUnavailable
	case r.Verdict == portdiag.Refused:
		f.text += ": cannot be bound"
		f.more = r.Text(portdiag.Style{})
		return f, supervisor.ExitUsage
	}
	f.text += ": it cannot be seen whether it is free"
	f.more = r.Text(portdiag.Style{})
	return f, 0
}

// describe says in a few lines what a service would do.
func describe(p *plan, s *config.Service) {
	for _, list := range []struct {
		name  string
		lines []config.ExecLine
	}{
		{"condition", s.Condition},
		{"before", s.StartPre},
		{"runs", s.ExecStart()},
		{"then", s.StartPost},
		{"reload", s.Reload},
		{"stop", s.Stop},
		{"at end", s.StopPost},
	} {
		for _, line := range list.lines {
			if !strings.Contains(strings.Join(line.Argv, ""), "$") {
				line.NoExpand = false // says nothing
			}
			p.add(list.name, "%s", line)
		}
	}
	who := s.User
	if who == "" {
		who = "the user of supervise"
	}
	if s.Group != "" {
		who += ", group " + s.Group
	}
	p.add("as", "%s", who)
	start := "at once"
	if s.OnDemand {
		start = "at the first connection"
	}
	var after []string
	for _, name := range s.Dependencies.After {
		if strings.HasSuffix(name, ".service") {
			after = append(after, name)
		}
	}
	if len(after) > 0 {
		start += ", after " + strings.Join(after, ", ")
	}
	p.add("starts", "%s; up as Type=%s says, within %s", start, s.Type, limit(s.TimeoutStart))
	p.add("restarts", "%s", restartWords(s))
	p.add("stops", "by %s, within %s", config.SignalName(s.KillSignal), limit(s.TimeoutStop))
	if s.Instances > 1 {
		p.add("instances", "%d", s.Instances)
	}
}

func limit(d time.Duration) string {
	if d == 0 {
		return "any time"
	}
	return config.FormatDuration(d)
}

func restartWords(s *config.Service) string {
	text := string(s.Restart)
	if s.Restart != config.RestartNo {
		text += ", after " + config.FormatDuration(s.RestartSec)
		if s.RestartMaxDelay > s.RestartSec {
			text += " growing to " + config.FormatDuration(s.RestartMaxDelay)
		}
		if s.StartLimitBurst > 0 {
			text += fmt.Sprintf("; %d starts in %s at the most", s.StartLimitBurst, config.FormatDuration(s.StartLimitInterval))
		}
	}
	return text
}

// lacks looks for what a service names and is not there. Commands that may fail
// may be missing.
func lacks(s *config.Service) []error {
	var errs []error
	env, err := s.Environ(config.CleanEnv(os.Environ()))
	if err != nil {
		errs = append(errs, err)
	}
	for _, lines := range [][]config.ExecLine{s.Condition, s.StartPre, s.ExecStart(), s.StartPost, s.Reload, s.Stop, s.StopPost} {
		for _, line := range lines {
			if line.IgnoreFailure {
				continue
			}
			if _, err := shim.LookPath(line.Path, "", env); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", line.At, err))
			}
		}
	}
	if s.Dir != "" && !s.DirOptional && !s.DirHome {
		info, err := os.Stat(s.Dir)
		if err == nil && !info.IsDir() {
			err = errors.New("it is no directory")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("cannot run in %s: %w", filepath.Clean(s.Dir), err))
		}
	}
	if s.User != "" {
		if _, err := user.Lookup(s.User); err != nil {
			if _, err := user.LookupId(s.User); err != nil {
				errs = append(errs, fmt.Errorf("cannot find user %q: no such name or number", s.User))
			}
		}
	}
	for _, g := range append([]string{s.Group}, s.ExtraGroups...) {
		if g == "" {
			continue
		}
		if _, err := user.LookupGroup(g); err != nil {
			if _, err := user.LookupGroupId(g); err != nil {
				errs = append(errs, fmt.Errorf("cannot find group %q: no such name or number", g))
			}
		}
	}
	return errs
}
