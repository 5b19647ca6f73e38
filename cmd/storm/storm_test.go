package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// plain is the server under the storm, built once.
var plain string

// The test binary is also storm as a control supervisor, which storm starts
// as itself.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == controlVerb {
		os.Exit(run(os.Args[1:]))
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "storm-test-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	plain = filepath.Join(dir, "plain")
	if out, err := exec.Command("go", "build", "-o", plain, "../../examples/plain").CombinedOutput(); err != nil {
		panic(string(out))
	}
	return m.Run()
}

func mustStorm(t *testing.T, args ...string) account {
	t.Helper()
	o, err := parse(args)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	a, err := storm(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// show is the account as a person sees it.
func (a account) show() string {
	var out bytes.Buffer
	a.print(&out)
	return out.String()
}

// One shared listener never refuses; it may lose what the old generation
// accepts at its end, so nothing is said of that here.
func TestSharedRollouts(t *testing.T) {
	for _, doneBy := range []string{"pid", "log"} {
		a := mustStorm(t, "-control", "shared", "-rollouts", "3", "-done-by", doneBy, "-min-requests", "2000", "-expect", "none", "--", plain)
		if a.Rollouts != 3 || !a.Held || a.Refused != 0 || a.Total() < 2000 || len(a.Answered) != 4 {
			t.Errorf("done by %s:\n%s", doneBy, a.show())
		}
	}
}

// Stop, then start, refuses, and that is not lossless.
func TestRestartIsSeen(t *testing.T) {
	a := mustStorm(t, "-control", "restart", "-rollouts", "3", "-min-requests", "2000", "--", plain)
	if a.Rollouts != 3 || a.Held || a.Refused == 0 {
		t.Error(a.show())
	}
}

func TestCrashes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for name, args := range map[string][]string{
		"tcp":        {},
		"unix":       {"-network", "unix", "-addr", path},
		"keep-alive": {"-keepalive"},
	} {
		args = append(args, "-control", "shared", "-crashes", "5", "-min-requests", "3000", "-expect", "crash", "--", plain)
		a := mustStorm(t, args...)
		if a.Crashes != 5 || !a.Held || len(a.Answered) != 6 {
			t.Errorf("%s:\n%s", name, a.show())
		}
	}
}

// A server that shuts down loses what comes on kept connections, and storm sees it.
func TestKeptConnectionsAreSeen(t *testing.T) {
	a := mustStorm(t, "-keepalive", "-control", "shared", "-rollouts", "3", "-min-requests", "3000", "--", plain)
	if a.Rollouts != 3 || a.Held || a.Failed() == 0 || a.Refused != 0 || a.Reused < 2000 {
		t.Error(a.show())
	}
}

// Without a held listener a crash refuses, and that is not excused.
func TestCrashIsSeen(t *testing.T) {
	a := mustStorm(t, "-control", "restart", "-crashes", "3", "-min-requests", "2000", "-expect", "crash", "--", plain)
	if a.Crashes != 3 || a.Held || a.Refused == 0 || len(a.Unexplained) < int(a.Refused) {
		t.Error(a.show())
	}
}

// What plain notes explains all but what it had no time to note: at most one
// connection for each kill.
func TestNotedCrashes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "accepted")
	a := mustStorm(t, "-control", "shared", "-crashes", "5", "-accepted", file, "-min-requests", "3000", "-expect", "none", "--", plain, "-accepted", file)
	if a.Crashes != 5 || a.Refused != 0 || len(a.Unexplained) > 5 {
		t.Error(a.show())
	}
}

// A command that ends at once is told of with its own words.
func TestDeadCommand(t *testing.T) {
	o, err := parse([]string{"--", plain, "-fail-bind"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = storm(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "exit status 1") || !strings.Contains(err.Error(), "already in use") {
		t.Errorf("got %v", err)
	}
}

func TestJSON(t *testing.T) {
	a := mustStorm(t, "-control", "shared", "-min-requests", "100", "--", plain)
	text, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	var back struct {
		OK       int64
		Held     bool
		Answered map[string]int64
	}
	if err := json.Unmarshal(text, &back); err != nil || back.OK != a.OK || !back.Held || len(back.Answered) != 1 {
		t.Errorf("%v: %s", err, text)
	}
}

func TestParse(t *testing.T) {
	for _, args := range []string{
		"",
		"-rollouts 1",
		"-nonsense -- x",
		"-expect much -- x",
		"-done-by luck -- x",
		"-control supervise -- x",
		"-control shared -network udp -- x",
		"-control shared -addr 127.0.0.1:1,127.0.0.1:2 -- x",
		"-rollouts 1 -crashes 1 -- x",
		"-echo -crashes 1 -- x",
		"-echo -rollouts 1 -- x",
		"-echo -http2 -- x",
	} {
		if _, err := parse(strings.Fields(args)); err == nil {
			t.Errorf("storm %s: no error", args)
		}
	}
	o, err := parse(strings.Fields("-addr 127.0.0.1:0 -- x --listen {addr} {port}"))
	if err != nil {
		t.Fatal(err)
	}
	if err := o.fillIn(); err != nil {
		t.Fatal(err)
	}
	if c := o.command; c[2] != o.load.Addrs[0] || !strings.HasSuffix(c[2], ":"+c[3]) || c[3] == "0" {
		t.Errorf("command %q for %q", c, o.load.Addrs)
	}
}
