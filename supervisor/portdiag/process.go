package portdiag

import (
	"bytes"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Process is one process as /proc shows it at one moment. Fields that could
// not be read are zero; Exe and Dir of another user's process need privilege.
type Process struct {
	PID     int       `json:"pid"`
	PPID    int       `json:"ppid"`
	Comm    string    `json:"comm"`
	Args    []string  `json:"args,omitempty"`
	Exe     string    `json:"exe,omitempty"`
	Deleted bool      `json:"exe_deleted,omitempty"` // the executable file was removed or replaced since the start
	Dir     string    `json:"dir,omitempty"`
	UID     uint32    `json:"uid"` // effective
	User    string    `json:"user"`
	State   string    `json:"state"` // one letter of proc_pid_stat(5): R, S, D, T, t, Z, ...
	Started time.Time `json:"started,omitzero"`
	Threads int       `json:"threads,omitempty"`
	FDs     []int     `json:"fds,omitempty"` // the descriptors that are the socket asked about

	poller        poller // how it waits, of a holder
	pgrp, session int
	tty           int
	ticks         uint64 // start time in clock ticks since boot: with the pid, the identity of the process
}

// clockTicks is USER_HZ, the unit of times in /proc: 100 on every Linux
// architecture that we build for.
const clockTicks = 100

// readProcess reads /proc/PID. The error is that of the file without which
// nothing is known, /proc/PID/stat: fs.ErrNotExist when the process is gone.
func readProcess(pid int) (Process, error) {
	p, err := readBrief(pid)
	if err != nil {
		return p, err
	}
	dir := "/proc/" + strconv.Itoa(pid)
	p.Dir, _ = os.Readlink(dir + "/cwd")
	// The directory belongs to root when the process is not dumpable; its
	// status file has the uid all the same.
	if raw, err := os.ReadFile(dir + "/status"); err == nil {
		p.UID = statusUID(raw)
	}
	p.User = userName(p.UID)
	return p, nil
}

// readBrief is readProcess without user and directory: cheap enough to be done
// for every process.
func readBrief(pid int) (Process, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return Process{}, fmt.Errorf("cannot read process %d: %w", pid, err)
	}
	p, err := parseStat(stat)
	if err != nil {
		return Process{}, fmt.Errorf("cannot read %s/stat: %w", dir, err)
	}
	p.Started = startTime(p.ticks)
	if raw, err := os.ReadFile(dir + "/cmdline"); err == nil {
		p.Args = parseCmdline(raw)
	}
	if exe, err := os.Readlink(dir + "/exe"); err == nil {
		p.Exe, p.Deleted = strings.CutSuffix(exe, " (deleted)")
	}
	return p, nil
}

// parseStat reads proc_pid_stat(5). The command name is in parentheses and
// may itself contain parentheses and spaces: the last one closes it.
func parseStat(b []byte) (Process, error) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 1 || end < open {
		return Process{}, fmt.Errorf("no command name in %q", b)
	}
	f := strings.Fields(string(b[end+1:])) // f[0] is field 3 of the man page
	if len(f) < 20 {
		return Process{}, fmt.Errorf("only %d fields", len(f)+2)
	}
	p := Process{Comm: string(b[open+1 : end]), State: f[0]}
	var err error
	if p.PID, err = strconv.Atoi(strings.TrimSpace(string(b[:open]))); err != nil {
		return Process{}, err
	}
	if p.PPID, err = strconv.Atoi(f[1]); err != nil {
		return Process{}, err
	}
	p.pgrp, _ = strconv.Atoi(f[2])
	p.session, _ = strconv.Atoi(f[3])
	p.tty, _ = strconv.Atoi(f[4])
	if p.Threads, err = strconv.Atoi(f[17]); err != nil {
		return Process{}, err
	}
	if p.ticks, err = strconv.ParseUint(f[19], 10, 64); err != nil {
		return Process{}, err
	}
	return p, nil
}

// parseCmdline splits /proc/PID/cmdline. A program that writes a title over
// its arguments leaves one string and a tail of NULs.
func parseCmdline(b []byte) []string {
	b = bytes.TrimRight(b, "\x00 ")
	if len(b) == 0 {
		return nil
	}
	return strings.Split(string(b), "\x00")
}

func statusUID(status []byte) uint32 {
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "Uid:"); ok {
			if f := strings.Fields(rest); len(f) == 4 {
				uid, _ := strconv.ParseUint(f[1], 10, 32) // real, effective, saved, file system
				return uint32(uid)
			}
		}
	}
	return 0
}

// startTime turns clock ticks since boot into the time of day. Both ends are
// CLOCK_BOOTTIME, so a clock set in between does not matter.
func startTime(ticks uint64) time.Time {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return time.Time{}
	}
	up := time.Duration(now.Nano())
	age := up - time.Duration(ticks)*(time.Second/clockTicks)
	return time.Now().Add(-age).Round(time.Second / clockTicks)
}

func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

// Title is the command line as a person reads it: in one line, without
// control characters (it is the process's own text), cut at limit runes; 0 is
// no limit. A process without arguments gives its name in brackets, as ps(1)
// does.
func (p Process) Title(limit int) string {
	s := "[" + p.Comm + "]"
	if len(p.Args) > 0 {
		s = strings.Join(p.Args, " ")
	}
	return printable(s, limit)
}

// printable makes foreign text safe for a terminal and a log line.
func printable(s string, limit int) string {
	var b strings.Builder
	n := 0
	for i, r := range s {
		if limit > 0 && n == limit {
			b.WriteString("...")
			break
		}
		n++
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			fmt.Fprintf(&b, "\\x%02x", s[i])
		case !unicode.IsPrint(r):
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
