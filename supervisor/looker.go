package supervisor

import (
	"context"
	"os"
	"time"

	"github.com/supervise/supervise/supervisor/control"
)

// looker is what can be looked at, without the control socket.
type looker struct{ l *loop }

func (l *loop) backend() control.Backend { return looker{l} }

func (k looker) Names(ctx context.Context) ([]string, error) {
	return askLoop(ctx, k.l, func() (names []string) {
		for _, r := range k.l.runners {
			names = append(names, r.cfg.Name)
		}
		return names
	})
}

func (k looker) Status(ctx context.Context, services []string) (control.Status, error) {
	return askLoop(ctx, k.l, func() control.Status {
		st := control.Status{Supervisor: control.Supervisor{PID: os.Getpid()}}
		for _, r := range k.l.runners {
			st.Services = append(st.Services, r.glance())
		}
		return st
	})
}

// glance is what is known of a service without asking anybody.
func (r *runner) glance() control.Service {
	s := r.s
	out := control.Service{
		Name: r.cfg.Name, State: s.state.String(), Since: s.since, Sockets: []control.Socket{}, Draining: []control.Generation{},
		Restarts: s.restarts, Failures: s.failures, Rollouts: control.Rollouts{Done: s.rolloutsDone, Failed: s.rolloutsFail},
	}
	for _, g := range s.gens {
		one := control.Generation{Generation: g.n, PID: g.pid, State: g.state.String(), Since: g.since, Started: g.started, Connections: -1}
		if !g.readyAt.IsZero() {
			at := g.readyAt
			one.ReadyAt = &at
		}
		switch r.s.roleOf(g) {
		case roleCurrent:
			one.Role = "current"
			out.Current, out.Status = &one, g.status
		case roleCandidate:
			one.Role = "candidate"
			out.Candidate = &one
		case roleOld, roleStandby:
			one.Role = "old"
			if g.standby {
				one.Role = "standby"
			}
			out.Draining = append(out.Draining, one)
		}
	}
	if r.set == nil {
		return out
	}
	whose := map[int]int{}
	for _, in := range r.instances {
		if !in.returned {
			for _, lane := range in.lanes {
				whose[lane.FD()] = in.n
			}
		}
	}
	for _, s := range r.set.Sockets() {
		one := control.Socket{Name: s.Name(), Network: s.Network(), Address: s.Addr()}
		_, one.Shared = s.Shared()
		for _, lane := range r.set.Lanes() {
			if lane.Socket() == s {
				queue, _, _ := lane.Queue()
				one.Lanes = append(one.Lanes, control.Lane{Number: lane.Number(), Generation: whose[lane.FD()], Queue: queue})
			}
		}
		out.Sockets = append(out.Sockets, one)
	}
	return out
}

func (looker) Do(context.Context, control.Command, func(control.Event)) error {
	return control.Errorf(control.Unsupported, "not here")
}

func (looker) Events(context.Context, control.EventQuery, func(control.Event) error) error {
	return nil
}

func (k looker) Logs(ctx context.Context, q control.LogQuery, each func(control.Line) error) error {
	all, err := askLoop(ctx, k.l, func() (all []control.Line) {
		for _, r := range k.l.runners {
			for _, in := range r.instances {
				if in.output == nil {
					continue
				}
				lines, _ := in.output.Since(0)
				for _, line := range lines {
					at := line.At.Truncate(time.Microsecond)
					all = append(all, control.Line{Time: &at, Service: r.cfg.Name, Generation: in.n, Text: line.Text})
				}
			}
		}
		return all
	})
	for _, line := range all {
		if err := each(line); err != nil {
			return err
		}
	}
	return err
}
