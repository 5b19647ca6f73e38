package handoff

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// environment is what a process sees of the world and tests replace.
type environment struct {
	getenv   func(string) string
	unsetenv func(string) error
	pid      int
	ppid     int
	fds      fds
}

func osEnvironment() environment {
	return environment{os.Getenv, os.Unsetenv, os.Getpid(), os.Getppid(), systemFDs{}}
}

// process is everything that a program has once. The environment is read by
// load, at the first use: a program that merely imports this package is not
// changed by it.
type process struct {
	env environment

	loaded    sync.Once
	loadErr   error
	inherited *inheritance
	notifier  notifier
	patience  time.Duration // of the supervisor; 0: unknown
	pings     time.Duration // between two pings of the watchdog; 0: none
	flip      flip          // tableflip: as a child, and to upgrade ourselves

	readied  sync.Once
	readyErr error
	watched  sync.Once

	draining chan struct{}
	mu       sync.Mutex
	timeout  time.Duration // of the drain; 0: the default
	end      time.Time     // of the drain; zero: not draining
	cause    cause         // of the drain
	check    func() error  // of the watchdog

	serving sync.Mutex // guards the next two
	servers int        // calls of serve that have not drained
	drained chan struct{}
}

// cause says why a drain began.
type cause int

const (
	causeCall     cause = iota + 1 // Drain
	causeSignal                    // SIGTERM and its like
	causeTerminal                  // SIGINT, or the terminal is gone: nobody wants to wait
	causeUpgrade                   // the next process serves
)

const (
	defaultDrain = 25 * time.Second
	maxReserve   = 2 * time.Second
)

func newProcess(env environment) *process {
	return &process{env: env, draining: make(chan struct{}), drained: make(chan struct{})}
}

// load reads the environment once, and removes from it what was meant for this
// process alone.
func (p *process) load() error {
	p.loaded.Do(func() {
		p.notifier = notifier{addr: p.env.take("NOTIFY_SOCKET")}
		p.pings = watchdogInterval(p.env.take("WATCHDOG_USEC"), p.env.take("WATCHDOG_PID"), p.env.pid)
		p.patience = microseconds(p.env.take("TIMEOUT_STOP_USEC"))
		p.inherited, p.loadErr = inherit(&p.env)
		if p.loadErr == nil {
			p.loadErr = p.flip.load(p)
		}
		if p.loadErr != nil {
			p.loadErr = fmt.Errorf("cannot inherit listeners: %w", p.loadErr)
		}
	})
	return p.loadErr
}

// take reads a variable and removes it.
func (e *environment) take(name string) string {
	v := e.getenv(name)
	if v != "" {
		e.unsetenv(name)
	}
	return v
}

func (p *process) ready() error {
	if err := p.load(); err != nil {
		return err
	}
	p.readied.Do(func() {
		p.readyErr = p.sayReady()
		if p.pings > 0 {
			go p.pingForever()
		}
	})
	return p.readyErr
}

func (p *process) sayReady() error {
	if err := p.flip.ready(p); err != nil {
		return fmt.Errorf("cannot say ready: %w", err)
	}
	if err := p.inherited.acknowledge(p.env.pid, p.env.fds); err != nil {
		return fmt.Errorf("cannot say ready: %w", err)
	}
	if p.flip.heir() {
		return nil // the old process says it: the manager does not listen to us yet
	}
	return p.notifier.send("READY=1")
}

func (p *process) drainingC() <-chan struct{} {
	p.watch()
	return p.draining
}

// watch begins to listen to signals.
func (p *process) watch() {
	p.watched.Do(func() {
		if p.load() != nil {
			return // Listen, Ready or Serve have said so
		}
		signals := make(chan os.Signal, 16)
		for _, s := range p.signals() {
			// What is ignored was meant to be ignored (nohup, a job of sh in
			// the background); Notify would undo that.
			if !signal.Ignored(s) {
				signal.Notify(signals, s)
			}
		}
		tty := openTerminal()
		go func() {
			for s := range signals {
				p.onSignal(s, tty)
			}
		}()
	})
}

func (p *process) signals() []os.Signal {
	all := []os.Signal{syscall.SIGTERM, os.Interrupt}
	if p.upgrades() {
		all = append(all, syscall.SIGHUP)
	}
	if p.inherited.einhorn {
		all = append(all, drainOfEinhorn...)
	}
	return all
}

// endByInterrupt ends the process as SIGINT does where nobody handles it.
func endByInterrupt(pid int) {
	signal.Reset(os.Interrupt)
	if self, err := os.FindProcess(pid); err != nil || self.Signal(os.Interrupt) != nil {
		os.Exit(130) // Windows has no way to send it
	}
}

// upgrades reports whether SIGHUP is ours: nobody else keeps the listeners.
func (p *process) upgrades() bool { return canUpgrade && !p.inherited.foreign && !p.flip.foreign() }

func (p *process) onSignal(s os.Signal, tty terminal) {
	switch {
	case s == os.Interrupt && p.hurried():
		endByInterrupt(p.env.pid)
	case s == os.Interrupt:
		p.drain(causeTerminal)
	case s == syscall.SIGHUP && tty.gone():
		p.drain(causeTerminal)
	case s == syscall.SIGHUP:
		// Not here: a stop must be heard while the next process starts.
		go func() {
			if err := p.upgrade(); err != nil {
				// There is no caller, and nobody else to tell.
				log.Printf("handoff: cannot upgrade: %v", err)
			}
		}()
	default:
		p.drain(causeSignal)
	}
}

// drain begins the drain; a later cause changes nothing, but SIGINT hurries.
func (p *process) drain(c cause) {
	p.load() // its error was, or will be, told by Listen and Ready
	p.mu.Lock()
	first := p.end.IsZero()
	if first {
		p.end = time.Now().Add(p.drainTime())
		p.cause = c
	} else if c == causeTerminal {
		p.cause = c
	}
	p.mu.Unlock()
	if !first {
		return
	}
	if c != causeUpgrade {
		p.flip.stop()
		// A manager that cannot be told finds out when we end.
		_ = p.notifier.send("STOPPING=1")
	}
	close(p.draining)
}

// drainTime is how long a drain takes at most. The caller holds p.mu.
func (p *process) drainTime() time.Duration {
	switch {
	case p.timeout > 0:
		return p.timeout
	case p.patience > 0:
		return p.patience - min(p.patience/10, maxReserve)
	}
	return defaultDrain
}

func (p *process) deadline() (time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.end, !p.end.IsZero()
}

// hurried reports whether somebody waits for the end at a terminal.
func (p *process) hurried() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cause == causeTerminal
}

func (p *process) setDrainTimeout(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timeout = d
}

// keyPair are the files of ListenAndServeTLS.
type keyPair struct{ cert, key string }

func (p *process) listenAndServe(srv *http.Server, pair *keyPair) error {
	addr, run := srv.Addr, srv.Serve
	if addr == "" {
		addr = ":http"
	}
	if pair != nil {
		if srv.Addr == "" {
			addr = ":https"
		}
		run = func(l net.Listener) error { return srv.ServeTLS(l, pair.cert, pair.key) }
	}
	l, err := p.listen("tcp", addr)
	if err != nil {
		return err
	}
	return p.serve(srv, []net.Listener{l}, run)
}
