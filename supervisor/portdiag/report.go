package portdiag

import (
	"time"

	"golang.org/x/sys/unix"
)

// Ask is a question to Explain.
type Ask struct {
	Target  Target
	Symptom *Symptom // what a program said of it, if that is known
	Command []string // the program that wants the address, if that is known
	Guessed string   // where Target was read, if the program did not say it
}

// Verdict is the answer in one word.
type Verdict string

const (
	Held           Verdict = "held"            // a bind fails because of another socket or file
	NeedsReuseAddr Verdict = "needs-reuseaddr" // a bind succeeds with SO_REUSEADDR only
	Refused        Verdict = "refused"         // a bind fails, and nobody has the address
	Available      Verdict = "free"            // a bind succeeds
	Unknown        Verdict = "unknown"         // cannot be told with our rights
)

// Report is the answer about one address. As JSON its fields are stable:
// fields are added, never renamed.
type Report struct {
	Asked    string    `json:"asked"` // as it was written
	Network  string    `json:"network"`
	Address  string    `json:"address"` // as it was understood
	Verdict  Verdict   `json:"verdict"`
	Cause    Cause     `json:"cause"`           // the one that decides
	Errno    string    `json:"errno,omitempty"` // what bind(2) says
	Sentence string    `json:"sentence"`        // why the bind fails, or that it does not
	Symptom  *Symptom  `json:"symptom,omitempty"`
	Guessed  string    `json:"guessed_from,omitempty"` // where the address was read, if the symptom names none
	Findings []Finding `json:"findings,omitempty"`     // what else is worth knowing
	Holders  []Holder  `json:"holders,omitempty"`      // what is in the way
	Others   []Holder  `json:"others,omitempty"`       // what has the same port and is not in the way
	Parties  []Party   `json:"parties,omitempty"`      // the processes of Holders, each once
	Trials   []Trial   `json:"trials,omitempty"`
	Remedies []Remedy  `json:"remedies,omitempty"` // safest first
	Unseen   []string  `json:"unseen,omitempty"`   // what could not be seen, and why
	At       time.Time `json:"at"`

	target Target
	errno  unix.Errno
}

// Finding is a cause that does not decide, with what is known about it here.
type Finding struct {
	Cause Cause  `json:"cause"`
	Text  string `json:"text"`
	PID   int    `json:"pid,omitempty"`
}

// Remedy is something to do. Command can be pasted into a shell as it is; ""
// is advice.
type Remedy struct {
	Text    string `json:"text"`
	Command string `json:"command,omitempty"`
}

// Party is a process of a holder, with what it belongs to.
type Party struct {
	Process
	Ancestors []Process `json:"ancestors,omitempty"` // parent first
	Children  int       `json:"children,omitempty"`
	Place     Place     `json:"place,omitzero"`
	// Waits says whether it waits for connections: "yes", "no" or "unknown".
	Waits string `json:"waits"`
	// Options of the socket: SO_REUSEADDR and SO_REUSEPORT; nil: not known.
	ReuseAddr *bool `json:"reuseaddr,omitempty"`
	ReusePort *bool `json:"reuseport,omitempty"`
}

// Has says whether c is the cause that decides, or among the findings.
func (r Report) Has(c Cause) bool {
	if r.Cause == c {
		return true
	}
	for _, f := range r.Findings {
		if f.Cause == c {
			return true
		}
	}
	return false
}

func (r *Report) find(c Cause, pid int, text string) {
	for _, f := range r.Findings {
		if f.Cause == c && f.PID == pid && f.Text == text {
			return
		}
	}
	r.Findings = append(r.Findings, Finding{c, text, pid})
}

func (r *Report) advise(text, command string) {
	for _, m := range r.Remedies {
		if m.Command == command && (command != "" || m.Text == text) {
			return
		}
	}
	r.Remedies = append(r.Remedies, Remedy{text, command})
}

// Line says the report in one line, for a log or an error message: the
// sentence, and the next thing to do.
func (r Report) Line() string {
	s := r.Sentence
	if len(r.Remedies) > 0 {
		if m := r.Remedies[0]; m.Command != "" {
			s += "; " + m.Text + ": " + m.Command
		} else {
			s += "; " + m.Text
		}
	}
	return s
}

// Target is the address as it was understood.
func (r Report) Target() Target { return r.target }
