package config

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Directive describes a directive: how it is written in a unit file, as a flag,
// and what it does to a Service. The list of Directives, with what is not done
// (Table), is the one place that knows them; help, man pages and completions
// come from it.
type Directive struct {
	Section string // "Unit", "Service", "Socket", "Install" or "X-Supervise"
	Name    string // TimeoutStopSec
	Flag    string // timeout-stop; "" if there is no flag
	Arg     string // what the value is: DURATION
	Default string // as Set reads it; "" for none
	Help    string
	Repeat  bool // it may come more than once and adds up; an empty value begins anew

	// Support says whether the supervisor does what the directive says. Means is,
	// for what it does not do or does otherwise, what that comes to.
	Support Support
	Means   string

	// Sandbox: of the refused ones, those that shut the service in further, and
	// that "sandbox" in Without= stands for.
	Sandbox bool

	// Waits gives the value in s that the supervisor does not carry out yet, of
	// a directive that it supports otherwise; "" if there is none.
	Waits func(s *Service) string

	// Set reads a value as a unit file has it. The empty value gives the
	// default back, or an empty list.
	Set func(*Service, string) error

	// FromFlag reads the value of the flag, which has been through a shell and
	// needs no quoting of systemd's. It is Set where there is no difference,
	// and nil where there is no flag.
	FromFlag func(*Service, string) error

	// Get writes the value so that Set, applied to each string in turn, reads
	// it back. It is nil for shorthands of other directives.
	Get func(*Service) []string

	// read is Set for directives that take the value apart before they replace
	// specifiers, or that have more to say than an error.
	read func(*reading, *Service, string) error

	// readSocket is read for a directive of a .socket unit.
	readSocket func(*reading, *SocketUnit, string) error

	// idle says that a socket unit has the default of it.
	idle func(*SocketUnit) bool

	// readHead is read for what units of all types have.
	readHead func(*reading, head, string) error
}

// Support says what the supervisor does about a directive.
type Support int

const (
	Supported Support = iota // it does what systemd documents, or what Means says
	Pending                  // it is read, but not carried out yet: an error
	Ignored                  // a warning: Means says what is not done
	Moot                     // no warning: there is nothing to do about it here, as Means says
	Refused                  // an error: to leave it out in silence would be unsafe, or the service could not work
)

// String is the word of the man page.
func (s Support) String() string {
	return [...]string{"supported", "not yet", "ignored", "no effect", "refused"}[s]
}

// reading is the place where a value stands and what it may refer to.
type reading struct {
	at     Position
	spec   *specifiers  // nil for the flags, which have no specifiers
	notice func(string) // takes a warning
}

// expand replaces specifiers.
func (r *reading) expand(s string) (string, error) {
	if r.spec == nil {
		return undouble(s, "%")
	}
	return r.spec.expand(s)
}

// cutWord takes a word off as systemd does, which keeps escapes that it does not
// know.
func (r *reading) cutWord(s string) (word, rest string, err error) {
	return cutWord(s, func(err error) {
		r.notice(fmt.Sprintf("an escape is kept as it is: %v", err))
	})
}

// words takes a value apart into words and replaces the specifiers in each.
func (r *reading) words(value string) ([]string, error) {
	var words []string
	for rest := strings.TrimLeft(value, blanks); rest != ""; rest = strings.TrimLeft(rest, blanks) {
		word, after, err := r.cutWord(rest)
		if err != nil {
			return nil, err
		}
		if word, err = r.expand(word); err != nil {
			return nil, err
		}
		words = append(words, word)
		rest = after
	}
	return words, nil
}

// ofFlags is the reading of what no unit file says.
func ofFlags() *reading { return &reading{notice: func(string) {}} }

// Defaults gives a service of which nothing is said by flags: systemd's
// defaults, but for TimeoutStopSec= 30s, Restart= on-failure with a growing
// delay, no start limit, and what is inherited.
func Defaults() Service {
	return Service{
		InheritEnv:      true,
		Umask:           -1,
		DirPreserve:     PreserveNo,
		Type:            Auto,
		ExitType:        ExitMain,
		GuessMain:       true,
		Handoff:         []string{"auto"},
		Ready:           Ready{Kind: ReadyAuto, Interval: defaultProbeInterval, Timeout: defaultProbeTimeout},
		ReloadSignal:    syscall.SIGHUP,
		KillSignal:      syscall.SIGTERM,
		WatchdogSignal:  syscall.SIGABRT,
		KillMode:        KillControlGroup,
		FinalSignal:     syscall.SIGKILL,
		SendSIGKILL:     true,
		TimeoutStart:    90 * time.Second,
		TimeoutStop:     30 * time.Second,
		StartFailure:    FailTerminate,
		StopFailure:     FailTerminate,
		Restart:         RestartOnFailure,
		RestartMode:     RestartNormal,
		RestartSec:      100 * time.Millisecond,
		RestartMaxDelay: 30 * time.Second,
		RestartBackoff:  true,
		Instances:       1,
		RolloutBatch:    1,
		GateBound:       2 * time.Second,
		Settle:          50 * time.Millisecond,
		LiveInterval:    defaultLiveInterval,
		LiveTimeout:     defaultLiveTimeout,
		LiveFailures:    defaultLiveFailures,
		LiveAction:      LiveRestart,
		Cgroup:          true,
		Output:          "inherit",
		Input:           "inherit",
		LevelPrefix:     true,
	}
}

// UnitDefaults gives a service of whose unit file nothing but the name is known:
// the defaults that systemd documents for a service of the system manager, or
// of a user's if user is set.
func UnitDefaults(user bool) Service {
	s := Defaults()
	s.InheritEnv = user
	s.Umask = 0o022
	s.Dir = "/"
	if user {
		s.Dir = "~"
		s.DirHome = true
	}
	s.IgnorePipe = true
	s.Type = Simple
	s.TimeoutStop = 90 * time.Second
	s.Restart = RestartNo
	s.RestartMaxDelay = 0
	s.RestartBackoff = false
	s.StartLimitInterval, s.StartLimitBurst = 10*time.Second, 5
	s.Output = "prefix"
	s.Input = "null"
	return s
}

// Set sets a directive by its name, as in a unit file and in --set. An error is
// an *UnsupportedError when systemd knows the directive and this package does
// not do it.
func (s *Service) Set(name, value string) error {
	for _, d := range Directives() {
		if d.Name != name || d.Support == Pending {
			continue
		}
		if err := d.try(s, value, d.Set); err != nil {
			return fmt.Errorf("cannot set %s=: %w", name, err)
		}
		return nil
	}
	if e, ok := unsupported(name); ok {
		return fmt.Errorf("cannot set %s=: %w", name, e)
	}
	if name == "FileDescriptorName" {
		return errors.New("cannot set FileDescriptorName= for a service: it belongs to a socket; write --listen NAME=ADDRESS")
	}
	for _, o := range socketOptions() {
		if o.directive == name {
			return fmt.Errorf("cannot set %s= for a service: it belongs to a socket; write --listen 'ADDRESS?%s=%s'", name, o.key, o.arg)
		}
	}
	for _, d := range rows() {
		if d.Name == name {
			return fmt.Errorf("cannot set %s=: it is for units that stand beside others; write it into a unit file", name)
		}
	}
	return fmt.Errorf("cannot set %s=: there is no such directive%s", name, didYouMean(name))
}

// SetFlag sets a directive by its flag, without the leading dashes.
func (s *Service) SetFlag(flag, value string) error {
	for _, d := range Directives() {
		if d.Flag != "" && d.Flag == flag {
			if err := d.FromFlag(s, value); err != nil {
				return fmt.Errorf("--%s: %w", flag, err)
			}
			return nil
		}
	}
	return fmt.Errorf("--%s: there is no such flag%s", flag, didYouMean(flag))
}

// try sets a value and takes it back if it is one that waits.
func (d Directive) try(s *Service, value string, set func(*Service, string) error) error {
	tried := *s
	if err := set(&tried, value); err != nil {
		return err
	}
	if d.Waits != nil {
		if text := d.Waits(&tried); text != "" {
			return &UnsupportedError{Name: d.Name + "=" + text}
		}
	}
	*s = tried
	return nil
}

// Directives lists every directive of a service, in the order of the man page.
func Directives() []Directive {
	all := slices.Concat(commandDirectives(), execDirectives(), stopDirectives(), restartDirectives(), listenDirectives(), ourDirectives(), liveDirectives())
	defaults := Defaults()
	for i := range all {
		d := &all[i]
		if d.Set == nil && d.read != nil {
			d.Set = func(s *Service, value string) error { return d.read(ofFlags(), s, value) }
		}
		if d.Flag != "" && d.FromFlag == nil {
			d.FromFlag = d.Set
		}
		if fromFlag := d.FromFlag; fromFlag != nil && d.Waits != nil {
			d.FromFlag = func(s *Service, value string) error { return d.try(s, value, fromFlag) }
		}
		if d.Get != nil {
			d.Default = strings.Join(d.Get(&defaults), " ")
		}
	}
	return all
}

func commandDirectives() []Directive {
	list := []Directive{
		{
			Section: "Service", Name: "ExecStart", Arg: "COMMAND", Help: "command and arguments; {fd:NAME}, {addr:NAME} and {port:NAME} are replaced", Repeat: true,
			read: readExecStart,
			Get: func(s *Service) []string {
				if len(s.Command) == 0 {
					return mapSlice(s.Start, formatExec)
				}
				return []string{strings.NewReplacer("%", "%%", "$", "$$").Replace(JoinWords(s.Command))}
			},
		},
		word("Service", "Type", "type", "how the service says that it is up", typeWords(), "dbus",
			func(s *Service) *Type { return &s.Type }).means("idle is simple; dbus is not supported; auto (no word of systemd) is notify when the command speaks it, else exec"),
		{
			Section: "Service", Name: "WorkingDirectory", Flag: "chdir", Arg: argPath, Help: "directory the command runs in; '-' in front: may be missing; '~': the home of the user",
			Set: setDir,
			Get: func(s *Service) []string {
				switch {
				case s.Dir == "":
					return nil
				case s.DirOptional:
					return []string{"-" + s.Dir}
				}
				return []string{s.Dir}
			},
		},
		{
			Section: "Service", Name: "Environment", Flag: "env", Arg: "NAME=VALUE", Help: "variable for the command; {fd:NAME} and its like are replaced", Repeat: true,
			read: readEnvironment,
			FromFlag: func(s *Service, value string) error {
				if err := checkAssignment(value); err != nil {
					return err
				}
				s.Env = append(s.Env, value)
				return nil
			},
			Get: func(s *Service) []string {
				return mapSlice(s.Env, func(kv string) string { return strings.ReplaceAll(quoteWord(kv), "%", "%%") })
			},
		},
		{
			Section: "Service", Name: "EnvironmentFile", Flag: "env-file", Arg: argPath, Help: "file with variables, read before each start; '-' in front: may be missing", Repeat: true,
			Set: func(s *Service, value string) error {
				switch value {
				case "":
					s.EnvFiles = nil
					return nil
				case "-":
					return errors.New("the path after '-' is missing")
				}
				s.EnvFiles = append(s.EnvFiles, value)
				return nil
			},
			Get: func(s *Service) []string { return slices.Clone(s.EnvFiles) },
		},
		scalar("Service", "User", "user", argUser, "user the command runs as, name or number",
			func(s *Service) *string { return &s.User }, parseOwner, plainText),
		scalar("Service", "Group", "group", argGroup, "group the command runs as, name or number",
			func(s *Service) *string { return &s.Group }, parseOwner, plainText),
		scalar("Service", "UMask", "umask", argMode, "file mode creation mask, in octal",
			func(s *Service) *int { return &s.Umask }, parseUmask, formatUmask),
		{
			Section: "Service", Name: "Nice", Flag: "nice", Arg: argNumber, Help: "nice level, -20 to 19",
			Set: setNice,
			Get: func(s *Service) []string {
				if s.Nice == nil {
					return nil
				}
				return []string{strconv.Itoa(*s.Nice)}
			},
		},
	}
	for _, k := range limitKinds() {
		list = append(list, limitDirective(k))
	}
	return list
}

func stopDirectives() []Directive {
	kill := scalar("Service", "KillSignal", "kill-signal", argSignal, "signal that asks the service to stop",
		func(s *Service) *syscall.Signal { return &s.KillSignal }, ParseSignal, SignalName)
	setKill := kill.Set
	kill.Set = func(s *Service, value string) error {
		err := setKill(s, value)
		s.KillGiven = err == nil && value != ""
		return err
	}
	return []Directive{
		kill,
		word("Service", "KillMode", "kill-mode", "which processes get the signals", killModeWords(), "",
			func(s *Service) *KillMode { return &s.KillMode }),
		scalar("Service", "FinalKillSignal", "final-kill-signal", argSignal, "signal that ends what is left after timeout-stop",
			func(s *Service) *syscall.Signal { return &s.FinalSignal }, ParseSignal, SignalName),
		scalar("Service", "SendSIGKILL", "send-sigkill", argBool, "whether what is left after timeout-stop is killed",
			func(s *Service) *bool { return &s.SendSIGKILL }, ParseBool, FormatBool),
		scalar("Service", "SendSIGHUP", "send-sighup", argBool, "whether SIGHUP follows the stop signal at once, for shells",
			func(s *Service) *bool { return &s.SendSIGHUP }, ParseBool, FormatBool),
		scalar("Service", "TimeoutStartSec", "timeout-start", argSpan, "time to become ready; infinity is no limit",
			func(s *Service) *time.Duration { return &s.TimeoutStart }, ParseDuration, formatLimit),
		scalar("Service", "TimeoutStopSec", "timeout-stop", argSpan, "time to stop; infinity is no limit",
			func(s *Service) *time.Duration { return &s.TimeoutStop }, ParseDuration, formatLimit),
		{
			Section: "Service", Name: "TimeoutSec", Arg: argSpan, Help: "both TimeoutStartSec= and TimeoutStopSec=",
			Set: func(s *Service, value string) error {
				if value == "" {
					s.TimeoutStart, s.TimeoutStop = Defaults().TimeoutStart, Defaults().TimeoutStop
					return nil
				}
				d, err := ParseDuration(value)
				if err == nil {
					s.TimeoutStart, s.TimeoutStop = d, d
				}
				return err
			},
		},
		scalar("Service", "TimeoutAbortSec", "timeout-abort", argSpan, "time to end after a watchdog's SIGABRT; that of timeout-stop by default",
			func(s *Service) *time.Duration { return &s.TimeoutAbort }, parseAbort, formatAbort),
		scalar("Service", "WatchdogSec", "watchdog", argSpan, "longest time between two WATCHDOG=1; 0 is off",
			func(s *Service) *time.Duration { return &s.Watchdog }, ParseDuration, FormatDuration),
	}
}

func restartDirectives() []Directive {
	return []Directive{
		word("Service", "Restart", "restart", "which ends lead to a restart", restartWords(), "",
			func(s *Service) *Restart { return &s.Restart }),
		scalar("Service", "RestartSec", "restart-sec", argSpan, "delay of the second restart in a row; the first comes at once",
			func(s *Service) *time.Duration { return &s.RestartSec }, ParseDelay, FormatDuration),
		scalar("Service", "RestartSteps", "restart-steps", argNumber, "steps from restart-sec to restart-max-delay; 0 doubles the delay each time",
			func(s *Service) *int { return &s.RestartSteps }, numberIn(0, math.MaxInt32), strconv.Itoa),
		scalar("Service", "RestartMaxDelaySec", "restart-max-delay", argSpan, "longest delay before a restart",
			func(s *Service) *time.Duration { return &s.RestartMaxDelay }, ParseDelay, FormatDuration),
		scalar("Unit", "StartLimitIntervalSec", "start-limit-interval", argSpan, "time in which start-limit-burst starts are the most; 0 is no limit",
			func(s *Service) *time.Duration { return &s.StartLimitInterval }, ParseDelay, FormatDuration),
		scalar("Unit", "StartLimitBurst", "start-limit-burst", argNumber, "starts within start-limit-interval; 0 is no limit",
			func(s *Service) *int { return &s.StartLimitBurst }, numberIn(0, math.MaxInt32), strconv.Itoa),
		exitSet("SuccessExitStatus", "success-exit-status", "exit statuses and signals that count as success",
			func(s *Service) *ExitSet { return &s.SuccessExit }),
		exitSet("RestartPreventExitStatus", "restart-prevent-exit-status", "exit statuses and signals that prevent a restart",
			func(s *Service) *ExitSet { return &s.RestartPrevent }),
		exitSet("RestartForceExitStatus", "restart-force-exit-status", "exit statuses and signals that force a restart",
			func(s *Service) *ExitSet { return &s.RestartForce }),
	}
}

func listenDirectives() []Directive {
	stream := listenDirective("ListenStream", "tcp or unix stream address", "tcp", "unix")
	stream.Flag = "listen"
	stream.Arg = "[NAME=]ADDRESS[?options]"
	stream.Help = "address to listen on; several may be separated by ';'"
	stream.FromFlag = func(s *Service, value string) error {
		sockets, err := ParseListen(value)
		if err == nil {
			s.Sockets = append(s.Sockets, sockets...)
		}
		return err
	}
	return []Directive{
		stream,
		listenDirective("ListenDatagram", "udp or unix datagram address", "udp", "unixgram"),
		listenDirective("ListenSequentialPacket", "unix seqpacket address", "", "unixpacket"),
	}
}

func ourDirectives() []Directive {
	return []Directive{
		{
			Section: "X-Supervise", Name: "Handoff", Flag: "handoff", Arg: "PROTOCOL,...", Help: "how the command is told of its listeners: " + strings.Join(handoffWords(), ", "),
			Set: setHandoff,
			Get: func(s *Service) []string { return []string{strings.Join(s.Handoff, ",")} },
		},
		{
			Section: "X-Supervise", Name: "Ready", Flag: "ready", Arg: "WHEN", Help: "what says that a generation is ready: auto, notify, listening, exec, a URL, /path, tcp:ADDRESS, exec:COMMAND or delay:SPAN",
			Set: func(s *Service, value string) (err error) {
				ready := Defaults().Ready
				if value != "" {
					ready, err = ParseReady(value)
				}
				if err == nil {
					s.Ready = ready
				}
				return err
			},
			Get: func(s *Service) []string { return []string{s.Ready.String()} },
		},
		scalar("X-Supervise", "GateBoundSec", "gate-bound", argSpan, "longest wait of the gate, and of the shield",
			func(s *Service) *time.Duration { return &s.GateBound }, ParseDelay, FormatDuration),
		scalar("X-Supervise", "SettleSec", "settle", argSpan, "how long a generation must have been seen listening",
			func(s *Service) *time.Duration { return &s.Settle }, ParseDelay, FormatDuration),
		scalar("X-Supervise", "ProbationSec", "probation", argSpan, "how long a new generation must live before the old one is told to stop; 0 is not at all",
			func(s *Service) *time.Duration { return &s.Probation }, ParseDelay, FormatDuration),
		scalar("X-Supervise", "InterceptUDP", "intercept-udp", argBool, "keep the udp ports that the command binds by itself",
			func(s *Service) *bool { return &s.InterceptUDP }, ParseBool, FormatBool),
		scalar("X-Supervise", "Cgroup", "cgroup", argBool, "give each generation a control group where one can be made",
			func(s *Service) *bool { return &s.Cgroup }, ParseBool, FormatBool),
		scalar("X-Supervise", "Output", "output", "inherit|prefix|journal|null|PATH[?options]", "where the command's output goes; options of a file: rotate=SIZE, keep=N, prefix=yes",
			func(s *Service) *string { return &s.Output }, parseOutput, plainText),
		{
			Section: "Service", Name: "StandardOutput", Arg: "inherit|journal|null|append:PATH|truncate:PATH", Help: "Output= in systemd's words",
			read:  readStandardOutput,
			Means: "inherit is the output of the supervisor; file: appends",
		},
	}
}

// scalar makes the directive of one value at one place of a Service. Format gives
// "" for a value that is inherited, for which there is no text.
func scalar[T comparable](section, name, flag, arg, help string,
	at func(*Service) *T, parse func(string) (T, error), format func(T) string,
) Directive {
	return Directive{
		Section: section, Name: name, Flag: flag, Arg: arg, Help: help,
		Set: func(s *Service, value string) error {
			if value == "" {
				defaults := Defaults()
				*at(s) = *at(&defaults)
				return nil
			}
			v, err := parse(value)
			if err == nil {
				*at(s) = v
			}
			return err
		},
		Get: func(s *Service) []string {
			text := format(*at(s))
			if text == "" {
				return nil
			}
			return []string{text}
		},
	}
}

// word makes the directive of one word out of known ones; later are words that
// systemd knows and this package does not.
func word[T ~string](section, name, flag, help string, known []T, later string, at func(*Service) *T) Directive {
	texts := make([]string, len(known))
	for i, k := range known {
		texts[i] = string(k)
	}
	parse := func(s string) (T, error) {
		switch {
		case s == "idle" && name == "Type":
			return T(Simple), nil // simple, a little later
		case slices.Contains(texts, s):
			return T(s), nil
		case slices.Contains(strings.Fields(later), s):
			return "", &UnsupportedError{Name: name + "=" + s}
		}
		return "", fmt.Errorf("cannot read %q: write %s", s, strings.Join(texts, ", "))
	}
	return scalar(section, name, flag, strings.Join(texts, "|"), help, at, parse, func(t T) string { return string(t) })
}

// means adds to a row where it is made.
func (d Directive) means(text string) Directive { d.Means = text; return d }

func typeWords() []Type { return []Type{Auto, Simple, Exec, Notify, NotifyReload, Forking, Oneshot} }

func killModeWords() []KillMode {
	return []KillMode{KillControlGroup, KillMixed, KillProcess, KillNone}
}

func restartWords() []Restart {
	return []Restart{
		RestartNo, RestartAlways, RestartOnSuccess, RestartOnFailure, RestartOnAbnormal, RestartOnAbort, RestartOnWatchdog,
	}
}

// handoffWords are the protocols of --handoff.
func handoffWords() []string {
	return []string{
		"auto", "systemd", "tableflip", "server-starter", "einhorn", "fd", "intercept", "none",
		"nginx", "php-fpm", "unicorn", "puma", "gunicorn", "inetd", "grace", "endless", "overseer", "goagain",
	}
}

func exitSet(name, flag, help string, at func(*Service) *ExitSet) Directive {
	return Directive{
		Section: "Service", Name: name, Flag: flag, Arg: argExitSet, Help: help, Repeat: true,
		Set: func(s *Service, value string) error {
			if value == "" {
				*at(s) = ExitSet{}
				return nil
			}
			set, err := ParseExitSet(value)
			if err == nil {
				*at(s) = at(s).Union(set)
			}
			return err
		},
		Get: func(s *Service) []string {
			if at(s).Empty() {
				return nil
			}
			return []string{at(s).String()}
		},
	}
}

func limitDirective(k limitKind) Directive {
	mine := func(l Limit) bool { return l.Name == k.name }
	return Directive{
		Section: "Service", Name: k.name, Flag: "limit-" + strings.ToLower(strings.TrimPrefix(k.name, "Limit")), Arg: argLimit, Help: "limit of " + k.help,
		Set: func(s *Service, value string) error {
			limit, err := Limit{}, error(nil)
			if value != "" {
				if limit, err = k.parse(value); err != nil {
					return err
				}
			}
			// A new slice: copies of the service share the old one.
			s.Limits = slices.DeleteFunc(slices.Clone(s.Limits), mine)
			if value != "" {
				s.Limits = append(s.Limits, limit)
			}
			return nil
		},
		Get: func(s *Service) []string {
			if i := slices.IndexFunc(s.Limits, mine); i >= 0 {
				return []string{s.Limits[i].String()}
			}
			return nil
		},
	}
}

// listenDirective makes a Listen directive in systemd's own grammar: an address
// without name and options. An empty value drops the sockets of all of them, as
// systemd.socket(5) says.
func listenDirective(name, help, inet, unix string) Directive {
	return Directive{
		Section: "Socket", Name: name, Arg: "ADDRESS", Help: help, Repeat: true,
		Set: func(s *Service, value string) error {
			if value == "" {
				s.Sockets = nil
				return nil
			}
			sockets, err := parseDirectiveAddress(value, inet, unix)
			if err != nil {
				return fmt.Errorf("cannot listen on %q: %w", value, err)
			}
			for i := range sockets {
				sockets[i].Source = name + "=" + value
			}
			s.Sockets = append(s.Sockets, sockets...)
			return nil
		},
		Get: func(s *Service) []string {
			var all []string
			for _, socket := range s.Sockets {
				if n, value := socket.ListenDirective(); n == name {
					all = append(all, value)
				}
			}
			return all
		},
	}
}

// parseDirectiveAddress reads an address of systemd.socket(5): /path, @name,
// PORT, v.w.x.y:PORT, [x]:PORT or vsock:CID:PORT.
func parseDirectiveAddress(value, inet, unix string) ([]Socket, error) {
	switch {
	case value[0] == '/' || value[0] == '@':
		return parseUnix(unix, value)
	case strings.HasPrefix(value, "vsock:"):
		return nil, errors.New("vsock is not supported yet")
	case inet == "":
		return nil, errors.New("this is for unix sockets only; write /run/x.sock or @name")
	case strings.Contains(value, "?") || strings.Contains(value, "="):
		return nil, errors.New("names and options are directives of their own in a unit; with --listen they stand in the address")
	}
	return parseInet(inet, value, "")
}

// readExecStart adds to the commands of the service. One that is no more than
// its words becomes Command.
func readExecStart(r *reading, s *Service, value string) error {
	if value == "" {
		s.Command, s.Start = nil, nil
		return nil
	}
	lines, err := r.parseExec(value)
	if err != nil {
		return err
	}
	all := append(s.ExecStart(), lines...)
	s.Command, s.Start = nil, all
	if len(all) == 1 && all[0].plain() {
		s.Command, s.Start = all[0].words(), nil
	}
	return nil
}

// undouble makes one of each pair of a byte in special: "%%" is "%". What such a
// byte begins otherwise, a specifier or a variable, would reach the command
// unread: an error is better.
func undouble(w, special string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(w); i++ {
		c := w[i]
		b.WriteByte(c)
		if strings.IndexByte(special, c) < 0 {
			continue
		}
		if i+1 == len(w) || w[i+1] != c {
			return "", fmt.Errorf("%w; write %c%c for a plain %c", &UnsupportedError{Name: fmt.Sprintf("%q in %q", c, w)}, c, c, c)
		}
		i++
	}
	return b.String(), nil
}

func readEnvironment(r *reading, s *Service, value string) error {
	if value == "" {
		s.Env = nil
		return nil
	}
	words, err := r.words(value)
	if err != nil {
		return err
	}
	words = slices.DeleteFunc(words, func(w string) bool {
		bad := checkAssignment(w)
		if bad != nil && r.spec != nil { // as systemd does
			r.notice("a word of Environment= is ignored: " + bad.Error())
			return true
		}
		err = cmp.Or(err, bad)
		return false
	})
	if err != nil {
		return err
	}
	s.Env = append(slices.Clip(s.Env), words...)
	return nil
}

func setNice(s *Service, value string) error {
	if value == "" {
		s.Nice = nil
		return nil
	}
	n, err := numberIn(-20, 19)(value)
	if err == nil {
		s.Nice = &n
	}
	return err
}

func setHandoff(s *Service, value string) error {
	if value == "" {
		s.Handoff = Defaults().Handoff
		return nil
	}
	var names []string
	for _, name := range strings.Split(value, ",") {
		name = strings.TrimSpace(name)
		switch {
		case !slices.Contains(handoffWords(), name):
			return fmt.Errorf("%q is no protocol; write %s", name, strings.Join(handoffWords(), ", "))
		case slices.Contains(names, name):
			return fmt.Errorf("%q is given twice", name)
		}
		names = append(names, name)
	}
	s.Handoff = names
	return nil
}

func readStandardOutput(r *reading, s *Service, value string) error {
	text, err := r.expand(value)
	if err != nil {
		return err
	}
	if text == "" {
		s.Output, s.TruncateOut = Defaults().Output, false
		return nil
	}
	target, truncate, err := parseStream(r, "StandardOutput", text)
	if err == nil {
		s.Output, s.TruncateOut = target, truncate
	}
	return err
}

// parseOutput looks whether s can be read.
func parseOutput(s string) (string, error) {
	_, err := ParseOutput(s)
	return s, err
}

// setDir reads WorkingDirectory=.
func setDir(s *Service, value string) error {
	dir, optional := strings.CutPrefix(value, "-")
	switch {
	case optional && dir == "":
		return errors.New("the path after '-' is missing")
	case strings.HasPrefix(dir, "~") && dir != "~":
		return fmt.Errorf("%q is not possible: '~' stands alone, for the home of User=", dir)
	}
	s.Dir, s.DirOptional, s.DirHome = dir, optional, dir == "~"
	return nil
}

func parseUmask(s string) (int, error) {
	m, err := parseMode(s)
	return int(m), err
}

func formatUmask(m int) string {
	if m < 0 {
		return ""
	}
	return fmt.Sprintf("%04o", m)
}

// parseAbort refuses what systemd takes for "no limit", since 0 stands for
// TimeoutStopSec= here: an aborted service that hangs has to end some time.
func parseAbort(s string) (time.Duration, error) {
	d, err := ParseDelay(s)
	if err == nil && d == 0 {
		return 0, errors.New("0 is not possible here; leave it empty for TimeoutStopSec=")
	}
	return d, err
}

// formatAbort has no text for 0, which is TimeoutStopSec=.
func formatAbort(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return FormatDuration(d)
}

func mapSlice[T any](in []T, f func(T) string) []string {
	var out []string
	for _, s := range in {
		out = append(out, f(s))
	}
	return out
}

// didYouMean names the known directive or flag nearest to name, if one is near.
func didYouMean(name string) string {
	fold := func(s string) string { return strings.ReplaceAll(strings.ToLower(s), "-", "") }
	best, distance := "", 1+len(name)/3
	consider := func(candidate, shown string) {
		if n := editDistance(fold(name), fold(candidate)); n < distance {
			best, distance = shown, n
		}
	}
	for _, d := range Directives() {
		consider(d.Name, d.Name+"=")
		if d.Flag != "" {
			consider(d.Flag, d.Name+"= (--"+d.Flag+")")
		}
	}
	for _, o := range socketOptions() {
		consider(o.directive, o.directive+"= of a socket")
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}

// editDistance counts the letters to insert, drop or change between a and b.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
