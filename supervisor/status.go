package supervisor

import (
	"errors"

	"github.com/supervise/supervise/handoff/shim"
)

// Exit statuses of supervise itself (sysexits.h where it has a word); the
// command's own status is passed on where there is one.
const (
	ExitUsage       = 64  // bad flag, unit or address
	ExitUnavailable = 69  // an address is held by someone else
	ExitSoftware    = 70  // a fault of our own
	ExitPermission  = 77  // a server that we may not take over
	exitNeverReady  = 75  // the command never became ready
	ExitNotExec     = 126 // found, but cannot be executed
	ExitNotFound    = 127 // not found
)

// startStatus is the exit status for a command that could not be started.
func startStatus(err error) int {
	var look *shim.LookError
	if errors.As(err, &look) {
		return look.Code
	}
	var stage *shim.Error
	if errors.As(err, &stage) && stage.ExitCode() != 0 {
		return stage.ExitCode()
	}
	return ExitSoftware
}
