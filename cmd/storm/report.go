package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// showFailures is how many of them a person wants to see.
const showFailures = 20

// print writes the account for people.
func (a *account) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	title := strings.Join(a.Command, " ")
	if a.Control != "" {
		title += " (control: " + a.Control + ")"
	}
	fmt.Fprintf(w, "%s\n", title)
	fmt.Fprintf(w, "requests\t%d in %.1f s, %.0f a second, by %d processes\n", a.Total(), a.Elapsed.Seconds(),
		float64(a.Total())/a.Elapsed.Seconds(), len(a.Answered))
	if len(a.Steps) > 0 {
		steps := slices.Sorted(slices.Values(a.Steps))
		name := "rollouts"
		if a.Crashes > 0 {
			name = "crashes"
		}
		fmt.Fprintf(w, "%s\t%d, each %v to %v, median %v\n", name, len(steps), round(steps[0]), round(steps[len(steps)-1]), round(steps[len(steps)/2]))
	}
	if a.Reused > 0 {
		fmt.Fprintf(w, "reused\t%d of them on a connection that had served others\n", a.Reused)
	}
	if a.Moved > 0 {
		fmt.Fprintf(w, "moved\t%d more times the server said by HTTP/2 that it had not processed a request\n", a.Moved)
	}
	fmt.Fprintf(w, "ok\t%d\n", a.OK)
	fmt.Fprintf(w, "lost\t%d\n", a.Failed())
	for _, row := range []struct {
		name string
		n    int64
	}{
		{"refused", a.Refused},
		{"reset", a.Reset},
		{"eof", a.EOF},
		{"timeout", a.Timeout},
		{"bad", a.Bad},
		{"local", a.Local},
		{"unexplained", int64(len(a.Unexplained))},
	} {
		if row.n > 0 || row.name == "refused" || row.name == "reset" {
			fmt.Fprintf(w, "%s\t%d\n", row.name, row.n)
		}
	}
	fmt.Fprintf(w, "time to answer\tp50 %v, p99 %v, p99.9 %v, max %v (%v of it to connect) %s\n",
		round(a.P50), round(a.P99), round(a.P999), round(a.Max), round(a.Slowest.Connect), a.Slowest.Phase)
	verdict := "held"
	if !a.Held {
		verdict = "BROKEN: " + strings.Join(a.Broken, "; ")
	}
	fmt.Fprintf(w, "expect %s\t%s\n", a.Expect, verdict)
	if err := w.Flush(); err != nil {
		return err
	}
	for i, f := range a.Failures {
		if i == showFailures {
			fmt.Fprintf(w, "\t... and %d more\n", len(a.Failures)-i)
			break
		}
		if i == 0 {
			fmt.Fprintf(w, "\n\tat\tafter\tlocal\tduring\terror\n")
		}
		fmt.Fprintf(w, "\t%s\t%v\t%s\t%s\t%v\n", f.Ended.Format("15:04:05.000000"), round(f.Ended.Sub(f.Began)), f.Local, f.Phase, f.Error())
	}
	return w.Flush()
}

// round keeps three digits.
func round(d time.Duration) time.Duration {
	unit := time.Duration(1)
	for d/unit >= 1000 {
		unit *= 10
	}
	return d.Round(unit)
}
