package handoff

import (
	"errors"
	"fmt"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// world is an environment of a test: variables, and descriptors that open.
type world struct {
	vars   map[string]string
	opened []int
	said   map[int]string
}

func (w *world) environment() *environment {
	return &environment{
		getenv:   func(name string) string { return w.vars[name] },
		unsetenv: func(name string) error { delete(w.vars, name); return nil },
		pid:      42, ppid: 41, fds: w,
	}
}

func (w *world) open(fd int, _ string) (net.Listener, net.PacketConn, error) {
	if fd >= 100 {
		return nil, nil, errors.New("bad file descriptor")
	}
	w.opened = append(w.opened, fd)
	return at{addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: fd}}, nil, nil
}

func (w *world) message(fd int, text string) error {
	if w.said == nil {
		w.said = map[int]string{}
	}
	w.said[fd] += text
	return nil
}

func worldOf(vars ...string) *world {
	w := &world{vars: map[string]string{}}
	for _, kv := range vars {
		k, v, _ := strings.Cut(kv, "=")
		w.vars[k] = v
	}
	return w
}

func TestInherit(t *testing.T) {
	for _, test := range []struct {
		vars   string
		opened []int
		names  []string
		missed string // part of it
		err    string // part of it
	}{
		{vars: ""},
		{vars: "LISTEN_FDS=2 LISTEN_PID=42", opened: []int{3, 4}, names: []string{"", ""}},
		{vars: "LISTEN_FDS=2 LISTEN_PID=42 LISTEN_FDNAMES=web:unknown LISTEN_PIDFDID=7", opened: []int{3, 4}, names: []string{"web", ""}},
		{vars: "LISTEN_FDS=0 LISTEN_PID=42"},
		{vars: "LISTEN_FDS=1 LISTEN_PID=41", missed: "exec"},
		{vars: "LISTEN_FDS=1", missed: "LISTEN_PID"},
		{vars: "LISTEN_FDS=1 LISTEN_FDS_FIRST_FD=5", opened: []int{5}, names: []string{""}},
		{vars: "LISTEN_FDS=1 LISTEN_FDS_FIRST_FD=5 LISTEN_PID=9", missed: "process 9"},
		{vars: "LISTEN_FDS=x LISTEN_PID=42", err: "cannot read LISTEN_FDS=x"},
		{vars: "LISTEN_FDS=-1 LISTEN_PID=42", err: "LISTEN_FDS=-1"},
		{vars: "LISTEN_FDS=99999999 LISTEN_PID=42", err: "LISTEN_FDS"},
		{vars: "LISTEN_FDS=1 LISTEN_PID=42 LISTEN_FDNAMES=a:b", err: "2 names for 1"},
		{vars: "LISTEN_FDS=98 LISTEN_PID=42", err: "cannot use descriptor 100 of LISTEN_FDS: bad file"},
		{vars: "LISTEN_FDS=1 LISTEN_FDS_FIRST_FD=1", err: "LISTEN_FDS_FIRST_FD"},

		{vars: "SERVER_STARTER_PORT=8080=3;[::1]:81=7;/run/a=b=5 SERVER_STARTER_GENERATION=1", opened: []int{3, 7, 5}, names: []string{"", "", ""}},
		{vars: "SERVER_STARTER_PORT=8080", err: "no '=' in 8080"},
		{vars: "SERVER_STARTER_PORT=8080=3;", err: `no '=' in ""`},
		{vars: "SERVER_STARTER_PORT=8080=2", err: "2 is not the number"},
		{vars: "SERVER_STARTER_PORT=0:8080=9999999999", err: "not the number"},

		{vars: "EINHORN_FD_COUNT=2 EINHORN_FD_0=6 EINHORN_FD_1=4 EINHORN_MASTER_PID=41", opened: []int{6, 4}, names: []string{"", ""}},
		{vars: "EINHORN_FD_COUNT=2 EINHORN_FD_0=6 EINHORN_FD_1=4 EINHORN_MASTER_PID=1", missed: "EINHORN"},
		{vars: "EINHORN_FD_COUNT=2 EINHORN_FD_0=6 EINHORN_MASTER_PID=41", err: "EINHORN_FD_1"},
		{vars: "EINHORN_FD_COUNT=many EINHORN_MASTER_PID=41", err: "EINHORN_FD_COUNT"},

		// supervise says the same by all of them.
		{
			vars:   "LISTEN_FDS=1 LISTEN_PID=42 LISTEN_FDNAMES=web SERVER_STARTER_PORT=80=3 EINHORN_FD_COUNT=1 EINHORN_FD_0=3 EINHORN_MASTER_PID=41",
			opened: []int{3}, names: []string{"web"},
		},
	} {
		w := worldOf(strings.Fields(test.vars)...)
		in, err := inherit(w.environment())
		if (err != nil) != (test.err != "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: error %v, want %q", test.vars, err, test.err)
			continue
		}
		if err != nil {
			continue
		}
		var names []string
		for _, h := range in.sockets {
			names = append(names, h.name)
		}
		if !slices.Equal(w.opened, test.opened) || !slices.Equal(names, test.names) {
			t.Errorf("%s: opened %v as %q, want %v as %q", test.vars, w.opened, names, test.opened, test.names)
		}
		if in.foreign != (len(test.opened) > 0) {
			t.Errorf("%s: foreign is %v", test.vars, in.foreign)
		}
		if (in.missed != "") != (test.missed != "") || !strings.Contains(in.missed, test.missed) {
			t.Errorf("%s: missed %q, want %q", test.vars, in.missed, test.missed)
		}
		if len(w.vars) > 0 {
			t.Errorf("%s: left in the environment: %v", test.vars, w.vars)
		}
	}
}

func TestEinhornAck(t *testing.T) {
	w := worldOf("EINHORN_FD_COUNT=1", "EINHORN_FD_0=3", "EINHORN_MASTER_PID=41", "EINHORN_SOCK_FD=9")
	in, err := inherit(w.environment())
	if err != nil {
		t.Fatal(err)
	}
	if err := in.acknowledge(42, w); err != nil {
		t.Fatal(err)
	}
	if want := map[int]string{9: "{\"command\":\"worker:ack\",\"pid\":42}\n"}; !reflect.DeepEqual(w.said, want) {
		t.Errorf("said %v, want %v", w.said, want)
	}
}

// Whatever the variables hold: no panic, no descriptor twice, no standard
// stream, and nothing left for a grandchild.
func FuzzInherit(f *testing.F) {
	f.Add("2", "42", "a:b", "", "80=3;x=4", "1", "3", "41", "5")
	f.Add("1", "", "", "5", "0:8080=3", "x", "", "", "")
	f.Add("70000", "42", "::", "3", ";;=", "-1", "2", "41", "/")
	f.Fuzz(func(t *testing.T, fds, pid, names, first, starter, count, fd0, master, sock string) {
		w := &world{vars: map[string]string{
			"LISTEN_FDS": fds, "LISTEN_PID": pid, "LISTEN_FDNAMES": names, "LISTEN_FDS_FIRST_FD": first,
			"SERVER_STARTER_PORT": starter, "EINHORN_FD_COUNT": count, "EINHORN_FD_0": fd0,
			"EINHORN_MASTER_PID": master, "EINHORN_SOCK_FD": sock,
		}}
		in, err := inherit(w.environment())
		if err == nil && len(in.sockets) != len(w.opened) {
			t.Errorf("%d sockets of %d descriptors", len(in.sockets), len(w.opened))
		}
		if err != nil && strings.ContainsAny(err.Error(), "\n\x00") {
			t.Errorf("not one plain line: %q", err)
		}
		slices.Sort(w.opened)
		for i, fd := range w.opened {
			if fd < firstFD || i > 0 && w.opened[i-1] == fd {
				t.Errorf("opened %v", w.opened)
				break
			}
		}
	})
}

func TestWatchdogInterval(t *testing.T) {
	for _, test := range []struct{ usec, pid, want string }{
		{"", "", "0s"},
		{"2000000", "", "1s"},
		{"2000000", "42", "1s"},
		{"2000000", "41", "0s"},
		{"x", "", "0s"},
		{"-5", "", "0s"},
		{"0", "", "0s"},
		{"9223372036854775807", "", "0s"},
	} {
		if got := fmt.Sprint(watchdogInterval(test.usec, test.pid, 42)); got != test.want {
			t.Errorf("%+v: %s", test, got)
		}
	}
}

// A process that was told how long its supervisor waits ends before that.
func TestDrainTime(t *testing.T) {
	for _, test := range []struct {
		told string
		set  time.Duration
		want time.Duration
	}{
		{"", 0, defaultDrain},
		{"30000000", 0, 28 * time.Second},
		{"90000000", 0, 88 * time.Second},
		{"1000000", 0, 900 * time.Millisecond},
		{"infinity", 0, defaultDrain},
		{"30000000", time.Minute, time.Minute},
	} {
		p := newProcess(*worldOf("TIMEOUT_STOP_USEC=" + test.told).environment())
		if err := p.load(); err != nil {
			t.Fatal(err)
		}
		p.setDrainTimeout(test.set)
		if got := p.drainTime(); got != test.want {
			t.Errorf("%+v: %v", test, got)
		}
	}
}
