package supervisor

import (
	"fmt"
	"math"
	"syscall"
	"time"

	"github.com/supervise/supervise/supervisor/config"
)

// A run is healthy when it was ready, by evidence, for healthyAfter; what is
// only known to have been executed must live for healthyBlind. After a healthy
// run the next restart comes at once.
//
// A generation that somebody else ended with SIGKILL has not failed by itself
// (an operator, a test, the kernel out of memory). It is healthy when it lived
// for healthyKilled, ready or not, and its delay never grows beyond RestartSec=:
// who kills a server again and again wants to see it come back.
const (
	healthyAfter  = time.Second
	healthyKilled = 50 * time.Millisecond
	healthyBlind  = 10 * time.Second
)

// killed reports whether somebody else ended g with SIGKILL.
func killed(g *generation) bool {
	return g.cause == causeNone && g.exited && g.exit.Signal == int(syscall.SIGKILL)
}

// healthy reports whether g, which ended at now, had a healthy run.
func healthy(g *generation, now time.Time) bool {
	switch {
	case killed(g):
		return now.Sub(g.started) >= healthyKilled
	case g.readyAt.IsZero() || g.cause != causeNone:
		return false
	case !g.evidence:
		return now.Sub(g.readyAt) >= healthyBlind
	}
	return now.Sub(g.readyAt) >= healthyAfter
}

// cleanSignal reports whether a service that ended by sig ended cleanly:
// systemd.service(5), SuccessExitStatus=.
func cleanSignal(sig int) bool {
	switch syscall.Signal(sig) {
	case syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGPIPE:
		return true
	}
	return false
}

func inSet(set *config.ExitSet, e Exit) bool {
	if e.Unknown {
		return false
	}
	if e.Signal != 0 {
		return e.Signal > 0 && e.Signal < len(set.Signals) && set.Signals[e.Signal]
	}
	return e.Code >= 0 && e.Code < len(set.Status) && set.Status[e.Code]
}

// clean reports whether the exit counts as success.
func clean(cfg *config.Service, e Exit) bool {
	if e.Unknown {
		return false
	}
	if n := len(cfg.Start); n > 0 && cfg.Start[n-1].IgnoreFailure {
		return true // ExecStart=-
	}
	if inSet(&cfg.SuccessExit, e) {
		return true
	}
	if e.Signal != 0 {
		return cleanSignal(e.Signal)
	}
	return e.Code == 0
}

// mayRestart is the table of Restart= in systemd.service(5): whether a
// generation that ended for this cause, with this exit, is followed by another.
func mayRestart(cfg *config.Service, c cause, e Exit) bool {
	if c == causeNone || c == causeAsked {
		if inSet(&cfg.RestartForce, e) {
			return true
		}
		if inSet(&cfg.RestartPrevent, e) {
			return false
		}
	}
	ok := (c == causeNone || c == causeAsked) && clean(cfg, e)
	signaled := (c == causeNone || c == causeAsked) && !ok && e.Signal != 0
	switch cfg.Restart {
	case config.RestartNo:
		return false
	case config.RestartAlways:
		return true
	case config.RestartOnSuccess:
		return ok
	case config.RestartOnFailure:
		return !ok
	case config.RestartOnAbnormal:
		return signaled || c == causeTimeout || c == causeRuntime || c == causeWatchdog || c == causeSick
	case config.RestartOnAbort:
		return signaled
	case config.RestartOnWatchdog:
		return c == causeWatchdog || c == causeSick
	}
	return false
}

// restartDelay is the wait before the restart that follows failures
// consecutive failures without a healthy run between them. With
// RestartBackoff= it is none after the first, then RestartSec= growing to
// RestartMaxDelaySec=; jitter, in [0,1), spreads it over 80 to 120 percent, so
// that many services that fail together do not start together. Without, it is
// systemd's: RestartSec= from the first on, growing only where RestartSteps= says so.
func restartDelay(cfg *config.Service, failures int, jitter float64) time.Duration {
	n := failures - 1
	if cfg.RestartBackoff {
		n--
	}
	if n < 0 || cfg.RestartSec <= 0 {
		return 0
	}
	base, limit := float64(cfg.RestartSec), float64(cfg.RestartMaxDelay)
	d := base
	switch {
	case limit <= base:
	case cfg.RestartSteps > 0:
		d = base * math.Pow(limit/base, math.Min(float64(n)/float64(cfg.RestartSteps), 1))
	case cfg.RestartBackoff:
		d = base * math.Pow(2, math.Min(float64(n), 62))
	}
	if cfg.RestartBackoff {
		d *= 0.8 + 0.4*jitter
	}
	if limit > base || limit == base && cfg.RestartBackoff {
		d = math.Min(d, limit)
	}
	return time.Duration(d)
}

// String says in words how it ended.
func (e Exit) String() string {
	switch {
	case e.Unknown:
		return "ended, nobody can tell how"
	case e.Signal != 0 && e.Core:
		return fmt.Sprintf("killed by %s, core dumped", config.SignalName(syscall.Signal(e.Signal)))
	case e.Signal != 0:
		return "killed by " + config.SignalName(syscall.Signal(e.Signal))
	}
	return fmt.Sprintf("exit status %d", e.Code)
}

// shellStatus is the exit status as a shell shows it: 128+N after signal N.
func (e Exit) shellStatus() int {
	switch {
	case e.Unknown:
		return 1
	case e.Signal != 0:
		return 128 + e.Signal
	}
	return e.Code
}
