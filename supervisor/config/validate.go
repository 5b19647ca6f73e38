package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Validate looks for what cannot be meant together, and joins all that it finds,
// each with what to do about it. It wants the sockets named (NameSockets), and
// looks at nothing outside of s: no file, no user, no address.
func (s *Service) Validate() error {
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	errs = append(errs, s.checkCommands()...)
	switch s.Type {
	case Auto, Simple, Exec, Notify, NotifyReload, Forking, Oneshot:
	default:
		add("Type=%s is unknown: write one of the words that Set takes", s.Type)
	}
	errs = append(errs, s.checkHandoff()...)
	errs = append(errs, s.checkReady()...)
	errs = append(errs, s.checkRestart()...)
	errs = append(errs, s.checkPlaceholders()...)
	for _, kv := range s.Env {
		if err := checkAssignment(kv); err != nil {
			errs = append(errs, err)
		}
	}
	if s.KillMode == KillNone && s.SendSIGKILL {
		add("KillMode=none with SendSIGKILL=yes: none kills nothing; write KillMode=process, or SendSIGKILL=no")
	}
	return errors.Join(errs...)
}

// checkCommands is what systemd.service(5) says of ExecStart= and Type=.
func (s *Service) checkCommands() []error {
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	start := s.ExecStart()
	switch {
	case len(start) == 0 && len(s.Stop) == 0:
		add("there is no command: give one after --, or ExecStart=")
	case len(start) == 0 && s.Type != Oneshot:
		add("there is no ExecStart=, and Type=%s wants one: only Type=oneshot can do with ExecStop=", s.Type)
	case len(start) == 0 && !s.RemainExited:
		add("there is no ExecStart=, so it is never up and ExecStop= never runs: write RemainAfterExit=yes")
	case len(start) > 1 && s.Type != Oneshot:
		add("there are %d commands in ExecStart=, and Type=%s has one: write Type=oneshot, or the others as ExecStartPre=", len(start), s.Type)
	}
	for _, c := range start {
		if c.Path == "" {
			add("there is no command: give one after --, or ExecStart=")
		}
		for i, arg := range c.Argv {
			if strings.IndexByte(arg, 0) >= 0 {
				add("argument %d of the command has a NUL byte in it: leave it out", i)
			}
		}
	}
	if s.Type == Oneshot && (s.Restart == RestartAlways || s.Restart == RestartOnSuccess) {
		add("Restart=%s and Type=oneshot would run it again and again: write Restart=on-failure, or Type=simple", s.Restart)
	}
	if s.Type == Forking && s.ExitType == ExitCgroup {
		add("ExitType=cgroup and Type=forking do not go together: leave one out")
	}
	if s.Input == "socket" && len(s.Sockets) > 1 {
		add("StandardInput=socket wants exactly one listener, and there are %d", len(s.Sockets))
	}
	return errs
}

func (s *Service) checkHandoff() []error {
	var errs []error
	has := func(name string) bool { return slices.Contains(s.Handoff, name) }
	if len(s.Handoff) == 0 {
		errs = append(errs, errors.New("the handoff is empty: write auto, or none"))
	}
	for i, name := range s.Handoff {
		switch {
		case !slices.Contains(handoffWords(), name):
			errs = append(errs, fmt.Errorf("protocol %q is unknown: write %s", name, strings.Join(handoffWords(), ", ")))
		case slices.Contains(s.Handoff[:i], name):
			errs = append(errs, fmt.Errorf("protocol %s is given twice in the handoff: leave one out", name))
		case (name == "auto" || name == "none") && len(s.Handoff) > 1:
			errs = append(errs, fmt.Errorf("handoff %s stands alone, and %s is asked for: leave one out", name, strings.Join(s.Handoff, ",")))
		}
	}
	// Both want their fds to begin at 3: tableflip its pipes, systemd the
	// sockets.
	if has("tableflip") && has("systemd") {
		errs = append(errs, errors.New("handoff tableflip and systemd exclude one another, since both begin at fd 3: leave one out"))
	}
	if slices.Equal(s.Handoff, []string{"none"}) && len(s.Sockets) > 0 {
		errs = append(errs, fmt.Errorf("handoff none with %q: the command would never hear of that socket; leave --listen out, or write --handoff auto", source(s.Sockets[0])))
	}
	return errs
}

func (s *Service) checkReady() []error {
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	hasTCP := slices.ContainsFunc(s.Sockets, func(socket Socket) bool { return socket.Network == "tcp" })
	switch s.Ready.Kind {
	case ReadyHTTP:
		// Without any socket the service's first is learned.
		if strings.HasPrefix(s.Ready.URL, "/") && len(s.Sockets) > 0 && !hasTCP {
			add("ready %s asks the first tcp socket, and none of %s is one: write http://unix:/run/x.sock:%s or a whole URL", s.Ready.URL, SocketNames(s.Sockets), s.Ready.URL)
		}
	case ReadyTCP:
		errs = append(errs, s.checkReadySocket()...)
	case ReadyCommand:
		if len(s.Ready.Command) == 0 {
			add("ready exec: has no command: write exec:/usr/bin/check")
		}
	case ReadyDelay:
		if s.TimeoutStart != 0 && s.Ready.Delay >= s.TimeoutStart {
			add("ready delay:%s is not shorter than TimeoutStartSec=%s: no start would ever be in time; shorten the delay", compact(s.Ready.Delay), compact(s.TimeoutStart))
		}
	case ReadyExec:
		if s.Type == Notify || s.Type == NotifyReload {
			add("Type=%s waits for READY=1 and ready exec does not: leave one out", s.Type)
		}
	case ReadyNotify:
		if s.Type == Simple || s.Type == Exec {
			add("ready notify waits for READY=1 and Type=%s does not: write Type=notify", s.Type)
		}
	case ReadyAuto, ReadyListening:
	default:
		add("ready has the unknown kind %d", int(s.Ready.Kind))
	}
	probes := s.Ready.Kind == ReadyHTTP || s.Ready.Kind == ReadyTCP || s.Ready.Kind == ReadyCommand
	if probes && (s.Ready.Interval <= 0 || s.Ready.Timeout <= 0) {
		add("ready %s needs an interval and a timeout above 0: write interval=100ms timeout=1s", s.Ready)
	}
	return errs
}

// checkReadySocket looks for the socket that ready tcp:NAME names.
func (s *Service) checkReadySocket() []error {
	name := s.Ready.Address
	if CheckName(name) != nil || allDigits(name) {
		return nil // an address
	}
	for _, socket := range s.Sockets {
		if socket.Name != name {
			continue
		}
		if socket.Network != "tcp" && socket.Network != "unix" {
			return []error{fmt.Errorf("ready tcp:%s names a %s socket, which accepts no connections: write ready listening", name, socket.Network)}
		}
		return nil
	}
	return []error{fmt.Errorf("ready tcp:%s names no socket: %s", name, s.namesHint())}
}

func (s *Service) namesHint() string {
	if names := SocketNames(s.Sockets); names != "" {
		return "there are " + names
	}
	return "there are none; write --listen NAME=ADDRESS"
}

func (s *Service) checkRestart() []error {
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if s.Restart == RestartOnWatchdog && s.Watchdog == 0 && s.At.File == "" { // no fault in a unit: a drop-in may say WatchdogSec=
		add("Restart=on-watchdog without WatchdogSec= never restarts: write WatchdogSec=30s, or Restart=on-failure")
	}
	if s.Watchdog == 0 && s.TimeoutAbort != 0 {
		add("TimeoutAbortSec= without WatchdogSec= is never used: write WatchdogSec=30s, or leave it out")
	}
	if (s.StartLimitInterval == 0) != (s.StartLimitBurst == 0) {
		add("StartLimitIntervalSec= and StartLimitBurst= limit nothing one without the other: give both (systemd's own are 10s and 5) or neither")
	}
	if s.RestartMaxDelay != Defaults().RestartMaxDelay && s.RestartMaxDelay != 0 && s.RestartMaxDelay < s.RestartSec {
		add("RestartMaxDelaySec=%s is less than RestartSec=%s: raise the one or lower the other", compact(s.RestartMaxDelay), compact(s.RestartSec))
	}
	for i := range s.RestartPrevent.Status {
		if s.RestartPrevent.Status[i] && s.RestartForce.Status[i] {
			add("exit status %d both prevents and forces a restart: leave it out of one", i)
		}
	}
	for i := range s.RestartPrevent.Signals {
		if s.RestartPrevent.Signals[i] && s.RestartForce.Signals[i] {
			add("signal %d both prevents and forces a restart: leave it out of one", i)
		}
	}
	return errs
}

// checkPlaceholders looks for {fd:NAME} and its like that no socket answers.
func (s *Service) checkPlaceholders() []error {
	var errs []error
	lookup := func(kind, name string) (string, bool) {
		if kind == "names" {
			return SocketNames(s.Sockets), true
		}
		base, index := SplitIndex(name)
		n := 0
		for _, socket := range s.Sockets {
			if socket.Name == base {
				n++
			}
		}
		return "", index >= 0 && index < n
	}
	for _, text := range slices.Concat(s.arguments(), s.Env) {
		if _, err := Expand(text, lookup); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// arguments are the words of the main commands.
func (s *Service) arguments() []string {
	var all []string
	for _, c := range s.ExecStart() {
		all = append(all, c.Argv...)
	}
	return all
}
