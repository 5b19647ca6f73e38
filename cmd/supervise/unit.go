package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/supervise/supervise/supervisor/config"
)

const unitUsage = `unit [flags] -- COMMAND [ARG...]`

const unitLong = `Print the .service and .socket units that say the same as the flags.

supervise run takes them back, and systemd takes them as far as it has words for
what the flags say; the rest stands in [X-Supervise], which it ignores.`

const unitExample = `  supervise unit --listen :8080 --ready /healthz -- ./myserver
  supervise unit --write /etc/systemd/system --listen :8080 -- /usr/bin/myserver`

// newUnitCommand is the verb unit: flags as unit files.
func newUnitCommand() *cobra.Command {
	flags := newRunFlags()
	dir := ""
	cmd := &cobra.Command{
		Use:     unitUsage,
		Short:   "print the unit files that say the same as the flags",
		Long:    unitLong,
		Example: unitExample,

		DisableFlagsInUseLine: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if cmd.ArgsLenAtDash() != 0 || len(args) == 0 {
				return &usageError{err: errors.New(`write the command behind "--"`), hint: "usage: supervise " + unitUsage}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			svc, err := flags.service(args)
			if err != nil {
				return err
			}
			units, err := unitsOf(svc)
			if err != nil {
				return &usageError{err: err}
			}
			if dir == "" {
				printUnits(cmd.OutOrStdout(), units)
				return nil
			}
			return writeUnits(dir, units)
		},
	}
	cmd.Flags().StringVar(&dir, "write", "", "write the units into this `DIRECTORY`; a unit that is there is left alone")
	flags.add(cmd.Flags())
	cmd.SetFlagErrorFunc(flagError)
	return cmd
}

// unitsOf makes the units of a service, with all its paths from the root on:
// who reads them is somewhere else.
func unitsOf(svc *config.Service) ([]config.UnitText, error) {
	if err := svc.Validate(); err != nil {
		return nil, err
	}
	for _, path := range []*string{&svc.Command[0], &svc.Dir} {
		if !strings.Contains(*path, "/") || *path == "" {
			continue
		}
		abs, err := filepath.Abs(*path)
		if err != nil {
			return nil, fmt.Errorf("cannot find the place of %s: %w", *path, err)
		}
		*path = abs
	}
	for i, file := range svc.EnvFiles {
		name, optional := strings.CutPrefix(file, "-")
		abs, err := filepath.Abs(name)
		if err != nil {
			return nil, fmt.Errorf("cannot find the place of %s: %w", name, err)
		}
		if optional {
			abs = "-" + abs
		}
		svc.EnvFiles[i] = abs
	}
	for i, s := range svc.Sockets {
		if s.IsUnix() && !strings.HasPrefix(s.Path, "@") {
			abs, err := filepath.Abs(s.Path)
			if err != nil {
				return nil, fmt.Errorf("cannot find the place of %s: %w", s.Path, err)
			}
			svc.Sockets[i].Path = abs
		}
	}
	return svc.UnitFiles()
}

// writeUnits writes new files only.
func writeUnits(dir string, units []config.UnitText) error {
	for _, u := range units {
		file := filepath.Join(dir, u.Name)
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return &usageError{err: fmt.Errorf("cannot write the unit: %w", err)}
		}
		_, err = f.WriteString(u.Text)
		if closed := f.Close(); err == nil {
			err = closed
		}
		if err != nil {
			return &usageError{err: fmt.Errorf("cannot write the unit: %w", err)}
		}
	}
	return nil
}
