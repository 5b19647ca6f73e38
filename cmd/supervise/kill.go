package main

import (
	"github.com/spf13/cobra"

	"github.com/supervise/supervise/supervisor/control"
)

func newKillCommand() *cobra.Command {
	signal := "TERM"
	c := talkCommand("kill [-s SIGNAL] NAME...", "send a signal to all processes of services",
		`Nothing else changes: when it ends them, that is a crash like any other, and they are started again.`,
		needNames, false, func(t *talk, names []string) error {
			return t.do(control.Command{Verb: control.VerbKill, Signal: signal}, names)
		})
	c.Flags().StringVarP(&signal, "signal", "s", signal, "`SIGNAL` by name or number")
	return c
}
