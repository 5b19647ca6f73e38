package main

import (
	"github.com/spf13/cobra"

	"github.com/supervise/supervise/supervisor/control"
)

func newStopCommand() *cobra.Command {
	return verb("stop [flags] NAME...", "stop services; the supervisor goes on",
		`Returns when no process of them is left. Their addresses are closed. "supervise start" starts them again: the supervisor
goes on also when it has no other service, as systemd does; SIGTERM to it ends it.`,
		needNames, control.VerbStop)
}
