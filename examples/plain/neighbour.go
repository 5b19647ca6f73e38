package main

import (
	"errors"
	"flag"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// neighbour holds the ways in which this server can behave badly, so that the
// tests of a supervisor have somebody to deal with.
type neighbour struct {
	exitAfter  time.Duration
	neverReady bool
	readyDelay time.Duration
	ignoreTerm bool
	failBind   bool
}

func (b *neighbour) flags() {
	flag.DurationVar(&b.exitAfter, "exit-after", 0, "exit with status 1 this long after the start of serving")
	flag.BoolVar(&b.neverReady, "never-ready", false, "stay alive, but never serve nor say READY=1")
	flag.DurationVar(&b.readyDelay, "ready-delay", 0, "wait before serving and READY=1")
	flag.BoolVar(&b.ignoreTerm, "ignore-term", false, "ignore SIGTERM and SIGINT")
	flag.BoolVar(&b.failBind, "fail-bind", false, "exit with status 1, as when the address is held by another")
}

// start misbehaves before anything serves. It says stop when the process
// shall end here.
func (b *neighbour) start(term chan os.Signal) (stop bool, err error) {
	if b.ignoreTerm {
		signal.Stop(term)
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT)
	}
	if b.failBind {
		return true, errors.New("listen tcp: bind: address already in use")
	}
	if b.neverReady {
		<-term
		return true, nil
	}
	if b.readyDelay > 0 {
		select {
		case <-time.After(b.readyDelay):
		case <-term:
			return true, nil
		}
	}
	return false, nil
}

// serving misbehaves later on.
func (b *neighbour) serving() {
	if b.exitAfter > 0 {
		time.AfterFunc(b.exitAfter, func() { os.Exit(1) })
	}
}
