package config

import "time"

// Units is what Load read: plain values, checked against one another.
type Units struct {
	// Services in the order in which they may be started: each behind all that
	// its After= names. Stopping goes the other way.
	Services []*Service

	// Sockets are all socket units, each in the SocketUnits of its service, too,
	// but for those with Accept=yes, which have a Template in its place.
	Sockets []*SocketUnit

	// Templates are the template units that were found, for instances that are
	// made later: "web@.service" is "web@".
	Templates map[string]*Template
}

// SocketUnit is a .socket unit: addresses that are lent together, and what they
// have in common. The options of each address are in its Socket.
type SocketUnit struct {
	Name         string // without ".socket"
	Description  string
	At           Position
	Dependencies Dependencies
	Conditions   []Condition // ConditionPathExists= and its family; see Unmet

	Sockets []Socket // in the order of the Listen directives
	Service string   // Service= or what stands for it: full name of the unit it activates

	Accept          bool          // Accept=: a process for each connection, of Template; no by default
	Template        *Template     // of Accept=yes, else nil
	MaxConnections  int           // MaxConnections= of Accept=yes, 64
	MaxPerSource    int           // MaxConnectionsPerSource= of Accept=yes, 0 is MaxConnections
	TriggerInterval time.Duration // TriggerLimitIntervalSec=, 2 s, 0 is no limit
	TriggerBurst    int           // TriggerLimitBurst=, 20, or 200 with Accept=yes; 0 is no limit
	FlushPending    bool          // FlushPending=: what waits is thrown away before the socket listens again
	Symlinks        []string      // Symlinks=: links to its one unix path
	RemoveOnStop    bool          // RemoveOnStop=, no by default (the flags remove)

	StartPre, StartPost, StopPre, StopPost []ExecLine    // ExecStartPre=, ... of the socket
	Timeout                                time.Duration // TimeoutSec= of those, 90 s, 0 is no limit

	fdName  string
	options []socketValue
}

// Template is a unit "NAME@.service" of which instances can be made at any time
// without a file being read again: for Accept=yes, or because a user asks.
type Template struct {
	Name string // "web@"
	At   Position
	make func(instance string) (*Service, error)
}

// Instance gives the service "NAME@instance", whose specifiers %i and its like
// are replaced. Its errors name file and line.
func (t *Template) Instance(instance string) (*Service, error) { return t.make(instance) }

// Warning is something that was read and that is not done as it is written.
type Warning struct {
	At   Position
	Text string // "PrivateTmp= is not done: ..."
}

// String is the warning in one line.
func (w Warning) String() string {
	if w.At == (Position{}) {
		return w.Text
	}
	return w.At.String() + ": " + w.Text
}

// LoadOptions change how units are read. The zero value is what a user means.
type LoadOptions struct {
	// Without names directives that are refused because their silent absence
	// would be unsafe, and whose absence is accepted: a warning in place of the
	// error. "sandbox" stands for all that shut a service in. Without= of
	// [X-Supervise] adds to it.
	Without []string

	// Getenv is what %h, %t and their like ask; nil is os.Getenv.
	Getenv func(string) string

	// Pending takes directives that are read and that the supervisor does not
	// carry out yet as if it did. For tests.
	Pending bool
}
