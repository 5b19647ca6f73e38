package portdiag

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"
)

// sampleReport has everything that Text shows.
func sampleReport() Report {
	p := Process{PID: 4711, PPID: 4700, Comm: "node", Args: []string{"node", "server.js", "\x1b[31mred"}, UID: 1000, User: "anna", State: "S", Dir: "/srv/app", Started: time.Now().Add(-3 * time.Hour)}
	return Report{
		Asked: "127.0.0.1:80", Network: "tcp", Address: "127.0.0.1:80", Verdict: Held, Cause: WildcardHeld, Errno: "EADDRINUSE",
		Sentence: "127.0.0.1:80 is in use: pid 4711 (node server.js) of user anna listens on 0.0.0.0:80, which is every address and so 127.0.0.1 too",
		Holders: []Holder{{
			Network: "tcp", State: Listen, Local: netip.MustParseAddrPort("0.0.0.0:80"), UID: 1000, User: "anna",
			Inode: 99, Count: 1, Connections: 4, Processes: []Process{p},
		}},
		Parties:  []Party{{Process: p, Children: 2, Waits: "yes", Ancestors: []Process{{PID: 4700, Comm: "npm"}, {PID: 1, Comm: "systemd"}}, Place: Place{Unit: "session-3.scope"}}},
		Findings: []Finding{{Orphan, "the parent of pid 4711 has ended and pid 1 adopted it", 4711}},
		Trials:   []Trial{{How: "without options", Errno: "EADDRINUSE"}, {How: "with SO_REUSEADDR", OK: true}},
		Remedies: []Remedy{{"end it", "kill -TERM 4711"}, {"take another port", ""}},
		Unseen:   []string{"processes of other users"},
	}
}

func TestText(t *testing.T) {
	r := sampleReport()
	text := r.Text(Style{})
	for _, want := range []string{
		r.Sentence + ".\n", "EADDRINUSE, cause wildcard-held\n", "held by   pid 4711: node server.js \\x1b[31mred\n",
		"user anna, started ", " (3 h ago), in /srv/app, 2 children\n", "started by systemd(1) > npm(4700)\n",
		"systemd unit session-3.scope\n", "socket    listening on 0.0.0.0:80, 4 connections, made by user anna, inode 99",
		"note      the parent of pid 4711", "tried     a bind without options: EADDRINUSE\n          a bind with SO_REUSEADDR: succeeds\n",
		"do        end it:\n            kill -TERM 4711\n          take another port\n", "not seen  processes of other users\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if strings.Contains(text, "\x1b") {
		t.Errorf("escapes without colour:\n%q", text)
	}
}

// TestTextWidth: no line but a command is longer than the terminal.
func TestTextWidth(t *testing.T) {
	r := sampleReport()
	long := "rm " + strings.Repeat("x", 200)
	r.Remedies = append(r.Remedies, Remedy{"remove it", long})
	for _, s := range []Style{{Width: 60}, {Width: 80, Colour: true}, {Width: 200}} {
		text := r.Text(s)
		if !strings.Contains(text, long) {
			t.Errorf("the command was broken:\n%s", text)
		}
		for line := range strings.Lines(text) {
			if n := columns(strings.TrimRight(line, "\n")); n > s.Width && !strings.Contains(line, "rm x") {
				t.Errorf("%d columns in a terminal of %d: %q", n, s.Width, line)
			}
		}
	}
}

func TestLine(t *testing.T) {
	r := sampleReport()
	if got, want := r.Line(), r.Sentence+"; end it: kill -TERM 4711"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestQuote(t *testing.T) {
	for in, want := range map[string]string{
		"/run/x.sock": "/run/x.sock", ":80": ":80", "[::]:80": "'[::]:80'", "a b": "'a b'", "it's": `'it'\''s'`, "": "''", "$(x)": "'$(x)'", "~": "'~'",
	} {
		if got := quote(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

func TestPlace(t *testing.T) {
	id := containerID
	for _, c := range []struct {
		lines string
		want  Place
	}{
		{"0::/system.slice/nginx.service", Place{Unit: "nginx.service"}},
		{"0::/user.slice/user-1000.slice/session-3.scope", Place{Unit: "session-3.scope"}},
		{"0::/user.slice/user-1000.slice/user@1000.service/app.slice/web.service", Place{Unit: "web.service", UserUnit: true}},
		{`0::/system.slice/system-web.slice/web@a\x2db.service`, Place{Unit: "web@a-b.service"}},
		{"0::/system.slice/docker-" + id + ".scope", Place{Container: id, Runtime: "docker"}},
		{"12:pids:/docker/" + id + "\n1:name=systemd:/docker/" + id, Place{Container: id, Runtime: "docker"}},
		{"0::/machine.slice/libpod-" + id + ".scope/container", Place{Container: id, Runtime: "podman"}},
		{"0::/machine.slice/libpod-conmon-" + id + ".scope", Place{Unit: "libpod-conmon-" + id + ".scope"}},
		{
			"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod11111111_2222_3333_4444_555555555555.slice/cri-containerd-" + id + ".scope",
			Place{Container: id, Runtime: "containerd", Pod: "11111111-2222-3333-4444-555555555555"},
		},
		{
			"4:memory:/kubepods/besteffort/pod11111111-2222-3333-4444-555555555555/" + id,
			Place{Container: id, Runtime: "containerd", Pod: "11111111-2222-3333-4444-555555555555"},
		},
		{
			"0::/kubepods.slice/kubepods-pod11111111_2222_3333_4444_555555555555.slice/crio-" + id + ".scope",
			Place{Container: id, Runtime: "cri-o", Pod: "11111111-2222-3333-4444-555555555555"},
		},
		{"0::/lxc.payload.web/system.slice/nginx.service", Place{Container: "web", Runtime: "lxc", Unit: "nginx.service"}},
		{`0::/machine.slice/machine-my\x2dbox.scope/payload`, Place{Container: "my-box", Runtime: "nspawn"}},
		{"0::/", Place{}},
		{"", Place{}},
		{"nonsense", Place{}},
	} {
		got := parsePlace(c.lines)
		got.Cgroup = ""
		if got != c.want {
			t.Errorf("%s:\n got  %+v\n want %+v", c.lines, got, c.want)
		}
	}
}

func TestForwarders(t *testing.T) {
	for line, want := range map[string]bool{
		"ssh -N -L 8080:localhost:80 host":         true,
		"ssh host":                                 false,
		"kubectl port-forward svc/web 8080:80":     true,
		"kubectl logs -f web":                      false,
		"socat TCP-LISTEN:80,fork TCP:10.0.0.1:80": true,
		"rootlessport":                             true,
		"nginx":                                    false,
	} {
		args := strings.Fields(line)
		if _, got := forwarderOf(Process{PID: 5, Comm: args[0], Args: args}); got != want {
			t.Errorf("%s: got %v", line, got)
		}
	}
}

func TestWaitingCalls(t *testing.T) {
	one, many := waitingCalls()
	for _, c := range []struct {
		line       string
		yes, known bool
	}{
		{"running", false, false},
		{"", false, false},
		{"-1 0x7f 0x7f", false, false},
		{strconv.Itoa(one[0]) + " 0x5 0x0", true, true},
		{strconv.Itoa(one[0]) + " 0x6 0x0", false, true},
		{strconv.Itoa(many[0]) + " 0x5 0x0", false, false},
		{"100000 0x5 0x0", false, true},
	} {
		if yes, known := blockedOn(c.line, []int{5}); yes != c.yes || known != c.known {
			t.Errorf("%q: %v, %v", c.line, yes, known)
		}
	}
	info := []byte("pos:\t0\ntfd:        7 events:       19 data: 5  pos:0 ino:1f sdev:9\ntfd:        8 events: 19 data: 1\n")
	for _, c := range []struct {
		fd    int
		inode uint64
		want  bool
	}{{7, 0x1f, true}, {7, 0x20, false}, {9, 0x1f, true}, {8, 0x99, true}, {6, 0x99, false}} {
		if got := epollHas(info, []int{c.fd}, c.inode); got != c.want {
			t.Errorf("fd %d inode %x: %v", c.fd, c.inode, got)
		}
	}
}
