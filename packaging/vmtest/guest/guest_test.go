package guest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/supervise/supervise/cmd/storm/load"
)

// patience bounds every wait.
const patience = 5 * time.Minute

// inVM skips where the units of a test would be somebody's own machine's.
func inVM(t *testing.T) {
	t.Helper()
	if os.Getenv("SUPERVISE_VM") == "" {
		t.Skip("runs in the virtual machine that packaging/vmtest/run starts")
	}
}

// run runs a command, which has to succeed, and gives its output.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := try(name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

func try(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// systemdVersion is the major number.
func systemdVersion(t *testing.T) int {
	t.Helper()
	f := strings.Fields(run(t, "systemctl", "--version"))
	n, err := strconv.Atoi(f[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// unit is a unit of the running systemd, gone when the test ends.
type unit struct {
	t    *testing.T
	name string
	mark string // cursor of the journal at its beginning
}

// newUnit tells systemd of a unit; text is the whole file.
func newUnit(t *testing.T, name, text string) *unit {
	t.Helper()
	inVM(t)
	file := filepath.Join("/run/systemd/system", name)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	u := &unit{t: t, name: name}
	cursor, _ := try("journalctl", "-n0", "--show-cursor", "--no-pager", "-q")
	if _, c, ok := strings.Cut(cursor, "-- cursor: "); ok {
		u.mark = strings.TrimSpace(c)
	}
	run(t, "systemctl", "daemon-reload")
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the journal of %s:\n%s", name, u.journal())
		}
		_, _ = try("systemctl", "stop", name)
		_, _ = try("systemctl", "reset-failed", name)
		os.Remove(file)
		_, _ = try("systemctl", "daemon-reload")
	})
	return u
}

// notifying is the text of a service whose reload is a rollout: with
// Type=notify-reload where systemd knows it (253), else as it was done before.
func notifying(t *testing.T, exec string, more ...string) string {
	t.Helper()
	inVM(t)
	reload := []string{"Type=notify-reload"}
	if systemdVersion(t) < 253 {
		reload = []string{"Type=notify", "ExecReload=kill -HUP $MAINPID"}
	}
	return "[Service]\nExecStart=" + exec + "\n" + strings.Join(slices.Concat(reload, more), "\n") + "\n"
}

func (u *unit) do(verb string) { u.t.Helper(); run(u.t, "systemctl", verb, u.name) }

// property is what systemctl show says.
func (u *unit) property(name string) string {
	u.t.Helper()
	return run(u.t, "systemctl", "show", "--value", "-p", name, u.name)
}

func (u *unit) number(name string) int {
	u.t.Helper()
	n, err := strconv.Atoi(u.property(name))
	if err != nil {
		u.t.Fatal(name, err)
	}
	return n
}

// journal is what was said by the unit, and of it, since the test began.
func (u *unit) journal() string {
	_, _ = try("journalctl", "--sync")
	args := []string{"--no-pager", "-q", "-o", "cat", "-u", u.name}
	if u.mark != "" {
		args = append(args, "--after-cursor="+u.mark)
	}
	out, _ := try("journalctl", args...)
	return out
}

// await waits until the journal has n lines that match.
func (u *unit) await(re string, n int) string {
	u.t.Helper()
	var text string
	wait(u.t, fmt.Sprintf("%d times %q in the journal of %s", n, re, u.name), func() bool {
		text = u.journal()
		return len(regexp.MustCompile(re).FindAllString(text, -1)) >= n
	})
	return text
}

// processes are those in the control group of the unit, or below.
func (u *unit) processes() []int {
	u.t.Helper()
	var pids []int
	group := u.property("ControlGroup")
	if group == "" {
		return nil
	}
	_ = filepath.WalkDir("/sys/fs/cgroup"+group, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			text, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
			for _, f := range strings.Fields(string(text)) {
				pid, _ := strconv.Atoi(f)
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids
}

// wait waits until ok.
func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// storm loads an address with new connections until it is stopped.
type storm struct {
	t *testing.T
	*load.Load
}

func newStorm(t *testing.T, network, addr string) *storm {
	t.Helper()
	l, err := load.Start(load.Options{Network: network, Addrs: []string{addr}, Workers: 4, Rate: 200, Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Stop() })
	return &storm{t, l}
}

// more waits for n more requests.
func (s *storm) more(n int64) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.WaitTotal(ctx, s.OK()+s.Failed()+n); err != nil {
		s.t.Fatal(err)
	}
}

// other waits for another process than pid to answer, and gives it.
func (s *storm) other(pid int) int {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	now, err := s.WaitPid(ctx, func(p int) bool { return p != pid })
	if err != nil {
		s.t.Fatalf("no other process than %d answers: %v", pid, err)
	}
	return now
}

// lost stops the storm, and no request may have failed.
func (s *storm) lost() {
	s.t.Helper()
	s.allows(func(f load.Failure) bool { return false })
}

// allows stops the storm, and every failure must be allowed.
func (s *storm) allows(allowed func(load.Failure) bool) {
	s.t.Helper()
	r := s.Stop()
	var bad int
	for _, f := range r.Failures {
		if !allowed(f) {
			if bad++; bad <= 5 {
				s.t.Errorf("lost in phase %q: %v", f.Phase, &f)
			}
		}
	}
	s.t.Logf("%d connections, %d failed, %d of them not allowed, longest answer %v", r.OK+int64(len(r.Failures)), len(r.Failures), bad, r.Max.Round(time.Millisecond))
}

// ask makes one request and gives the process that answered.
func ask(t *testing.T, network, addr string) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	a, err := load.Ask(ctx, load.Options{Network: network, Addrs: []string{addr}})
	if err != nil {
		t.Fatal(err)
	}
	return a.Pid
}
