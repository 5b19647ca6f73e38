package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Group is a cgroup v2 directory of one generation. No controller is ever
// enabled in it: that would forbid processes in ours.
type Group struct {
	path   string
	dir    int
	events int
}

// OwnGroup returns the directory of the cgroup v2 that this process is in.
// It works on hosts with v1 and v2 side by side, in cgroup namespaces, and where
// the mount shows only a part of the hierarchy.
func OwnGroup() (dir string, err error) {
	var read reader
	text, err := read.file("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("cannot find the cgroup: %w", err)
	}
	mounts := string(text)
	if text, err = read.file("/proc/self/cgroup"); err != nil {
		return "", fmt.Errorf("cannot find the cgroup: %w", err)
	}
	return ownGroup(mounts, string(text))
}

// ownGroup joins the texts of mountinfo (proc_pid_mountinfo(5)) and cgroup (cgroups(7)).
func ownGroup(mounts, own string) (dir string, err error) {
	place := ""
	for line := range strings.Lines(own) {
		if p, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			place = p
		}
	}
	if place == "" {
		return "", errors.New("cannot find the cgroup: not in a cgroup v2")
	}
	for line := range strings.Lines(mounts) {
		before, after, ok := strings.Cut(line, " - ")
		fields := strings.Fields(before)
		if !ok || len(fields) < 5 || !strings.HasPrefix(after, "cgroup2 ") {
			continue
		}
		root, point := unescape(fields[3]), unescape(fields[4])
		if rest, ok := within(root, place); ok {
			return path.Join(point, rest), nil
		}
	}
	return "", fmt.Errorf("cannot find the cgroup: no mounted cgroup v2 shows %s", place)
}

// within returns place relative to root.
func within(root, place string) (rest string, ok bool) {
	if root == "/" {
		return place, !strings.HasPrefix(place, "/..")
	}
	rest, ok = strings.CutPrefix(place, root)
	return rest, ok && (rest == "" || rest[0] == '/')
}

// unescape undoes the octal escapes of mountinfo: \040 is a space.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// NewGroup makes the cgroup supervise-NAME-PID.GENERATION below parent, or
// below our own cgroup when parent is "". Empty ones that a dead supervisor
// of that name left there are removed. The caller ends it with Remove.
func NewGroup(parent, name string, generation int) (*Group, error) {
	if parent == "" {
		var err error
		if parent, err = OwnGroup(); err != nil {
			return nil, err
		}
	}
	prefix := "supervise-" + strings.Map(func(r rune) rune {
		if r == '/' || r == '\n' || r == 0 {
			return '-'
		}
		return r
	}, name) + "-"
	removeLeftovers(parent, prefix)
	dir := filepath.Join(parent, fmt.Sprintf("%s%d.%d", prefix, os.Getpid(), generation))
	err := unix.Mkdir(dir, 0o755)
	if err == unix.EEXIST && removeTree(dir) == nil {
		err = unix.Mkdir(dir, 0o755)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot make the cgroup %s: %w", dir, err)
	}
	g, err := OpenGroup(dir)
	if err != nil {
		unix.Rmdir(dir)
		return nil, err
	}
	return g, nil
}

// OpenGroup opens an existing cgroup, as after a re-exec of the supervisor.
func OpenGroup(dir string) (*Group, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open the cgroup %s: %w", dir, err)
	}
	events, err := unix.Openat(fd, "cgroup.events", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("cannot open cgroup.events of %s: %w", dir, err)
	}
	return &Group{path: dir, dir: fd, events: events}, nil
}

// removeLeftovers removes empty groups prefixPID.N of supervisors that are no more.
func removeLeftovers(parent, prefix string) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), prefix)
		if !ok || !e.IsDir() {
			continue
		}
		number, _, ok := strings.Cut(rest, ".")
		pid, err := strconv.Atoi(number)
		if !ok || err != nil || pid == os.Getpid() || unix.Kill(pid, 0) != unix.ESRCH {
			continue
		}
		// A group with processes in it stays: EBUSY.
		_ = removeTree(filepath.Join(parent, e.Name()))
	}
}

// Path returns the directory.
func (g *Group) Path() string { return g.path }

// FD returns the directory's descriptor, for CLONE_INTO_CGROUP. Do not close it.
func (g *Group) FD() int { return g.dir }

// EventsFD returns the descriptor of cgroup.events. It is ready for EPOLLPRI
// when Populated may have changed, and at the very first; calling Populated
// makes it wait again. Do not close it.
func (g *Group) EventsFD() int { return g.events }

// Populated says whether a living process is in the group or below; zombies do not count.
func (g *Group) Populated() (bool, error) {
	var buf [128]byte
	n, err := unix.Pread(g.events, buf[:], 0)
	if err == unix.ENODEV { // the group was removed
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot read cgroup.events of %s: %w", g.path, err)
	}
	return bytes.Contains(buf[:n], []byte("populated 1")), nil
}

// Add moves a process into the group, where it was not born in it.
func (g *Group) Add(pid int) error { return g.write("cgroup.procs", strconv.Itoa(pid)) }

// Procs returns the living processes of the group and of those below it. By
// the time of the answer they may be others: see Group.contains.
func (g *Group) Procs() ([]int, error) {
	var pids []int
	err := filepath.WalkDir(g.path, func(p string, e os.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return skipGone(err)
		}
		text, err := os.ReadFile(filepath.Join(p, "cgroup.procs"))
		if err == nil {
			for field := range strings.FieldsSeq(string(text)) {
				// 0 is a process outside of our pid namespace.
				if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
					pids = append(pids, pid)
				}
			}
		}
		// EOPNOTSUPP: a threaded group, whose processes are listed above it.
		if errors.Is(err, unix.EOPNOTSUPP) {
			return nil
		}
		return skipGone(err)
	})
	if err != nil {
		return pids, fmt.Errorf("cannot list the cgroup: %w", err)
	}
	return pids, nil
}

// skipGone forgives what was removed while we walked.
func skipGone(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// contains says whether process pid is in the group or below now. Ask after pidfd_open.
func (g *Group) contains(pid int) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return false
	}
	base := filepath.Base(g.path)
	for line := range strings.Lines(string(text)) {
		// The parents differ with the namespace; our own name has pid and
		// generation in it and is unique enough.
		if p, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			return strings.Contains(p+"/", "/"+base+"/")
		}
	}
	return false
}

// Kill sends SIGKILL to all of it, at once, with cgroup.kill (Linux 5.14).
// Before that, the group is frozen, killed one by one, and thawed; repeat
// until Populated says no.
func (g *Group) Kill() error {
	err := g.write("cgroup.kill", "1")
	if !errors.Is(err, unix.ENOENT) {
		return err
	}
	return g.killFrozen()
}

func (g *Group) killFrozen() error {
	freezeErr := g.write("cgroup.freeze", "1")
	pids, err := g.Procs()
	for _, pid := range pids {
		g.signal(pid, unix.SIGKILL)
	}
	if freezeErr == nil {
		// A frozen process does die of SIGKILL, but what was born after the
		// freeze must not stay frozen for ever if we are not called again.
		freezeErr = g.write("cgroup.freeze", "0")
	}
	return errors.Join(err, freezeErr)
}

// signal signals pid if it is in the group.
func (g *Group) signal(pid int, sig unix.Signal) (sent bool) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return g.contains(pid) && unix.PidfdSendSignal(fd, sig, nil, 0) == nil
}

func (g *Group) write(file, text string) error {
	fd, err := unix.Openat(g.dir, file, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		_, err = unix.Write(fd, []byte(text))
		unix.Close(fd)
	}
	if err != nil {
		return fmt.Errorf("cannot write %s of %s: %w", file, g.path, err)
	}
	return nil
}

// Remove removes the group and those that its processes made in it, and
// closes the descriptors; EBUSY while somebody lives in it, and then nothing is closed.
func (g *Group) Remove() error {
	if err := removeTree(g.path); err != nil {
		return err
	}
	g.Close()
	return nil
}

// Close closes the descriptors and leaves the group.
func (g *Group) Close() {
	unix.Close(g.dir)
	unix.Close(g.events)
	g.dir, g.events = -1, -1
}

// removeTree removes an empty group with its children, deepest first.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot remove the cgroup: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && err != unix.ENOENT {
		return fmt.Errorf("cannot remove the cgroup %s: %w", dir, err)
	}
	return nil
}
