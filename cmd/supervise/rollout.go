package main

import (
	"github.com/spf13/cobra"

	"github.com/supervise/supervise/supervisor/control"
)

func newRolloutCommand() *cobra.Command {
	return verb("rollout [flags] [NAME...]", "start a new generation beside the old one, move new connections to it, drain the old one",
		`Each step is shown as it happens. When the candidate fails, the old generation was never touched, and the exit status is 1.
A unit's ExecReload= and Type=notify-reload are for "supervise reload"; this starts a new generation in any case.`,
		anyNames, control.VerbRollout)
}
