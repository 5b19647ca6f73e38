package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/supervise/supervise/supervisor/control"
)

func newStatusCommand() *cobra.Command {
	watch := false
	c := talkCommand("status [flags] [NAME...]", "what runs, since when, and what comes next", "", anyNames, false,
		func(t *talk, names []string) error {
			return t.each(names, func(ctx context.Context, p party) error {
				for {
					st, err := p.Status(ctx, p.names...)
					if err != nil {
						return err
					}
					t.showStatus(st, watch)
					if !watch {
						return nil
					}
					select {
					case <-time.After(watchEvery):
					case <-ctx.Done():
						return nil
					}
				}
			})
		})
	c.Flags().BoolVarP(&watch, "watch", "w", false, "look again every second")
	return c
}

// watchEvery is how often --watch looks.
const watchEvery = time.Second

// showStatus prints one picture.
func (t *talk) showStatus(st control.Status, watch bool) {
	if t.json {
		t.printJSON(st)
		return
	}
	text := statusText(st, time.Now())
	if watch && isTerminal(t.out()) {
		text = "\x1b[H\x1b[2J" + text // home, and clear
	}
	t.print(text)
}
