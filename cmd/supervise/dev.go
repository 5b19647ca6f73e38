package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"

	"github.com/spf13/pflag"

	"github.com/supervise/supervise/supervisor"
)

// addDev are the flags of the dev mode.
func (r *runFlags) addDev(f *pflag.FlagSet) {
	f.StringArrayVar(&r.dev.Watch, "watch", nil, "file or folder: when something of it changes, it is a rollout (`PATH`, repeatable)")
	f.StringVar(&r.dev.Build, "build", "", "`COMMAND` for sh, before the first start and before each rollout of --watch; one that fails changes nothing")
	f.StringArrayVar(&r.dev.Ignore, "watch-ignore", nil, "`PATTERN` as in .gitignore, whose rules are followed, too (repeatable)")
}

// checkDev looks whether the flags make sense together.
func (r *runFlags) checkDev() error {
	if len(r.dev.Watch) == 0 && (r.dev.Build != "" || len(r.dev.Ignore) > 0) {
		return &usageError{err: errors.New("--build and --watch-ignore say nothing without --watch"), hint: "add for example --watch ."}
	}
	return nil
}

// firstBuild builds before anything is started: the command may not be there yet.
func firstBuild(d supervisor.Dev) error {
	if d.Build == "" {
		return nil
	}
	c := exec.Command("sh", "-c", d.Build)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	if err := c.Run(); err != nil {
		return &supervisor.StartError{Status: neverReady, Err: fmt.Errorf("cannot build: %s: %w", d.Build, err)}
	}
	return nil
}

// neverReady is the status of a command that could not be made ready.
const neverReady = 75
