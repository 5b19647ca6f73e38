package proc

import (
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/handoff/shim"
)

// Fact is one thing that this machine gives or lacks, for "supervise doctor".
type Fact struct {
	Name   string
	OK     bool
	Detail string // what was found
	Cost   string // what its lack costs, "" when OK
}

// Facts looks at what this package and handoff/shim make use of. It makes
// and removes a cgroup and changes nothing else.
func Facts() []Fact {
	var facts []Fact
	add := func(name string, ok bool, detail, cost string) {
		if ok {
			cost = ""
		}
		facts = append(facts, Fact{name, ok, detail, cost})
	}
	var uts unix.Utsname
	release := "unknown"
	if unix.Uname(&uts) == nil {
		release = unix.ByteSliceToString(uts.Release[:])
	}
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err == nil {
		unix.Close(fd)
	}
	add("kernel", err == nil, "Linux "+release, "supervise needs Linux 5.10")
	add("pidfd", err == nil, reason(err, "pidfd_open(2) works"), "processes cannot be signalled safely")

	err = unix.CloseRange(^uint(0)>>32, ^uint(0)>>32, unix.CLOSE_RANGE_CLOEXEC)
	add("close_range", err == nil, reason(err, "CLOSE_RANGE_CLOEXEC works"),
		"descriptors are marked close-on-exec one by one: starts are slower")

	own, err := OwnGroup()
	add("cgroup v2", err == nil, reason(err, own), "members of a generation are known by process group and descent only")
	if err == nil {
		groupFacts(add)
	}
	init := "no"
	if os.Getpid() == 1 {
		init = "yes: orphans of this pid namespace are ours"
	}
	add("pid 1", true, init, "")
	var set int32
	err = unix.Prctl(unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&set)), 0, 0, 0)
	add("subreaper", err == nil, reason(err, "orphans of descendants can be adopted"), "daemons that lose their parent escape")
	add("privileges", true, privileges(), "")
	return facts
}

func groupFacts(add func(name string, ok bool, detail, cost string)) {
	const cost = "members of a generation are known by process group and descent only"
	g, err := NewGroup("", "doctor", 0)
	add("cgroup writable", err == nil, reason(err, "a cgroup can be made below ours"), cost+"; under systemd: Delegate=yes")
	if err != nil {
		return
	}
	defer g.Remove()
	err = unix.Access(filepath.Join(g.Path(), "cgroup.kill"), unix.W_OK)
	add("cgroup.kill", err == nil, reason(err, "there"), "before Linux 5.14 a cgroup is frozen and killed one by one")
	err = birth(g)
	add("clone3 into cgroup", err == nil, reason(err, "works"), "a process enters its cgroup a moment after it started")
}

// birth tries whether a process can be born into g. What is started cannot
// be executed, on purpose: the child ends at its last step.
func birth(g *Group) error {
	spec := shim.New("/proc/self/does-not-exist", []string{"birth"}, nil)
	spec.Files = nil
	spec.CgroupFD = g.FD()
	c, err := shim.Start(spec)
	if err != nil {
		return err
	}
	_, err = wait(unix.P_PID, c.PID, unix.WEXITED, nil)
	c.Close()
	if err == nil && !c.InCgroup {
		err = os.NewSyscallError("clone3", unix.ENOSYS)
	}
	return err
}

func privileges() string {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return "unknown: " + err.Error()
	}
	for line := range strings.Lines(string(text)) {
		if caps, ok := strings.CutPrefix(line, "CapEff:"); ok {
			if os.Geteuid() == 0 {
				return "root, capabilities " + strings.TrimSpace(caps)
			}
			return "not root, capabilities " + strings.TrimSpace(caps)
		}
	}
	return "unknown"
}

func reason(err error, fine string) string {
	if err != nil {
		return err.Error()
	}
	return fine
}
