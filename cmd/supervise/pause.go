package main

import (
	"github.com/spf13/cobra"

	"github.com/supervise/supervise/supervisor/control"
)

func newPauseCommand() *cobra.Command {
	return verb("pause [flags] NAME...", "let new connections wait in the kernel's queue",
		`What is connected already is served on. As many may wait as the listener's backlog allows (?backlog=N; net.core.somaxconn);
"supervise status" shows how many do. A rollout, a restart or a crash ends the pause.`, needNames, control.VerbPause)
}

func newResumeCommand() *cobra.Command {
	return verb("resume [flags] NAME...", "serve the connections that wait since a pause",
		`Where the service waits for connections by epoll it goes on as it is. Else, if somebody waits, a new generation is given
the queue: a rollout follows.`, needNames, control.VerbResume)
}
