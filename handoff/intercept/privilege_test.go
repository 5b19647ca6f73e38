package intercept

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// rerun runs some of these tests in another process. Each must pass, and none
// be skipped.
func rerun(t *testing.T, cmd *exec.Cmd, tests string) {
	t.Helper()
	cmd.Args = append(cmd.Args, "-test.v", "-test.run=^("+tests+")$")
	cmd.Env = append(os.Environ(), "INTERCEPT_AGAIN=1")
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Contains(string(out), "--- SKIP") || !strings.Contains(string(out), "--- PASS") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestUnprivileged: a supervisor without privilege serves its own children, at
// the price of no-new-privs.
func TestUnprivileged(t *testing.T) {
	needRoot(t)
	cmd := asNobody(t, "", 0)
	cmd.Args = cmd.Args[:1]
	rerun(t, cmd, "TestSwap|TestErrnos|TestUnix|TestUnlinkPaths|TestChildren|TestWorkers|TestNoNewPrivs|TestClosedChild|TestProbe|TestEpollBeforeBind")
}

// TestNoNewPrivs is as the kernel wants it: set without CAP_SYS_ADMIN, and only
// then.
func TestNoNewPrivs(t *testing.T) {
	want := os.Getuid() != 0
	if r := Probe(); r.Install != nil {
		t.Skip(r.Install)
	} else if r.NoNewPrivs != want {
		t.Errorf("no-new-privs %v as user %d", r.NoNewPrivs, os.Getuid())
	}
	v, err := thread{tid: unix.Getpid()}.status("NoNewPrivs")
	if err != nil || v != "0" {
		t.Errorf("the main thread has no-new-privs %q, %v", v, err)
	}
}

// TestClosedChild: a child that an unprivileged supervisor may not look into
// runs as it would, is not held, and is named.
func TestClosedChild(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may look into everything; see TestUnprivileged")
	}
	h, port := newHolder(t), freePort(t)
	said := again(t, h, Options{}, func() *exec.Cmd { return actor("private", strconv.Itoa(int(port))) })
	if said[0] == said[1] || h.count("") != 0 {
		t.Errorf("%q\n%s", said, h.log())
	}
	if h.failed(Unheld, unix.EPERM) == 0 && h.failed(Unheld, unix.EACCES) == 0 {
		t.Errorf("nobody heard of it:\n%s", h.log())
	}
}

// TestSetuid: under root, setuid programs of the child elevate as ever.
func TestSetuid(t *testing.T) {
	needRoot(t)
	cmd := asNobody(t, "serve", 1)
	id, err := exec.LookPath("id")
	if err != nil {
		t.Skip(err)
	}
	b, err := os.ReadFile(id)
	if err != nil {
		t.Fatal(err)
	}
	setuid := cmd.Path + "-id"
	if err := errors.Join(os.WriteFile(setuid, b, 0o755), os.Chmod(setuid, 0o755|os.ModeSetuid)); err != nil {
		t.Fatal(err)
	}
	run := func() *exec.Cmd {
		c := exec.Command(setuid, "-u")
		c.SysProcAttr = &syscall.SysProcAttr{Credential: nobody}
		return c
	}
	if out, err := run().Output(); err != nil || strings.TrimSpace(string(out)) != "0" {
		t.Skipf("setuid does nothing here: %q, %v", out, err)
	}
	g := start(t, newHolder(t), 1, Options{}, ServerOptions{}, run())
	if said := g.line(); said != "0" {
		t.Errorf("setuid root under the filter: uid %s", said)
	}
	g.end()
}

// TestPIDNamespace: as in a container, where we are process 1's child.
func TestPIDNamespace(t *testing.T) {
	needRoot(t)
	if os.Getenv("INTERCEPT_AGAIN") != "" {
		t.Skip("once is enough")
	}
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		t.Skip(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	rerun(t, exec.Command(unshare, "--pid", "--fork", "--mount-proc", "--kill-child", self), "TestSwap|TestChildren|TestWorkers|TestProbe")
}

// killer kills the child while it decides.
type killer struct{ *genHolder }

func (k killer) Bind(c *Call) Decision {
	d := k.genHolder.Bind(c)
	tgid, err := c.TGID()
	if err != nil {
		k.t.Error(err)
	}
	if err := unix.Kill(tgid, unix.SIGKILL); err != nil {
		k.t.Error(err)
	}
	return d
}

// TestKilledDuringBind: a child that dies in bind leaves nothing behind that
// the next one would trip over.
func TestKilledDuringBind(t *testing.T) {
	h, port := newHolder(t), freePort(t)
	for number := range 20 {
		wrap := func(g *genHolder) Holder { return g }
		if number%2 == 0 {
			wrap = func(g *genHolder) Holder { return killer{g} }
		}
		g := startWith(t, h, number, Options{}, ServerOptions{}, actor("serve", strconv.Itoa(int(port))), wrap)
		if number%2 == 1 {
			if said := g.line(); !strings.HasPrefix(said, "ok") {
				t.Fatalf("%s\n%s", said, h.log())
			}
			g.end()
			continue
		}
		select {
		case <-g.empty:
		case <-time.After(deadline):
			t.Fatalf("still there\n%s", h.log())
		}
	}
	if strings.Contains(h.log(), Damaged.String()) {
		t.Errorf("events:\n%s", h.log())
	}
}
