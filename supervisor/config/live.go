package config

import (
	"errors"
	"fmt"
	"strconv"
	"time"
)

// What a liveness probe does when nothing is said: Kubernetes users know it so.
const (
	defaultLiveInterval = 10 * time.Second
	defaultLiveTimeout  = time.Second
	defaultLiveFailures = 3
)

// Probes reports whether r asks the generation something.
func (r Ready) Probes() bool {
	switch r.Kind {
	case ReadyHTTP, ReadyTCP, ReadyCommand:
		return true
	case ReadyAuto, ReadyNotify, ReadyListening, ReadyExec, ReadyDelay:
	}
	return false
}

// ParseLive reads --live and Live=: the probes of --ready, and "watchdog" for
// WATCHDOG=1, which WatchdogSec= waits for. interval= and timeout= are
// directives of their own here.
func ParseLive(s string) (Ready, error) {
	if s == "watchdog" {
		return Ready{Kind: ReadyNotify}, nil
	}
	r, err := parseReady(s)
	switch {
	case err != nil:
	case !r.Probes():
		err = errors.New("write watchdog, http://..., /path, :PORT/path, tcp:ADDRESS, tcp:NAME or exec:COMMAND")
	case r.Interval != defaultProbeInterval || r.Timeout != defaultProbeTimeout:
		err = errors.New("the pace of it is --live-interval and --live-timeout")
	}
	if err != nil {
		return Ready{}, fmt.Errorf("cannot read %q as a liveness probe: %w", s, err)
	}
	return r, nil
}

func liveDirectives() []Directive {
	return []Directive{
		scalar("X-Supervise", "Standby", "standby", argBool, "start the next generation ahead, to take over at once when the current one dies",
			func(s *Service) *bool { return &s.Standby }, ParseBool, FormatBool),
		{
			Section: "X-Supervise", Name: "Live", Flag: "live", Arg: "HOW", Help: "how the current generation is asked whether it lives: a URL, /path, tcp:ADDRESS, exec:COMMAND, or watchdog",
			Set: func(s *Service, value string) (err error) {
				live := Ready{}
				if value != "" {
					live, err = ParseLive(value)
				}
				if err == nil {
					s.Live = live
				}
				return err
			},
			Get: func(s *Service) []string {
				switch {
				case s.Live.Kind == ReadyAuto:
					return nil
				case s.Live.Kind == ReadyNotify:
					return []string{"watchdog"}
				}
				return []string{s.Live.String()}
			},
		},
		scalar("X-Supervise", "LiveIntervalSec", "live-interval", argSpan, "time from one liveness probe to the next",
			func(s *Service) *time.Duration { return &s.LiveInterval }, parsePace, FormatDuration),
		scalar("X-Supervise", "LiveTimeoutSec", "live-timeout", argSpan, "time that one liveness probe may take",
			func(s *Service) *time.Duration { return &s.LiveTimeout }, parsePace, FormatDuration),
		scalar("X-Supervise", "LiveFailures", "live-failures", argNumber, "liveness probes that must fail in a row",
			func(s *Service) *int { return &s.LiveFailures }, numberIn(1, 1<<20), strconv.Itoa),
		word("X-Supervise", "LiveAction", "live-action", "what is done with a generation that does not live", []LiveAction{LiveRestart, LiveRollout}, "",
			func(s *Service) *LiveAction { return &s.LiveAction }),
	}
}

// parsePace is a span that is not 0.
func parsePace(s string) (time.Duration, error) {
	d, err := ParseDelay(s)
	if err == nil && d == 0 {
		err = errors.New("0 is not possible here")
	}
	return d, err
}
