package guest

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/cmd/storm/load"
)

// servers are the two ways of getting a listener.
var servers = []struct{ name, exec string }{
	{"LISTEN_FDS", "/vm/bin/supervise --listen 127.0.0.1:8080 -- /vm/bin/plain"},
	{"its own bind", "/vm/bin/supervise -- /vm/bin/oldbind -addr 127.0.0.1:8080"},
}

// systemctl start returns when the service serves; systemctl reload is a
// rollout that loses nothing and, with notify-reload, returns when it is done.
func TestReload(t *testing.T) {
	for _, s := range servers {
		t.Run(s.name, func(t *testing.T) {
			u := newUnit(t, "web.service", notifying(t, s.exec, "Restart=no"))
			u.do("start")
			pid := ask(t, "tcp", "127.0.0.1:8080") // ready is ready
			main := u.number("MainPID")
			if pid == main {
				t.Fatalf("the main process %d answers", main)
			}
			w := newStorm(t, "tcp", "127.0.0.1:8080")
			w.more(50)
			for i := range 5 {
				w.Mark("reload " + strconv.Itoa(i+1))
				u.do("reload")
				if u.property("Type") == "notify-reload" {
					if now := ask(t, "tcp", "127.0.0.1:8080"); now == pid {
						t.Errorf("reload %d returned, and process %d still answers", i+1, pid)
					}
				}
				pid = w.other(pid)
				u.await(`rollout done`, i+1)
				w.more(50)
			}
			w.lost()
			if now := u.number("MainPID"); now != main {
				t.Errorf("main process %d became %d", main, now)
			}
			if n := u.number("NRestarts"); n != 0 {
				t.Errorf("%d restarts", n)
			}
			if s := u.property("StatusText"); !strings.Contains(s, "generation 6") {
				t.Errorf("status %q does not tell of generation 6", s)
			}
			u.do("stop")
			if r := u.property("Result"); r != "success" {
				t.Errorf("result %s", r)
			}
		})
	}
}

// A reload whose candidate fails leaves the service up and serving.
func TestReloadThatFails(t *testing.T) {
	u := newUnit(t, "web.service", notifying(t, "/vm/bin/supervise --listen 127.0.0.1:8080 -- /bin/sh -c 'exec /vm/bin/plain $(cat /run/web.flags)'",
		"ExecStartPre=/bin/sh -c 'echo -drain=5s >/run/web.flags'", "Restart=no"))
	u.do("start")
	pid := ask(t, "tcp", "127.0.0.1:8080")
	w := newStorm(t, "tcp", "127.0.0.1:8080")
	run(t, "sh", "-c", "echo -fail-bind >/run/web.flags")
	if out, err := try("systemctl", "reload", "web.service"); err != nil {
		t.Logf("reload: %v %s", err, out)
	}
	u.await(`rollout failed, keeping generation 1`, 1)
	w.more(50)
	w.lost()
	if now := ask(t, "tcp", "127.0.0.1:8080"); now != pid {
		t.Errorf("process %d answers, not %d", now, pid)
	}
	if s := u.property("ActiveState"); s != "active" {
		t.Errorf("state %s", s)
	}
	// The next one works again.
	run(t, "sh", "-c", "echo -drain=5s >/run/web.flags")
	u.do("reload")
	u.await(`rollout done`, 1)
}

// The server dies: systemd does not see it, and clients neither, but for the
// connections that the dead process had.
func TestCrashOfTheServer(t *testing.T) {
	u := newUnit(t, "web.service", notifying(t, servers[0].exec, "Restart=no"))
	u.do("start")
	w := newStorm(t, "tcp", "127.0.0.1:8080")
	w.more(20)
	pid := w.LastPid()
	for range 3 {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		pid = w.other(pid)
		w.more(20)
	}
	w.allows(func(f load.Failure) bool { return f.Kind == load.Reset || f.Kind == load.EOF })
	if s := u.property("ActiveState"); s != "active" {
		t.Errorf("state %s", s)
	}
}

// The supervisor is killed: systemd ends what is left of it, and starts it
// anew on the same port.
func TestKillOfTheSupervisor(t *testing.T) {
	for _, s := range servers {
		t.Run(s.name, func(t *testing.T) {
			u := newUnit(t, "web.service", notifying(t, s.exec, "Restart=always", "RestartSec=100ms"))
			u.do("start")
			for i := range 2 {
				before := ask(t, "tcp", "127.0.0.1:8080")
				if err := unix.Kill(u.number("MainPID"), unix.SIGKILL); err != nil {
					t.Fatal(err)
				}
				wait(t, "a restart", func() bool { return u.number("NRestarts") == i+1 && u.property("ActiveState") == "active" })
				if now := ask(t, "tcp", "127.0.0.1:8080"); now == before {
					t.Errorf("process %d outlived the kill of its supervisor", before)
				}
			}
		})
	}
}

// systemctl stop ends within our own time although a server ignores SIGTERM,
// whatever KillMode says; nothing is left, and no restart was tried meanwhile.
func TestStopOfAStubbornServer(t *testing.T) {
	for _, mode := range []string{"control-group", "mixed", "process"} {
		for _, delegate := range []string{"no", "yes"} {
			t.Run(mode+" delegate "+delegate, func(t *testing.T) {
				u := newUnit(t, "web.service", notifying(t,
					"/vm/bin/supervise --timeout-stop 2s --listen 127.0.0.1:8080 -- /bin/sh -c '/vm/bin/plain -ignore-term & (setsid sleep 1000 &) ; wait'",
					"Restart=no", "KillMode="+mode, "Delegate="+delegate))
				u.do("start")
				ask(t, "tcp", "127.0.0.1:8080")
				began := time.Now()
				u.do("stop")
				took := time.Since(began)
				t.Logf("stop took %v", took.Round(time.Millisecond))
				if took > 60*time.Second { // 90 s are systemd's own
					t.Errorf("stop took %v", took)
				}
				if left := u.processes(); len(left) > 0 {
					t.Errorf("processes are left: %v", left)
				}
				if out, err := try("pidof", "plain", "sleep"); err == nil {
					t.Errorf("processes are left: %s", out)
				}
				if r := u.property("Result"); r != "success" {
					t.Errorf("result %s", r)
				}
				if log := u.journal(); strings.Contains(log, "generation=2") {
					t.Error("a second generation was started in a stop")
				}
			})
		}
	}
}

// systemd's watchdog: fed while the loop lives; a stopped supervisor is
// replaced.
func TestWatchdog(t *testing.T) {
	u := newUnit(t, "web.service", notifying(t, servers[0].exec, "Restart=always", "RestartSec=100ms", "WatchdogSec=5s", "LimitCORE=0"))
	u.do("start")
	main := u.number("MainPID")
	time.Sleep(12 * time.Second) // more than two intervals
	if n := u.number("NRestarts"); n != 0 {
		t.Fatalf("%d restarts of a healthy supervisor", n)
	}
	if err := unix.Kill(main, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	wait(t, "the restart by the watchdog", func() bool { return u.number("NRestarts") == 1 && u.property("ActiveState") == "active" })
	u.await(`[Ww]atchdog timeout`, 1)
	ask(t, "tcp", "127.0.0.1:8080")
}

// What ends in a failure is one for systemd too, with the status of CLI.
func TestExitStatus(t *testing.T) {
	for _, c := range []struct{ exec, status string }{
		{"/vm/bin/supervise --restart no -- /bin/sh -c 'sleep 1; exit 3'", "3"},
		{"/vm/bin/supervise --no-such-flag -- /bin/true", "64"},
		{"/vm/bin/supervise -- /no/such/program", "127"},
	} {
		t.Run(c.status, func(t *testing.T) {
			u := newUnit(t, "web.service", "[Service]\nExecStart="+c.exec+"\n")
			_, _ = try("systemctl", "start", "web.service")
			wait(t, "its end", func() bool { return u.property("ActiveState") == "failed" })
			if s := u.property("ExecMainStatus"); s != c.status {
				t.Errorf("status %s", s)
			}
		})
	}
}
