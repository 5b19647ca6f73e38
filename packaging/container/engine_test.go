package container

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// engineEnv makes the test binary the engine's second half: it finds itself in
// new namespaces, makes them a container, and executes the command.
const engineEnv = "CONTAINER_TEST_ENGINE"

// box says what a container is like.
type box struct {
	Root    string   // an empty directory, for the root file system
	Files   []string // of the host, which go into /bin there
	Command []string
	Env     []string
	UID     int // inside; 0 is root without capabilities
	Caps    []uintptr
	Trace   bool // the profile as with CAP_SYS_PTRACE
}

// enter makes this process, born into new namespaces, the command of the box.
func enter() {
	runtime.LockOSThread()
	var b box
	err := json.Unmarshal([]byte(os.Getenv(engineEnv)), &b)
	if err == nil {
		err = b.enter()
	}
	fmt.Fprintln(os.Stderr, "engine:", err)
	os.Exit(125)
}

func (b *box) enter() error {
	if _, err := os.Stdin.Read(make([]byte, 1)); err != io.EOF {
		return fmt.Errorf("wait for the limits: %w", err)
	}
	null, err := unix.Open("/dev/null", unix.O_RDONLY, 0)
	if err == nil {
		err = unix.Dup3(null, 0, 0)
		unix.Close(null)
	}
	if err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", b.Root, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount the root: %w", err)
	}
	for _, dir := range []string{"bin", "proc", "dev", "sys", "etc", "old"} {
		if err := os.Mkdir(filepath.Join(b.Root, dir), 0o755); err != nil {
			return err
		}
	}
	for _, file := range b.Files {
		text, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(filepath.Join(b.Root, "bin", filepath.Base(file)), text, 0o755)
		}
		if err == nil { // where the Containerfile has it
			err = os.Symlink(filepath.Join("bin", filepath.Base(file)), filepath.Join(b.Root, filepath.Base(file)))
		}
		if err != nil {
			return err
		}
	}
	// The devices that every image has; a user namespace cannot make them.
	for _, dev := range []string{"null", "zero", "random", "urandom"} {
		at := filepath.Join(b.Root, "dev", dev)
		if err := os.WriteFile(at, nil, 0o666); err != nil {
			return err
		}
		if err := unix.Mount("/dev/"+dev, at, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount /dev/%s: %w", dev, err)
		}
	}
	if err := unix.Mount("/sys", filepath.Join(b.Root, "sys"), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	if err := unix.Mount("proc", filepath.Join(b.Root, "proc"), "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := unix.PivotRoot(b.Root, filepath.Join(b.Root, "old")); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if err := unix.Unmount("/old", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the old root: %w", err)
	}
	// Read-only, all that is there: the root, /sys and with it the cgroups.
	ro := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	for _, at := range []string{"/sys", "/"} {
		flags := uint(unix.AT_RECURSIVE)
		if at == "/" {
			flags = 0 // /proc stays as it is
		}
		if err := unix.MountSetattr(unix.AT_FDCWD, at, flags, &ro); err != nil {
			return fmt.Errorf("make %s read-only: %w", at, err)
		}
	}
	if err := loopback(); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte("container")); err != nil {
		return err
	}
	if err := b.drop(); err != nil {
		return err
	}
	path := filepath.Join("/bin", filepath.Base(b.Command[0]))
	return fmt.Errorf("execute %s: %w", path, unix.Exec(path, append([]string{path}, b.Command[1:]...), b.Env))
}

// loopback sets the interface up, which a new network namespace has down.
func loopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
}

// drop gives up what engines take away.
func (b *box) drop() error {
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if !slices.Contains(b.Caps, c) {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && err != unix.EINVAL {
				return fmt.Errorf("drop capability %d: %w", c, err)
			}
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if b.UID != 0 {
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(b.UID), uintptr(b.UID), uintptr(b.UID)); e != 0 {
			return fmt.Errorf("setgid: %w", e)
		}
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(b.UID), uintptr(b.UID), uintptr(b.UID)); e != 0 {
			return fmt.Errorf("setuid: %w", e)
		}
	}
	var set [2]unix.CapUserData
	for _, c := range b.Caps {
		set[c/32].Effective |= 1 << (c % 32)
		set[c/32].Permitted |= 1 << (c % 32)
	}
	// In the filter's place: after it nothing here may need a denied call.
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if _, _, e := unix.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&set[0])), 0); e != 0 {
		return fmt.Errorf("capset: %w", e)
	}
	// As root of the namespace, what is executed has the bounding set again.
	return installProfile(b.Trace)
}

// container is a box that runs.
type container struct {
	t    *testing.T
	cmd  *exec.Cmd
	log  *words
	pid  int // of the container's PID 1, here
	dead chan struct{}
}

// start runs the command in a container.
func (b box) start(t *testing.T, memory int64) *container {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: an engine does")
	}
	b.Root = t.TempDir()
	text, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &container{t: t, cmd: exec.Command(exe), log: newWords(), dead: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), engineEnv+"="+string(text), "GORACE=atexit_sleep_ms=0")
	c.cmd.Stdout, c.cmd.Stderr = c.log, c.log
	const ids = 65536
	c.cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWCGROUP,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: ids}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: ids}},
		Credential:  &syscall.Credential{Uid: 0, Gid: 0},
		Pdeathsig:   syscall.SIGKILL,
	}
	if err := os.Chmod(b.Root, 0o755); err != nil {
		t.Fatal(err)
	}
	openWay(t, b.Root)
	openWay(t, exe)
	// It waits to be let go until it is where its memory will be limited.
	wait, release, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer release.Close()
	defer wait.Close()
	c.cmd.Stdin = wait
	group, limit := limited(t, memory)
	if err := c.cmd.Start(); err != nil {
		if strings.Contains(err.Error(), "operation not permitted") || strings.Contains(err.Error(), "no space left") {
			t.Skip("no user namespace can be made here:", err)
		}
		t.Fatal(err)
	}
	c.pid = c.cmd.Process.Pid
	if group != "" {
		if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(strconv.Itoa(c.pid)), 0o644); err != nil {
			t.Error(err)
		}
	}
	go func() { _ = c.cmd.Wait(); close(c.dead) }()
	release.Close()
	if group != "" {
		// The limit is for what runs in the container, and not for the test binary
		// that plays the engine: under the race detector it would not fit.
		c.awaitExec(exe)
		if err := limit(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill() // the end of PID 1 is the end of all
		<-c.dead
		if t.Failed() {
			t.Logf("the log:\n%s", c.log)
		}
	})
	return c
}

// awaitExec waits until PID 1 runs another program than exe, or is dead.
func (c *container) awaitExec(exe string) {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if now, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", c.pid)); err != nil || now != exe {
			return
		}
	}
	c.t.Error("the container does not begin")
}

// openWay lets the users of the container come to a path: t.TempDir is closed
// to others.
func openWay(t *testing.T, path string) {
	t.Helper()
	for dir := filepath.Dir(path); dir != "/" && strings.HasPrefix(dir, os.TempDir()+"/"); dir = filepath.Dir(dir) {
		st, err := os.Stat(dir)
		if err == nil && st.Mode().Perm()&0o5 != 0o5 {
			err = os.Chmod(dir, st.Mode().Perm()|0o5)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// limited makes a control group, as engines do, and gives its directory and what
// limits its memory; it is removed at the end of the test. Memory is a controller of
// cgroup v2 or of v1; "" where neither has it.
func limited(t *testing.T, memory int64) (group string, set func() error) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var why []error
	for line := range strings.Lines(string(text)) {
		before, after, _ := strings.Cut(line, " - ")
		f := strings.Fields(before)
		limit := "memory.max"
		switch {
		case len(f) < 5:
			continue
		case strings.HasPrefix(after, "cgroup2 "):
		case strings.HasPrefix(after, "cgroup ") && strings.Contains(after, "memory"):
			limit = "memory.limit_in_bytes"
		default:
			continue
		}
		dir, err := os.MkdirTemp(f[4], "supervise-container-")
		if err != nil {
			why = append(why, err)
			continue
		}
		remove := func() error { return os.Remove(dir) }
		file, err := os.OpenFile(filepath.Join(dir, limit), os.O_WRONLY, 0)
		if err == nil {
			t.Cleanup(func() { file.Close() })
			_, err = fmt.Fprint(file, 1<<40) // whether it can be
		}
		if err != nil {
			why = append(why, err, remove())
			continue
		}
		// The last process has just ended: the group is empty a moment later.
		t.Cleanup(func() {
			for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
				if err := remove(); err == nil {
					return
				} else if time.Now().After(end) {
					t.Error(err)
					return
				}
			}
		})
		return dir, func() error {
			_, err := fmt.Fprint(file, memory)
			return err
		}
	}
	t.Logf("memory cannot be limited here: %v", why)
	return "", nil
}

// inside runs the test binary with an environment in the network of the
// container.
func (c *container) inside(env string, args ...string) *exec.Cmd {
	exe, err := os.Executable()
	if err != nil {
		c.t.Fatal(err)
	}
	cmd := exec.Command("nsenter", append([]string{"--net=/proc/" + strconv.Itoa(c.pid) + "/ns/net", exe}, args...)...)
	cmd.Env = append(os.Environ(), env, "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	return cmd
}

// wait waits for the end of the container, and gives its status as a shell
// would.
func (c *container) wait() int {
	c.t.Helper()
	c.log.within(c.t, "the end of the container", func(string) bool {
		select {
		case <-c.dead:
			return true
		default:
			return false
		}
	})
	state := c.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if state.Signaled() {
		return 128 + int(state.Signal())
	}
	return state.ExitStatus()
}

// processes are the pids of the container, ours and not its.
func (c *container) processes() []int {
	var all []int
	ours, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", c.pid))
	if err != nil {
		return nil
	}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		if ns, err := os.Readlink(dir + "/ns/pid"); err == nil && ns == ours {
			pid, _ := strconv.Atoi(filepath.Base(dir))
			all = append(all, pid)
		}
	}
	slices.Sort(all)
	return all
}

// zombies among them.
func (c *container) zombies() int {
	n := 0
	for _, pid := range c.processes() {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if i := strings.LastIndexByte(string(text), ')'); i > 0 && strings.HasPrefix(string(text)[i:], ") Z") {
			n++
		}
	}
	return n
}
