package main

// Idle costs nothing: no thread of supervise wakes up while nothing happens.

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// SUPERVISE_IDLE is how long to look, a minute for the promise:
//
//	SUPERVISE_IDLE=60s go test -run Idle -v ./cmd/supervise
const idleVariable, idleByDefault = "SUPERVISE_IDLE", 10 * time.Second

func TestIdleMakesNoSystemCall(t *testing.T) {
	t.Parallel()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("no strace(1) here:", err)
	}
	look := idleByDefault
	if text := os.Getenv(idleVariable); text != "" {
		if look, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	} else if testing.Short() {
		t.Skip("takes 14 s")
	}
	// A binary of its own: the race detector and package testing have threads that wake up.
	binary := filepath.Join(t.TempDir(), "supervise")
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("cannot build: %v\n%s", err, out)
	}
	r := startSupervise(t, nil, binary, "--listen", "127.0.0.1:0", "--ready", "delay:1ms", "--", "sleep", "1000")
	r.await(` ready: `)
	time.Sleep(3 * time.Second) // the next generation is prepared, and the scheduler has gone to sleep

	trace := filepath.Join(t.TempDir(), "trace")
	cmd := exec.Command(strace, "-f", "-ttt", "-o", trace, "-p", strconv.Itoa(r.pid()))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// To be attached to interrupts the calls that wait: the first second does not count.
	from := time.Now().Add(time.Second)
	time.Sleep(time.Second + look)
	until := time.Now()
	cmd.Process.Signal(unix.SIGINT)
	err = cmd.Wait()
	text, readErr := os.ReadFile(trace)
	if readErr != nil || len(text) == 0 {
		t.Skip("strace cannot attach here:", err)
	}
	calls := 0
	for line := range strings.Lines(string(text)) {
		var thread int
		var at float64
		if _, err := fmt.Sscan(line, &thread, &at); err != nil {
			continue
		}
		when := time.Unix(0, int64(at*1e9))
		if strings.Contains(line, " = ") && when.After(from) && when.Before(until) {
			calls++
			t.Log(strings.TrimSpace(line))
		}
	}
	if calls > 0 {
		t.Errorf("%d system calls in %v of idleness", calls, look)
	}
}
