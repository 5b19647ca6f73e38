package portdiag

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Style is how Text writes.
type Style struct {
	Width  int  // columns; 0: no line is broken
	Colour bool // ANSI colours, for a terminal
}

// labelWidth is the left column of Text.
const labelWidth = 10

// Text writes the report for a person: the sentence first, then who and what,
// then what to do. Commands stand alone on their lines and are never broken,
// so that they can be pasted.
func (r Report) Text(s Style) string {
	w := writer{style: s}
	w.head(r)
	for _, p := range r.Parties {
		w.party(p)
	}
	for _, h := range r.Holders {
		w.item("socket", h.describe())
	}
	if n := r.unnamed(); n > 0 {
		w.item("", fmt.Sprintf("and %s more that have it open", plural(n, "process", "processes")))
	}
	for _, h := range r.Others {
		w.item("beside", h.String())
	}
	for _, f := range r.Findings {
		if !slices.ContainsFunc(r.Others, func(h Holder) bool { return strings.HasPrefix(f.Text, h.String()) }) {
			w.item("note", f.Text)
		}
	}
	w.trials(r.Trials)
	w.remedies(r.Remedies)
	for _, u := range r.Unseen {
		w.item("not seen", u)
	}
	return w.b.String()
}

type writer struct {
	b     strings.Builder
	style Style
	last  string
}

const (
	bold   = "\x1b[1m"
	red    = "\x1b[1;31m"
	green  = "\x1b[1;32m"
	yellow = "\x1b[1;33m"
	faint  = "\x1b[2m"
	plainC = "\x1b[0m"
)

func (w *writer) colour(c, s string) string {
	if !w.style.Colour || s == "" {
		return s
	}
	return c + s + plainC
}

func (w *writer) head(r Report) {
	c := red
	switch r.Verdict {
	case Available:
		c = green
	case NeedsReuseAddr, Unknown:
		c = yellow
	}
	for _, line := range wrap(r.Sentence+".", w.style.Width) {
		w.b.WriteString(w.colour(c, line) + "\n")
	}
	tail := "cause " + string(r.Cause)
	if r.Errno != "" {
		tail = r.Errno + ", " + tail
	}
	w.b.WriteString(w.colour(faint, tail) + "\n")
}

// item writes one line with a label; the label is left out when it is that of
// the line before.
func (w *writer) item(label, text string) {
	shown := label
	if label == w.last {
		shown = ""
	}
	if label != "" {
		w.last = label
	}
	room := 0
	if w.style.Width > 0 {
		room = max(w.style.Width-labelWidth, 30)
	}
	for _, line := range wrap(text, room) {
		w.b.WriteString(w.colour(bold, fmt.Sprintf("%-*s", labelWidth, shown)) + line + "\n")
		shown = ""
	}
}

func (w *writer) party(p Party) {
	w.last = "" // each holder begins with its label
	title := p.Title(0)
	if w.style.Width > 0 {
		title = p.Title(max(2*w.style.Width-labelWidth-12, 40))
	}
	w.item("held by", fmt.Sprintf("pid %d: %s", p.PID, title))
	facts := []string{"user " + p.User, "started " + since(p.Started)}
	if p.Dir != "" {
		facts = append(facts, "in "+printable(p.Dir, 120))
	}
	if p.Children > 0 {
		facts = append(facts, plural(p.Children, "child", "children"))
	}
	w.item("held by", strings.Join(facts, ", "))
	if len(p.Ancestors) > 0 {
		var chain []string
		for _, a := range slices.Backward(p.Ancestors) {
			chain = append(chain, fmt.Sprintf("%s(%d)", printable(a.Comm, 20), a.PID))
		}
		if len(chain) > 6 {
			chain = append(append(slices.Clone(chain[:2]), "..."), chain[len(chain)-3:]...)
		}
		w.item("held by", "started by "+strings.Join(chain, " > "))
	}
	switch {
	case p.Place.Container != "":
		text := "container " + shortID(p.Place.Container) + " (" + p.Place.Runtime + ")"
		if p.Place.Pod != "" {
			text += ", pod " + p.Place.Pod
		}
		w.item("held by", text)
	case p.Place.Unit != "":
		w.item("held by", "systemd unit "+p.Place.Unit)
	}
}

// unnamed counts the processes of the holders that are not among the parties.
func (r Report) unnamed() int {
	n := 0
	seen := map[int]bool{}
	for _, h := range r.Holders {
		for _, p := range h.Processes {
			if !seen[p.PID] && !slices.ContainsFunc(r.Parties, func(q Party) bool { return q.PID == p.PID }) {
				n++
			}
			seen[p.PID] = true
		}
	}
	return n
}

// describe says everything about the socket itself.
func (h Holder) describe() string {
	facts := []string{h.what()}
	if h.Connections > 0 {
		facts = append(facts, plural(h.Connections, "connection", "connections"))
	}
	if h.Device != 0 {
		facts = append(facts, "on "+interfaceName(h.Device)+" only")
	}
	if h.User != "" {
		facts = append(facts, "made by user "+h.User)
	}
	if h.Inode != 0 {
		facts = append(facts, fmt.Sprintf("inode %d", h.Inode))
	}
	if !h.Since.IsZero() {
		facts = append(facts, "since "+since(h.Since))
	} else if len(h.Processes) > 0 && h.Inode != 0 {
		facts = append(facts, "not before "+h.Processes[0].Started.Format(time.DateTime))
	}
	return strings.Join(facts, ", ")
}

func since(t time.Time) string {
	if t.IsZero() {
		return "at an unknown time"
	}
	return t.Format(time.DateTime) + " (" + age(time.Since(t)) + " ago)"
}

// age is a duration in its largest unit, as people say it.
func age(d time.Duration) string {
	switch {
	case d < 0:
		return "0 s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

func (w *writer) trials(ts []Trial) {
	for _, t := range ts {
		result := w.colour(green, "succeeds")
		if !t.OK {
			result = w.colour(red, t.Errno)
		}
		w.item("tried", "a bind "+t.How+": "+result)
	}
}

func (w *writer) remedies(ms []Remedy) {
	for _, m := range ms {
		w.item("do", m.Text+map[bool]string{true: ":", false: ""}[m.Command != ""])
		if m.Command != "" {
			w.b.WriteString(strings.Repeat(" ", labelWidth+2) + w.colour(bold, m.Command) + "\n")
		}
	}
}

// wrap breaks text at blanks into lines of at most width columns; a longer
// word has a line of its own. Escape sequences count as nothing.
func wrap(text string, width int) []string {
	if width <= 0 {
		return []string{text}
	}
	var lines []string
	line, used := "", 0
	for _, word := range strings.Fields(text) {
		n := columns(word)
		if used > 0 && used+1+n > width {
			lines = append(lines, line)
			line, used = "", 0
		}
		if used > 0 {
			line, used = line+" ", used+1
		}
		line, used = line+word, used+n
	}
	return append(lines, line)
}

func columns(s string) int {
	n := utf8.RuneCountInString(s)
	for {
		i := strings.Index(s, "\x1b[")
		if i < 0 {
			return n
		}
		j := strings.IndexByte(s[i:], 'm')
		if j < 0 {
			return n
		}
		n -= j + 1
		s = s[i+j+1:]
	}
}
