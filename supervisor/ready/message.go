package ready

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Message is one datagram of sd_notify(3). A field that the sender did not
// mention, or gave an invalid value for, has its zero value; the latter is told
// in Problems. The rules are those of systemd's service.c: of READY, RELOADING
// and STOPPING the last one counts; of all others the first.
type Message struct {
	PID int    // sender, by SCM_CREDENTIALS; 0: not visible from our pid namespace
	UID uint32 // sender's real uid

	Ready, Reloading, Stopping bool   // at most one of them
	MonotonicUsec              uint64 // MONOTONIC_USEC=, CLOCK_MONOTONIC in µs, with Reloading

	Status       *string // STATUS=, "" clears it
	Errno        int     // ERRNO=, 0 if not given
	BusError     string
	VarlinkError string
	ExitStatus   *uint8 // EXIT_STATUS=

	MainPID     int    // MAINPID=
	MainPIDFD   bool   // MAINPIDFD=1: Files[0] is said to be a pidfd of the main process
	MainPIDFDID uint64 // MAINPIDFDID=, inode of that pidfd, 0 if not given

	Watchdog        bool          // WATCHDOG=1: a sign of life
	WatchdogTrigger bool          // WATCHDOG=trigger: act as if it had expired
	WatchdogUsec    *uint64       // WATCHDOG_USEC=, new interval in µs
	ExtendTimeout   time.Duration // EXTEND_TIMEOUT_USEC=, 0 if not given
	NotifyAccess    string        // NOTIFYACCESS=: "none", "main", "exec", "all"
	RestartReset    bool          // RESTART_RESET=1
	Barrier         bool          // BARRIER=1: answered by Close

	FDStore       bool   // FDSTORE=1, with Files
	FDStoreRemove bool   // FDSTOREREMOVE=1, with FDName
	FDName        string // FDNAME=
	FDPoll        bool   // false after FDPOLL=0; true otherwise where FDStore is

	Files    []int    // received fds, close-on-exec; set to nil what is taken over
	Unknown  []string // assignments that nobody here understands (X_... and newer ones)
	Problems []string // what was ignored, and why, in words for a log
	Raw      string   // the datagram

	noPoll bool // FDPOLL=0
}

// Close closes every received fd that is still in Files. For BARRIER=1 this is
// the answer, so it comes after everything received before was acted upon.
func (m *Message) Close() {
	for _, fd := range m.Files {
		unix.Close(fd)
	}
	m.Files = nil
}

func (m *Message) problem(format string, args ...any) {
	m.Problems = append(m.Problems, fmt.Sprintf(format, args...))
}

// parseMessage reads the text of a datagram that came with nfiles descriptors.
func parseMessage(b []byte, nfiles int) Message {
	var m Message
	b = bytes.TrimSuffix(b, []byte{0}) // systemd permits one
	m.Raw = string(b)
	if len(b) == 0 {
		m.problem("empty: ignored")
		return m
	}
	if bytes.IndexByte(b, 0) >= 0 {
		m.problem("NUL within the text: ignored")
		return m
	}
	lines := strings.FieldsFunc(m.Raw, func(r rune) bool { return r == '\n' || r == '\r' })

	// A barrier speaks for nothing but itself (manager_process_barrier_fd).
	for _, l := range lines {
		if l != "BARRIER=1" {
			continue
		}
		switch {
		case len(lines) > 1:
			m.problem("BARRIER=1 together with other assignments: all ignored")
		case nfiles != 1:
			m.problem("BARRIER=1 with %d descriptors instead of one: ignored", nfiles)
		default:
			m.Barrier = true
		}
		return m
	}

	seen := make(map[string]bool, len(lines))
	for _, l := range lines {
		key, value, ok := strings.Cut(l, "=")
		if !ok || key == "" {
			m.problem("not an assignment: %s", excerpt(l))
			continue
		}
		switch key {
		case "READY", "RELOADING", "STOPPING":
			if value != "1" {
				m.problem("%s is not 1: %s", key, excerpt(value))
				continue
			}
			m.Ready, m.Reloading, m.Stopping = key == "READY", key == "RELOADING", key == "STOPPING"
			continue
		}
		if seen[key] {
			m.problem("%s given again: ignored", excerpt(key))
			continue
		}
		seen[key] = true
		m.assign(key, value, l, nfiles)
	}
	m.finish(nfiles)
	return m
}

// assign takes in one assignment whose key came for the first time.
func (m *Message) assign(key, value, line string, nfiles int) {
	number := func(bits int) (uint64, bool) {
		n, err := strconv.ParseUint(value, 10, bits)
		if err != nil {
			m.problem("%s is no number in range: %s", key, excerpt(value))
			return 0, false
		}
		return n, true
	}
	one := func() bool {
		if value != "1" {
			m.problem("%s is not 1: %s", key, excerpt(value))
		}
		return value == "1"
	}
	switch key {
	case "MONOTONIC_USEC":
		m.MonotonicUsec, _ = number(64)
	case "STATUS":
		if !utf8.ValidString(value) {
			m.problem("STATUS is not UTF-8: ignored")
			return
		}
		m.Status = &value
	case "ERRNO":
		// 4095 is MAX_ERRNO of the kernel.
		if n, ok := number(12); ok {
			m.Errno = int(n)
		}
	case "BUSERROR", "VARLINKERROR":
		if value == "" || strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' }) {
			m.problem("%s is no error name: %s", key, excerpt(value))
			return
		}
		if key == "BUSERROR" {
			m.BusError = value
		} else {
			m.VarlinkError = value
		}
	case "EXIT_STATUS":
		if n, ok := number(8); ok {
			s := uint8(n)
			m.ExitStatus = &s
		}
	case "MAINPID":
		n, ok := number(31)
		if ok && n <= 1 {
			m.problem("MAINPID cannot be %d", n)
			return
		}
		m.MainPID = int(n)
	case "MAINPIDFD":
		if one() {
			if nfiles != 1 {
				m.problem("MAINPIDFD=1 with %d descriptors instead of one: ignored", nfiles)
				return
			}
			m.MainPIDFD = true
		}
	case "MAINPIDFDID":
		m.MainPIDFDID, _ = number(64)
	case "WATCHDOG":
		switch value {
		case "1":
			m.Watchdog = true
		case "trigger":
			m.WatchdogTrigger = true
		default:
			m.problem("WATCHDOG is neither 1 nor trigger: %s", excerpt(value))
		}
	case "WATCHDOG_USEC":
		if n, ok := number(64); ok {
			m.WatchdogUsec = &n
		}
	case "EXTEND_TIMEOUT_USEC":
		if n, ok := number(64); ok {
			m.ExtendTimeout = usec(n)
		}
	case "NOTIFYACCESS":
		switch value {
		case "none", "main", "exec", "all":
			m.NotifyAccess = value
		default:
			m.problem("NOTIFYACCESS is none of none, main, exec, all: %s", excerpt(value))
		}
	case "RESTART_RESET":
		m.RestartReset = one()
	case "FDSTORE":
		m.FDStore = one()
	case "FDSTOREREMOVE":
		m.FDStoreRemove = one()
	case "FDNAME":
		if !validFDName(value) {
			m.problem("FDNAME is no name for a descriptor: %s", excerpt(value))
			return
		}
		m.FDName = value
	case "FDPOLL":
		if value != "0" && value != "1" {
			m.problem("FDPOLL is neither 0 nor 1: %s", excerpt(value))
			return
		}
		m.noPoll = value == "0"
	default:
		m.Unknown = append(m.Unknown, line)
	}
}

// finish checks what depends on several assignments.
func (m *Message) finish(nfiles int) {
	m.FDPoll = m.FDStore && !m.noPoll
	if m.FDStoreRemove {
		m.FDStore, m.FDPoll = false, false // removal wins, as in systemd
		if m.FDName == "" {
			m.FDStoreRemove = false
			m.problem("FDSTOREREMOVE=1 without a valid FDNAME: ignored")
		}
	}
	if m.FDStore && nfiles == 0 {
		m.FDStore, m.FDPoll = false, false
		m.problem("FDSTORE=1 without descriptors: ignored")
	}
	if m.MonotonicUsec != 0 && !m.Reloading {
		m.MonotonicUsec = 0 // means something only with RELOADING=1
	}
}

// validFDName is the rule of sd_listen_fds_with_names(3): ASCII without control
// characters and without ':', at most 255 long.
func validFDName(s string) bool {
	return s != "" && len(s) <= 255 && !strings.ContainsFunc(s, func(r rune) bool {
		return r < ' ' || r > '~' || r == ':'
	})
}

// usec turns µs into a Duration; what does not fit, as systemd's USEC_INFINITY,
// is the largest one.
func usec(n uint64) time.Duration {
	if n > math.MaxInt64/1000 {
		return math.MaxInt64
	}
	return time.Duration(n) * time.Microsecond
}

// excerpt makes foreign text fit for a log line.
func excerpt(s string) string {
	const limit = 64
	if len(s) > limit {
		return strconv.QuoteToASCII(s[:limit]) + "..."
	}
	return strconv.QuoteToASCII(s)
}

func itoa(n int) string { return strconv.Itoa(n) }
