package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/supervise/supervise/supervisor/control"
)

func newLogsCommand() *cobra.Command {
	follow, last := false, -1
	c := talkCommand("logs [flags] [NAME...]", "the last lines that services wrote",
		`The last lines of each living generation are remembered, unless its output is a terminal. All of it is where --output says.`,
		anyNames, false, func(t *talk, names []string) error {
			return t.each(names, func(ctx context.Context, p party) error {
				return p.Logs(ctx, control.LogQuery{Services: p.names, Follow: follow, Last: last}, func(l control.Line) error {
					if t.json {
						t.printJSON(l)
					} else {
						t.printLine(l)
					}
					return nil
				})
			})
		})
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what they write")
	c.Flags().IntVarP(&last, "lines", "n", last, "at most `N` of what was (default all that is remembered)")
	return c
}
