package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/supervise/supervise/supervisor/proc"
)

func newDoctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "what this machine gives, and what each lack costs",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, _ = proc.Setup() // so that what it says of us is what a run would be
			facts := proc.Facts()
			printFacts(os.Stdout, facts)
			return nil
		},
	}
}
