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
	"strconv"
	"syscall"
	"time"
)

// Service is a command and its wishes: what a .service unit, or the flags
// before "--", say. The zero value is not usable; begin with Defaults (the
// flags) or UnitDefaults (a unit file). Where the two differ, both defaults are
// given: "flags x, units y".
type Service struct {
	Name        string   // unit name without ".service": "web", "web@8080"
	Instance    string   // what is between '@' and ".service", as written; "" of a unit that is no instance
	Description string   // Description=, "" by default
	At          Position // of the unit file; zero for the flags

	// OnDemand: nothing starts the service at first; a connection to one of its
	// Sockets does, or another service that requires it. Units decides.
	OnDemand bool

	Dependencies Dependencies // After= and its family, among the units given
	Conditions   []Condition  // ConditionPathExists= and its family; see Unmet

	// Command is the argv of the main process, taken literally but for
	// {fd:NAME}, {addr:NAME} and {port:NAME}, which are replaced for each
	// generation. A unit whose ExecStart= is more than that (a variable, a
	// prefix, several lines, none) has Start in its place; ExecStart gives
	// whichever there is.
	Command []string
	Start   []ExecLine // ExecStart=; more than one only of Type=oneshot

	Condition []ExecLine // ExecCondition=: before StartPre; 1 to 254 skips the start, 255 or a signal fails it
	StartPre  []ExecLine // ExecStartPre=
	StartPost []ExecLine // ExecStartPost=: after the service is ready, as its Type= says
	Reload    []ExecLine // ExecReload=; MAINPID is in the environment
	Stop      []ExecLine // ExecStop=: only of a service that started; then KillSignal
	StopPost  []ExecLine // ExecStopPost=: after every end, also of a failed start; SERVICE_RESULT, EXIT_CODE, EXIT_STATUS are in the environment

	Dir         string   // WorkingDirectory=, "" is inherited; flags "", units "/"
	DirOptional bool     // WorkingDirectory=-PATH: "/" where it is missing
	DirHome     bool     // WorkingDirectory=~: the home of User=; Dir is "~" then
	Env         []string // Environment=, K=V, later wins; Environ joins it with EnvFiles

	// EnvFiles are the EnvironmentFile= in the order given, with their '-' if
	// they have one. They override Env, as systemd documents, and are read by
	// Environ for each generation: a rollout takes up what was changed in them.
	EnvFiles []string

	// InheritEnv: the supervisor's own environment, but for CleanEnv, is below
	// Env. Flags yes, units no (Inherit= of [X-Supervise] changes it): then the
	// command gets PATH and what systemd.exec(5) lists, and PassEnv.
	InheritEnv bool
	PassEnv    []string // PassEnvironment=: names of variables of the supervisor that are passed on
	UnsetEnv   []string // UnsetEnvironment=: NAME or NAME=VALUE, taken away at the very end

	User        string       // User=, name or number, "" is inherited
	Group       string       // Group=, name or number
	ExtraGroups []string     // SupplementaryGroups=, besides those of User= in the group database
	Umask       int          // UMask=, -1 is inherited; flags -1, units 0022
	Nice        *int         // Nice=, nil is inherited
	OOMScore    *int         // OOMScoreAdjust=, -1000 to 1000, nil is inherited
	Limits      []Limit      // LimitNOFILE= and its family, in the order given
	NoNewPrivs  bool         // NoNewPrivileges=
	Bounding    *CapSet      // CapabilityBoundingSet=, nil is all there are
	Ambient     CapSet       // AmbientCapabilities=
	IgnorePipe  bool         // IgnoreSIGPIPE=; flags no, units yes
	Directories []Directory  // RuntimeDirectory= and its family, in the order of the man page
	DirPreserve PreserveMode // RuntimeDirectoryPreserve=, "no" by default

	Type          Type         // Type=; flags auto, units simple, or oneshot without ExecStart=
	RemainExited  bool         // RemainAfterExit=: still up when all its processes have exited
	ExitType      ExitType     // ExitType=, "main" by default
	PIDFile       string       // PIDFile=, absolute; of Type=forking
	GuessMain     bool         // GuessMainPID=, yes by default; of Type=forking without PIDFile=
	NotifyAccess  NotifyAccess // NotifyAccess=; "" is main for notify, notify-reload and WatchdogSec=, else none
	Handoff       []string     // Handoff=: protocol names in the order given; ["auto"] by default
	Ready         Ready        // Ready=
	ReloadSignal  syscall.Signal
	RuntimeMax    time.Duration // RuntimeMaxSec=, 0 is no limit
	RuntimeRandom time.Duration // RuntimeRandomizedExtraSec=, up to which RuntimeMax is made longer; 0

	KillSignal     syscall.Signal // KillSignal=
	KillGiven      bool           // KillSignal= was written: a protocol's own stop signal does not replace it
	RestartSignal  syscall.Signal // RestartKillSignal=, 0: KillSignal
	WatchdogSignal syscall.Signal // WatchdogSignal=, SIGABRT by default
	KillMode       KillMode       // KillMode=
	FinalSignal    syscall.Signal // FinalKillSignal=
	SendSIGKILL    bool           // SendSIGKILL=
	SendSIGHUP     bool           // SendSIGHUP=
	TimeoutStart   time.Duration  // TimeoutStartSec=, 0 is no limit; 90 s, no limit for Type=oneshot
	TimeoutStop    time.Duration  // TimeoutStopSec=, 0 is no limit; flags 30 s, units 90 s
	TimeoutAbort   time.Duration  // TimeoutAbortSec=, after a watchdog's SIGABRT; 0: TimeoutStop
	StartFailure   FailureMode    // TimeoutStartFailureMode=, "terminate" by default
	StopFailure    FailureMode    // TimeoutStopFailureMode=, "terminate" by default
	Watchdog       time.Duration  // WatchdogSec=, 0 is off

	Restart     Restart     // Restart=; flags on-failure, units no
	RestartMode RestartMode // RestartMode=, "normal" by default
	//lint:ignore ST1011 the name is the directive's
	RestartSec         time.Duration // RestartSec=, 100 ms
	RestartSteps       int           // RestartSteps=: steps from RestartSec to RestartMaxDelay; 0: see RestartBackoff
	RestartMaxDelay    time.Duration // RestartMaxDelaySec=; where it is less than RestartSec, RestartSec holds; flags 30 s, units 0
	RestartBackoff     bool          // RestartBackoff= of [X-Supervise]: the first restart at once, then from RestartSec doubling with jitter to RestartMaxDelay; flags yes, units no: each after RestartSec
	StartLimitInterval time.Duration // StartLimitIntervalSec=, 0 is no limit; flags 0, units 10 s
	StartLimitBurst    int           // StartLimitBurst=, 0 is no limit; flags 0, units 5
	SuccessExit        ExitSet       // SuccessExitStatus=, besides 0, HUP, INT, TERM and PIPE
	RestartPrevent     ExitSet       // RestartPreventExitStatus=
	RestartForce       ExitSet       // RestartForceExitStatus=

	Instances    int           // Instances= of [X-Supervise]: generations that serve side by side; 1
	RolloutBatch int           // RolloutBatch= of [X-Supervise]: how many instances are replaced at a time; 1
	GateBound    time.Duration // GateBoundSec= of [X-Supervise]: bound of the gate and of the shield, each
	Standby      bool          // Standby= of [X-Supervise]: the next generation is started ahead and takes over when the current one dies
	Live         Ready         // Live= of [X-Supervise]: how the current generation is asked whether it lives; ReadyNotify is "watchdog", ReadyAuto not at all
	LiveInterval time.Duration // LiveIntervalSec= of [X-Supervise]: from one answer to the next question; 10 s
	LiveTimeout  time.Duration // LiveTimeoutSec= of [X-Supervise]: of one question; 1 s
	LiveFailures int           // LiveFailures= of [X-Supervise]: how many in a row mean that it does not live; 3
	LiveAction   LiveAction    // LiveAction= of [X-Supervise]: what is done then; restart
	Probation    time.Duration // ProbationSec= of [X-Supervise]: how long a new generation must live before the old one is told to stop
	Settle       time.Duration // SettleSec= of [X-Supervise]: how long "seen listening" must hold
	InterceptUDP bool          // InterceptUDP= of [X-Supervise]: answer the bind(2) of datagram sockets as well
	Cgroup       bool          // Cgroup= of [X-Supervise]: use a cgroup of its own where one can be made

	// Output is where standard output and standard error go: "inherit",
	// "prefix", "journal", "null" or a file path. Flags inherit, units prefix.
	Output      string
	TruncateOut bool   // StandardOutput=truncate:PATH: the file is emptied at the first start
	ErrorOutput string // StandardError= where it differs from Output; "" is Output
	Input       string // StandardInput=: "inherit", "null" or a file path; flags inherit, units null
	SyslogIdent string // SyslogIdentifier=: the word before each line where lines are marked, "" is the name
	LevelPrefix bool   // SyslogLevelPrefix=: "<3>" before a line is its level; yes by default

	// Sockets are the listeners that the service is lent, in the order in which
	// it is told of them: of the flags, or of its socket units joined.
	Sockets []Socket

	// SocketUnits are the .socket units that belong to it: by Service=, Sockets=
	// or the same name. Empty for the flags.
	SocketUnits []*SocketUnit
}

// Dependencies are those of systemd.unit(5) that point to another of the units
// given, by full name ("db.service", "web.socket"), in the order given. What
// points to units that were not given is left out, with a warning where that
// takes something away.
type Dependencies struct {
	After     []string // After=, and what Before= of others says: started when these have started, stopped before them
	Before    []string // Before=, as written; After of the others has it, too
	Requires  []string // Requires=: pulled in; stopped when these are stopped
	Requisite []string // Requisite=: fails at once when these are not up
	Wants     []string // Wants=: pulled in, whether they start or not
	BindsTo   []string // BindsTo=: Requires=, and stopped when these end for any reason
	PartOf    []string // PartOf=: stopped and restarted with these
	Upholds   []string // Upholds=: these are started again as long as this one is up
	Conflicts []string // Conflicts=: stopped when this one starts, and the other way round
	OnFailure []string // OnFailure=: started when this one fails for good
	OnSuccess []string // OnSuccess=: started when this one ends well

	StopWhenUnneeded bool // StopWhenUnneeded=: stopped when no other unit that is up requires it
}

// Position is a place in a file that was read.
type Position struct {
	File string
	Line int // from 1; 0 is the file as a whole
}

// String is the position as compilers write it: "web.service:12".
func (p Position) String() string {
	if p.Line == 0 {
		return p.File
	}
	return p.File + ":" + strconv.Itoa(p.Line)
}

// Directory is one of RuntimeDirectory=, StateDirectory=, CacheDirectory=,
// LogsDirectory= and ConfigurationDirectory=: made before the service starts,
// owned by its User= (but for the configuration), and named to it by Env.
type Directory struct {
	Kind  string      // of the directive: "RuntimeDirectory"
	Root  string      // below which they are: "/run"; of systemd.exec(5), for root or the user's own
	Env   string      // variable that lists them, separated by ':': "RUNTIME_DIRECTORY"
	Names []string    // relative paths, in the order given
	Links []string    // symbolic links to them, "NAME:LINK" as written
	Mode  fs.FileMode // as chmod(2) has it, 0755 by default
}

// PreserveMode is RuntimeDirectoryPreserve= of systemd.exec(5).
type PreserveMode string

const (
	PreserveNo      PreserveMode = "no"
	PreserveYes     PreserveMode = "yes"
	PreserveRestart PreserveMode = "restart"
)

// NotifyAccess is NotifyAccess= of systemd.service(5): whose messages count.
type NotifyAccess string

const (
	NotifyNone NotifyAccess = "none"
	NotifyMain NotifyAccess = "main"
	NotifyExec NotifyAccess = "exec"
	NotifyAll  NotifyAccess = "all"
)

// ExitType is ExitType= of systemd.service(5): which exit is the service's.
type ExitType string

const (
	ExitMain   ExitType = "main"
	ExitCgroup ExitType = "cgroup"
)

// FailureMode is TimeoutStartFailureMode= and TimeoutStopFailureMode= of
// systemd.service(5): how what is late is ended.
type FailureMode string

const (
	FailTerminate FailureMode = "terminate" // KillSignal, then FinalSignal
	FailAbort     FailureMode = "abort"     // WatchdogSignal, then FinalSignal
	FailKill      FailureMode = "kill"      // FinalSignal at once
)

// RestartMode is RestartMode= of systemd.service(5).
type RestartMode string

const (
	RestartNormal RestartMode = "normal" // units that depend on it see the failed state between
	RestartDirect RestartMode = "direct" // they do not
)

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
	Oneshot      Type = "oneshot"
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

// LiveAction is what is done with a generation that does not live.
type LiveAction string

const (
	LiveRestart LiveAction = "restart" // it is ended; Restart= decides what follows
	LiveRollout LiveAction = "rollout" // another one takes over before it is ended
)

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

	Source string   // what the user wrote, for messages
	Unit   string   // ".socket" unit that it is of, "" of the flags
	At     Position // where its Listen directive stands; zero of the flags

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
