package portdiag

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// explainEnv makes the test binary explain its value and print the report as
// JSON: what has to be asked as another user, or in other namespaces.
const explainEnv = "PORTDIAG_TEST_EXPLAIN"

// Modes of the explainer.
const (
	landlockEnv = "PORTDIAG_TEST_LANDLOCK" // forbid itself every bind first
	inFlightEnv = "PORTDIAG_TEST_INFLIGHT" // leave a listener in a unix socket's queue, and explain that
)

func explainer(ask string) {
	runtime.LockOSThread()
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, "explainer:", err)
		os.Exit(1)
	}
	if spec := os.Getenv(childEnv); spec != "" {
		_, at, err := openSocket(strings.Fields(spec))
		if err != nil {
			fail(err)
		}
		ask = at
	}
	if os.Getenv(inFlightEnv) != "" {
		at, err := putInFlight()
		if err != nil {
			fail(err)
		}
		ask = at
	}
	if os.Getenv(landlockEnv) != "" {
		if err := forbidBind(); err != nil {
			fmt.Println("SKIP", err)
			os.Exit(0)
		}
	}
	r, err := explainText(ask)
	if err != nil {
		fail(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		fail(err)
	}
}

// explainText explains the first target of a text.
func explainText(text string) (Report, error) {
	ts, symptom, err := ParseTargets(text)
	if err != nil {
		return Report{}, err
	}
	return Explain(Ask{Target: ts[0], Symptom: symptom})
}

// putInFlight leaves a listener with no descriptor but one that is on its way
// through a unix socket (unix(7), SCM_RIGHTS).
func putInFlight() (string, error) {
	fd, at, err := openSocket([]string{"tcp", "127.0.0.1:0", "listen"})
	if err != nil {
		return "", err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	if err := unix.Sendmsg(pair[0], []byte{0}, unix.UnixRights(fd), nil, 0); err != nil {
		return "", err
	}
	return at, unix.Close(fd)
}

// forbidBind restricts this thread by landlock(7) so that it may bind no TCP
// port.
func forbidBind() error {
	attr := struct{ fs, net uint64 }{net: unix.LANDLOCK_ACCESS_NET_BIND_TCP}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return fmt.Errorf("no landlock for TCP (Linux 6.7) here: %w", errno)
	}
	defer unix.Close(int(fd))
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// explainAs runs the explainer with its command changed by adjust.
func explainAs(t testing.TB, ask string, adjust ...func(*exec.Cmd)) Report {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), explainEnv+"="+ask, "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	for _, f := range adjust {
		f(cmd)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("explaining %q: %v\n%s", ask, err, &stderr)
	}
	if why, ok := strings.CutPrefix(string(out), "SKIP "); ok {
		t.Skip(why)
	}
	var r Report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("explaining %q: %v\n%s", ask, err, out)
	}
	return r
}

// asNobody runs a command as a user without rights. The test binary may lie in
// a directory that is closed to others, so it is run through a descriptor.
func asNobody(t testing.TB) func(*exec.Cmd) {
	t.Helper()
	needRoot(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(exe)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return func(c *exec.Cmd) {
		c.ExtraFiles = []*os.File{f}
		c.Path = "/proc/self/fd/3"
		c.Dir = "/"
		c.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
	}
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// inNamespaces runs a command behind unshare(1) with the flags, after a shell
// has run setup there.
func inNamespaces(t testing.TB, flags, setup string) func(*exec.Cmd) {
	t.Helper()
	needRoot(t)
	for _, tool := range []string{"unshare", "ip", "sh"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: %v", tool, err)
		}
	}
	if out, err := exec.Command("unshare", append(strings.Fields(flags), "true")...).CombinedOutput(); err != nil {
		t.Skipf("unshare %s: %v: %s", flags, err, out)
	}
	return func(c *exec.Cmd) {
		args := append([]string{"unshare"}, strings.Fields(flags)...)
		if setup == "" {
			args = append(args, c.Path)
		} else {
			args = append(args, "sh", "-ec", setup+"\nexec \"$@\"", "sh", c.Path)
		}
		args = append(args, c.Args[1:]...)
		path, err := exec.LookPath("unshare")
		if err != nil {
			t.Fatal(err)
		}
		c.Path, c.Args = path, args
	}
}
