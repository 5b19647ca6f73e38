// Command supervise runs a server so that its port never closes and no client
// sees its restarts.
//
// This package turns arguments into plain values and facts into words. It
// decides nothing: supervisor does. ui.go is the only file that prints.
package main

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/supervise/supervise/handoff/wire/standin"
	"github.com/supervise/supervise/supervisor"
)

func main() {
	standin.Play()
	os.Exit(run(os.Args[1:]))
}

// run is main without the exit: the test binary plays supervise with it.
func run(args []string) int {
	// One goroutine decides, and the others wait for the kernel. With more than one
	// P they are spread over threads that only look for work, at a tenth of the time of
	// a start and more of what reaping costs.
	runtime.GOMAXPROCS(1)
	status := 0
	root := newRoot(args, &status)
	root.SetArgs(args)
	if err := root.Execute(); err != nil {
		return fail(err)
	}
	return status
}

// newRoot makes the command tree for args. status is where a verb leaves its
// exit status. The verbs are left out where none is asked for: whoever starts
// a server, or thousands, does not wait for their flags.
func newRoot(args []string, status *int) *cobra.Command {
	root := newRunCommand(status)
	root.CompletionOptions.HiddenDefaultCmd = true
	if mayNameVerb(args) {
		root.AddCommand(newUnitsCommand(status), newUnitCommand(), newCheckCommand(status))
		root.AddCommand(newAdoptCommand(status), newWhyCommand(status), newDoctorCommand(), newVersionCommand())
		root.AddCommand(newStatusCommand(), newRolloutCommand(), newReloadCommand(), newRestartCommand(), newStopCommand(), newStartCommand(),
			newKillCommand(), newPauseCommand(), newResumeCommand(), newLogsCommand(), newEventsCommand(), newUpgradeCommand())
	}
	return root
}

// mayNameVerb says whether there may be a verb, or a question for the list of
// them, among args. Before "--" a verb is a word of small letters; so are some
// values of flags, which does no harm.
func mayNameVerb(args []string) bool {
	dash := slices.Index(args, "--")
	return dash < 0 || slices.ContainsFunc(args[:dash], func(a string) bool {
		return a == "-h" || a == "--help" || strings.Trim(a, "abcdefghijklmnopqrstuvwxyz_") == ""
	})
}

// usageError is a wrong use of the command line: exit status 64.
type usageError struct {
	err  error
	hint string
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// statusOf is the exit status that an error means.
func statusOf(err error) int {
	var start *supervisor.StartError
	if errors.As(err, &start) {
		return start.Status
	}
	var talk *talkError
	if errors.As(err, &talk) {
		return talk.status
	}
	var usage *usageError
	if errors.As(err, &usage) {
		return supervisor.ExitUsage
	}
	return supervisor.ExitUsage // what is left comes from cobra: flags and verbs
}
