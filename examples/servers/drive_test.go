package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/cmd/storm/load"
)

// between is how many answers there are at least from one rollout, crash or
// restart to the next: those of a tenth of a second.
func (p *place) between() int64 {
	if p.rate == 0 {
		return 40
	}
	return int64(max(p.rate/10, 4))
}

// rollOut does n rollouts under load.
func rollOut(t *testing.T, p *place, sup *supervised, n int) outcome {
	t.Helper()
	w := startTraffic(t, p)
	for i := 1; i <= n; i++ {
		w.more(t, sup)
		w.mark("rollout", i)
		sup.rollOut(t, p.alone)
	}
	w.more(t, sup)
	return w.end(nil)
}

// crashIt kills the main process n times under load, where it has workers every
// second time with all of them.
func crashIt(t *testing.T, p *place, sup *supervised, n int) outcome {
	t.Helper()
	w := startTraffic(t, p)
	var deaths []death
	for i := 1; i <= n; i++ {
		w.more(t, sup)
		w.mark("crash", i)
		what := killAll
		switch {
		case p.command.flag("--kill-mode", "") == "process":
			what = killLone
		case i%2 == 0:
			what = killMain
		}
		deaths = append(deaths, sup.crash(t, p, what))
	}
	w.more(t, sup)
	return w.end(deaths)
}

// restartIt stops and starts the server n times under load, with no supervise.
func restartIt(t *testing.T, p *place, n int) outcome {
	t.Helper()
	c := &control{
		p: p, signal: unix.SignalNum("SIG" + p.command.flag("--kill-signal", "TERM")),
		mainOnly: p.command.flag("--kill-mode", "control-group") != "control-group",
	}
	c.start(t)
	defer c.stop(t)
	w := startTraffic(t, p)
	for i := 1; i <= n; i++ {
		w.more(t, c)
		w.mark("restart", i)
		c.stop(t)
		c.start(t)
	}
	w.more(t, c)
	return w.endOf(nil, true)
}

// control is the server without us.
type control struct {
	p        *place
	signal   syscall.Signal
	mainOnly bool
	cmd      *exec.Cmd
	ended    chan struct{}
}

func (c *control) start(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(c.p.dir, "server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	c.cmd = exec.Command(c.p.command.argv[0], c.p.command.argv[1:]...)
	c.cmd.Dir, c.cmd.Env = c.p.dir, c.p.command.env
	c.cmd.Stdout, c.cmd.Stderr = log, log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL} // a group of its own, to be signalled as one
	if err := built.starter.start(c.cmd); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	c.ended = ended
	cmd := c.cmd
	go func() {
		cmd.Wait()
		close(ended)
	}()
}

// stop signals the group, as supervise does, and waits for the main process;
// what is then left of the group is killed.
func (c *control) stop(t *testing.T) {
	t.Helper()
	if c.alive() != nil {
		return
	}
	group := -c.cmd.Process.Pid
	if c.mainOnly {
		unix.Kill(-group, c.signal)
	} else {
		unix.Kill(group, c.signal)
	}
	select {
	case <-c.ended:
		unix.Kill(group, unix.SIGKILL)
	case <-time.After(patience):
		unix.Kill(group, unix.SIGKILL)
		<-c.ended
		t.Errorf("the server did not end within %v after its stop signal", patience)
	}
}

func (c *control) alive() error {
	select {
	case <-c.ended:
		return errors.New("the server has ended")
	default:
		return nil
	}
}

// traffic is the load and who watches it.
type traffic struct {
	requests
	silence *silence
	between int64
}

// requests are load.Load's, or those of talks.
type requests interface {
	OK() int64
	Failed() int64
	Mark(phase string)
	Stop() load.Result
}

// workers is how many clients there are at a time.
const workers = 4

// startTraffic waits for the first answer and begins to load.
func startTraffic(t *testing.T, p *place) *traffic {
	t.Helper()
	o := load.Options{Network: p.network(), Addrs: []string{p.addr()}, Workers: workers, Rate: p.rate}
	var r requests
	if p.talk != nil {
		await(t, "first answer", func() error { return p.talk.once(p.network(), p.addr(), time.Second) })
		r = startTalks(p.talk, p.network(), p.addr(), p.rate)
	} else {
		await(t, "first answer", func() error {
			one := o
			one.Timeout = time.Second
			_, err := load.Ask(context.Background(), one)
			return err
		})
		l, err := load.Start(o)
		if err != nil {
			t.Fatal(err)
		}
		r = l
	}
	t.Cleanup(func() { r.Stop() })
	return &traffic{requests: r, silence: listenTo(r), between: p.between()}
}

// await tries until it succeeds.
func await(t *testing.T, what string, try func() error) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("no %s within %v: %v", what, patience, err)
		}
	}
}

// more waits for some more answers of a server that lives.
func (w *traffic) more(t *testing.T, of interface{ alive() error }) {
	t.Helper()
	want := w.OK() + w.between
	for end := time.Now().Add(patience); w.OK() < want; time.Sleep(time.Millisecond) {
		if err := of.alive(); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(end) {
			t.Fatalf("%d good answers and %d failures, and no more within %v", w.OK(), w.Failed(), patience)
		}
	}
}

func (w *traffic) end(deaths []death) outcome { return w.endOf(deaths, false) }

func (w *traffic) endOf(deaths []death, control bool) outcome {
	silent := w.silence.end()
	o := judge(w.Stop(), silent, deaths)
	if control { // nobody of us was there
		o.plain, o.server, o.ours = append(o.server, o.ours...), nil, nil
	}
	return o
}

// silence measures the longest time without an answer to anybody, which is
// what a port that refuses looks like from far away.
type silence struct {
	stop    chan struct{}
	longest chan time.Duration
}

func listenTo(r requests) *silence {
	s := &silence{stop: make(chan struct{}), longest: make(chan time.Duration, 1)}
	go func() {
		var longest time.Duration
		last, since := r.OK(), time.Now()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-s.stop:
				s.longest <- longest
				return
			case <-tick.C:
			}
			now := time.Now()
			if n := r.OK(); n != last {
				last, since = n, now
			}
			longest = max(longest, now.Sub(since))
		}
	}()
	return s
}

func (s *silence) end() time.Duration {
	close(s.stop)
	return <-s.longest
}

func (w *traffic) mark(what string, i int) { w.Mark(fmt.Sprintf("%s %d", what, i)) }
