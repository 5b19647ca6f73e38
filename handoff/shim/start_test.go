package shim

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/handoff/shim/nofile"
)

func TestEnvironment(t *testing.T) {
	spec, out := playing(t, "env")
	spec.Env = append(spec.Env, "A=1", "LISTEN_PID=1", "LISTEN_PIDFDID=2", "LISTEN_PIDX=3", "EMPTY=")
	spec.PIDEnv = []string{"LISTEN_PID", "WATCHDOG_PID"}
	spec.PIDFDIDEnv = true
	c, err := Start(spec)
	if err != nil {
		t.Fatal(err)
	}
	closeOutput(spec)
	text, _ := io.ReadAll(out)
	pid := strconv.Itoa(c.PID)
	want := []string{
		"A=1", "EMPTY=", "LISTEN_PID=" + pid, "LISTEN_PIDX=3",
		shimPlay + "=env", "WATCHDOG_PID=" + pid, "pid " + pid,
	}
	if hasPidfs() {
		var st unix.Stat_t
		if err := unix.Fstat(c.PIDFD, &st); err != nil {
			t.Fatal(err)
		}
		want = append(want, fmt.Sprint("LISTEN_PIDFDID=", st.Ino))
	}
	slices.Sort(want)
	if got := sorted(string(text)); !slices.Equal(got, want) {
		t.Errorf("environment is %q, want %q", got, want)
	}
	if ws, err := finish(t, c); err != nil || ws != 0 {
		t.Errorf("ended with %#x, %v", ws, err)
	}
}

// script returns a Spec for a shell whose descriptor 1 comes back.
func script(t *testing.T, text string, args ...string) (*Spec, io.Reader) {
	t.Helper()
	spec, out := playing(t, "")
	spec.Path = "/bin/sh"
	spec.Argv = append([]string{"sh", "-c", text, "sh"}, args...)
	spec.Env = []string{"PATH=/usr/bin:/bin"}
	return spec, out
}

// TestFiles tries all ways to place up to 4 of 4 low descriptors, which cover
// swaps, rings, copies and holes, and compares by inode.
func TestFiles(t *testing.T) {
	const n = 4
	dir := t.TempDir()
	leak, err := os.Open(dir) // stands for whatever else we have open, without close-on-exec
	if err != nil {
		t.Fatal(err)
	}
	defer leak.Close()
	unix.FcntlInt(leak.Fd(), unix.F_SETFD, 0)
	var inodes [n]uint64
	var fds [n]int
	for i := range n {
		f, err := unix.Open(filepath.Join(dir, strconv.Itoa(i)), unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(f)
		var st unix.Stat_t
		unix.Fstat(f, &st)
		inodes[i], fds[i] = st.Ino, f
	}
	// Descriptors 3.. of the child come from numbers in their own range, so
	// that moves collide: first is the range's begin.
	first := fds[0]
	if slices.Max(fds[:]) != first+n-1 {
		t.Skip("descriptors are not consecutive")
	}
	count := 0
	for code := range 5 * 5 * 5 * 5 {
		var want []string
		spec, out := script(t, `for f in /proc/$$/fd/*; do echo ${f##*/} $(stat -L -c %i $f); done`)
		for len(spec.Files) < first {
			spec.Files = append(spec.Files, -1)
		}
		for i, c := 0, code; i < n; i, c = i+1, c/5 {
			if c%5 == n {
				spec.Files = append(spec.Files, -1)
				continue
			}
			spec.Files = append(spec.Files, fds[c%5])
			want = append(want, fmt.Sprint(first+i, " ", inodes[c%5]))
		}
		if code%5 != 0 && code%11 != 0 {
			continue // a fifth of the 625 is enough of processes; the list itself is tested whole below
		}
		got := sorted(run(t, spec, newReader(out)))
		got = slices.DeleteFunc(got, func(l string) bool {
			fd, _, _ := strings.Cut(l, " ")
			k, _ := strconv.Atoi(fd)
			return k < first || k >= first+n // the shell's own; TestNothingLeaks has the rest
		})
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("files %v: child has %q, want %q", spec.Files, got, want)
		}
		count++
	}
	t.Logf("%d placements", count)
}

// TestFilesProgram runs the placing calls of every arrangement of 4 of 6
// numbers, and of the report pipe, on a model of a descriptor table.
func TestFilesProgram(t *testing.T) {
	const n, from = 4, 6
	total := 1
	for range n {
		total *= from + 1
	}
	for code := range total {
		files := make([]int, n)
		for i, c := 0, code; i < n; i, c = i+1, c/(from+1) {
			files[i] = c%(from+1) - 1
		}
		for report := range 8 {
			if slices.Contains(files, report) {
				continue
			}
			model(t, files, report)
		}
	}
}

func model(t *testing.T, files []int, reportFD int) {
	t.Helper()
	p := &program{head: new(header), calls: make([]call, 64)}
	p.files(files, reportFD)
	type entry struct {
		what    int
		cloexec bool
	}
	table := map[int]entry{}
	for fd := range 8 {
		table[fd] = entry{fd, true}
	}
	for _, c := range p.calls[:p.n] {
		a, b := int(c.args[0]), int(c.args[1])
		switch c.nr {
		case unix.SYS_DUP3:
			e, ok := table[a]
			if !ok || a == b {
				t.Fatalf("files %v report %d: dup3 of %d to %d", files, reportFD, a, b)
			}
			table[b] = entry{e.what, c.args[2] == unix.O_CLOEXEC}
		case unix.SYS_CLOSE:
			delete(table, a)
		case unix.SYS_FCNTL:
			table[a] = entry{table[a].what, false}
		}
	}
	for i, fd := range files {
		if e, ok := table[i]; fd < 0 && ok || fd >= 0 && e != (entry{fd, false}) {
			t.Fatalf("files %v report %d: %d is %v", files, reportFD, i, e)
		}
	}
	for fd, e := range table {
		if fd >= len(files) && !e.cloexec {
			t.Fatalf("files %v report %d: %d leaks", files, reportFD, fd)
		}
	}
	if e := table[int(p.head.fd)]; e != (entry{reportFD, true}) {
		t.Fatalf("files %v report %d: report is %v", files, reportFD, e)
	}
}

func TestNothingLeaks(t *testing.T) {
	var p [2]int
	if err := unix.Pipe2(p[:], 0); err != nil { // without close-on-exec
		t.Fatal(err)
	}
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	spec, out := script(t, `echo /proc/$$/fd/*`)
	text := run(t, spec, newReader(out))
	for _, name := range strings.Fields(text) {
		if fd, _ := strconv.Atoi(filepath.Base(name)); fd == p[0] || fd == p[1] {
			t.Errorf("descriptor %d leaks: %s", fd, text)
		}
	}
}

func TestNonblockIsKept(t *testing.T) {
	var p [2]int
	unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK)
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	spec, out := script(t, `cat /proc/self/fdinfo/3`)
	spec.Files = append(spec.Files, p[0])
	flags := field(run(t, spec, newReader(out)), "flags:")
	if v, err := strconv.ParseInt(flags, 8, 64); err != nil || v&unix.O_NONBLOCK == 0 || v&unix.O_CLOEXEC != 0 {
		t.Errorf("flags of the lent descriptor are %s", flags)
	}
}

func TestSignalsAreDefault(t *testing.T) {
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE, syscall.SIGUSR2)
	defer signal.Reset()
	// A shell keeps what it was given; a Go child would install handlers.
	spec, out := script(t, `while read l; do echo "$l"; done </proc/$$/status`)
	set := ^uint64(0)
	var old uint64
	release := lockedMask(&set, &old)
	c, err := Start(spec)
	release()
	if err != nil {
		t.Fatal(err)
	}
	closeOutput(spec)
	raw, _ := io.ReadAll(out)
	finish(t, c)
	text := string(raw)
	for _, name := range []string{"SigBlk:", "SigIgn:"} {
		if v := field(text, name); strings.Trim(v, "0") != "" || v == "" {
			t.Errorf("%s %q, want none", name, v)
		}
	}
}

func TestState(t *testing.T) {
	dir := t.TempDir()
	nice := 5
	spec, out := playing(t, "state")
	spec.Setpgid, spec.Dir, spec.Umask, spec.Nice, spec.NoNewPrivs = true, dir, 0o27, &nice, true
	want := []string{"own group true", "dir " + dir, "umask 027", "nice 5", "no new privs 1"}
	if os.Geteuid() == 0 {
		spec.Credential = &Credential{UID: 65534, GID: 65533, Groups: []uint32{12, 34}}
		spec.Path = reachable(t)
		os.Chmod(dir, 0o755)
		os.Chmod(filepath.Dir(dir), 0o755)
		want = append(want, "user 65534 65534 65533 65533 [12 34]")
	}
	got := run(t, spec, out)
	for _, line := range want {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("no line %q in:\n%s", line, got)
		}
	}
}

// reachable returns a copy of this binary that any user may execute.
func reachable(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "shim")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o755)
	exe, _ := os.Executable()
	text, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "child")
	if err := os.WriteFile(path, text, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLimits(t *testing.T) {
	show := `ulimit -Sn; ulimit -Hn; ulimit -Sc`
	soft, hard, ok := nofile.Original()
	if !ok {
		t.Fatal("original limit unknown")
	}
	var now unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_NOFILE, &now)
	t.Logf("original %d %d, now %d %d", soft, hard, now.Cur, now.Max)
	spec, out := script(t, show)
	spec.Limits = []Limit{{unix.RLIMIT_CORE, 0, 0}}
	if got, want := run(t, spec, newReader(out)), fmt.Sprintf("%d\n%d\n0\n", soft, hard); got != want {
		t.Errorf("limits are %q, want %q", got, want)
	}
	spec, out = script(t, show)
	spec.Limits = []Limit{{unix.RLIMIT_NOFILE, 100, 200}, {unix.RLIMIT_CORE, 0, 0}}
	if got, want := run(t, spec, newReader(out)), "100\n200\n0\n"; got != want {
		t.Errorf("limits are %q, want %q", got, want)
	}
}

// TestOriginalLimit runs this binary under a soft limit of its own: nofile
// must have read it before package syscall raised it.
func TestOriginalLimit(t *testing.T) {
	const soft = 77
	spec, out := playing(t, "grandchild-limit")
	_, hard, _ := nofile.Original()
	spec.Limits = []Limit{{unix.RLIMIT_NOFILE, soft, hard}}
	got := run(t, spec, out)
	want := fmt.Sprintf("original %d %d raised true\n%d\n", soft, hard, soft)
	if got != want {
		t.Errorf("said %q, want %q", got, want)
	}
}

func TestStages(t *testing.T) {
	bad := -1
	full := filepath.Join(t.TempDir(), "not-a-program")
	os.WriteFile(full, []byte("\x7fELF nonsense"), 0o755)
	tests := []struct {
		name  string
		stage Stage
		errno unix.Errno
		words string
		set   func(*Spec)
	}{
		{"nul", StagePrepare, unix.EINVAL, "preparing", func(s *Spec) { s.Argv = []string{"a\x00b"} }},
		{"cgroup", StageCgroup, unix.EBADF, "joining the cgroup", func(s *Spec) { s.CgroupFD = 0 }},
		{"foreground", StageForeground, unix.ENOTTY, "foreground", func(s *Spec) { s.Foreground = devNull(t) }},
		{"files", StageFiles, unix.EBADF, "placing descriptors: descriptor 3", func(s *Spec) { s.Files = append(s.Files, 1<<20+7) }},
		{"limits", StageLimits, unix.EINVAL, "RLIMIT_CORE", func(s *Spec) { s.Limits = []Limit{{unix.RLIMIT_CORE, 2, 1}} }},
		{"dir", StageDir, unix.ENOENT, `changing directory: "/nope"`, func(s *Spec) { s.Dir = "/nope" }},
		{"pdeathsig", StagePdeathsig, unix.EINVAL, "parent death", func(s *Spec) { s.Pdeathsig = 99 }},
		{"filter", StageFilter, unix.EINVAL, "filter", func(s *Spec) { s.NoNewPrivs = true; s.Filter = []unix.SockFilter{{Code: 0xffff}} }},
		{"exec missing", StageExec, unix.ENOENT, `executing: "/nope"`, func(s *Spec) { s.Path = "/nope" }},
		{"exec denied", StageExec, unix.EACCES, "executing", func(s *Spec) { s.Path = "/etc/passwd" }},
		{"exec format", StageExec, unix.ENOEXEC, "executing", func(s *Spec) { s.Path = full }},
		{"nice", StageNice, unix.EACCES, "nice level: -1", func(s *Spec) { s.Nice = &bad; s.Path = "" }},
		{"uid", StageUID, unix.EINVAL, "setting the user: 4294967295", func(s *Spec) { s.Credential = &Credential{UID: ^uint32(0)} }},
		{"gid", StageGID, unix.EINVAL, "setting the group", func(s *Spec) { s.Credential = &Credential{GID: ^uint32(0)} }},
		{"groups", StageGroups, unix.EINVAL, "supplementary", func(s *Spec) { s.Credential = &Credential{Groups: []uint32{^uint32(0)}} }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			root := os.Geteuid() == 0
			switch test.stage {
			case StageNice:
				if root {
					t.Skip("root may: covered without root")
				}
			case StageGroups:
				if !root {
					test.errno = unix.EPERM
				}
			}
			spec := New("/bin/true", []string{"true"}, nil)
			test.set(spec)
			e := failing(t, spec)
			if e.Stage != test.stage || e.Errno != test.errno || !strings.Contains(e.Error(), test.words) {
				t.Errorf("error is %q (%d, %v)", e, e.Stage, e.Errno)
			}
		})
	}
}

// TestForeground has a child that leads a session on a pseudo-terminal start
// another in the foreground.
func TestForeground(t *testing.T) {
	spec, out := playing(t, "session")
	if got := run(t, spec, out); got != "foreground true\n" {
		t.Errorf("said %q", got)
	}
}

func devNull(t *testing.T) int {
	fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// TestStageWords ties the words to the list: each stage has its own.
func TestStageWords(t *testing.T) {
	seen := make(map[string]Stage)
	for s := StagePrepare; s < stageEnd; s++ {
		words := s.String()
		if other, ok := seen[words]; ok || strings.HasPrefix(words, "stage ") {
			t.Errorf("stage %d reads %q, as does %d", s, words, other)
		}
		seen[words] = s
	}
	if got := stageEnd.String(); !strings.HasPrefix(got, "stage ") {
		t.Errorf("the end reads %q", got)
	}
}

// TestLayout holds the offsets that the assembly uses.
func TestLayout(t *testing.T) {
	var c call
	var h header
	var r report
	got := []uintptr{
		unsafe.Offsetof(c.nr), unsafe.Offsetof(c.args), unsafe.Offsetof(c.save), unsafe.Offsetof(c.tag), unsafe.Sizeof(c),
		unsafe.Offsetof(h.calls), unsafe.Offsetof(h.fd), unsafe.Offsetof(h.report),
		unsafe.Offsetof(r.tag), unsafe.Offsetof(r.errno), unsafe.Sizeof(r), unsafe.Offsetof(c.tag.stage),
	}
	if want := []uintptr{0, 8, 56, 64, 72, 0, 8, 16, 0, 8, 16, 0}; !slices.Equal(got, want) {
		t.Errorf("offsets are %v, the assembly has %v", got, want)
	}
}

func TestParallel(t *testing.T) {
	before := openFiles(t)
	var wg sync.WaitGroup
	slots := make(chan struct{}, 20)
	for range 200 {
		wg.Add(1)
		slots <- struct{}{}
		go func() {
			defer func() { <-slots; wg.Done() }()
			spec := New("/bin/sh", []string{"sh", "-c", `test "$LISTEN_PID" = $$`}, nil)
			spec.PIDEnv = []string{"LISTEN_PID"}
			c, err := Start(spec)
			if err != nil {
				t.Error(err)
				return
			}
			if ws, err := finish(t, c); err != nil || ws != 0 {
				t.Errorf("ended with %#x, %v", ws, err)
			}
		}()
	}
	wg.Wait()
	if after := openFiles(t); after != before {
		t.Errorf("%d descriptors open, %d before", after, before)
	}
}

func openFiles(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestWays starts with each of the ways that fork falls back upon.
func TestWays(t *testing.T) {
	for name, share := range map[string]uintptr{"own stack": ownStack, "vfork": unix.CLONE_VM | unix.CLONE_VFORK, "fork": 0, "refused, then fork": unix.CLONE_VM | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_FS | unix.CLONE_NEWNS} {
		t.Run(name, func(t *testing.T) {
			spec, out := script(t, `echo $LISTEN_PID = $$`)
			spec.PIDEnv = []string{"LISTEN_PID"}
			c, err := start(spec, share)
			if err != nil {
				t.Fatal(err)
			}
			closeOutput(spec)
			text, _ := io.ReadAll(out)
			finish(t, c)
			if want := fmt.Sprintf("%d = %d\n", c.PID, c.PID); string(text) != want {
				t.Errorf("said %q, want %q", text, want)
			}
		})
	}
}

func TestDecimal(t *testing.T) {
	// The pid is all that varies in practice; umask returns what we like.
	for _, v := range []uint64{0, 1, 9, 10, 99, 100, 12345, 4194304, ^uint64(0)} {
		spec, out := script(t, `echo $N`)
		var p [2]int
		unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK)
		prog, err := build(spec, p[1])
		if err != nil {
			t.Fatal(err)
		}
		// Replace the environment by N=v, written by the child.
		at := prog.alloc(2 + maxDecimal)
		copy(unsafe.Slice((*byte)(at), 2), "N=")
		number := prog.alloc(8)
		*(*uint64)(number) = v
		vec := unsafe.Slice((*uintptr)(prog.alloc(16)), 2)
		vec[0] = uintptr(at)
		exec := prog.calls[prog.n-2]
		exec.args[2] = uintptr(unsafe.Pointer(&vec[0]))
		prog.n -= 2
		prog.add(StagePID, 0, callDecimal, uintptr(at)+2, uintptr(number))
		prog.calls[prog.n] = exec
		prog.n++
		prog.add(0, 0, callEnd)
		c := &Child{Report: p[0], spec: *spec, mem: prog.mem}
		if errno := c.fork(prog, ownStack); errno != 0 {
			t.Fatal(errno)
		}
		unix.Close(p[1])
		closeOutput(spec)
		text, _ := io.ReadAll(out)
		finish(t, c)
		if want := strconv.FormatUint(v, 10) + "\n"; string(text) != want {
			t.Errorf("said %q, want %q", text, want)
		}
	}
}
