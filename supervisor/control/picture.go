package control

import "time"

// Status is a picture of a supervisor and its services at one moment.
type Status struct {
	Supervisor Supervisor `json:"supervisor"`
	Services   []Service  `json:"services"`
}

// Supervisor is the process that is asked.
type Supervisor struct {
	PID     int       `json:"pid"`
	Since   time.Time `json:"since"`
	Version string    `json:"version,omitempty"`
	Control string    `json:"control"` // path of the socket
	Memory  int64     `json:"memory"`  // bytes, its own resident anonymous memory
}

// Service is one service. Current, Candidate and Draining are its living
// generations.
type Service struct {
	Name  string    `json:"name"`
	State string    `json:"state"` // down, starting, up, replacing, stopping, backoff, failed
	Since time.Time `json:"since"` // of State

	// Paused: new connections wait in the kernel's queue; see the sockets' Queue.
	Paused      bool       `json:"paused"`
	PausedSince *time.Time `json:"paused_since,omitempty"`

	Handoff string   `json:"handoff"` // as configured: auto, systemd, ...
	Command []string `json:"command"`
	Status  string   `json:"status,omitempty"` // STATUS= of the current generation

	Sockets []Socket `json:"sockets"`

	Current   *Generation  `json:"current"`
	Candidate *Generation  `json:"candidate"`
	Standby   *Generation  `json:"standby,omitempty"` // waits, ready or on its way to it, for the current one to die
	Draining  []Generation `json:"draining"`          // old ones, draining or told to stop

	// Deadline is when something happens by itself: the next start in state
	// backoff, else the earliest of the generations'. DeadlineOf says what.
	Deadline   *time.Time `json:"deadline"`
	DeadlineOf string     `json:"deadline_of,omitempty"`

	Restarts int       `json:"restarts"` // starts that nobody asked for
	Failures int       `json:"failures"` // in a row
	LastExit *LastExit `json:"last_exit"`
	Rollouts Rollouts  `json:"rollouts"`
}

// Socket is one address of a service.
type Socket struct {
	Name    string `json:"name"`
	Network string `json:"network"` // tcp, udp, unix, unixgram, unixpacket
	Address string `json:"address"`
	Learned bool   `json:"learned"` // bound by the command, not configured

	// Shared says why there is one listener for all generations; "" where each
	// has lanes of its own.
	Shared string `json:"shared,omitempty"`
	Lanes  []Lane `json:"lanes"`
}

// Lane is one listener of a socket.
type Lane struct {
	Number int `json:"number"`

	// Generation is whose it is; 0 when nobody has it: its queue is kept for
	// the next one, or it is parked by a pause.
	Generation int  `json:"generation"`
	Steered    bool `json:"steered"` // new connections come here

	// Queue and Backlog are connections that wait to be accepted, and how many
	// may. Of UDP: bytes.
	Queue   int `json:"queue"`
	Backlog int `json:"backlog"`
}

// Generation is one started instance of a service.
type Generation struct {
	Generation int       `json:"generation"`
	PID        int       `json:"pid"`   // main process
	Role       string    `json:"role"`  // current, candidate, standby, old
	State      string    `json:"state"` // spawned, waiting, ready, draining, killing
	Since      time.Time `json:"since"` // of State

	Started  time.Time  `json:"started"`
	ReadyAt  *time.Time `json:"ready_at"`
	ReadyHow string     `json:"ready_how,omitempty"`
	Status   string     `json:"status,omitempty"` // STATUS=

	Deadline   *time.Time `json:"deadline"`
	DeadlineOf string     `json:"deadline_of,omitempty"` // what happens then

	Memory      int64 `json:"memory"`      // bytes
	Tasks       int   `json:"tasks"`       // processes and threads
	Connections int   `json:"connections"` // established on the service's addresses; -1 when it cannot be seen

	// MemoryBy is "cgroup" (memory.current: page cache is included) or
	// "processes" (the resident anonymous memory of each, added up).
	MemoryBy string `json:"memory_by,omitempty"`

	Cgroup    string    `json:"cgroup,omitempty"`
	Processes []Process `json:"processes"` // main process first; the tree is in Parent
}

// Process is one process of a generation.
type Process struct {
	PID     int    `json:"pid"`
	Parent  int    `json:"parent"` // 0 when the parent is not of the generation
	Command string `json:"command"`
}

// LastExit is how the last main process of a service ended.
type LastExit struct {
	Status int       `json:"status"` // exit status; 128+N when a signal ended it, as a shell says it
	Signal string    `json:"signal,omitempty"`
	Reason string    `json:"reason"` // in words
	When   time.Time `json:"when"`
	// Generation whose it was, and what it said last.
	Generation int      `json:"generation"`
	LastLines  []string `json:"last_lines,omitempty"`
}

// Rollouts counts them, and has the one under way and the last one.
type Rollouts struct {
	Done    int      `json:"done"`
	Failed  int      `json:"failed"`
	Current *Rollout `json:"current,omitempty"`
	Last    *Rollout `json:"last"`
}

// Rollout is one of them.
type Rollout struct {
	From    int        `json:"from"`
	To      int        `json:"to"`
	Cause   string     `json:"cause,omitempty"`
	Started time.Time  `json:"started"`
	Ended   *time.Time `json:"ended,omitempty"`
	OK      bool       `json:"ok"`
	Reason  string     `json:"reason,omitempty"` // why it failed
}
