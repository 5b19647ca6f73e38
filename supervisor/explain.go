package supervisor

import (
	"strings"

	"github.com/supervise/supervise/supervisor/portdiag"
)

// remediesShown is how many ways out an explanation names; "supervise why" has all.
const remediesShown = 2

// explain says in lines why an address cannot be bound: who holds it, why that
// conflicts, what to do. It takes some ten milliseconds on a busy machine, so
// the loop has it done elsewhere.
func explain(ask portdiag.Ask) []string {
	r, err := portdiag.Explain(ask)
	if err != nil {
		return []string{"who holds it cannot be seen: " + err.Error()}
	}
	if r.Verdict != portdiag.Held && len(r.Holders) == 0 && r.Errno == "" {
		return nil // it is gone by now
	}
	var lines []string
	for _, h := range r.Holders {
		lines = append(lines, "held by "+h.String())
	}
	if r.Sentence != "" {
		lines = append(lines, r.Sentence)
	}
	for i, do := range r.Remedies {
		if i == remediesShown {
			break
		}
		line := do.Text
		if do.Command != "" {
			line += ": " + do.Command
		}
		lines = append(lines, line)
	}
	for _, u := range r.Unseen {
		lines = append(lines, "not seen: "+u)
	}
	return lines
}

// explainBind logs why the command could not bind an address. The log is
// written from the goroutine that looked: the loop may have ended meanwhile, and
// waits for it then.
func (r *runner) explainBind(gen int, asks ...portdiag.Ask) {
	r.children.Go(func() {
		for _, ask := range asks {
			for _, line := range explain(ask) {
				r.log.Error("cannot bind", "service", r.cfg.Name, "generation", gen, "address", ask.Target, "why", line)
			}
		}
	})
}

// explainLastWords looks for a failed bind in the last words of a generation
// that failed, and explains it.
func (r *runner) explainLastWords(gen int, lines []string) {
	symptom, ok := portdiag.Recognise(strings.Join(lines, "\n"))
	if !ok {
		return
	}
	asks, err := portdiag.Asks(symptom, r.cfg.Command, r.environ)
	if err != nil {
		return // it names no address
	}
	r.explainBind(gen, asks...)
}
