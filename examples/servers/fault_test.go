package servers

import (
	"fmt"
	"strings"
	"time"

	"github.com/supervise/supervise/cmd/storm/load"
)

// outcome is what became of all requests of one part of a test.
type outcome struct {
	requests int64
	refused  int64
	stall    time.Duration // the longest wait of a request that was answered, or silence between any two answers
	slowest  load.Slow     // of those answered

	// Failures that were not refused, by whose fault they were.
	server []load.Failure
	crash  []load.Failure
	ours   []load.Failure
	plain  []load.Failure // of the control
}

func (o outcome) failed() int { return len(o.server) + len(o.crash) + len(o.ours) + len(o.plain) }

// faults are the failures by whose they were: "3 (crash 2, server 1)".
func (o outcome) faults() string {
	var whose []string
	for _, f := range []struct {
		who string
		n   int
	}{{"crash", len(o.crash)}, {"server", len(o.server)}, {"ours", len(o.ours)}} {
		if f.n > 0 {
			whose = append(whose, fmt.Sprintf("%s %d", f.who, f.n))
		}
	}
	if len(whose) == 0 {
		return fmt.Sprint(o.failed())
	}
	return fmt.Sprintf("%d (%s)", o.failed(), strings.Join(whose, ", "))
}

func (o outcome) String() string {
	return fmt.Sprintf("%d requests, %d refused, %s failed, longest stall %v (connected in %v, at %s, %s)", o.requests, o.refused, o.faults(),
		o.stall.Round(time.Millisecond), o.slowest.Connect.Round(time.Microsecond), o.slowest.Began.Format(stamp), o.slowest.Phase)
}

// judge says whose fault each failure was. The rule is strict: a failure is
// ours unless it is certain that a process had accepted the connection.
//
//	crash    the generation whose main process we killed had accepted it by then
//	server   it ended with a FIN, or after some bytes of an answer: the kernel
//	         sends neither for a connection that nobody has accepted (it resets
//	         those when their listener is closed), so a server closed it
//	ours     everything else: refused, reset, no answer in time
func judge(r load.Result, silent time.Duration, deaths []death) outcome {
	o := outcome{requests: r.Total(), refused: r.Refused, stall: max(r.Max, silent), slowest: r.Slowest}
	for _, f := range r.Failures {
		taken := false
		for i := range deaths {
			taken = taken || deaths[i].took(f)
		}
		switch {
		case f.Kind == load.Refused:
		case taken:
			o.crash = append(o.crash, f)
		case f.Kind == load.EOF, f.Received > 0:
			o.server = append(o.server, f)
		default:
			o.ours = append(o.ours, f)
		}
	}
	return o
}
