// Package config turns what people write (flags now, unit files as well) into
// plain values: Service and Socket. It is the vocabulary that every other
// package of the supervisor imports; it imports none of them, starts nothing
// and opens nothing but the files that it is told to read.
//
// Names are those of systemd's directives, because the meaning is theirs:
// where systemd.service(5) or systemd.socket(5) documents a word, it means
// here what it means there.
package config

import (
	"io/fs"
	"net/netip"
	"syscall"
	"time"
)

// Service is a command and its wishes: what a .service unit, or the flags
// before "--", say. The zero value is not usable; begin with Defaults.
type Service struct {
	Name string // unit name without ".service"

	Command []string // argv; {fd:NAME}, {addr:NAME} and {port:NAME} are replaced for each generation
	Dir     string   // WorkingDirectory=, "" is inherited
	Env     []string // Environment=, K=V, later wins; Environ joins it with EnvFiles

	// EnvFiles are the EnvironmentFile= in the order given, with their '-' if
	// they have one. They override Env, as systemd documents, and are read by
	// Environ for each generation: a rollout takes up what was changed in them.
	EnvFiles []string

	User   string  // User=, name or number, "" is inherited
	Group  string  // Group=, name or number
	Umask  int     // UMask=, -1 is inherited
	Nice   *int    // Nice=, nil is inherited
	Limits []Limit // LimitNOFILE= and its family, in the order given

	Type    Type     // Type=
	Handoff []string // Handoff=: protocol names in the order given; ["auto"] by default
	Ready   Ready    // Ready=

	KillSignal   syscall.Signal // KillSignal=
	KillMode     KillMode       // KillMode=
	FinalSignal  syscall.Signal // FinalKillSignal=
	SendSIGKILL  bool           // SendSIGKILL=
	SendSIGHUP   bool           // SendSIGHUP=
	TimeoutStart time.Duration  // TimeoutStartSec=, 0 is no limit
	TimeoutStop  time.Duration  // TimeoutStopSec=, 0 is no limit
	TimeoutAbort time.Duration  // TimeoutAbortSec=, after a watchdog's SIGABRT; 0: TimeoutStop
	Watchdog     time.Duration  // WatchdogSec=, 0 is off

	Restart Restart // Restart=
	//lint:ignore ST1011 the name is the directive's
	RestartSec         time.Duration // RestartSec=: the first delay after the restart that comes at once
	RestartSteps       int           // RestartSteps=: steps from RestartSec to RestartMaxDelay; 0: doubling
	RestartMaxDelay    time.Duration // RestartMaxDelaySec=; where it is less than RestartSec, RestartSec holds
	StartLimitInterval time.Duration // StartLimitIntervalSec=, 0 is no limit
	StartLimitBurst    int           // StartLimitBurst=, 0 is no limit
	SuccessExit        ExitSet       // SuccessExitStatus=, besides 0, HUP, INT, TERM and PIPE
	RestartPrevent     ExitSet       // RestartPreventExitStatus=
	RestartForce       ExitSet       // RestartForceExitStatus=

	GateBound time.Duration // GateBoundSec= of [X-Supervise]: bound of the gate and of the shield, each
	Probation time.Duration // ProbationSec= of [X-Supervise]: how long a new generation must live before the old one is told to stop
	Settle    time.Duration // SettleSec= of [X-Supervise]: how long "seen listening" must hold
	InterceptUDP bool // InterceptUDP= of [X-Supervise]: answer the bind(2) of datagram sockets as well
	Cgroup    bool          // Cgroup= of [X-Supervise]: use a cgroup of its own where one can be made

	Output string // "inherit", "prefix", "journal" or a file path

	Sockets []Socket
}

// Type is Type= of systemd.service(5). Auto is ours: notify when the child
// speaks it, else exec.
type Type string

const (
	Auto         Type = "auto"
	Simple       Type = "simple"
	Exec         Type = "exec"
	Notify       Type = "notify"
	NotifyReload Type = "notify-reload"
	Forking      Type = "forking"
)

// KillMode is KillMode= of systemd.kill(5).
type KillMode string

const (
	KillControlGroup KillMode = "control-group"
	KillMixed        KillMode = "mixed"
	KillProcess      KillMode = "process"
	KillNone         KillMode = "none"
)

// Restart is Restart= of systemd.service(5).
type Restart string

const (
	RestartNo         Restart = "no"
	RestartAlways     Restart = "always"
	RestartOnSuccess  Restart = "on-success"
	RestartOnFailure  Restart = "on-failure"
	RestartOnAbnormal Restart = "on-abnormal"
	RestartOnAbort    Restart = "on-abort"
	RestartOnWatchdog Restart = "on-watchdog"
)

// ExitSet is a set of exit statuses and signals, as SuccessExitStatus= takes
// them: numbers, names of sysexits.h without EX_ and of systemd, and signals.
type ExitSet struct {
	Status  [256]bool
	Signals [65]bool
}

// Limit is one resource limit of setrlimit(2).
type Limit struct {
	Name     string // directive name: LimitNOFILE
	Resource int    // RLIMIT_*
	Soft     uint64 // RLIM_INFINITY is ^uint64(0)
	Hard     uint64
}

// ReadyKind says what decides that a generation is ready.
type ReadyKind int

const (
	ReadyAuto      ReadyKind = iota // READY=1 if it comes, a protocol's own word, else seen listening and settled
	ReadyNotify                     // READY=1 only
	ReadyListening                  // seen listening and settled
	ReadyExec                       // as soon as execve(2) succeeded
	ReadyHTTP                       // an HTTP request is answered with 200 to 399
	ReadyTCP                        // a connection is accepted
	ReadyCommand                    // a command exits 0
	ReadyDelay                      // alive for a time
)

// Ready is the parsed --ready.
type Ready struct {
	Kind    ReadyKind
	URL     string        // ReadyHTTP: http://host:port/path, https:// or http://unix:/path:/uri
	Address string        // ReadyTCP: an address of the --listen grammar, or a socket's name
	Command []string      // ReadyCommand
	Delay   time.Duration // ReadyDelay

	Interval time.Duration // between two tries of a probe
	Timeout  time.Duration // of one try
}

// Socket is one configured address: what a .socket unit or --listen says.
// "localhost" gives two of them with the same name.
type Socket struct {
	Name string // FileDescriptorName=; "" until NameSockets gives one

	Network string         // "tcp", "udp", "unix" (stream), "unixgram", "unixpacket"
	Addr    netip.AddrPort // tcp and udp; an unspecified IPv6 address with V6Only false is both families
	Path    string         // unix*: the path; abstract names begin with '@'
	V6Only  bool           // an IPv6 wildcard without IPv4; false on an IPv6 wildcard means both families
	Zone    string         // IPv6 zone, if any (also in Addr)

	// DualStack: "any address of any family" was asked for (":80", "*:80") and
	// not IPv6 by name, so where IPv6 cannot be used 0.0.0.0 says the same. Addr
	// is then [::] with V6Only false.
	DualStack bool

	// Optional: an address that may be unusable without harm (the ::1 of
	// localhost on a machine without IPv6): a warning, not an error.
	Optional bool

	Source string // what the user wrote, for messages

	Options SocketOptions
}

// SocketOptions have the meaning of the .socket directives of the same name.
// Pointers and negative numbers are "not set: the kernel's default".
type SocketOptions struct {
	Backlog       int         // Backlog=, 0: the largest the kernel gives
	Mode          fs.FileMode // SocketMode=, 0666 by default (as systemd)
	DirectoryMode fs.FileMode // DirectoryMode=, 0755 by default
	User, Group   string      // SocketUser=, SocketGroup=
	NoDelay       bool
	KeepAlive     bool
	KeepAliveTime time.Duration
	KeepAliveIntv time.Duration
	KeepAliveProb int
	DeferAccept   time.Duration
	FreeBind      bool
	Transparent   bool
	BindToDevice  string
	Mark          int // -1 not set
	Priority      int // -1 not set
	IPTOS         int // -1 not set
	IPTTL         int // -1 not set
	ReceiveBuffer int // bytes, 0 not set
	SendBuffer    int // bytes, 0 not set
	FastOpen      int // queue length, 0 off
	Broadcast     bool
	PassCred      bool
	Blocking      bool // lend it without O_NONBLOCK; default is non-blocking
	ReusePort     bool // ReusePort=: other programs of the same user may join the port
	Shared        bool // X-Supervise: one shared listener instead of lanes
	RemoveOnStop  bool // unix: remove the path at the end; true by default
}
