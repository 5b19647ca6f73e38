package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/supervise/supervise/supervisor/config"
)

const unitsUsage = `run [flags] UNIT|DIR...`

const unitsLong = `Run services and sockets from systemd unit files, in the foreground, without systemd.

UNIT is a .service or .socket file, or an instance of a template that lies there
(web@8080.service); a bare name is looked for where systemd keeps its units, too.
Of a DIR, all services and sockets are run; a service that has a socket and no
[Install] section is started by its first connection. Drop-ins count.

Directives have systemd's meaning. One that is not done is a warning, one whose
silent absence would be unsafe an error; supervise check tells of both and starts
nothing. What systemd has no word for stands in [X-Supervise].`

const unitsExample = `  supervise run web.service web.socket
  supervise run /etc/app/units
  supervise run --without sandbox redis-server.service`

// newUnitsCommand is the verb run: services from unit files.
func newUnitsCommand(status *int) *cobra.Command {
	flags := newRunFlags()
	var opts config.LoadOptions
	cmd := &cobra.Command{
		Use:     unitsUsage,
		Short:   "run services and sockets from systemd unit files",
		Long:    unitsLong,
		Example: unitsExample,

		DisableFlagsInUseLine: true,
		Args:                  unitArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			if err := flags.checkLog(); err != nil {
				return err
			}
			units, warnings, err := config.Load(args, opts)
			if err != nil {
				return &usageError{err: err}
			}
			log, end := newLogger(flags.logFormat, flags.logLevel)
			for _, w := range warnings {
				log.Warn(w.Text, "at", w.At)
			}
			end()
			reread := func() ([]*config.Service, error) {
				units, _, err := config.Load(args, opts)
				if err != nil {
					return nil, err
				}
				return units.Services, nil
			}
			return start(units.Services, accepting(units), reread, 0, flags, status)
		},
	}
	cmd.Flags().SortFlags = false
	addWithout(cmd, &opts)
	flags.addLog(cmd.Flags())
	cmd.SetFlagErrorFunc(flagError)
	return cmd
}

// accepting are the sockets that have a service for each connection.
func accepting(units *config.Units) []*config.SocketUnit {
	var all []*config.SocketUnit
	for _, u := range units.Sockets {
		if u.Accept {
			all = append(all, u)
		}
	}
	return all
}

func addWithout(cmd *cobra.Command, opts *config.LoadOptions) {
	cmd.Flags().StringSliceVar(&opts.Without, "without", nil, "refused `DIRECTIVES` whose absence is accepted; sandbox: all that shut a service in [X-Supervise Without=]")
}

func unitArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return &usageError{err: errors.New("no unit given"), hint: "usage: supervise " + cmd.Use}
	}
	if cmd.ArgsLenAtDash() >= 0 {
		return &usageError{err: errors.New(`a command after "--" is run without the verb`), hint: "usage: supervise " + cmd.Use}
	}
	return nil
}
