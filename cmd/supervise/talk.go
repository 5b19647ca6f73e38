package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor"
	"github.com/supervise/supervise/supervisor/control"
)

// What all verbs that talk to a running supervisor have in common: whom they
// mean, how steps are shown, which exit status an answer is.

// Exit statuses of the verbs, beside 0 and supervisor.ExitUsage.
const (
	exitFailed    = 1 // done, but failed
	exitNoService = 3 // no such service
	exitNobody    = 4 // no supervisor there
)

// talkError is why a verb came to nothing.
type talkError struct {
	status int
	text   string
	hint   string
}

func (e *talkError) Error() string { return e.text }

// talk is one use of a verb.
type talk struct {
	control string
	json    bool
	noWait  bool

	cmd   *cobra.Command
	began time.Time
}

// talkCommand makes a verb. flags are --control and, where they have a meaning,
// --json and --no-wait.
func talkCommand(use, short, long string, args cobra.PositionalArgs, waits bool, run func(t *talk, names []string) error) *cobra.Command {
	t := &talk{}
	c := &cobra.Command{
		Use: use, Short: short, Long: long,
		Args:          args,
		SilenceErrors: true, SilenceUsage: true,
		DisableFlagsInUseLine: true,
		RunE: func(c *cobra.Command, names []string) error {
			t.cmd, t.began = c, time.Now()
			return run(t, names)
		},
		ValidArgsFunction: func(_ *cobra.Command, have []string, _ string) ([]string, cobra.ShellCompDirective) {
			return t.complete(have), cobra.ShellCompDirectiveNoFileComp
		},
	}
	c.Flags().StringVar(&t.control, "control", "", "`PATH` of the supervisor's control socket (default: the running one)")
	c.Flags().BoolVar(&t.json, "json", false, "print JSON: fields are added, never renamed")
	if waits {
		c.Flags().BoolVar(&t.noWait, "no-wait", false, "do not wait for the end of it")
	}
	c.SetFlagErrorFunc(flagError)
	return c
}

// needNames is for verbs that must be told whom they mean.
func needNames(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return &usageError{err: fmt.Errorf("%s needs the name of a service", c.Name()), hint: "usage: supervise " + c.Use}
	}
	return nil
}

func anyNames(*cobra.Command, []string) error { return nil }

// completionPatience bounds how long a key at a shell waits for us.
const completionPatience = time.Second

// complete gives the names of services that are not there yet.
func (t *talk) complete(have []string) (names []string) {
	ctx, cancel := context.WithTimeout(context.Background(), completionPatience)
	defer cancel()
	clients := control.Find()
	if t.control != "" {
		c, err := control.Dial(t.control)
		if err != nil {
			return nil
		}
		clients = []*control.Client{c}
	}
	for _, c := range clients {
		all, err := c.Names(ctx)
		if err != nil {
			continue
		}
		for _, n := range all {
			if !slices.Contains(have, n) && !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	return names
}

// party is one supervisor, and which of its services are meant; none: all.
type party struct {
	*control.Client
	names []string
}

// whom finds out which supervisors are meant.
func (t *talk) whom(ctx context.Context, names []string) ([]party, error) {
	if t.control != "" {
		c, err := control.Dial(t.control)
		if err != nil {
			return nil, nobody(err)
		}
		return []party{{c, names}}, nil
	}
	found := control.Find()
	switch {
	case len(found) == 0:
		return nil, &talkError{status: exitNobody, text: "no supervisor is running that you may talk to", hint: "looked in " + strings.Join(control.Dirs(), " and ") + "; another path: --control PATH"}
	case len(found) == 1:
		if len(names) == 1 && names[0] == found[0].Name() { // the supervisor itself, as in a list of several
			if all, err := found[0].Names(ctx); err == nil && !slices.Contains(all, names[0]) {
				names = nil
			}
		}
		return []party{{found[0], names}}, nil
	case len(names) == 0:
		return nil, t.several(ctx, "several supervisors are running: say which service, or --control PATH", found)
	}
	var parties []party
	for _, name := range names {
		var owners []*control.Client
		whole := false
		for _, c := range found {
			if all, err := c.Names(ctx); err == nil && hasName(all, name) {
				owners = append(owners, c)
			}
		}
		if i := slices.IndexFunc(found, func(c *control.Client) bool { return c.Name() == name }); len(owners) != 1 && i >= 0 {
			owners, whole = found[i:i+1], true // two of one name: NAME and NAME-2
		}
		switch {
		case len(owners) == 0:
			return nil, &talkError{status: exitNoService, text: fmt.Sprintf("no running supervisor has a service %q", name), hint: strings.Join(t.list(ctx, found), "\n")}
		case len(owners) > 1:
			return nil, t.several(ctx, fmt.Sprintf("several supervisors have a service %q: say which by --control PATH", name), owners)
		}
		i := slices.IndexFunc(parties, func(p party) bool { return p.Client == owners[0] })
		if i < 0 {
			parties = append(parties, party{Client: owners[0]})
			i = len(parties) - 1
		}
		if !whole {
			parties[i].names = append(parties[i].names, name)
		}
	}
	return parties, nil
}

// hasName: an instance is named SERVICE@N.
func hasName(all []string, name string) bool {
	return slices.ContainsFunc(all, func(n string) bool {
		return n == strings.TrimSuffix(name, ".service") || strings.HasPrefix(n, name+"@")
	})
}

// several lists the supervisors.
func (t *talk) several(ctx context.Context, text string, found []*control.Client) error {
	return &talkError{status: supervisor.ExitUsage, text: text, hint: strings.Join(t.list(ctx, found), "\n")}
}

func (t *talk) list(ctx context.Context, found []*control.Client) (lines []string) {
	for _, c := range found {
		all, err := c.Names(ctx)
		what := strings.Join(all, " ")
		if err != nil {
			what = err.Error()
		}
		lines = append(lines, fmt.Sprintf("pid %d  --control %s  %s", c.PID(), c.Path(), what))
	}
	return lines
}

func nobody(err error) error {
	e := &talkError{status: exitNobody, text: err.Error()}
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		e.hint = "be root, or the user that the supervisor runs as"
	}
	return e
}

// context ends with Ctrl-C, which ends the words and not what was asked for.
func (t *talk) context() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
}

// failed gives an error of the supervisor its exit status.
func failed(err error) error {
	var dial *control.DialError
	var e *control.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &dial):
		return nobody(err)
	case !errors.As(err, &e):
		return &talkError{status: exitFailed, text: err.Error()}
	}
	text := e.Message
	if e.Service != "" && e.Code == control.Failed {
		text = e.Service + ": " + text
	}
	if j, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // several, joined by the client
		var all []string
		for _, one := range j.Unwrap() {
			all = append(all, failed(one).Error())
		}
		text = strings.Join(all, "\n")
	}
	status := exitFailed
	switch e.Code {
	case control.NoSuchService:
		status = exitNoService
	case control.BadRequest:
		status = supervisor.ExitUsage
	case control.Forbidden, control.Unavailable, control.NotFound:
		status = exitNobody
	case control.Conflict, control.Failed, control.Unsupported, control.Internal:
	}
	return &talkError{status: status, text: text, hint: e.Hint}
}

// do has a command carried out and shows its steps.
func (t *talk) do(cmd control.Command, names []string) error {
	ctx, cancel := t.context()
	defer cancel()
	parties, err := t.whom(ctx, names)
	if err != nil {
		return err
	}
	cmd.NoWait = t.noWait
	var errs []error
	for _, p := range parties {
		cmd.Services = p.names
		steps := t.steps()
		err := p.Do(ctx, cmd, steps.show)
		steps.end()
		if t.json {
			t.printResult(err)
		}
		if errors.Is(err, context.Canceled) {
			return &talkError{status: exitFailed, text: "interrupted: it goes on without you"}
		}
		errs = append(errs, err)
	}
	return failed(errors.Join(slices.DeleteFunc(errs, func(e error) bool { return e == nil })...))
}

func (t *talk) printResult(err error) {
	r := struct {
		OK    bool   `json:"ok"`
		Error string `json:"error,omitempty"`
	}{OK: err == nil}
	if err != nil {
		r.Error = err.Error()
	}
	t.printJSON(map[string]any{"result": r})
}

func (t *talk) printJSON(v any) {
	e := json.NewEncoder(t.out())
	e.SetEscapeHTML(false)
	_ = e.Encode(v)
}

func (t *talk) out() io.Writer { return t.cmd.OutOrStdout() }

// verb makes a verb that is nothing but its name and services.
func verb(use, short, long string, args cobra.PositionalArgs, v control.Verb) *cobra.Command {
	return talkCommand(use, short, long, args, true, func(t *talk, names []string) error {
		return t.do(control.Command{Verb: v}, names)
	})
}
