package main

import (
	"github.com/spf13/cobra"

	"github.com/supervise/supervise/supervisor/control"
)

func newStartCommand() *cobra.Command {
	return verb("start [flags] NAME...", "start services that were stopped, or have ended",
		`Returns when they are ready. Their configured addresses are opened again first.`, needNames, control.VerbStart)
}
