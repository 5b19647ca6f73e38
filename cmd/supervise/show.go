package main

// How a running supervisor is shown: the words of status, steps, events and logs.

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor/control"
)

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

func (t *talk) print(text string) { _, _ = io.WriteString(t.out(), text) }

func (t *talk) printEvent(e control.Event) {
	t.print(fmt.Sprintf("%s %-7s %s\n", e.Time.Local().Format(logTime), "["+strings.ToUpper(e.Level)+"]", printable(e.String())))
}

func (t *talk) printLine(l control.Line) {
	t.print(fmt.Sprintf("%s.%d | %s\n", l.Service, l.Generation, printable(l.Text)))
}

// printable keeps what a service says from moving the cursor of who reads it.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

// steps shows what happens while a verb waits.
type steps struct {
	t        *talk
	terminal bool
	stop     chan struct{}
	done     sync.WaitGroup
	mu       sync.Mutex
}

func (t *talk) steps() *steps {
	s := &steps{t: t, terminal: !t.json && isTerminal(t.out()), stop: make(chan struct{})}
	if s.terminal { // a line that counts, below the steps
		s.done.Go(func() {
			tick := time.NewTicker(100 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
					s.mu.Lock()
					t.print(fmt.Sprintf("\r\x1b[K%8.1fs ...", time.Since(t.began).Seconds()))
					s.mu.Unlock()
				case <-s.stop:
					t.print("\r\x1b[K")
					return
				}
			}
		})
	}
	return s
}

func (s *steps) show(e control.Event) {
	if s.t.json {
		s.t.printJSON(map[string]any{"event": e})
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.terminal {
		s.t.print("\r\x1b[K")
	}
	s.t.print(fmt.Sprintf("%8.3fs %s\n", max(0, e.Time.Sub(s.t.began).Seconds()), printable(e.String())))
}

func (s *steps) end() {
	close(s.stop)
	s.done.Wait()
}

// statusText is a picture as a person wants to read it.
func statusText(st control.Status, now time.Time) string {
	var b strings.Builder
	for i, s := range st.Services {
		if i > 0 {
			b.WriteByte('\n')
		}
		serviceText(&b, s, now)
	}
	fmt.Fprintf(&b, "\nsupervise  pid %d, %s, memory %s, %s\n", st.Supervisor.PID, since(now, st.Supervisor.Since), size(st.Supervisor.Memory), st.Supervisor.Control)
	return b.String()
}

func serviceText(b *strings.Builder, s control.Service, now time.Time) {
	fmt.Fprintf(b, "%s  %s %s", s.Name, strings.ToUpper(s.State), since(now, s.Since))
	if s.Paused && s.PausedSince != nil {
		fmt.Fprintf(b, ", PAUSED %s", since(now, *s.PausedSince))
	}
	b.WriteByte('\n')
	row := func(label, format string, args ...any) {
		fmt.Fprintf(b, "  %-10s %s\n", label, printable(fmt.Sprintf(format, args...)))
	}
	row("command", "%s", strings.Join(s.Command, " "))
	for _, one := range s.Sockets {
		label := "listens"
		text := one.Network + " " + one.Address
		if one.Name != "" && one.Name != s.Name {
			text = one.Name + " = " + text
		}
		if one.Learned {
			text += " (learned)"
		}
		for _, l := range one.Lanes {
			if l.Generation == 0 && l.Queue == 0 && !l.Steered {
				continue
			}
			whose := "nobody"
			if l.Generation != 0 {
				whose = fmt.Sprintf("generation %d", l.Generation)
			}
			text += fmt.Sprintf("; %s, %d of %d wait", whose, l.Queue, l.Backlog)
		}
		row(label, "%s", text)
	}
	if s.Current != nil {
		generationText(b, row, *s.Current, now)
	}
	if s.Standby != nil {
		generationText(b, row, *s.Standby, now)
	}
	if s.Candidate != nil {
		generationText(b, row, *s.Candidate, now)
	}
	for _, g := range s.Draining {
		generationText(b, row, g, now)
	}
	if s.Deadline != nil && s.DeadlineOf != "" {
		row("next", "%s in %s", s.DeadlineOf, length(s.Deadline.Sub(now)))
	}
	if e := s.LastExit; e != nil {
		row("last exit", "generation %d, %s ago: %s", e.Generation, length(now.Sub(e.When)), e.Reason)
		for _, l := range e.LastLines {
			row("", "| %s", l)
		}
	}
	if s.Rollouts.Done+s.Rollouts.Failed+s.Restarts > 0 {
		row("so far", "%d rollouts, %d failed, %d restarts", s.Rollouts.Done, s.Rollouts.Failed, s.Restarts)
	}
	if r := s.Rollouts.Last; r != nil && !r.OK && r.Ended != nil {
		row("rollout", "the last one failed %s ago: %s", length(now.Sub(*r.Ended)), r.Reason)
	}
}

func generationText(b *strings.Builder, row func(string, string, ...any), g control.Generation, now time.Time) {
	text := fmt.Sprintf("generation %d, pid %d, %s %s", g.Generation, g.PID, g.State, since(now, g.Since))
	if g.ReadyHow != "" && g.State == "ready" {
		text += " (" + g.ReadyHow + ")"
	}
	row(g.Role, "%s", text)
	text = fmt.Sprintf("memory %s, %d tasks", size(g.Memory), g.Tasks)
	if g.Connections >= 0 {
		text += fmt.Sprintf(", %d connections", g.Connections)
	}
	if g.Deadline != nil && g.DeadlineOf != "" {
		text += fmt.Sprintf(", %s in %s", g.DeadlineOf, length(g.Deadline.Sub(now)))
	}
	row("", "%s", text)
	if g.Status != "" {
		row("", "says: %s", g.Status)
	}
	processText(row, g.Processes, 0, "")
}

// maxProcesses bounds how many processes of a generation are shown.
const maxProcesses = 40

// processText shows processes as a tree.
func processText(row func(string, string, ...any), all []control.Process, parent int, indent string) {
	children := slices.DeleteFunc(slices.Clone(all), func(p control.Process) bool { return p.Parent != parent || p.PID == parent })
	for i, p := range children {
		if i == maxProcesses {
			row("", "%s... and %d more", indent, len(children)-i)
			return
		}
		branch, below := "├─", "│ "
		if i == len(children)-1 {
			branch, below = "└─", "  "
		}
		if parent == 0 {
			branch, below = "", "  "
		}
		row("", "%s%s%d %s", indent, branch, p.PID, p.Command)
		processText(row, all, p.PID, indent+below)
	}
}

func since(now, t time.Time) string { return "for " + length(now.Sub(t)) }

// length says how long, in the two units that matter.
func length(d time.Duration) string {
	switch d = max(d, 0); {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm %ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh %dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd %dh", int(d.Hours())/24, int(d.Hours())%24)
}

func size(n int64) string {
	switch {
	case n < 1<<20:
		return fmt.Sprintf("%.1fK", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1fM", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1fG", float64(n)/(1<<30))
}
