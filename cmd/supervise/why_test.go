package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/supervise/supervise/supervisor/portdiag"
)

// whyHoldEnv makes TestWhyHolder a process that holds a port.
const whyHoldEnv = "SUPERVISE_TEST_WHY_HOLD"

func TestWhyHolder(t *testing.T) {
	if os.Getenv(whyHoldEnv) == "" {
		t.Skip("is a helper of the tests of why")
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	os.Stdout.WriteString(l.Addr().String() + "\n")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// whyHolder starts a process that listens, and gives its pid and address.
func whyHolder(t *testing.T) (int, string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^TestWhyHolder$")
	cmd.Env = append(os.Environ(), whyHoldEnv+"=1", "GORACE=atexit_sleep_ms=0")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		_ = cmd.Wait()
	})
	line := make([]byte, 64)
	n, err := stdout.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid, strings.TrimSpace(string(line[:n]))
}

// runWhy runs the verb with an answer to its question, if it asks one.
func runWhy(t *testing.T, answer string, args ...string) (status int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	c := newWhyCommand(&status)
	c.SetArgs(args)
	c.SetIn(strings.NewReader(answer))
	c.SetOut(&o)
	c.SetErr(&e)
	if err := c.Execute(); err != nil {
		return whyUsage, o.String(), err.Error()
	}
	return status, o.String(), e.String()
}

func TestWhyHeld(t *testing.T) {
	pid, at := whyHolder(t)
	_, port, _ := net.SplitHostPort(at)
	who := "pid " + strconv.Itoa(pid)
	for _, args := range [][]string{
		{at},
		{port},
		{":" + port},
		{"http://" + at},
		{"http://127.0.0.1:" + port + "/x"},
		{"Error: listen EADDRINUSE: address already in use " + at},
		strings.Fields("Error: listen EADDRINUSE: address already in use " + at), // not quoted
	} {
		status, out, errs := runWhy(t, "", args...)
		if status != whyTaken || !strings.Contains(out, who) || !strings.Contains(out, "kill -TERM "+strconv.Itoa(pid)) || errs != "" {
			t.Errorf("why %q: status %d\n%s%s", args, status, out, errs)
		}
	}
	status, out, _ := runWhy(t, "", at, "--json")
	var rs []portdiag.Report
	if err := json.Unmarshal([]byte(out), &rs); err != nil || len(rs) != 1 {
		t.Fatalf("%v: %s", err, out)
	}
	if status != whyTaken || rs[0].Verdict != portdiag.Held || rs[0].Cause != portdiag.SameAddress || rs[0].Parties[0].PID != pid {
		t.Errorf("status %d, %+v", status, rs[0])
	}
}

func TestWhyFreeAddress(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	status, out, errs := runWhy(t, "", path)
	if status != whyFree || !strings.Contains(out, "is free") || errs != "" {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
	if status, out, errs := runWhy(t, "", path, "--free"); status != whyFree || errs != "" {
		t.Errorf("--free of what is free: status %d\n%s%s", status, out, errs)
	}
}

func TestWhyFreeFlag(t *testing.T) {
	pid, at := whyHolder(t)
	status, _, errs := runWhy(t, "no\n", at, "--free")
	if status != whyTaken || !strings.Contains(errs, "end pid "+strconv.Itoa(pid)) || !strings.Contains(errs, "nothing was done") {
		t.Errorf("status %d\n%s", status, errs)
	}
	status, _, errs = runWhy(t, "", at, "--free") // no answer is no
	if status != whyTaken || !strings.Contains(errs, "nothing was done") {
		t.Errorf("status %d\n%s", status, errs)
	}
	status, _, errs = runWhy(t, "y\n", at, "--free", "--grace", "1m")
	if status != whyFree || !strings.Contains(errs, "SIGTERM to pid "+strconv.Itoa(pid)) {
		t.Errorf("status %d\n%s", status, errs)
	}
}

// TestWhyFreeRefuses: this process holds it.
func TestWhyFreeRefuses(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	status, _, errs := runWhy(t, "", l.Addr().String(), "--free", "--yes")
	want := "this command or what started it"
	if os.Getpid() == 1 {
		want = "pid 1 holds it"
	}
	if status != whyTaken || !strings.Contains(errs, want) {
		t.Errorf("status %d\n%s", status, errs)
	}
}

func TestWhyWait(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	if status, out, _ := runWhy(t, "", at, "--wait", "100ms"); status != whyTaken {
		t.Errorf("status %d\n%s", status, out)
	}
	go l.Close()
	if status, out, errs := runWhy(t, "", at, "--wait", "1m"); status != whyFree {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
}

func TestWhyCommandForm(t *testing.T) {
	pid, at := whyHolder(t)
	_, port, _ := net.SplitHostPort(at)
	for _, script := range []string{
		"echo 'listen tcp " + at + ": bind: address already in use' >&2; exit 1",
		"echo 'OSError: [Errno 98] Address already in use' >&2; exit 1; : ",
	} {
		status, out, errs := runWhy(t, "", "--", "sh", "-c", script, "sh", "--port", port)
		if status != whyTaken || !strings.Contains(out, "pid "+strconv.Itoa(pid)) {
			t.Errorf("%s: status %d\n%s%s", script, status, out, errs)
		}
	}
	if status, out, errs := runWhy(t, "", "--", "true"); status != whyFree || !strings.Contains(errs, "named no bind that failed") {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
	if status, _, errs := runWhy(t, "", "--", filepath.Join(t.TempDir(), "no")); status != 127 {
		t.Errorf("status %d\n%s", status, errs)
	}
}

func TestWhyUsage(t *testing.T) {
	for _, args := range [][]string{
		{},
		{"hello"},
		{"70000"},
		{"5000", "--yes"},
		{"5000", "--", "true"},
		{"--"},
		{"--free", "--", "true"},
		{"OSError: [Errno 98] Address already in use"},
		{"--nosuchflag"},
	} {
		if status, out, errs := runWhy(t, "", args...); status != whyUsage || errs == "" {
			t.Errorf("why %q: status %d\n%s%s", args, status, out, errs)
		}
	}
	var out, errs bytes.Buffer
	if status := whyMain([]string{"--nosuchflag"}, &out, &errs); status != whyUsage || errs.Len() == 0 {
		t.Errorf("status %d, %s", status, &errs)
	}
}

// TestWhyAsVerb: below a root command, the words after -- are the command's.
func TestWhyAsVerb(t *testing.T) {
	for _, c := range []struct {
		args []string
		want int
	}{
		{[]string{"why", "--", "sh", "-c", "exit 0", "--json"}, whyFree},
		{[]string{"why", "--json", "--", "true"}, whyFree},
		{[]string{"why", filepath.Join(t.TempDir(), "s")}, whyFree},
		{[]string{"why"}, whyUsage},
	} {
		status := -1
		var out, errs bytes.Buffer
		root := &cobra.Command{Use: "supervise", Args: cobra.ArbitraryArgs, RunE: func(*cobra.Command, []string) error {
			t.Error("ran the root")
			return nil
		}}
		root.AddCommand(newWhyCommand(&status))
		root.SetOut(&out)
		root.SetErr(&errs)
		root.SetArgs(c.args)
		if err := root.Execute(); err != nil || status != c.want {
			t.Errorf("%q: status %d, %v\n%s%s", c.args, status, err, &out, &errs)
		}
	}
}
