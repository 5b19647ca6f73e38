package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is the one deadline of every wait. It is met only by what hangs.
const patience = 30 * time.Second

// fake is a supervisor of two services that never was.
type fake struct {
	mu       sync.Mutex
	commands []Command
	release  chan struct{} // commands wait for it, unless it is nil
	left     chan string   // followers that ended, by what they followed
	flood    int           // events that a follower gets at once
}

func (f *fake) known(services []string) error {
	for _, s := range services {
		if s != "web" && s != "api" {
			e := Errorf(NoSuchService, "there is no service %q", s)
			e.Service, e.Hint = s, "services: api, web"
			return e
		}
	}
	return nil
}

func (f *fake) Names(context.Context) ([]string, error) { return []string{"api", "web"}, nil }

func (f *fake) Status(_ context.Context, services []string) (Status, error) {
	if err := f.known(services); err != nil {
		return Status{}, err
	}
	st := sample()
	if len(services) > 0 {
		st.Services = slices.DeleteFunc(st.Services, func(s Service) bool { return !slices.Contains(services, s.Name) })
	}
	return st, nil
}

func (f *fake) Do(ctx context.Context, c Command, each func(Event)) error {
	if err := f.known(c.Services); err != nil {
		return err
	}
	f.mu.Lock()
	f.commands = append(f.commands, c)
	f.mu.Unlock()
	switch c.Verb {
	case VerbUpgrade:
		return Errorf(Unsupported, "not here")
	case VerbPause:
		return errors.Join(&Error{Code: Failed, Message: "one", Service: "web"}, &Error{Code: Conflict, Message: "two", Service: "api"})
	case VerbRollout, VerbReload, VerbRestart, VerbStop, VerbStart, VerbKill, VerbResume:
	}
	each(Event{Seq: 1, Time: when, Level: "info", Service: "web", Generation: 2, Message: "rollout started", Fields: MakeFields([]any{"cause", c.Cause(), "from", 1})})
	if f.release != nil {
		select {
		case <-f.release:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if c.Verb == VerbRestart {
		return &Error{Code: Failed, Message: "exit status 3 before it was ready", Service: "web"}
	}
	each(Event{Seq: 2, Time: when, Level: "info", Message: "rollout done"})
	return nil
}

func (f *fake) Events(ctx context.Context, q EventQuery, each func(Event) error) error {
	if err := f.known(q.Services); err != nil {
		return err
	}
	for i := range 3 {
		if err := each(Event{Seq: uint64(i), Message: fmt.Sprint("was ", i)}); err != nil {
			return err
		}
	}
	q.Begun()
	for i := range f.flood {
		if err := each(Event{Seq: uint64(i), Message: string(make([]byte, 4096))}); err != nil {
			f.left <- "flood"
			return err
		}
	}
	if q.Follow {
		<-ctx.Done()
		f.left <- "events"
	}
	return nil
}

func (f *fake) Logs(ctx context.Context, q LogQuery, each func(Line) error) error {
	if err := each(Line{Service: "web", Generation: 1, Text: "listening \xff"}); err != nil {
		return err
	}
	q.Begun()
	if q.Follow {
		<-ctx.Done()
		f.left <- "logs"
	}
	return nil
}

var when = time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)

// accept is the smallest loop there is. It closes s at the end.
func accept(t testing.TB, s *Server) {
	t.Helper()
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			fds := []unix.PollFd{{Fd: int32(s.FD()), Events: unix.POLLIN}}
			if n, err := unix.Poll(fds, 10); err == nil && n > 0 {
				if err := s.Accept(); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-done
		if err := s.Close(patience); err != nil {
			t.Error(err)
		}
	})
}

// serve runs a server on a socket of its own, with the smallest loop there is.
func serve(t testing.TB, b Backend) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "web.sock")
	end, err := Listen(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(end, b, Options{})
	accept(t, s)
	c, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// raw connects as somebody who has never heard of HTTP.
func raw(t testing.TB, c *Client) *net.UnixConn {
	t.Helper()
	conn, err := c.connect(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn.(*net.UnixConn)
}

// sample has a value in every field.
func sample() Status {
	at := when
	g := Generation{
		Generation: 7, PID: 4711, Role: "current", State: "ready", Since: when, Started: when, ReadyAt: &at, ReadyHow: "READY=1",
		Status: "serving", Deadline: &at, DeadlineOf: "watchdog", Memory: 1 << 20, Tasks: 3, Connections: 2, MemoryBy: "cgroup",
		Cgroup: "/web/7", Processes: []Process{{PID: 4711, Command: "web"}, {PID: 4712, Parent: 4711, Command: "worker"}},
	}
	web := Service{
		Name: "web", State: "up", Since: when, Paused: true, PausedSince: &at, Handoff: "auto", Command: []string{"web", "-x"}, Status: "serving",
		Sockets: []Socket{{
			Name: "http", Network: "tcp", Address: "127.0.0.1:80", Learned: true, Shared: "because",
			Lanes: []Lane{{Number: 1, Generation: 7, Steered: true, Queue: 2, Backlog: 4096}},
		}},
		Current: &g, Candidate: &g, Standby: &g, Draining: []Generation{g}, Deadline: &at, DeadlineOf: "start", Restarts: 1, Failures: 2,
		LastExit: &LastExit{Status: 137, Signal: "SIGKILL", Reason: "killed by SIGKILL", When: when, Generation: 6, LastLines: []string{"oh"}},
		Rollouts: Rollouts{Done: 3, Failed: 1, Current: &Rollout{From: 1, To: 2, Cause: "c", Started: when, Ended: &at, OK: true, Reason: "r"}, Last: &Rollout{From: 1, To: 2, Cause: "c", Started: when, Ended: &at, OK: true, Reason: "r"}},
	}
	api := Service{Name: "api", State: "down", Since: when, Handoff: "none", Command: []string{"api"}, Sockets: []Socket{}, Draining: []Generation{}}
	return Status{Supervisor: Supervisor{PID: 1, Since: when, Version: "1", Control: "/x.sock", Memory: 5}, Services: []Service{web, api}}
}
