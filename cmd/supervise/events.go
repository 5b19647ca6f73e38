package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/supervise/supervise/supervisor/control"
)

func newEventsCommand() *cobra.Command {
	follow, last := false, -1
	c := talkCommand("events [flags] [NAME...]", "what happened: one line each, the same facts as the log",
		`The last 256 are remembered, whatever the level of the log is set to.`, anyNames, false, func(t *talk, names []string) error {
			return t.each(names, func(ctx context.Context, p party) error {
				return p.Events(ctx, control.EventQuery{Services: p.names, Follow: follow, Last: last}, func(e control.Event) error {
					if t.json {
						t.printJSON(e)
					} else {
						t.printEvent(e)
					}
					return nil
				})
			})
		})
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what happens")
	c.Flags().IntVarP(&last, "lines", "n", last, "at most `N` of what was (default all)")
	return c
}

// each asks the supervisors that are meant, one after another.
func (t *talk) each(names []string, ask func(context.Context, party) error) error {
	ctx, cancel := t.context()
	defer cancel()
	parties, err := t.whom(ctx, names)
	if err != nil {
		return err
	}
	for _, p := range parties {
		if err := ask(ctx, p); err != nil && !errors.Is(err, context.Canceled) {
			return failed(err)
		}
	}
	return nil
}
