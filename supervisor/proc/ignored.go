package proc

import (
	"bytes"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// SignalSet is a set of signals as /proc/PID/status has them.
type SignalSet uint64

// Has reports whether sig is in the set.
func (s SignalSet) Has(sig unix.Signal) bool { return s&(1<<(sig-1)) != 0 }

// Ignored gives the signals that a process ignores: SigIgn of
// proc_pid_status(5).
func Ignored(pid int) (SignalSet, error) {
	var r reader
	text, err := r.file(procPath(pid, "status"))
	if err != nil {
		return 0, fmt.Errorf("cannot see which signals process %d ignores: %w", pid, err)
	}
	for line := range bytes.Lines(text) {
		if value, ok := bytes.CutPrefix(line, []byte("SigIgn:")); ok {
			n, err := strconv.ParseUint(string(bytes.TrimSpace(value)), 16, 64)
			return SignalSet(n), err
		}
	}
	return 0, fmt.Errorf("cannot see which signals process %d ignores: no SigIgn", pid)
}

// Parent gives the parent of a process.
func Parent(pid int) (int, error) {
	var r reader
	s, err := r.stat(pid)
	return s.parent, err
}
