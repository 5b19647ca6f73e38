package control

import (
	"context"
	"fmt"
)

// Backend is what the server asks: the supervisor, or a fake one in a test. Its
// methods are called from many goroutines at a time. Errors that a client can do
// something about are an *Error.
type Backend interface {
	// Status makes a picture of the named services, of all when none is named.
	Status(ctx context.Context, services []string) (Status, error)

	// Names gives the names of all services. It is quick.
	Names(ctx context.Context) ([]string, error)

	// Do carries out a command and returns when it is done, or, with NoWait, when
	// it is under way. It calls step for each thing that happens, one at a time.
	// It goes on when ctx ends: what is asked for cannot be taken back by
	// leaving; only the words about it end. An *Error with code Failed says that
	// it was done and came to nothing.
	Do(ctx context.Context, c Command, step func(Event)) error

	// Events calls each for what happened and, with Follow, for what happens,
	// until ctx ends or each returns an error.
	Events(ctx context.Context, q EventQuery, each func(Event) error) error

	// Logs does the same for what the services write.
	Logs(ctx context.Context, q LogQuery, each func(Line) error) error
}

// Verb is what is to be done.
type Verb string

// The verbs that change something.
const (
	VerbRollout Verb = "rollout"
	VerbReload  Verb = "reload"
	VerbRestart Verb = "restart"
	VerbStop    Verb = "stop"
	VerbStart   Verb = "start"
	VerbKill    Verb = "kill"
	VerbPause   Verb = "pause"
	VerbResume  Verb = "resume"
	VerbUpgrade Verb = "upgrade"
)

// Command is a verb and what it is about.
type Command struct {
	Verb     Verb     `json:"-"`
	Services []string `json:"services,omitempty"` // none: all
	NoWait   bool     `json:"no_wait,omitempty"`

	Signal string `json:"signal,omitempty"` // kill: "TERM", "SIGTERM" or "15"; "" is TERM
	Binary string `json:"binary,omitempty"` // upgrade: "" is the file that runs

	// Peer is who asks; the server fills it in.
	Peer Peer `json:"-"`
}

// Cause says in words who asked for it, for the log.
func (c Command) Cause() string {
	return fmt.Sprintf("supervise %s, uid %d pid %d", c.Verb, c.Peer.UID, c.Peer.PID)
}

// Peer is a process that connected.
type Peer struct {
	PID int
	UID uint32
	GID uint32
}

// Code says what kind of error it is: a word that stays.
type Code string

// The codes, and the HTTP status of each.
const (
	BadRequest    Code = "bad-request"     // 400
	Forbidden     Code = "forbidden"       // 403
	NoSuchService Code = "no-such-service" // 404
	NotFound      Code = "not-found"       // 404: no such path
	Conflict      Code = "conflict"        // 409: not in this state
	Failed        Code = "failed"          // done, and failed: a rollout that rolled back
	Unsupported   Code = "unsupported"     // 501
	Unavailable   Code = "unavailable"     // 503: too many connections, or ending
	Internal      Code = "internal"        // 500
)

func (c Code) status() int {
	switch c {
	case BadRequest:
		return 400
	case Forbidden:
		return 403
	case NoSuchService, NotFound:
		return 404
	case Conflict, Failed:
		return 409
	case Unsupported:
		return 501
	case Unavailable:
		return 503
	case Internal:
	}
	return 500
}

// Error is an answer that is none. Service is whose, "" when it is nobody's.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"` // what to do
	Service string `json:"service,omitempty"`
}

func (e *Error) Error() string { return e.Message }

// Errorf makes an *Error.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}
