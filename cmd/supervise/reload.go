package main

import (
	"github.com/spf13/cobra"

	"github.com/supervise/supervise/supervisor/control"
)

func newReloadCommand() *cobra.Command {
	return verb("reload [flags] [NAME...]", "have services take new configuration or code into use",
		`By ExecReload= or Type=notify-reload where the service has it, else by a rollout: what SIGHUP does.`,
		anyNames, control.VerbReload)
}
