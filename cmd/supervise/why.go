package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor/portdiag"
)

// Exit statuses of why. Like grep(1): the answer itself is one.
const (
	whyFree  = 0  // every address asked about can be bound (with --free, --wait: now)
	whyTaken = 1  // one of them cannot, or not without SO_REUSEADDR
	whyUsage = 64 // what was asked cannot be understood
	whyFault = 70 // the machine could not be looked at
)

const whyLong = `why explains why an address cannot be bound: who holds it, since when, as part of what, why that conflicts, and what to do.
It changes nothing (but with --free) and needs no root; what it cannot see without root it says.

ADDRESS is a port, an address, a URL, a unix path, @NAME of the abstract namespace, several of these separated by ';',
or the error message of a program, in quotes. With -- COMMAND, it runs the command and explains the bind that fails.

Exit status: 0 it can be bound; 1 it cannot, or only with SO_REUSEADDR; 64 wrong use; 70 the machine could not be looked at.`

const whyExample = `  supervise why 5000
  supervise why http://localhost:5000
  supervise why 'Error: listen EADDRINUSE: address already in use :::3000'
  supervise why /run/app.sock --json
  supervise why :8080 --free
  supervise why :8080 --wait 1m && ./myserver
  supervise why -- npm start`

// whyFlags are the flags of the verb.
type whyFlags struct {
	json, free, yes bool
	wait, grace     time.Duration
}

// newWhyCommand makes the verb. status is where it leaves its exit status.
func newWhyCommand(status *int) *cobra.Command {
	var f whyFlags
	c := &cobra.Command{
		Use:     "why [flags] ADDRESS|PORT|URL|PATH|MESSAGE...\n  supervise why [flags] -- COMMAND [ARG...]",
		Short:   "explain why an address cannot be bound: who holds it and what to do",
		Long:    whyLong,
		Example: whyExample,
		// Errors are printed here, in one form for all.
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(c *cobra.Command, args []string) error {
			w := why{flags: f, in: c.InOrStdin(), out: c.OutOrStdout(), err: c.ErrOrStderr()}
			*status = w.run(args, c.ArgsLenAtDash())
			return nil
		},
	}
	c.Flags().BoolVar(&f.json, "json", false, "print the facts as JSON")
	c.Flags().BoolVar(&f.free, "free", false, "end the holder: SIGTERM, then SIGKILL after --grace; asks first")
	c.Flags().BoolVar(&f.yes, "yes", false, "with --free: do not ask")
	c.Flags().DurationVar(&f.grace, "grace", 10*time.Second, "with --free: time from SIGTERM to SIGKILL")
	c.Flags().DurationVar(&f.wait, "wait", 0, "wait that long for the address to become free")
	return c
}

// whyMain runs the verb by itself and returns its exit status.
func whyMain(args []string, stdout, stderr io.Writer) int {
	status := 0
	c := newWhyCommand(&status)
	c.SetArgs(args)
	c.SetOut(stdout)
	c.SetErr(stderr)
	if err := c.Execute(); err != nil {
		fmt.Fprintf(stderr, "supervise why: %v\n", err)
		return whyUsage
	}
	return status
}

// why is one run of the verb.
type why struct {
	flags    whyFlags
	in       io.Reader
	out, err io.Writer
}

func (w *why) run(args []string, dash int) int {
	if w.flags.yes && !w.flags.free {
		return w.usage("--yes has a meaning only with --free")
	}
	if dash >= 0 {
		switch {
		case dash > 0:
			return w.usage("write either an ADDRESS or -- COMMAND")
		case len(args) == 0:
			return w.usage("there is no COMMAND after --")
		case w.flags.free || w.flags.wait > 0:
			return w.usage("--free and --wait need an ADDRESS")
		}
		return w.command(args)
	}
	if len(args) == 0 {
		return w.usage("there is no ADDRESS; write for example: supervise why 5000, or supervise why -- COMMAND")
	}
	var asks []portdiag.Ask
	// An error message that was not quoted comes as words.
	if len(args) > 1 {
		if s, ok := portdiag.Recognise(strings.Join(args, " ")); ok && s.Address != "" {
			args = []string{strings.Join(args, " ")}
		}
	}
	for _, a := range args {
		more, err := w.questions(a)
		if err != nil {
			return w.usage(err.Error())
		}
		asks = append(asks, more...)
	}
	return w.answer(asks)
}

func (w *why) usage(text string) int {
	fmt.Fprintf(w.err, "supervise why: %s\n", text)
	return whyUsage
}

// questions reads one argument.
func (w *why) questions(arg string) ([]portdiag.Ask, error) {
	targets, symptom, err := portdiag.ParseTargets(arg)
	if err != nil {
		return nil, err
	}
	if len(targets) == 0 {
		name := symptom.Program
		if name == "" {
			name = "the program"
		}
		return nil, fmt.Errorf("the message of %s names no address; write the port, or run it: supervise why -- COMMAND", name)
	}
	var asks []portdiag.Ask
	for _, t := range targets {
		asks = append(asks, portdiag.Ask{Target: t, Symptom: symptom})
	}
	return asks, nil
}

// answer explains each address and does what the flags ask for.
func (w *why) answer(asks []portdiag.Ask) int {
	status := whyFree
	var all []portdiag.Report
	for i, ask := range asks {
		if w.flags.wait > 0 && !w.flags.free {
			w.waitFor(ask.Target, w.flags.wait)
		}
		r, err := portdiag.Explain(ask)
		if err != nil {
			fmt.Fprintf(w.err, "supervise why: %v\n", err)
			return whyFault
		}
		if !w.flags.json {
			if i > 0 {
				fmt.Fprintln(w.out)
			}
			if ask.Guessed != "" {
				fmt.Fprintf(w.out, "The message names no address; %s says %s.\n", ask.Guessed, ask.Target.Text)
			}
			io.WriteString(w.out, r.Text(style(w.out)))
		}
		if w.flags.free && r.Verdict != portdiag.Available {
			if !w.free(&r) {
				status = whyTaken
			}
		} else if r.Verdict != portdiag.Available {
			// Waiting was for a server as they are: with SO_REUSEADDR.
			if !(w.flags.wait > 0 && r.Verdict == portdiag.NeedsReuseAddr) {
				status = whyTaken
			}
		}
		all = append(all, r)
	}
	if w.flags.json {
		e := json.NewEncoder(w.out)
		e.SetIndent("", "  ")
		if err := e.Encode(all); err != nil {
			fmt.Fprintf(w.err, "supervise why: cannot print: %v\n", err)
			return whyFault
		}
	}
	return status
}

// waitFor waits for an address until it is free, the time is over or Ctrl-C.
func (w *why) waitFor(t portdiag.Target, bound time.Duration) bool {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	return portdiag.WaitFree(ctx, t) == nil
}

// free ends the holder, and the other processes that were shown as long as
// they hold the address. It says whether the address is free then.
func (w *why) free(r *portdiag.Report) bool {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	shown := r.Parties
	for {
		p, err := portdiag.Evictable(*r)
		if err != nil {
			w.refused(err)
			return false
		}
		// What came to hold it only now was not shown, and is left alone.
		if !slices.ContainsFunc(shown, func(s portdiag.Party) bool { return s.PID == p.PID && s.Started.Equal(p.Started) }) {
			fmt.Fprintf(w.err, "supervise why: pid %d (%s) holds it now; ask again\n", p.PID, p.Title(60))
			return false
		}
		if !w.flags.yes && !w.confirm(p) {
			fmt.Fprintln(w.err, "supervise why: nothing was done")
			return false
		}
		err = portdiag.Evict(ctx, *r, p, portdiag.Eviction{
			Grace: w.flags.grace, Kill: true,
			Step: func(s string) { fmt.Fprintln(w.err, s) },
		})
		if err != nil {
			w.refused(err)
			return false
		}
		// Its descriptors are closed before its end is seen, but a child may
		// take the address over for a moment.
		w.waitFor(r.Target(), max(w.flags.wait, time.Second))
		now, err := portdiag.Explain(portdiag.Ask{Target: r.Target()})
		if err != nil {
			fmt.Fprintf(w.err, "supervise why: %v\n", err)
			return false
		}
		*r = now
		switch {
		case now.Verdict == portdiag.Available,
			now.Verdict == portdiag.NeedsReuseAddr:
			fmt.Fprintf(w.err, "%s\n", now.Sentence)
			return true
		case now.Cause == portdiag.UnixDead:
			fmt.Fprintf(w.err, "%s; remove it: rm %s\n", now.Sentence, now.Address)
			return true
		}
	}
}

func (w *why) refused(err error) {
	fmt.Fprintf(w.err, "supervise why: %v\n", err)
	var refused *portdiag.RefusedError
	if errors.As(err, &refused) && refused.Command != "" {
		fmt.Fprintf(w.err, "    %s\n", refused.Command)
	}
}

func (w *why) confirm(p portdiag.Process) bool {
	fmt.Fprintf(w.err, "end pid %d (%s) of user %s? [y/N] ", p.PID, p.Title(60), p.User)
	line, _ := bufio.NewReader(w.in).ReadString('\n')
	line = strings.ToLower(strings.TrimSpace(line))
	return line == "y" || line == "yes"
}

// command runs a command and explains the bind that it says has failed.
func (w *why) command(argv []string) int {
	// Ctrl-C is for the command; we stay to say what was seen.
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt)
	defer signal.Stop(stop)
	status := whyFree
	found := false
	watched := portdiag.Watched{
		Argv: argv, Stdin: os.Stdin, Stdout: os.Stderr, Stderr: os.Stderr,
		Found: func(s portdiag.Symptom) {
			found = true
			status = w.symptom(s, argv)
		},
	}
	if !w.flags.json {
		watched.Stdout = os.Stdout
	}
	exit, err := watched.Run()
	if err != nil {
		fmt.Fprintf(w.err, "supervise why: %v\n", err)
		return 127
	}
	if !found {
		fmt.Fprintf(w.err, "supervise why: %s ended with status %d and named no bind that failed\n", argv[0], exit)
		if exit != 0 {
			return whyTaken
		}
	}
	return status
}

// symptom explains what a command's output said.
func (w *why) symptom(s portdiag.Symptom, argv []string) int {
	if !w.flags.json {
		fmt.Fprintln(w.out)
	}
	asks, err := portdiag.Asks(s, argv, os.Environ())
	switch {
	case err != nil:
		return w.usage(err.Error())
	case len(asks) == 0:
		return w.usage("the message names no address, and neither do the arguments: " + s.Line)
	}
	return w.answer(asks)
}

// style is how a report is written to out: in colour and in the terminal's
// width only where out is a terminal. NO_COLOR is no-color.org.
func style(out io.Writer) portdiag.Style {
	f, ok := out.(*os.File)
	if !ok {
		return portdiag.Style{}
	}
	var s portdiag.Style
	raw, err := f.SyscallConn()
	if err != nil {
		return s
	}
	_ = raw.Control(func(fd uintptr) {
		if _, err := unix.IoctlGetTermios(int(fd), unix.TCGETS); err != nil {
			return
		}
		s.Colour = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
		if ws, err := unix.IoctlGetWinsize(int(fd), unix.TIOCGWINSZ); err == nil && ws.Col > 0 {
			s.Width = int(ws.Col)
		}
	})
	if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && n > 0 && s.Width > 0 {
		s.Width = n
	}
	return s
}
