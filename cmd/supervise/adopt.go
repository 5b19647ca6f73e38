package main

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/supervise/supervise/supervisor/config"
)

const adoptUsage = `adopt [flags] PID -- COMMAND [ARG...]`

const adoptLong = `Take over from a server that is running, whoever started it, and lose no client.

Its listeners, and those of the processes that it started, are taken over while
it goes on serving. COMMAND is started beside it, becomes ready, gets the new
connections, and only then is PID told to stop. If COMMAND fails, nothing has
happened to PID, and it goes on when supervise ends.

Exit status: as of supervise; 64 when PID cannot be meant, 69 when there is no
such process or it listens on nothing, 77 when it may not be looked into.`

const adoptExample = `  supervise adopt $(pidof myserver) -- ./myserver
  supervise adopt --kill-signal QUIT $(cat /run/nginx.pid) -- nginx -g 'daemon off;'`

// newAdoptCommand is the verb adopt: one service in the foreground, whose
// first generation is there already.
func newAdoptCommand(status *int) *cobra.Command {
	flags := newRunFlags()
	cmd := &cobra.Command{
		Use:     adoptUsage,
		Short:   "take over from a running server without losing a client",
		Long:    adoptLong,
		Example: adoptExample,

		DisableFlagsInUseLine: true,
		Args:                  adoptArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			pid, _ := strconv.Atoi(args[0])
			svc, err := flags.service(args[1:])
			if err != nil {
				return err
			}
			return start([]*config.Service{svc}, nil, nil, pid, flags, status)
		},
	}
	flags.add(cmd.Flags())
	cmd.SetFlagErrorFunc(flagError)
	return cmd
}

// adoptArgs sees to it that there is a pid before "--" and a command behind it.
func adoptArgs(cmd *cobra.Command, args []string) error {
	const hint = "usage: supervise " + adoptUsage
	dash := cmd.ArgsLenAtDash()
	if dash != 1 || len(args) < 2 {
		return &usageError{err: errors.New("write one PID before \"--\" and the command behind it"), hint: hint}
	}
	if pid, err := strconv.Atoi(args[0]); err != nil || pid <= 0 {
		return &usageError{err: fmt.Errorf("%q is no process id", args[0]), hint: hint}
	}
	return nil
}
