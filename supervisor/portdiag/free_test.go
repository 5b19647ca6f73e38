package portdiag

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestEvict(t *testing.T) {
	h := hold(t, "tcp 127.0.0.1:0 reuseaddr listen")
	r := explain(t, tcp(h.at[0]))
	p, err := Evictable(r)
	if err != nil {
		t.Fatal(err)
	}
	if p.PID != h.pid {
		t.Fatalf("would end pid %d, not %d", p.PID, h.pid)
	}
	var steps []string
	if err := Evict(t.Context(), r, p, Eviction{Grace: patience, Step: func(s string) { steps = append(steps, s) }}); err != nil {
		t.Fatal(err)
	}
	if len(steps) != 1 || !strings.HasPrefix(steps[0], "SIGTERM to pid ") {
		t.Errorf("steps %q", steps)
	}
	if err := WaitFree(t.Context(), tcp(h.at[0])); err != nil {
		t.Error(err)
	}
	// Once more: it is gone, and that is no error.
	h.end()
	if err := Evict(t.Context(), r, p, Eviction{}); err != nil {
		t.Error(err)
	}
}

// TestEvictStubborn: a holder that ignores SIGTERM is killed only when that
// was allowed.
func TestEvictStubborn(t *testing.T) {
	h := hold(t, "tcp 127.0.0.1:0 reuseaddr listen", func(c *exec.Cmd) { c.Env = append(c.Env, ignoreEnv+"=1") })
	r := explain(t, tcp(h.at[0]))
	p, err := Evictable(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := Evict(t.Context(), r, p, Eviction{Grace: 50 * time.Millisecond}); err == nil || !strings.Contains(err.Error(), "did not end") {
		t.Errorf("got %v", err)
	}
	if err := Evict(t.Context(), r, p, Eviction{Grace: 50 * time.Millisecond, Kill: true}); err != nil {
		t.Error(err)
	}
	_ = h.cmd.Wait()
	if ws := h.cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signal() != syscall.SIGKILL {
		t.Errorf("ended with %v", ws)
	}
}

// TestEvictStopped: SIGTERM reaches a stopped process only when it goes on.
func TestEvictStopped(t *testing.T) {
	h := hold(t, "tcp 127.0.0.1:0 reuseaddr listen")
	if err := h.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "stop", func() bool {
		p, err := readBrief(h.pid)
		return err == nil && p.State == "T"
	})
	r := explain(t, tcp(h.at[0]))
	p, err := Evictable(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := Evict(t.Context(), r, p, Eviction{Grace: patience}); err != nil {
		t.Fatal(err)
	}
}

func TestEvictRefuses(t *testing.T) {
	server := "tcp 127.0.0.1:0 reuseaddr listen"
	refused := func(t *testing.T, r Report, command string) {
		t.Helper()
		p, err := Evictable(r)
		var e *RefusedError
		if !errors.As(err, &e) {
			t.Fatalf("would end pid %d: %v\n%s", p.PID, err, r.Text(Style{}))
		}
		if !strings.HasPrefix(e.Command, command) {
			t.Errorf("says %q, want %q", e.Command, command)
		}
	}
	t.Run("free", func(t *testing.T) { refused(t, explain(t, tcp(freePort(t))), "") })
	t.Run("itself", func(t *testing.T) {
		l, client, accepted := connection(t)
		defer l.Close()
		defer client.Close()
		defer accepted.Close()
		r := explain(t, tcp(netip.MustParseAddrPort(l.Addr().String())))
		refused(t, r, "")
	})
	t.Run("supervise", func(t *testing.T) {
		refused(t, held(t, server, "127.0.0.1", asProgram(t, "supervise", "--", "./web")), "supervise status")
	})
	t.Run("forwarder", func(t *testing.T) {
		refused(t, held(t, server, "127.0.0.1", asProgram(t, "docker-proxy", "-host-port", "80")), "docker ps")
	})
	t.Run("unit", func(t *testing.T) {
		h := hold(t, server, func(c *exec.Cmd) { c.SysProcAttr.Setsid = true })
		inCgroup(t, h.pid, "system.slice/web.service")
		refused(t, explain(t, tcp(h.at[0])), "systemctl status web.service")
	})
	t.Run("pid 1", func(t *testing.T) {
		r := explainAs(t, "", inNamespaces(t, "--pid --fork --mount-proc", ""), func(c *exec.Cmd) { c.Env = append(c.Env, childEnv+"="+server) })
		r.target = tcp(netip.MustParseAddrPort(r.Address))
		refused(t, r, "")
	})
	t.Run("other user", func(t *testing.T) {
		h := hold(t, server, asNobody(t))
		r := explainAs(t, h.at[0].String(), asNobody(t), func(c *exec.Cmd) { c.SysProcAttr.Credential.Uid = 65533 })
		r.target = tcp(h.at[0])
		refused(t, r, "sudo ")
	})
}

// TestEvictOtherProcess: a pid that was given to another process, or a process
// that let the address go, is left alone.
func TestEvictOtherProcess(t *testing.T) {
	h := hold(t, "tcp 127.0.0.1:0 reuseaddr listen")
	r := explain(t, tcp(h.at[0]))
	p, err := Evictable(r)
	if err != nil {
		t.Fatal(err)
	}
	other := p
	other.ticks++
	if err := Evict(t.Context(), r, other, Eviction{Kill: true}); err != nil {
		t.Error(err)
	}
	let := r
	let.Holders = slices.Clone(r.Holders)
	let.Holders[0].Inode = 1
	var refused *RefusedError
	if err := Evict(t.Context(), let, p, Eviction{Kill: true}); !errors.As(err, &refused) {
		t.Errorf("got %v", err)
	}
	if q, err := readBrief(h.pid); err != nil || q.State == "Z" {
		t.Fatalf("the holder was ended: %+v %v", q, err)
	}
}

func TestWaitFree(t *testing.T) {
	for _, spec := range []string{"tcp 127.0.0.1:0 reuseaddr listen", "udp 127.0.0.1:0"} {
		network, _, _ := strings.Cut(spec, " ")
		h := hold(t, spec)
		target := Target{Network: network, Addr: h.at[0]}
		ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
		if err := WaitFree(ctx, target); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: held, and WaitFree says %v", spec, err)
		}
		cancel()
		done := make(chan error, 1)
		go func() { done <- WaitFree(t.Context(), target) }()
		h.end()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("%s: %v", spec, err)
			}
		case <-time.After(patience):
			t.Errorf("%s: not seen free", spec)
		}
	}
}

func TestWatch(t *testing.T) {
	h := hold(t, "tcp 127.0.0.1:0 reuseaddr listen")
	at := h.at[0].String()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, c := range []struct {
		script string
		status int
		found  string
	}{
		{"echo 'listen tcp " + at + ": bind: address already in use' >&2; exit 3", 3, "tcp://" + at},
		{"echo 'Error: listen EADDRINUSE: address already in use " + at + "'; kill -TERM $$", 128 + 15, at},
		{"echo all is well", 0, ""},
	} {
		var found []Symptom
		status, err := Watched{
			Argv: []string{"sh", "-c", c.script}, Stdin: null, Stdout: null, Stderr: null,
			Found: func(s Symptom) { found = append(found, s) },
		}.Run()
		if err != nil || status != c.status {
			t.Errorf("%s: status %d, %v", c.script, status, err)
		}
		if c.found == "" && len(found) != 0 || c.found != "" && (len(found) != 1 || found[0].Address != c.found) {
			t.Errorf("%s: found %+v", c.script, found)
		}
	}
	if _, err := (Watched{Argv: []string{filepath.Join(t.TempDir(), "no")}}).Run(); err == nil {
		t.Error("a command that is not there was run")
	}
}

// TestWatchRunning: a server that says it and goes on is explained while it
// runs.
func TestWatchRunning(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	dir := t.TempDir()
	begin := filepath.Join(dir, "go")
	status, err := Watched{
		Argv:  []string{"sh", "-c", "echo 'bind() to 0.0.0.0:80 failed (98: Address already in use)' >&2; until [ -e " + begin + " ]; do sleep 0.05; done"},
		Stdin: null, Stdout: null, Stderr: null,
		Found: func(s Symptom) {
			if err := os.WriteFile(begin, nil, 0o600); err != nil {
				t.Error(err)
			}
		},
	}.Run()
	if err != nil || status != 0 {
		t.Errorf("status %d, %v", status, err)
	}
}
