package servers

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The table stands between these two lines of the file.
const (
	tableBegins = "<!-- written by go test ./examples/servers -run Table; not by hand -->"
	tableEnds   = "<!-- end of the table -->"
)

func writeTable(file string, rows []row) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(text), tableBegins)
	_, after, ends := strings.Cut(rest, tableEnds)
	if !ok || !ends {
		return fmt.Errorf("cannot write the table: %s has not the lines %q and %q", file, tableBegins, tableEnds)
	}
	return os.WriteFile(file, []byte(before+tableBegins+"\n\n"+formatTable(rows)+"\n"+tableEnds+after), 0o644)
}

func formatTable(rows []row) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d rollouts, %d crashes and %d plain restarts of each, under %s new connections a second of %d clients; Linux %s, %s, %d processors.\n\n",
		*rollouts, *crashes, *plain, asked(), workers, kernel(), runtime.GOARCH, runtime.NumCPU())
	b.WriteString("| server | told by | drains on | ready by | kept connections | rollouts: requests | refused | failed | stall | crashes: requests | refused | failed | stall | plain: refused | failed | stall |\n")
	b.WriteString("| --- | --- | --- | --- | --- |" + strings.Repeat(" ---: |", 11) + "\n")
	var notes, missing []string
	for _, r := range rows {
		if r.skipped != nil {
			missing = append(missing, fmt.Sprintf("[%s](servers/%s): %v", r.server.title, r.server.run, r.skipped))
		}
		if !r.measured {
			continue
		}
		mark := ""
		if r.server.note != "" {
			n := slices.Index(notes, r.server.note)
			if n < 0 {
				n = len(notes)
				notes = append(notes, r.server.note)
			}
			mark = fmt.Sprintf(" <sup>%d</sup>", n+1)
		}
		fmt.Fprintf(&b, "| [%s](servers/%s) %s%s | %s | %s | %s | %s |", r.server.title, r.server.run, r.version, mark, r.told, r.drain, r.ready, r.kept)
		for _, o := range []outcome{r.rollouts, r.crashes, r.plain} {
			if o.requests == 0 {
				b.WriteString(strings.Repeat(" |", 4))
				continue
			}
			fmt.Fprintf(&b, " %d | %d | %s | %s |", o.requests, o.refused, o.faults(), milliseconds(o.stall))
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
	for i, note := range notes {
		fmt.Fprintf(&b, "%d. %s\n", i+1, note)
	}
	b.WriteString("\nNot on the machine of this table, and so not tested there:\n\n")
	for _, m := range missing {
		fmt.Fprintf(&b, "- %s\n", m)
	}
	if len(missing) == 0 {
		b.WriteString("- none\n")
	}
	return b.String()
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%d ms", (d + time.Millisecond/2).Milliseconds())
}

func asked() string {
	if *rate == 0 {
		return "as many as possible"
	}
	return fmt.Sprint(*rate)
}

func kernel() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "of an unknown version"
	}
	release := unix.ByteSliceToString(name.Release[:])
	// The version, and not whose build it is.
	if i := strings.IndexByte(release, '-'); i >= 0 {
		release = release[:i]
	}
	return release
}
