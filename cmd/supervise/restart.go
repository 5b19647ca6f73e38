package main

import (
	"github.com/spf13/cobra"

	"github.com/supervise/supervise/supervisor/control"
)

func newRestartCommand() *cobra.Command {
	return verb("restart [flags] [NAME...]", "stop services, then start them; connections wait meanwhile, none is refused",
		`For what two generations cannot share, such as a lock on its data. New connections wait in the queue of the listeners, which
stay open; the next generation serves them. Where two generations may live side by side, "supervise rollout" keeps nobody waiting.`,
		anyNames, control.VerbRestart)
}
