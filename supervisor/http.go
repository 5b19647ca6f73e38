package supervisor

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor/config"
	"github.com/supervise/supervise/supervisor/control"
	"github.com/supervise/supervise/supervisor/listen"
	"github.com/supervise/supervise/supervisor/metrics"
	"github.com/supervise/supervise/supervisor/page"
)

// web is what --http gives: metrics, health and the status page. Nothing of it
// exists without the flag; with it, it is one descriptor in the loop's set, and a
// goroutine for each connection.
type web struct {
	set    *listen.Set // of its address
	server *control.Server
}

// webPatience is how long a page waits for the loop. One that takes longer hangs.
const webPatience = 5 * time.Second

// openWeb opens the address before anything is started.
func (l *loop) openWeb(address string) error {
	if address == "" {
		return nil
	}
	sockets, err := config.ParseListen(address)
	if err != nil {
		return &StartError{Status: ExitUsage, Err: fmt.Errorf("--http: %w", err)}
	}
	for i := range sockets {
		if n := sockets[i].Network; n != "tcp" && n != "unix" {
			return &StartError{Status: ExitUsage, Err: fmt.Errorf("--http %s: write an address of tcp, as 127.0.0.1:9090, or unix:/path", address)}
		}
		sockets[i].Options.Shared = true
	}
	set, _, err := listen.Open(sockets[:1], nil)
	if err != nil {
		return listenError(err)
	}
	lane := set.Lanes()[0]
	fd, err := unix.FcntlInt(uintptr(lane.FD()), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		set.Close()
		return &StartError{Status: ExitSoftware, Err: fmt.Errorf("--http: cannot duplicate a descriptor: %w", err)}
	}
	l.web = &web{set: set, server: control.NewWeb(fd, l.desk, l.pages())}
	l.log.Info("metrics, health and status", "http", lane.Socket().Addr())
	return l.poll.add(fd, unix.EPOLLIN, l.acceptWeb)
}

func (l *loop) acceptWeb() {
	if err := l.web.server.Accept(); err != nil {
		l.log.Warn("cannot answer on --http", "error", err)
		// Level triggered: without a pause it would be told of this without end.
		fd := l.web.server.FD()
		l.poll.remove(fd)
		l.after(time.Second, func() {
			if l.web != nil {
				_ = l.poll.add(fd, unix.EPOLLIN, l.acceptWeb)
			}
		})
	}
}

func (l *loop) closeWeb() {
	if l.web == nil {
		return
	}
	l.poll.remove(l.web.server.FD())
	if err := l.web.server.Close(100 * time.Millisecond); err != nil {
		l.log.Debug("cannot close --http", "error", err)
	}
	l.web.set.Close()
	l.web = nil
}

// askLoop has f called by the loop; it is for other goroutines.
func askLoop[T any](ctx context.Context, l *loop, f func() T) (T, error) {
	answer := make(chan T, 1)
	l.poll.post(func() { answer <- f() })
	var none T
	select {
	case a := <-answer:
		return a, nil
	case <-l.over:
		return none, control.Errorf(control.Unavailable, "the supervisor is ending")
	case <-ctx.Done():
		return none, control.Errorf(control.Unavailable, "the supervisor does not answer in time")
	}
}

// pages are the paths beside those of the API.
func (l *loop) pages() []control.Page {
	patient := func(f func(ctx context.Context) (control.Answer, error)) func(context.Context) (control.Answer, error) {
		return func(ctx context.Context) (control.Answer, error) {
			ctx, cancel := context.WithTimeout(ctx, webPatience)
			defer cancel()
			return f(ctx)
		}
	}
	return []control.Page{
		{Path: "/", Serve: func(context.Context) (control.Answer, error) {
			return control.Answer{Status: 200, Type: "text/html; charset=utf-8", Body: []byte(page.HTML()), Header: page.Header}, nil
		}},
		{Path: "/metrics", Serve: patient(l.metricsPage)},
		{Path: "/healthz", Serve: patient(l.healthPage)},
		{Path: "/readyz", Serve: patient(l.readyPage)},
		{Path: "/v1/history", Serve: patient(l.historyPage)},
	}
}

const plainText = "text/plain; charset=utf-8"

// healthPage says whether the loop turns.
func (l *loop) healthPage(ctx context.Context) (control.Answer, error) {
	if _, err := askLoop(ctx, l, func() bool { return true }); err != nil {
		return control.Answer{}, err
	}
	return control.Answer{Status: 200, Type: plainText, Body: []byte("ok\n")}, nil
}

// readyPage says whether every service that should run serves.
func (l *loop) readyPage(ctx context.Context) (control.Answer, error) {
	missing, err := askLoop(ctx, l, func() []string {
		var missing []string
		for _, r := range l.runners {
			if r.cfg.OnDemand && r.s.state == down || r.finished && r.result == 0 {
				continue // nobody has asked for it, or it has done what it was for
			}
			if s := r.s; s.current == nil || s.current.exited || s.state != up && s.state != replacing {
				missing = append(missing, r.cfg.Name+" "+s.state.String())
			}
		}
		return missing
	})
	if err != nil {
		return control.Answer{}, err
	}
	if len(missing) > 0 {
		return control.Answer{Status: 503, Type: plainText, Body: []byte(strings.Join(missing, "\n") + "\n")}, nil
	}
	return control.Answer{Status: 200, Type: plainText, Body: []byte("ok\n")}, nil
}

// metricsPage writes what Prometheus reads.
func (l *loop) metricsPage(ctx context.Context) (control.Answer, error) {
	st, err := l.desk.Status(ctx, nil)
	if err != nil {
		return control.Answer{}, err
	}
	tallies, err := askLoop(ctx, l, func() map[string]metrics.Tally {
		all := make(map[string]metrics.Tally, len(l.runners))
		for _, r := range l.runners {
			t, _ := r.tally.clone()
			for _, in := range r.instances {
				if in.output != nil {
					lines, bytes := in.output.Dropped()
					t.DroppedLine, t.DroppedByte = t.DroppedLine+lines, t.DroppedByte+bytes
				}
			}
			all[r.cfg.Name] = t
		}
		return all
	})
	if err != nil {
		return control.Answer{}, err
	}
	return control.Answer{Status: 200, Type: metrics.ContentType, Body: metrics.Text(st, tallies)}, nil
}

// history is the past of all generations, for the timelines of the page.
type history struct {
	Now      time.Time                   `json:"now"`
	Services map[string][]pastGeneration `json:"services"`
}

func (l *loop) historyPage(ctx context.Context) (control.Answer, error) {
	h, err := askLoop(ctx, l, func() history {
		h := history{Now: time.Now(), Services: map[string][]pastGeneration{}}
		for _, r := range l.runners {
			_, h.Services[r.cfg.Name] = r.tally.clone()
		}
		return h
	})
	if err != nil {
		return control.Answer{}, err
	}
	text, err := json.Marshal(h)
	if err != nil {
		return control.Answer{}, err
	}
	return control.Answer{Status: 200, Type: "application/json", Body: text}, nil
}

// lookAtOutage looks, while nobody serves, how many clients wait: they would have
// been refused by a server that owns its port.
func (r *runner) lookAtOutage() {
	if !r.tally.outage() || r.set == nil {
		return
	}
	clients := 0
	for _, lane := range r.set.Lanes() {
		if queued, _, err := lane.Queue(); err == nil {
			clients += queued
		}
	}
	r.tally.waits(clients)
}
