package supervisor

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/supervise/supervise/supervisor/control"
)

// notebook remembers what happened: the facts of the log, whatever its level is
// set to, from info upwards. They are for whoever asks by the control socket. It
// may be used from any goroutine.
type notebook struct {
	mu        sync.Mutex
	seq       uint64
	events    []control.Event // a ring once it is full
	next      int
	followers map[*follower]bool
}

// keptEvents bounds what is remembered, followerQueue what one who follows may
// lag behind.
const (
	keptEvents    = 256
	followerQueue = 512
)

// follower is somebody who wants to hear what happens.
type follower struct {
	services []string // nil: all
	queue    chan control.Event
	lost     int // under the notebook's mutex
}

// wants reports whether an event is about what is asked for.
func wants(services []string, e control.Event) bool {
	return len(services) == 0 || slices.ContainsFunc(services, func(s string) bool {
		return e.Service == s || strings.HasPrefix(e.Service, s+"@")
	})
}

func (n *notebook) add(level hclog.Level, message string, args []any) {
	e := control.Event{Time: time.Now(), Level: level.String(), Message: message}
	for i := 0; i+1 < len(args); i += 2 {
		switch v := args[i+1].(type) {
		case string:
			if args[i] == "service" {
				e.Service = v
				continue
			}
		case int:
			if args[i] == "generation" {
				e.Generation = v
				continue
			}
			if args[i] == "pid" {
				e.PID = v
				continue
			}
		}
		e.Fields = append(e.Fields, control.MakeFields(args[i:i+2])...)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.seq++
	e.Seq = n.seq
	if len(n.events) < keptEvents {
		n.events = append(n.events, e)
	} else {
		n.events[n.next] = e
		n.next = (n.next + 1) % keptEvents
	}
	for f := range n.followers {
		if !wants(f.services, e) {
			continue
		}
		select {
		case f.queue <- e:
		default:
			f.lost++
		}
	}
}

// last gives what is remembered, oldest first.
func (n *notebook) last() []control.Event {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Concat(n.events[n.next:], n.events[:n.next])
}

// follow begins to collect; the caller ends it by unfollow.
func (n *notebook) follow(services []string) *follower {
	f := &follower{services: services, queue: make(chan control.Event, followerQueue)}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.followers == nil {
		n.followers = map[*follower]bool{}
	}
	n.followers[f] = true
	return f
}

func (n *notebook) unfollow(f *follower) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.followers, f)
}

// takeLost is how many events did not get into the queue since it was asked last.
func (n *notebook) takeLost(f *follower) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	lost := f.lost
	f.lost = 0
	return lost
}

// lostEvent stands where events are missing.
func lostEvent(count int) control.Event {
	return control.Event{Time: time.Now(), Level: "warn", Message: "events lost", Fields: control.Fields{{Key: "count", Value: int64(count)}}}
}

// noting is the log, and what is logged is noted as well.
type noting struct {
	hclog.Logger
	notes *notebook
}

func (l *noting) Info(message string, args ...any) {
	l.notes.add(hclog.Info, message, args)
	l.Logger.Info(message, args...)
}

func (l *noting) Warn(message string, args ...any) {
	l.notes.add(hclog.Warn, message, args)
	l.Logger.Warn(message, args...)
}

func (l *noting) Error(message string, args ...any) {
	l.notes.add(hclog.Error, message, args)
	l.Logger.Error(message, args...)
}
