package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/supervise/supervise/supervisor/control"
)

func newUpgradeCommand() *cobra.Command {
	return talkCommand("upgrade [flags] [BINARY]", "replace the supervisor itself; children and listeners stay", "",
		func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return &usageError{err: fmt.Errorf("unexpected %q: one BINARY", args[1])}
			}
			return nil
		}, true, func(t *talk, args []string) error {
			cmd := control.Command{Verb: control.VerbUpgrade}
			if len(args) > 0 {
				cmd.Binary = args[0]
			}
			return t.do(cmd, nil)
		})
}
