package supervisor

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor/config"
	"github.com/supervise/supervise/supervisor/control"
	"github.com/supervise/supervise/supervisor/listen"
	"github.com/supervise/supervise/supervisor/sockdiag"
)

// A picture for "supervise status": the loop gives what it knows, at once; what
// has to be looked at (/proc, cgroups, sockets) is, in the goroutine of the
// client that asked.

// frame is a picture of one service before anything was looked at.
type frame struct {
	control.Service
	lanes   [][]*listen.Lane // of Sockets
	sockets []*listen.Socket
	gens    []*genFrame
}

// genFrame is one generation of it.
type genFrame struct {
	control.Generation
	pids []int
	role role
}

// Status implements control.Backend.
func (d *desk) Status(_ context.Context, services []string) (control.Status, error) {
	var frames []*frame
	var unknown error
	if err := d.call(func() {
		var found []*runner
		if found, unknown = d.l.find(services); unknown == nil {
			for _, r := range found {
				frames = append(frames, r.frame())
			}
		}
	}); err != nil {
		return control.Status{}, err
	}
	if unknown != nil {
		return control.Status{}, unknown
	}
	st := control.Status{Supervisor: control.Supervisor{
		PID: os.Getpid(), Since: d.since, Memory: readStatus(os.Getpid()).memory,
	}}
	if d.server != nil {
		st.Supervisor.Control = d.server.Path()
	}
	if d.version != nil {
		st.Supervisor.Version = d.version()
	}
	for _, f := range frames {
		st.Services = append(st.Services, f.develop())
	}
	return st, nil
}

// frame is called by the loop: it takes no time.
func (r *runner) frame() *frame {
	s := r.s
	f := &frame{Service: control.Service{
		Name: r.cfg.Name, State: s.state.String(), Since: s.since, Handoff: strings.Join(r.cfg.Handoff, ","), Command: r.cfg.Command,
		Paused: !s.pausedAt.IsZero(), PausedSince: pointer(s.pausedAt),
		Sockets: []control.Socket{}, Draining: []control.Generation{},
		Restarts: s.restarts, Failures: s.failures,
		Rollouts: control.Rollouts{Done: s.rolloutsDone, Failed: s.rolloutsFail, Current: pictureRollout(s.rollout), Last: pictureRollout(s.lastRollout)},
	}}
	if len(f.Command) == 0 {
		line := r.mainLine()
		f.Command = append([]string{line.Path}, line.Args(nil)[min(1, len(line.Args(nil))):]...)
	}
	if f.Since.IsZero() {
		f.Since = r.desk.since
	}
	if s.current != nil {
		f.Status = s.current.status
	}
	if s.state == backoff {
		f.Deadline, f.DeadlineOf = pointer(s.deadline), "next start"
	}
	if e := s.lastExit; e != nil {
		f.LastExit = &control.LastExit{Status: e.shellStatus(), Reason: s.lastReason, When: s.lastWhen, Generation: s.lastGen}
		if e.Signal != 0 {
			f.LastExit.Signal = config.SignalName(unix.Signal(e.Signal))
		}
		if s.lastReason != "" && (e.Signal != 0 || e.Code != 0) {
			f.LastExit.LastLines = r.lastWords
		}
	}
	for _, g := range s.gens {
		f.gens = append(f.gens, r.genFrame(g))
	}
	if r.set == nil {
		return f
	}
	for _, one := range r.set.Sockets() {
		shared, why := one.Shared()
		c := control.Socket{Name: one.Name(), Network: one.Network(), Address: one.Addr(), Learned: one.Learned(), Lanes: []control.Lane{}}
		if shared {
			c.Shared = why
		}
		steered := one.Steered()
		lanes := one.Lanes()
		for _, lane := range lanes {
			l := control.Lane{Number: lane.Number(), Steered: shared || slices.Contains(steered, lane)}
			for n, in := range r.instances {
				if !in.returned && slices.Contains(in.lanes, lane) && (!shared || s.current != nil && n == s.current.n) {
					l.Generation = n
				}
			}
			c.Lanes = append(c.Lanes, l)
		}
		f.Sockets = append(f.Sockets, c)
		f.lanes = append(f.lanes, lanes)
		f.sockets = append(f.sockets, one)
	}
	return f
}

func (r *runner) genFrame(g *generation) *genFrame {
	f := &genFrame{role: r.s.roleOf(g), Generation: control.Generation{
		Generation: g.n, PID: g.pid, State: g.state.String(), Since: g.since, Started: g.started, ReadyAt: pointer(g.readyAt), ReadyHow: g.how,
		Status: g.status, Deadline: pointer(g.deadline),
	}}
	f.Role = [...]string{roleOld: "old", roleCurrent: "current", roleCandidate: "candidate", roleStandby: "standby"}[f.role]
	if f.Deadline != nil {
		switch g.state {
		case genPreparing, genSpawned, genWaiting, genPosting:
			f.DeadlineOf = "start timeout"
		case genReady:
			f.DeadlineOf = "watchdog"
			if g.deadline.Equal(g.until) {
				f.DeadlineOf = "end of RuntimeMaxSec="
			}
		case genDraining:
			f.DeadlineOf = "stop signal"
		case genEnding:
			f.DeadlineOf = "stop signal"
		case genKilling, genCleaning:
			f.DeadlineOf = "SIGKILL"
		case genGone, genStates:
		}
	}
	if in := r.instances[g.n]; in != nil && in.tree != nil {
		f.Cgroup = in.tree.CgroupPath()
		f.pids, _ = in.tree.Pids()
	}
	return f
}

func pointer(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func pictureRollout(r *rollout) *control.Rollout {
	if r == nil {
		return nil
	}
	return &control.Rollout{From: r.from, To: r.to, Cause: r.cause, Started: r.started, Ended: pointer(r.ended), OK: !r.ended.IsZero() && r.failure == "", Reason: r.failure}
}

// develop looks at what the loop does not know.
func (f *frame) develop() control.Service {
	for i, lanes := range f.lanes {
		for j, lane := range lanes {
			f.Sockets[i].Lanes[j].Queue, f.Sockets[i].Lanes[j].Backlog, _ = lane.Queue()
		}
	}
	conns := f.connections()
	for _, g := range f.gens {
		g.develop(conns)
		switch g.role {
		case roleCurrent:
			f.Current = &g.Generation
		case roleCandidate:
			f.Candidate = &g.Generation
		case roleStandby:
			f.Standby = &g.Generation
		case roleOld:
			f.Draining = append(f.Draining, g.Generation)
		}
		if d := g.Deadline; d != nil && (f.Deadline == nil || d.Before(*f.Deadline)) {
			f.Deadline, f.DeadlineOf = d, g.DeadlineOf
		}
	}
	return f.Service
}

// connections lists the inodes of established connections on the addresses of
// the service; nil when they cannot be seen.
func (f *frame) connections() map[uint64]bool {
	inodes := map[uint64]bool{}
	for _, one := range f.sockets {
		switch one.Network() {
		case "tcp":
			found, err := sockdiag.Inet(sockdiag.Query{Protocol: sockdiag.TCP, States: sockdiag.Mask(sockdiag.Established, sockdiag.CloseWait), LocalPort: uint16(one.Port())})
			if err != nil {
				return nil
			}
			for _, c := range found {
				inodes[uint64(c.Inode)] = true
			}
		case "unix", "unixpacket":
			found, err := sockdiag.Unix(sockdiag.UnixQuery{States: sockdiag.Mask(sockdiag.Established)})
			if err != nil {
				return nil
			}
			for _, c := range found {
				if c.Name == one.Addr() {
					inodes[uint64(c.Inode)] = true
				}
			}
		}
	}
	return inodes
}

func (g *genFrame) develop(conns map[uint64]bool) {
	g.Processes = []control.Process{}
	member := map[int]bool{}
	for _, pid := range g.pids {
		member[pid] = true
	}
	for _, pid := range g.pids {
		st := readStatus(pid)
		if st.name == "" {
			continue // it ended meanwhile
		}
		p := control.Process{PID: pid, Command: commandLine(pid, st.name)}
		if member[st.parent] {
			p.Parent = st.parent
		}
		g.Processes = append(g.Processes, p)
		g.Memory += st.memory
		g.Tasks += st.threads
		g.MemoryBy = "processes"
	}
	slices.SortStableFunc(g.Processes, func(a, b control.Process) int {
		switch {
		case a.PID == g.PID:
			return -1
		case b.PID == g.PID:
			return 1
		}
		return a.PID - b.PID
	})
	if g.Cgroup != "" {
		if n, ok := readNumber(filepath.Join(g.Cgroup, "memory.current")); ok {
			g.Memory, g.MemoryBy = n, "cgroup"
		}
		if n, ok := readNumber(filepath.Join(g.Cgroup, "pids.current")); ok {
			g.Tasks = int(n)
		}
	}
	g.Connections = -1
	if conns == nil {
		return
	}
	g.Connections = 0
	for _, pid := range g.pids {
		dir := "/proc/" + strconv.Itoa(pid) + "/fd"
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			link, _ := os.Readlink(dir + "/" + e.Name())
			text, ok := strings.CutPrefix(link, "socket:[")
			if !ok {
				continue
			}
			if n, err := strconv.ParseUint(strings.TrimSuffix(text, "]"), 10, 64); err == nil && conns[n] {
				delete(conns, n)
				g.Connections++
			}
		}
	}
}

// procStatus is what is of use in /proc/PID/status: proc_pid_status(5).
type procStatus struct {
	name    string
	parent  int
	threads int
	memory  int64 // resident and anonymous
}

func readStatus(pid int) (st procStatus) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return st
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch key {
		case "Name":
			st.name = value
		case "PPid":
			st.parent, _ = strconv.Atoi(value)
		case "Threads":
			st.threads, _ = strconv.Atoi(value)
		case "RssAnon":
			n, _ := strconv.ParseInt(strings.TrimSuffix(value, " kB"), 10, 64)
			st.memory = n << 10
		}
	}
	return st
}

// maxCommand bounds what is shown of a command line.
const maxCommand = 200

// commandLine is what a process was started with, its name where it says nothing.
func commandLine(pid int, name string) string {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	text = bytes.TrimRight(text, "\x00")
	if err != nil || len(text) == 0 {
		return name
	}
	line := strings.ToValidUTF8(string(bytes.ReplaceAll(text, []byte{0}, []byte{' '})), "\ufffd")
	line = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, line)
	if len(line) > maxCommand {
		line = strings.ToValidUTF8(line[:maxCommand], "") + "..."
	}
	return line
}

func readNumber(path string) (int64, bool) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return n, err == nil
}
