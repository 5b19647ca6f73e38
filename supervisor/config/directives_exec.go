package config

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// execDirectives are what unit files say and no flag does: commands around the
// main one, what a process is given and what is taken from it, and the words of
// systemd for what is late, dead or left over. Each has --set.
func execDirectives() []Directive {
	list := []Directive{
		execDirective("ExecCondition", "command before all others; exit status 1 to 254 skips the start", func(s *Service) *[]ExecLine { return &s.Condition }),
		execDirective("ExecStartPre", "command before ExecStart=", func(s *Service) *[]ExecLine { return &s.StartPre }),
		execDirective("ExecStartPost", "command after the service is ready", func(s *Service) *[]ExecLine { return &s.StartPost }),
		execDirective("ExecReload", "command that reloads; MAINPID is in the environment", func(s *Service) *[]ExecLine { return &s.Reload }),
		execDirective("ExecStop", "command that stops what has started, before KillSignal=", func(s *Service) *[]ExecLine { return &s.Stop }),
		execDirective("ExecStopPost", "command after every end", func(s *Service) *[]ExecLine { return &s.StopPost }),

		nameList("PassEnvironment", "NAME...", "variables of the supervisor that are passed on", func(s *Service) *[]string { return &s.PassEnv }, checkPassed),
		nameList("UnsetEnvironment", "NAME|NAME=VALUE...", "variables that are taken away at the end", func(s *Service) *[]string { return &s.UnsetEnv }, checkUnset),
		nameList("SupplementaryGroups", "GROUP...", "groups besides those of the user", func(s *Service) *[]string { return &s.ExtraGroups }, func(w string) error {
			_, err := parseOwner(w)
			return err
		}),
		setting("OOMScoreAdjust", argNumber, "how soon the kernel kills it when memory is short, -1000 (never) to 1000",
			func(s *Service) *(*int) { return &s.OOMScore },
			func(text string) (*int, error) {
				n, err := numberIn(-1000, 1000)(text)
				return &n, err
			},
			func(n *int) string {
				if n == nil {
					return ""
				}
				return strconv.Itoa(*n)
			}),
		setting("NoNewPrivileges", argBool, "no setuid program elevates", func(s *Service) *bool { return &s.NoNewPrivs }, ParseBool, FormatBool),
		boundingDirective(),
		ambientDirective(),
		setting("IgnoreSIGPIPE", argBool, "begin with SIGPIPE ignored", func(s *Service) *bool { return &s.IgnorePipe }, ParseBool, FormatBool),
		wordOf("RuntimeDirectoryPreserve", "whether the runtime directories stay when the service stops", []PreserveMode{PreserveNo, PreserveYes, PreserveRestart},
			func(s *Service) *PreserveMode { return &s.DirPreserve }),

		setting("RemainAfterExit", argBool, "still up when its processes have exited", func(s *Service) *bool { return &s.RemainExited }, ParseBool, FormatBool),
		wordOf("ExitType", "whose exit is the service's: the main process's, or that of the last of all", []ExitType{ExitMain, ExitCgroup}, func(s *Service) *ExitType { return &s.ExitType }),
		scalar("Service", "PIDFile", "pid-file", argPath, "file with the pid of the main process, of a server that goes into the background or upgrades itself", func(s *Service) *string { return &s.PIDFile }, parsePIDFile, plainText),
		setting("GuessMainPID", argBool, "guess the main process of Type=forking without PIDFile=", func(s *Service) *bool { return &s.GuessMain }, ParseBool, FormatBool),
		wordOf("NotifyAccess", "whose notify messages count", []NotifyAccess{NotifyNone, NotifyMain, NotifyExec, NotifyAll}, func(s *Service) *NotifyAccess { return &s.NotifyAccess }),
		setting("ReloadSignal", argSignal, "signal that reloads Type=notify-reload", func(s *Service) *syscall.Signal { return &s.ReloadSignal }, ParseSignal, SignalName),
		setting("RuntimeMaxSec", argSpan, "longest time that it may be up; infinity is no limit", func(s *Service) *time.Duration { return &s.RuntimeMax }, ParseDuration, formatLimit),
		setting("RuntimeRandomizedExtraSec", argSpan, "up to this is added to RuntimeMaxSec= at random", func(s *Service) *time.Duration { return &s.RuntimeRandom }, ParseDelay, FormatDuration),
		setting("RestartKillSignal", argSignal, "KillSignal= of a restart", func(s *Service) *syscall.Signal { return &s.RestartSignal }, ParseSignal, formatSignal),
		setting("WatchdogSignal", argSignal, "signal that ends a service whose WATCHDOG=1 is late", func(s *Service) *syscall.Signal { return &s.WatchdogSignal }, ParseSignal, SignalName),
		wordOf("TimeoutStartFailureMode", "how a start that takes too long is ended", failureWords(), func(s *Service) *FailureMode { return &s.StartFailure }),
		wordOf("TimeoutStopFailureMode", "how a stop that takes too long is ended", failureWords(), func(s *Service) *FailureMode { return &s.StopFailure }),
		wordOf("RestartMode", "whether units that depend on it see the failure before a restart", []RestartMode{RestartNormal, RestartDirect}, func(s *Service) *RestartMode { return &s.RestartMode }).
			means("both are direct: others see a failure only where no restart follows"),

		{
			Section: "Service", Name: "StandardInput", Arg: "null|inherit|socket|file:PATH", Help: "what the command reads; inherit is no word of systemd",
			Set: setStandardInput,
			Get: func(s *Service) []string { return []string{formatStream(s.Input)} },
		},
		{
			Section: "Service", Name: "StandardError", Arg: "inherit|journal|null|append:PATH", Help: "where the command's errors go where that is not StandardOutput=",
			read: func(r *reading, s *Service, value string) error {
				text, err := r.expand(value)
				if err != nil {
					return err
				}
				s.ErrorOutput, err = "", nil
				if text != "" && text != "inherit" {
					s.ErrorOutput, _, err = parseStream(r, "StandardError", text)
				}
				return err
			},
			Get: func(s *Service) []string {
				if s.ErrorOutput == "" {
					return nil
				}
				return []string{strings.ReplaceAll(formatStream(s.ErrorOutput), "%", "%%")}
			},
		},
		setting("SyslogIdentifier", "WORD", "the word before each line where lines are marked", func(s *Service) *string { return &s.SyslogIdent }, func(text string) (string, error) { return text, nil }, plainText),
		setting("SyslogLevelPrefix", argBool, `"<3>" before a line is its level`, func(s *Service) *bool { return &s.LevelPrefix }, ParseBool, FormatBool),
		ours2(setting("RestartBackoff", argBool, "the first restart at once, then from RestartSec= doubling to RestartMaxDelaySec=", func(s *Service) *bool { return &s.RestartBackoff }, ParseBool, FormatBool)),
		ours2(setting("Instances", argNumber, "generations that serve side by side", func(s *Service) *int { return &s.Instances }, numberIn(1, 1024), strconv.Itoa)),
		ours2(setting("RolloutBatch", argNumber, "how many instances are replaced at a time", func(s *Service) *int { return &s.RolloutBatch }, numberIn(1, 1024), strconv.Itoa)),
		ours2(setting("InheritEnvironment", argBool, "the supervisor's own environment is below Environment=", func(s *Service) *bool { return &s.InheritEnv }, ParseBool, FormatBool)),
	}
	list[indexOf(list, "Instances")].Flag = "instances"
	list[indexOf(list, "RolloutBatch")].Flag = "rollout-batch"
	// What the supervisor does not carry out yet.
	for _, name := range []string{
		"ExitType", "SyslogLevelPrefix",
	} {
		list[indexOf(list, name)].Support = Pending
	}
	return append(list, directoryDirectives()...)
}

func indexOf(list []Directive, name string) int {
	return slices.IndexFunc(list, func(d Directive) bool { return d.Name == name })
}

// ours2 moves a directive to the section that systemd ignores.
func ours2(d Directive) Directive {
	d.Section = "X-Supervise"
	return d
}

// setting is scalar for a directive of [Service] without a flag.
func setting[T comparable](name, arg, help string, at func(*Service) *T, parse func(string) (T, error), format func(T) string) Directive {
	return scalar("Service", name, "", arg, help, at, parse, format)
}

func wordOf[T ~string](name, help string, known []T, at func(*Service) *T) Directive {
	return word("Service", name, "", help, known, "", at)
}

func failureWords() []FailureMode { return []FailureMode{FailTerminate, FailAbort, FailKill} }

func formatSignal(sig syscall.Signal) string {
	if sig == 0 {
		return ""
	}
	return SignalName(sig)
}

// execDirective makes the directive of a list of command lines.
func execDirective(name, help string, at func(*Service) *[]ExecLine) Directive {
	return Directive{
		Section: "Service", Name: name, Arg: "COMMAND", Help: help, Repeat: true,
		read: func(r *reading, s *Service, value string) error {
			if value == "" {
				*at(s) = nil
				return nil
			}
			lines, err := r.parseExec(value)
			if err == nil {
				*at(s) = append(slices.Clip(*at(s)), lines...)
			}
			return err
		},
		Get: func(s *Service) []string { return mapSlice(*at(s), formatExec) },
	}
}

// nameList makes the directive of a list of words.
func nameList(name, arg, help string, at func(*Service) *[]string, check func(string) error) Directive {
	return Directive{
		Section: "Service", Name: name, Arg: arg, Help: help, Repeat: true,
		read: func(r *reading, s *Service, value string) error {
			if value == "" {
				*at(s) = nil
				return nil
			}
			words, err := r.words(value)
			if err != nil {
				return err
			}
			for _, w := range words {
				if err := check(w); err != nil {
					return err
				}
			}
			*at(s) = append(slices.Clip(*at(s)), words...)
			return nil
		},
		Get: func(s *Service) []string {
			if len(*at(s)) == 0 {
				return nil
			}
			return []string{strings.ReplaceAll(JoinWords(*at(s)), "%", "%%")}
		},
	}
}

func checkPassed(name string) error {
	if !validEnvName(name) {
		return fmt.Errorf("%q is no name of a variable: names have letters, digits and '_'", name)
	}
	return nil
}

func checkUnset(word string) error {
	if strings.Contains(word, "=") {
		return checkAssignment(word)
	}
	return checkPassed(word)
}

func parsePIDFile(s string) (string, error) {
	switch {
	case s[0] != '/' && slices.Contains(strings.Split(s, "/"), ".."):
		return "", fmt.Errorf("the path %q leads out of /run", s)
	case s[0] != '/':
		return "/run/" + s, nil // as systemd.service(5) says
	}
	return path.Clean(s), nil
}

// boundingDirective is CapabilityBoundingSet=, whose empty value is the empty set.
func boundingDirective() Directive {
	return Directive{
		Section: "Service", Name: "CapabilityBoundingSet", Arg: "[~]CAPABILITY...", Help: "the most capabilities that it can ever have; '~' in front: all but these", Repeat: true,
		Set: func(s *Service, value string) error {
			set, invert, err := ParseCaps(value)
			if err != nil {
				return err
			}
			old := AllCaps()
			if s.Bounding != nil {
				old = *s.Bounding
			}
			mergeCaps(&old, AllCaps(), set, invert)
			s.Bounding = &old
			return nil
		},
		Get: func(s *Service) []string {
			if s.Bounding == nil {
				return nil
			}
			return []string{s.Bounding.String()}
		},
	}
}

func ambientDirective() Directive {
	return Directive{
		Section: "Service", Name: "AmbientCapabilities", Arg: "[~]CAPABILITY...", Help: "capabilities that it has although its user is not root", Repeat: true,
		Set: func(s *Service, value string) error {
			set, invert, err := ParseCaps(value)
			if err == nil {
				mergeCaps(&s.Ambient, 0, set, invert)
			}
			return err
		},
		Get: func(s *Service) []string {
			if s.Ambient == 0 {
				return nil
			}
			return []string{s.Ambient.String()}
		},
	}
}

// mergeCaps adds a value to a set as systemd does: the first one, and an empty
// one, replace what there is, later ones add or, with '~', take away.
func mergeCaps(have *CapSet, initial, set CapSet, invert bool) {
	switch {
	case set == 0 || *have == initial:
		*have = set
		if invert {
			*have = AllCaps() &^ set
		}
	case invert:
		*have &^= set
	default:
		*have |= set
	}
}

// directoryKind is one of the directories that systemd.exec(5) makes.
type directoryKind struct {
	name, env string
	root      byte // the specifier of the directory above
	links     bool
	help      string
}

func directoryKinds() []directoryKind {
	return []directoryKind{
		{"RuntimeDirectory", "RUNTIME_DIRECTORY", 't', true, "/run; removed when the service stops"},
		{"StateDirectory", "STATE_DIRECTORY", 'S', true, "/var/lib"},
		{"CacheDirectory", "CACHE_DIRECTORY", 'C', true, "/var/cache"},
		{"LogsDirectory", "LOGS_DIRECTORY", 'L', true, "/var/log"},
		{"ConfigurationDirectory", "CONFIGURATION_DIRECTORY", 'E', false, "/etc"},
	}
}

func directoryDirectives() []Directive {
	var list []Directive
	for _, k := range directoryKinds() {
		list = append(list, k.directive(), k.mode())
	}
	return list
}

// of finds the Directory of this kind, or makes it at its place.
func (k directoryKind) of(s *Service) *Directory {
	for i := range s.Directories {
		if s.Directories[i].Kind == k.name {
			return &s.Directories[i]
		}
	}
	// A new slice: copies of the service share the old one.
	s.Directories = append(slices.Clone(s.Directories), Directory{Kind: k.name, Env: k.env, Mode: 0o755})
	slices.SortFunc(s.Directories, func(a, b Directory) int { return directoryRank(a.Kind) - directoryRank(b.Kind) })
	return k.of(s)
}

func directoryRank(name string) int {
	return slices.IndexFunc(directoryKinds(), func(k directoryKind) bool { return k.name == name })
}

// tidy takes the Directory away again if it says nothing.
func (k directoryKind) tidy(s *Service) {
	s.Directories = slices.DeleteFunc(slices.Clone(s.Directories), func(d Directory) bool {
		return len(d.Names) == 0 && d.Mode == 0o755
	})
	if len(s.Directories) == 0 {
		s.Directories = nil
	}
}

func (k directoryKind) directive() Directive {
	return Directive{
		Section: "Service", Name: k.name, Arg: "NAME...", Help: "directories made for it below " + k.help, Repeat: true,
		read: func(r *reading, s *Service, value string) error {
			if value == "" {
				d := k.of(s)
				d.Names, d.Links = nil, nil
				k.tidy(s)
				return nil
			}
			words, err := r.words(value)
			if err != nil {
				return err
			}
			var names, links []string
			for _, w := range words {
				name, link, hasLink := strings.Cut(w, ":")
				if err := checkSubdirectory(name); err != nil {
					return err
				}
				names = append(names, path.Clean(name))
				if !hasLink || link == "" {
					continue
				}
				if !k.links || strings.Contains(link, ":") {
					return fmt.Errorf("%q is not possible: write NAME or, but for the configuration, NAME:LINK", w)
				}
				if err := checkSubdirectory(link); err != nil {
					return err
				}
				links = append(links, path.Clean(name)+":"+path.Clean(link))
			}
			h := host{getenv: func(string) string { return "" }}
			if r.spec != nil {
				h = r.spec.host
			}
			root, err := h.root(k.root)
			if err != nil {
				return err
			}
			d := k.of(s)
			d.Root = root
			d.Names = append(slices.Clip(d.Names), names...)
			d.Links = append(slices.Clip(d.Links), links...)
			return nil
		},
		Get: func(s *Service) []string {
			i := slices.IndexFunc(s.Directories, func(d Directory) bool { return d.Kind == k.name })
			if i < 0 || len(s.Directories[i].Names) == 0 {
				return nil
			}
			d := s.Directories[i]
			words := slices.Clone(d.Names)
			for j, name := range words {
				for _, l := range d.Links {
					if strings.HasPrefix(l, name+":") {
						words[j] = l
					}
				}
			}
			return []string{strings.ReplaceAll(JoinWords(words), "%", "%%")}
		},
	}
}

func (k directoryKind) mode() Directive {
	return Directive{
		Section: "Service", Name: k.name + "Mode", Arg: argMode, Help: "access mode of " + k.name + "=, in octal",
		Set: func(s *Service, value string) error {
			mode := fs.FileMode(0o755)
			if value != "" {
				var err error
				if mode, err = parseWholeMode(value); err != nil {
					return err
				}
			}
			k.of(s).Mode = mode
			k.tidy(s)
			return nil
		},
		Get: func(s *Service) []string {
			mode := fs.FileMode(0o755)
			if i := slices.IndexFunc(s.Directories, func(d Directory) bool { return d.Kind == k.name }); i >= 0 {
				mode = s.Directories[i].Mode
			}
			return []string{formatMode(mode)}
		},
	}
}

// parseWholeMode reads the mode of a directory, with setuid, setgid and sticky
// bits where chmod(2) has them.
func parseWholeMode(s string) (fs.FileMode, error) {
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n > 0o7777 {
		return 0, fmt.Errorf("cannot read %q as an access mode: write octal digits from 0000 to 7777", s)
	}
	return fs.FileMode(n), nil
}

// checkSubdirectory refuses what leads out of the directory above.
func checkSubdirectory(name string) error {
	switch {
	case name == "" || name == "." || name[0] == '/' || slices.Contains(strings.Split(name, "/"), ".."):
		return fmt.Errorf("%q is no relative path: write a name such as web, or web/cache", name)
	case len(name) > math.MaxUint8 || strings.IndexByte(name, 0) >= 0:
		return fmt.Errorf("%q is no name of a directory", shorten(name))
	}
	return nil
}

// Paths are the directories, whole.
func (d Directory) Paths() []string {
	return mapSlice(d.Names, func(name string) string { return path.Join(d.Root, name) })
}

// Variable is what tells the service of its directories: "STATE_DIRECTORY=/a:/b".
func (d Directory) Variable() string { return d.Env + "=" + strings.Join(d.Paths(), ":") }

func setStandardInput(s *Service, value string) error {
	kind, rest, hasPath := strings.Cut(value, ":")
	switch {
	case value == "":
		s.Input = Defaults().Input
	case value == "null" || value == "inherit" || value == "socket":
		s.Input = value
	case kind == "file" && hasPath:
		if !path.IsAbs(rest) {
			return fmt.Errorf("the path %q is not absolute", rest)
		}
		s.Input = rest
	case slices.Contains([]string{"tty", "tty-force", "tty-fail", "data", "fd"}, kind):
		return &UnsupportedError{Name: "StandardInput=" + value}
	default:
		return fmt.Errorf("cannot read %q: write null, socket or file:/path", value)
	}
	return nil
}

// parseStream reads the value of StandardOutput= and StandardError=.
func parseStream(r *reading, name, value string) (target string, truncate bool, err error) {
	kind, rest, hasPath := strings.Cut(value, ":")
	switch {
	case value == "inherit" || value == "null" || value == "journal" || value == "socket":
		return value, false, nil
	case slices.Contains([]string{"journal+console", "syslog", "syslog+console", "kmsg", "kmsg+console"}, value):
		if value != "syslog" {
			r.notice(fmt.Sprintf("%s=%s is taken for %s=journal", name, value, name))
		}
		return "journal", false, nil
	case (kind == "file" || kind == "append" || kind == "truncate") && hasPath:
		if !path.IsAbs(rest) {
			return "", false, fmt.Errorf("the path %q is not absolute", rest)
		}
		return rest, kind == "truncate", nil
	case kind == "tty" || kind == "fd":
		return "", false, &UnsupportedError{Name: name + "=" + value}
	}
	return "", false, errors.New("cannot read " + strconv.Quote(value) + ": write inherit, null, journal, append:/path or truncate:/path")
}

// formatStream writes a target so that parseStream reads it back.
func formatStream(target string) string {
	if path.IsAbs(target) {
		return "file:" + target
	}
	return target
}
