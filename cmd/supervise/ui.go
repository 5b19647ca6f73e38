package main

// The only file that prints. What a user asked for (doctor, version, help)
// goes to standard output; what went wrong, and the log, go to standard error.
// Messages have no capital and no full stop; what to do stands on a line of
// its own, indented.

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor/config"
	"github.com/supervise/supervise/supervisor/logs"
	"github.com/supervise/supervise/supervisor/proc"
)

// fail prints an error and returns the exit status that it means.
func fail(err error) int {
	var units *config.LoadError
	if errors.As(err, &units) {
		printUnitErrors(os.Stderr, units)
		return statusOf(err)
	}
	text := err.Error()
	var usage *usageError
	if errors.As(err, &usage) && usage.hint != "" {
		text += "\n" + usage.hint
	}
	var talk *talkError
	if errors.As(err, &talk) && talk.hint != "" {
		text += "\n" + talk.hint
	}
	first, rest, more := strings.Cut(strings.TrimRight(text, "\n"), "\n")
	fmt.Fprintf(os.Stderr, "supervise: %s\n", first)
	if more {
		for line := range strings.SplitSeq(rest, "\n") {
			fmt.Fprintf(os.Stderr, "    %s\n", line)
		}
	}
	return statusOf(err)
}

const logTime = "2006-01-02T15:04:05.000Z07:00"

// logGrace is how long the last lines of our log wait for a slow reader.
const logGrace = time.Second

// newLogger makes the log on standard error: text for people, JSON for machines.
// It does not wait for whoever reads it. The caller calls end when nobody logs
// any more.
func newLogger(format, level string) (log hclog.Logger, end func()) {
	var out io.Writer = os.Stderr
	end = func() {}
	if w, err := logs.NewWriter(int(unix.Stderr), func(lines int64) string { return gap(format, lines) }); err == nil {
		out, end = w, func() { _ = w.Close(time.Now().Add(logGrace)) }
	}
	log = hclog.New(&hclog.LoggerOptions{
		Name:       "supervise",
		Level:      hclog.LevelFromString(level),
		Output:     out,
		JSONFormat: format == "json",
		TimeFormat: logTime,
		TimeFn:     time.Now,
	})
	return log, end
}

// gap stands in the log where lines of it were dropped.
func gap(format string, lines int64) string {
	if format == "json" {
		return fmt.Sprintf("{\"@level\":\"warn\",\"@message\":\"lines of this log were dropped here\",\"@module\":\"supervise\",\"lines\":%d}\n", lines)
	}
	return fmt.Sprintf("%s [WARN]  supervise: lines of this log were dropped here: lines=%d\n", time.Now().Format(logTime), lines)
}

// printFacts prints what doctor found: one line each, and what a lack costs.
func printFacts(w io.Writer, facts []proc.Fact) {
	width := 0
	for _, f := range facts {
		width = max(width, len(f.Name))
	}
	for _, f := range facts {
		mark := "yes"
		if !f.OK {
			mark = "NO "
		}
		fmt.Fprintf(w, "%s  %-*s  %s\n", mark, width, f.Name, f.Detail)
		if f.Cost != "" {
			fmt.Fprintf(w, "     %-*s  %s\n", width, "", f.Cost)
		}
	}
}

// printUnitErrors prints everything that is wrong with unit files: one line
// each, as compilers do, so that editors find the place.
func printUnitErrors(w io.Writer, e *config.LoadError) {
	for _, err := range e.Errs {
		printIndented(w, "", err.Error())
	}
	if e.Hint != "" {
		printIndented(w, "    ", e.Hint)
	}
}

// printIndented prints a text whose further lines are what to do.
func printIndented(w io.Writer, indent, text string) {
	for i, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		if i > 0 {
			indent = "    "
		}
		fmt.Fprintln(w, indent+line)
	}
}

// printUnits prints unit files, each under its name.
func printUnits(w io.Writer, units []config.UnitText) {
	for i, u := range units {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "# %s\n%s", u.Name, u.Text)
	}
}

// printPlan prints what would be done with a unit: a head, then a line for each
// fact.
func printPlan(w io.Writer, p plan) {
	fmt.Fprintf(w, "%s  %s\n", p.name, p.at)
	for _, f := range p.facts {
		printIndented(w, "    ", fmt.Sprintf("%-9s %s", f.name, f.text))
		for line := range strings.SplitSeq(strings.TrimRight(f.more, "\n"), "\n") {
			if line != "" {
				fmt.Fprintln(w, "        "+line)
			}
		}
	}
}

// printWarnings prints what is read and not done as it is written.
func printWarnings(w io.Writer, warnings []config.Warning) {
	for _, warning := range warnings {
		fmt.Fprintf(w, "warning: %s\n", warning)
	}
}
