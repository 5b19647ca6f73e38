package supervisor

import (
	"fmt"
	"slices"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/supervise/supervise/supervisor/config"
	"github.com/supervise/supervise/supervisor/listen"
)

// What a change of one service asks of the others: systemd.unit(5). What is
// asked is read from the events that wait; the machines do not run.
func TestOrder(t *testing.T) {
	const a, b = "a.service", "b.service"
	one := []string{b}
	for _, c := range []struct {
		name   string
		needs  config.Dependencies // of a
		states [2]serviceState     // of a and b
		do     func(o *order, a, b *runner)
		want   []string
	}{
		{"After: a waits", config.Dependencies{After: one}, [2]serviceState{down, down}, func(o *order, a, b *runner) { o.want(a); o.want(b); o.advance() }, []string{"start b"}},
		{"Wants: b is pulled in", config.Dependencies{Wants: one}, [2]serviceState{down, down}, func(o *order, a, _ *runner) { o.begin(a) }, []string{"start a", "start b"}},
		{"Requires: b is pulled in", config.Dependencies{Requires: one}, [2]serviceState{down, down}, func(o *order, a, _ *runner) { o.begin(a) }, []string{"start a", "start b"}},
		{"Requires and After: b is missing", config.Dependencies{Requisite: one, After: one}, [2]serviceState{down, failed}, func(o *order, a, _ *runner) { o.begin(a) }, nil},
		{"Requires: stopped with b", config.Dependencies{Requires: one}, [2]serviceState{up, up}, func(o *order, _, b *runner) { o.end(b, evStop{}) }, []string{"stop b", "stop a"}},
		{"Requires and After: stopped before b", config.Dependencies{Requires: one, After: one}, [2]serviceState{up, up}, func(o *order, _, b *runner) { o.end(b, evStop{}) }, []string{"stop a"}},
		{"PartOf: stopped with b", config.Dependencies{PartOf: one}, [2]serviceState{up, up}, func(o *order, _, b *runner) { o.end(b, evStop{}) }, []string{"stop b", "stop a"}},
		{"Wants: b may be stopped alone", config.Dependencies{Wants: one}, [2]serviceState{up, up}, func(o *order, _, b *runner) { o.end(b, evStop{}) }, []string{"stop b"}},
		{"BindsTo: stopped when b ended", config.Dependencies{BindsTo: one}, [2]serviceState{up, failed}, func(o *order, _, b *runner) { o.changed(b) }, []string{"stop a"}},
		{"Requires: b may end by itself", config.Dependencies{Requires: one}, [2]serviceState{up, failed}, func(o *order, _, b *runner) { o.changed(b) }, nil},
		{"Upholds: b is started again", config.Dependencies{Upholds: one}, [2]serviceState{up, failed}, func(o *order, _, b *runner) { o.changed(b) }, []string{"start b"}},
		{"Conflicts: b is stopped", config.Dependencies{Conflicts: one}, [2]serviceState{down, up}, func(o *order, a, _ *runner) { o.begin(a) }, []string{"start a", "stop b"}},
		{"OnFailure: b is started", config.Dependencies{OnFailure: one, OnSuccess: []string{a}}, [2]serviceState{failed, down}, func(o *order, a, _ *runner) { o.changed(a) }, []string{"start b"}},
		{"OnSuccess: b is started", config.Dependencies{OnSuccess: one, OnFailure: []string{a}}, [2]serviceState{down, down}, func(o *order, a, _ *runner) { o.changed(a) }, []string{"start b"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := &loop{log: hclog.NewNullLogger()}
			var both []*runner
			for i, name := range []string{"a", "b"} {
				cfg := testConfig()
				cfg.Name = name
				if i == 0 {
					cfg.Dependencies = c.needs
				}
				r := newRunner(l, cfg, 1)
				r.s.state = c.states[i]
				set, _, err := listen.Open(nil, nil)
				if err != nil {
					t.Fatal(err)
				}
				defer set.Close()
				r.set = set
				both = append(both, r)
			}
			l.runners, l.order = both, newOrder(both)
			c.do(l.order, both[0], both[1])
			var got []string
			for _, n := range l.pending {
				switch n.ev.(type) {
				case evStart:
					got = append(got, "start "+n.r.cfg.Name)
				case evStop:
					got = append(got, "stop "+n.r.cfg.Name)
				default:
					got = append(got, fmt.Sprintf("%T", n.ev))
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}
