package proc

import (
	"bytes"
	"errors"
	"strconv"

	"golang.org/x/sys/unix"
)

// stat is what we need of /proc/PID/stat, proc_pid_stat(5).
type stat struct {
	state   byte // R, S, D, T, t, Z, X
	parent  int
	group   int
	session int
	threads int
	start   uint64 // clock ticks after boot
	memory  uint64 // virtual, in bytes; 0 from some moment of its end on
}

// dead says whether nothing of the process runs any more. A leader that
// ended before its other threads reads Z as well, and is not dead.
func (s stat) dead() bool { return s.state == 'X' || s.state == 'Z' && s.threads <= 1 }

var errStat = errors.New("cannot read stat: format")

// parseStat reads the line of /proc/PID/stat. The command name, in
// parentheses, may contain anything, so the fields count from the last one.
func parseStat(line []byte) (s stat, err error) {
	i := bytes.LastIndexByte(line, ')')
	if i < 0 {
		return stat{}, errStat
	}
	fields := bytes.Fields(line[i+1:])
	const first = 3 // proc_pid_stat(5) counts from 1; fields[0] is (3) state
	if len(fields) <= 23-first || len(fields[0]) != 1 {
		return stat{}, errStat
	}
	number := func(n int) (v uint64) {
		text := fields[n-first]
		if len(text) > 0 && text[0] == '-' { // tpgid and the like; not ours
			return 0
		}
		v, perr := strconv.ParseUint(string(text), 10, 64)
		if perr != nil {
			err = errStat
		}
		return v
	}
	s = stat{
		state: fields[0][0], parent: int(number(4)), group: int(number(5)),
		session: int(number(6)), threads: int(number(20)), start: number(22),
		memory: number(23),
	}
	return s, err
}

// reader reads small files of /proc with one buffer, without the cost of
// os.File, of which a chase would pay thousands.
type reader struct{ buf []byte }

// readerSize is enough for stat and for most lists of pids.
const readerSize = 1 << 10

// file returns the content of path, valid until the next call.
func (r *reader) file(path string) ([]byte, error) {
	if len(r.buf) != readerSize { // none yet, or grown by a large file
		r.buf = make([]byte, readerSize)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	used := 0
	for {
		n, err := unix.Read(fd, r.buf[used:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return r.buf[:used], nil
		}
		used += n
		if used == len(r.buf) {
			if used >= maxFile {
				return r.buf, nil
			}
			r.buf = append(r.buf, make([]byte, used)...)
		}
	}
}

// maxFile bounds what is read of one file: environments can have 2 MB and
// more, chosen by the child.
const maxFile = 1 << 20

func procPath(pid int, file string) string {
	return "/proc/" + strconv.Itoa(pid) + "/" + file
}

func (r *reader) stat(pid int) (stat, error) {
	line, err := r.file(procPath(pid, "stat"))
	if err != nil {
		return stat{}, err
	}
	return parseStat(line)
}

// marker is what a process's environment says of its generation.
type marker int

const (
	markerNone    marker = iota // no INVOCATION_ID, or not to be read
	markerOurs                  // the one asked for
	markerForeign               // another one
)

// marker looks for INVOCATION_ID in the environment that pid was given at
// its exec.
func (r *reader) marker(pid int, ours string) marker {
	env, err := r.file(procPath(pid, "environ"))
	if err != nil || ours == "" {
		return markerNone
	}
	return findMarker(env, ours)
}

func findMarker(env []byte, ours string) marker {
	name := []byte("INVOCATION_ID=")
	found := markerNone
	for len(env) > 0 {
		var entry []byte
		entry, env, _ = bytes.Cut(env, []byte{0})
		if value, ok := bytes.CutPrefix(entry, name); ok {
			if string(value) == ours {
				return markerOurs
			}
			found = markerForeign
		}
	}
	return found
}

// numbers calls f for each decimal number of a list separated by spaces.
func numbers(text []byte, f func(int)) {
	for field := range bytes.FieldsSeq(text) {
		if n, err := strconv.Atoi(string(field)); err == nil && n > 0 {
			f(n)
		}
	}
}

// names calls f for the entries of a directory that are numbers.
func (r *reader) names(dir string, f func(int)) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var list []string
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		_, _, list = unix.ParseDirent(buf[:n], -1, list)
	}
	for _, name := range list {
		if n, err := strconv.Atoi(name); err == nil {
			f(n)
		}
	}
	return nil
}

// children calls f for each child of pid, of all its threads. The list can
// miss some while others end; who needs certainty looks again.
func (r *reader) children(pid int, f func(int)) error {
	var threads []int
	if err := r.names(procPath(pid, "task"), func(tid int) { threads = append(threads, tid) }); err != nil {
		return err
	}
	var list []int
	for _, tid := range threads {
		text, err := r.file(procPath(pid, "task/"+strconv.Itoa(tid)+"/children"))
		if err == unix.ENOENT && tid == pid {
			return err // a kernel without CONFIG_PROC_CHILDREN, or gone
		}
		if err == nil {
			numbers(text, func(n int) { list = append(list, n) })
		}
	}
	for _, n := range list {
		f(n)
	}
	return nil
}
