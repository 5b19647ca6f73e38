package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/cmd/storm/crash"
	"github.com/supervise/supervise/cmd/storm/load"
)

// account is what a storm ends in.
type account struct {
	Command  []string        `json:"command"`
	Control  string          `json:"control,omitempty"`
	Rollouts int             `json:"rollouts"` // done
	Crashes  int             `json:"crashes"`  // done
	Steps    []time.Duration `json:"steps_ns"` // of each rollout, or from each kill to the next answer

	load.Result
	Unexplained []load.Failure `json:"unexplained,omitempty"` // failures that no crash explains

	Expect string   `json:"expect"`
	Held   bool     `json:"held"`
	Broken []string `json:"broken,omitempty"` // what did not hold, in words
}

// storm does it all. An error means that there is nothing to account for.
func storm(ctx context.Context, o options) (account, error) {
	a := account{Command: o.command, Control: o.control, Expect: o.expect}
	if err := o.fillIn(); err != nil {
		return a, err
	}
	var noted *crash.Accepted
	if o.accepted != "" {
		var err error
		if noted, err = crash.OpenAccepted(o.accepted); err != nil {
			return a, err
		}
		defer noted.Close()
	}
	var show io.Writer
	if o.verbose {
		show = os.Stderr
	}
	argv, env, err := o.argv()
	if err != nil {
		return a, err
	}
	s, err := begin(argv, env, show)
	if err != nil {
		return a, err
	}
	defer s.end(time.Minute)
	if err := o.awaitAnswer(ctx, s); err != nil {
		return a, err
	}

	l, err := load.Start(o.load)
	if err != nil {
		return a, err
	}
	var deaths []crash.Death
	steps := max(o.rollouts, o.crashes)
	broken := func() error {
		for i := 1; i <= steps; i++ {
			if err := l.WaitTotal(ctx, o.minRequests*int64(i)/int64(steps+1)); err != nil {
				return err
			}
			step, cancel := context.WithTimeout(ctx, o.step)
			began := time.Now()
			var err error
			var name string
			if o.rollouts > 0 {
				name = fmt.Sprintf("rollout %d", i)
				l.Mark(name)
				err = o.rollout(step, s, l)
			} else {
				name = fmt.Sprintf("crash %d", i)
				l.Mark(name)
				var d crash.Death
				d, err = o.crash(step, s, l, noted)
				deaths = append(deaths, d)
			}
			cancel()
			if err != nil {
				return fmt.Errorf("%s: %w%s", name, err, s.words())
			}
			l.Mark("after " + name)
			a.Steps = append(a.Steps, time.Since(began))
		}
		return l.WaitTotal(ctx, o.minRequests)
	}()
	a.Result = l.Stop()
	if o.rollouts > 0 {
		a.Rollouts = len(a.Steps)
	} else {
		a.Crashes = len(a.Steps)
	}
	if err := s.alive(); err != nil {
		broken = errors.Join(broken, fmt.Errorf("%w%s", err, s.words()))
	}
	broken = errors.Join(broken, s.end(time.Minute))
	a.judge(deaths, broken)
	return a, nil
}

// judge compares the account with what was expected.
func (a *account) judge(deaths []crash.Death, broken error) {
	if broken != nil {
		a.Broken = append(a.Broken, broken.Error())
	}
	for _, f := range a.Failures {
		explained := false
		for i := range deaths {
			began := f.Began
			if f.Reused {
				began = f.Opened // the connection was accepted then
			}
			explained = explained || deaths[i].Took(f.Local, began, f.Ended)
		}
		if !explained {
			a.Unexplained = append(a.Unexplained, f)
		}
	}
	switch a.Expect {
	case "lossless":
		if n := a.Failed(); n > 0 {
			a.Broken = append(a.Broken, fmt.Sprintf("%d of %d requests failed", n, a.Total()))
		}
	case "crash":
		if a.Refused > 0 {
			a.Broken = append(a.Broken, fmt.Sprintf("%d connections were refused", a.Refused))
		}
		if n := len(a.Unexplained); n > 0 {
			a.Broken = append(a.Broken, fmt.Sprintf("%d failures were not of connections that a killed process had accepted", n))
		}
		if n := a.Failed() - int64(len(a.Failures)); n > 0 {
			a.Broken = append(a.Broken, fmt.Sprintf("%d failures were too many to be looked at", n))
		}
	}
	a.Held = len(a.Broken) == 0
}

// fillIn picks the free ports and names them in the command.
func (o *options) fillIn() error {
	for i, addr := range o.load.Addrs {
		host, port, err := net.SplitHostPort(addr)
		if o.load.Network == "unix" || err != nil || port != "0" {
			continue
		}
		if o.load.Addrs[i], err = freePort(o.load.Network, host); err != nil {
			return err
		}
	}
	addr := o.load.Addrs[0]
	_, port, _ := net.SplitHostPort(addr)
	words := strings.NewReplacer("{addr}", addr, "{port}", port)
	command := make([]string, len(o.command))
	for i, arg := range o.command {
		command[i] = words.Replace(arg)
	}
	o.command = command
	return nil
}

// freePort finds a port that is free now. Another program may take it before
// the server does; then the server says so.
func freePort(network, host string) (string, error) {
	if strings.HasPrefix(network, "udp") {
		p, err := net.ListenPacket(network, net.JoinHostPort(host, "0"))
		if err != nil {
			return "", err
		}
		defer p.Close()
		return p.LocalAddr().String(), nil
	}
	l, err := net.Listen(network, net.JoinHostPort(host, "0"))
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// argv is what to start: the command, or ourselves as its bad supervisor.
func (o *options) argv() (argv, env []string, err error) {
	if o.control == "" {
		return o.command, nil, nil
	}
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	argv = append([]string{self, controlVerb, o.control, o.load.Network, o.load.Addrs[0]}, o.command...)
	return argv, nil, nil
}

// awaitAnswer waits for the first good answer of each address.
func (o *options) awaitAnswer(ctx context.Context, s *supervised) error {
	ctx, cancel := context.WithTimeout(ctx, o.step)
	defer cancel()
	for _, addr := range o.load.Addrs {
		one := o.load
		one.Addrs = []string{addr}
		one.Timeout = time.Second
		for {
			_, err := load.Ask(ctx, one)
			if err == nil {
				break
			}
			if dead := s.alive(); dead != nil {
				return fmt.Errorf("%w%s", dead, s.words())
			}
			if ctx.Err() != nil {
				return fmt.Errorf("no answer in %v: %w%s", o.step, err, s.words())
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	return nil
}

// rollout has the server replaced and waits until that is done.
func (o *options) rollout(ctx context.Context, s *supervised, l *load.Load) error {
	if o.doneBy == "log" {
		for len(s.news) > 0 {
			<-s.news // of something that nobody here asked for
		}
		if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			return err
		}
		select {
		case line := <-s.news:
			if strings.Contains(line, "rollout failed") {
				return errors.New(line)
			}
			return nil
		case <-s.done:
			return s.alive()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	// Every process that has ever answered and lives is old. There can be but
	// one, if the rollout before this one was waited for.
	old, pidfd := 0, -1
	_, err := l.WaitPid(ctx, func(pid int) bool {
		// The last answer may be that of one which is gone by now.
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return false
		}
		old, pidfd = pid, fd
		return true
	})
	if err != nil {
		return fmt.Errorf("cannot learn who answers: %w", err)
	}
	defer unix.Close(pidfd)
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		return err
	}
	if _, err := l.WaitPid(ctx, func(pid int) bool { return pid != old }); err != nil {
		return fmt.Errorf("process %d still answers: %w", old, err)
	}
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 20)
		if err != nil && err != unix.EINTR {
			return err
		}
		if n > 0 {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("process %d is still there: %w", old, ctx.Err())
		}
	}
}

// crash kills the process that answers and waits until another one does.
func (o *options) crash(ctx context.Context, s *supervised, l *load.Load, noted *crash.Accepted) (crash.Death, error) {
	pid, err := l.WaitPid(ctx, func(int) bool { return true })
	if err != nil {
		return crash.Death{}, fmt.Errorf("cannot learn who answers: %w", err)
	}
	var d crash.Death
	if noted != nil {
		d, err = crash.KillNoted(s.pid(), pid, noted)
	} else {
		d, err = crash.Kill(s.pid(), pid)
	}
	if err != nil {
		return d, err
	}
	if _, err := l.WaitPid(ctx, func(p int) bool { return p != pid }); err != nil {
		return d, fmt.Errorf("nobody answers after process %s was killed: %w", strconv.Itoa(pid), err)
	}
	return d, nil
}
