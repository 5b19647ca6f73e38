package ready

import (
	"errors"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func env(kv ...string) func(string) string {
	return func(key string) string {
		for i := 0; i < len(kv); i += 2 {
			if kv[i] == key {
				return kv[i+1]
			}
		}
		return ""
	}
}

func TestUpward(t *testing.T) {
	for kind, n := range sockets(t) {
		t.Run(kind, func(t *testing.T) {
			u, err := NewUpward(env("NOTIFY_SOCKET", n.Addr()))
			if err != nil {
				t.Fatal(err)
			}
			defer u.Close()
			for _, c := range []struct {
				say  func() error
				want func(Message) bool
			}{
				{func() error { return u.Ready("serving\nREADY=0") }, func(m Message) bool { return m.Ready && *m.Status == "serving READY=0" }},
				{func() error { return u.Ready("") }, func(m Message) bool { return m.Ready && m.Status == nil }},
				{func() error { return u.Reloading("") }, func(m Message) bool { return m.Reloading && m.MonotonicUsec > 0 }},
				{func() error { return u.Stopping("bye") }, func(m Message) bool { return m.Stopping && *m.Status == "bye" }},
				{func() error { return u.Status("") }, func(m Message) bool { return *m.Status == "" }},
				{u.Watchdog, func(m Message) bool { return m.Watchdog }},
				{func() error { return u.ExtendTimeout(3 * time.Second) }, func(m Message) bool { return m.ExtendTimeout == 3*time.Second }},
				{func() error { return u.MainPID(77) }, func(m Message) bool { return m.MainPID == 77 }},
			} {
				if err := c.say(); err != nil {
					t.Fatal(err)
				}
				m := next(t, n)
				if !c.want(m) || len(m.Problems) != 0 {
					t.Errorf("%+v", m)
				}
			}
		})
	}
}

// A manager that does not read neither holds us nor loses what matters.
func TestUpwardFull(t *testing.T) {
	n, err := ListenNotify(t.TempDir(), "full")
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	u, err := NewUpward(env("NOTIFY_SOCKET", n.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	sent := 0
	for !u.Pending() {
		if err := u.Status(strconv.Itoa(sent)); err != nil {
			t.Fatal(err)
		}
		if sent++; sent > 1<<20 {
			t.Skip("the queue has no end here")
		}
	}
	for range 5 * maxUnsent {
		if err := u.Status("more"); err != nil {
			t.Fatal(err)
		}
	}
	if err := u.Ready("after all"); err != nil || len(u.unsent) != maxUnsent {
		t.Fatalf("%d unsent, %v", len(u.unsent), err)
	}
	if err := u.Watchdog(); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("watchdog: %v", err)
	}
	for {
		m := next(t, n)
		if err := u.Flush(); err != nil {
			t.Fatal(err)
		}
		if m.Ready {
			break
		}
	}
	if u.Pending() {
		t.Error("still pending")
	}
}

func TestUpwardNobody(t *testing.T) {
	u, err := NewUpward(env())
	if err != nil || u.Enabled() {
		t.Fatal(err)
	}
	if err := errors.Join(u.Ready(""), u.Watchdog(), u.Flush(), u.Close()); err != nil {
		t.Error(err)
	}
	for _, addr := range []string{"relative", "vsock:2:1", "@"} {
		u, err := NewUpward(env("NOTIFY_SOCKET", addr))
		if err == nil || u == nil || u.Ready("") != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
	u, err = NewUpward(env("NOTIFY_SOCKET", "/nonexistent/notify"))
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if err := u.Ready(""); !errors.Is(err, unix.ENOENT) || u.Pending() {
		t.Errorf("manager gone: %v", err)
	}
}

func TestWatchdogInterval(t *testing.T) {
	pid := strconv.Itoa(unix.Getpid())
	for _, c := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"", "", 0},
		{"3000000", "", 3 * time.Second},
		{"3000000", pid, 3 * time.Second},
		{"3000000", "1", 0},
		{"0", "", 0},
		{"-1", "", 0},
		{"x", pid, 0},
		{"3000000", "0" + pid, 0},
	} {
		u, _ := NewUpward(env("WATCHDOG_USEC", c.usec, "WATCHDOG_PID", c.pid))
		if got := u.WatchdogInterval(); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
