package config

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
)

// exitName is a name for an exit status.
type exitName struct {
	name   string
	status int
}

// exitNames are the names of systemd.exec(5), section "process exit codes": of
// the C library, the LSB, sysexits.h and systemd itself, without EXIT_ or EX_.
func exitNames() []exitName {
	return []exitName{
		{"SUCCESS", 0},
		{"FAILURE", 1},
		{"INVALIDARGUMENT", 2},
		{"NOTIMPLEMENTED", 3},
		{"NOPERMISSION", 4},
		{"NOTINSTALLED", 5},
		{"NOTCONFIGURED", 6},
		{"NOTRUNNING", 7},
		{"USAGE", 64},
		{"DATAERR", 65},
		{"NOINPUT", 66},
		{"NOUSER", 67},
		{"NOHOST", 68},
		{"UNAVAILABLE", 69},
		{"SOFTWARE", 70},
		{"OSERR", 71},
		{"OSFILE", 72},
		{"CANTCREAT", 73},
		{"IOERR", 74},
		{"TEMPFAIL", 75},
		{"PROTOCOL", 76},
		{"NOPERM", 77},
		{"CONFIG", 78},
		{"CHDIR", 200},
		{"NICE", 201},
		{"FDS", 202},
		{"EXEC", 203},
		{"MEMORY", 204},
		{"LIMITS", 205},
		{"OOM_ADJUST", 206},
		{"SIGNAL_MASK", 207},
		{"STDIN", 208},
		{"STDOUT", 209},
		{"CHROOT", 210},
		{"IOPRIO", 211},
		{"TIMERSLACK", 212},
		{"SECUREBITS", 213},
		{"SETSCHEDULER", 214},
		{"CPUAFFINITY", 215},
		{"GROUP", 216},
		{"USER", 217},
		{"CAPABILITIES", 218},
		{"CGROUP", 219},
		{"SETSID", 220},
		{"CONFIRM", 221},
		{"STDERR", 222},
		{"PAM", 224},
		{"NETWORK", 225},
		{"NAMESPACE", 226},
		{"NO_NEW_PRIVILEGES", 227},
		{"SECCOMP", 228},
		{"SELINUX_CONTEXT", 229},
		{"PERSONALITY", 230},
		{"APPARMOR", 231},
		{"ADDRESS_FAMILIES", 232},
		{"RUNTIME_DIRECTORY", 233},
		{"CHOWN", 235},
		{"SMACK_PROCESS_LABEL", 236},
		{"KEYRING", 237},
		{"STATE_DIRECTORY", 238},
		{"CACHE_DIRECTORY", 239},
		{"LOGS_DIRECTORY", 240},
		{"CONFIGURATION_DIRECTORY", 241},
		{"NUMA_POLICY", 242},
		{"CREDENTIALS", 243},
		{"BPF", 244},
		{"EXCEPTION", 255},
	}
}

// ParseExitSet reads SuccessExitStatus= and its like (systemd.service(5)):
// exit statuses 0 to 255, their names, and names of signals, separated by white
// space. A plain number is a status, never a signal. "" is the empty set.
func ParseExitSet(s string) (ExitSet, error) {
	var set ExitSet
	for _, word := range strings.Fields(s) {
		if err := set.add(word); err != nil {
			return ExitSet{}, err
		}
	}
	return set, nil
}

func (e *ExitSet) add(word string) error {
	if word[0] >= '0' && word[0] <= '9' || word[0] == '-' || word[0] == '+' {
		n, err := strconv.ParseUint(word, 10, 8)
		if err != nil {
			return fmt.Errorf("cannot read %q as an exit status: numbers go from 0 to 255", word)
		}
		e.Status[n] = true
		return nil
	}
	bare := strings.TrimPrefix(strings.TrimPrefix(word, "EXIT_"), "EX_")
	for _, n := range exitNames() {
		if n.name != bare {
			continue
		}
		if bare != word {
			return fmt.Errorf("cannot read %q as an exit status: write %s, as systemd.exec(5) does in this place", word, bare)
		}
		e.Status[n.status] = true
		return nil
	}
	sig, err := ParseSignal(word)
	if err != nil {
		return fmt.Errorf("cannot read %q as an exit status: write a number from 0 to 255, a name such as TEMPFAIL, or a signal such as SIGTERM", word)
	}
	e.Signals[sig] = true
	return nil
}

// Union gives the statuses and signals that are in e, in other, or in both.
func (e ExitSet) Union(other ExitSet) ExitSet {
	for i, in := range other.Status {
		e.Status[i] = e.Status[i] || in
	}
	for i, in := range other.Signals {
		e.Signals[i] = e.Signals[i] || in
	}
	return e
}

// Contains says whether an end is in the set: by sig if that is not 0, else by
// the exit status.
func (e ExitSet) Contains(status int, sig syscall.Signal) bool {
	if sig != 0 {
		return sig > 0 && int(sig) < len(e.Signals) && e.Signals[sig]
	}
	return status >= 0 && status < len(e.Status) && e.Status[status]
}

// Empty says whether nothing is in the set.
func (e ExitSet) Empty() bool { return e == ExitSet{} }

// String writes the set so that ParseExitSet reads it back: statuses as numbers
// in rising order, then signals.
func (e ExitSet) String() string {
	var words []string
	for i, in := range e.Status {
		if in {
			words = append(words, strconv.Itoa(i))
		}
	}
	for i, in := range e.Signals {
		name := SignalName(syscall.Signal(i))
		// 32 and 33 belong to the threads library and have no name; as
		// numbers they would be read back as statuses.
		if in && strings.HasPrefix(name, "SIG") {
			words = append(words, name)
		}
	}
	return strings.Join(words, " ")
}
