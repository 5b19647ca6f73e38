package wire

import (
	"bytes"
	"encoding/gob"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden files")

// dump is the exact environment and fd map of a plan, one fact a line.
func dump(t *testing.T, p Plan) string {
	t.Helper()
	var b strings.Builder
	if p.Stdin != 0 {
		fmt.Fprintf(&b, "fd 0 = supervisor's %d\n", p.Stdin)
	}
	for i, fd := range p.Files {
		fmt.Fprintf(&b, "fd %d = supervisor's %d\n", FirstFD+i, fd)
	}
	for _, kv := range p.Env {
		fmt.Fprintf(&b, "env %s\n", kv)
	}
	for _, k := range p.PIDEnv {
		fmt.Fprintf(&b, "env %s=<pid>\n", k)
	}
	if p.PIDFDID {
		fmt.Fprintf(&b, "env LISTEN_PIDFDID=<inode>\n")
	}
	for i, e := range decode(t, p.Names) {
		fmt.Fprintf(&b, "name of fd %d: %q\n", FlipFirst+i, e)
	}
	fmt.Fprintf(&b, "{fd:NAME} %v\n", p.Numbers)
	if p.Tame {
		fmt.Fprintln(&b, "tame")
	}
	if p.Stop != 0 {
		fmt.Fprintln(&b, "stop", unix.SignalName(p.Stop))
	}
	return b.String()
}

// decode reads the names as tableflip does.
func decode(t interface{ Fatal(...any) }, names []byte) (entries [][]string) {
	if names == nil {
		return nil
	}
	r := bytes.NewReader(names)
	if err := gob.NewDecoder(r).Decode(&entries); err != nil {
		t.Fatal(err)
	}
	if r.Len() > 0 { // tableflip: "unexpected data from parent process"
		t.Fatal("more than one value")
	}
	return entries
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\n%s\nwant:\n%s", name, got, want)
	}
}

var (
	web   = Listener{FD: 9, Name: "web", Network: "tcp", Addr: "127.0.0.1:8080"}
	admin = Listener{FD: 11, Name: "admin", Network: "tcp", Addr: "[::]:80"}
	any4  = Listener{FD: 13, Name: "any", Network: "tcp", Addr: "0.0.0.0:9000"}
	api   = Listener{FD: 12, Name: "api", Network: "unix", Addr: "/run/api.sock"}
	dns   = Listener{FD: 14, Name: "dns", Network: "udp", Addr: "127.0.0.1:53"}
)

func request(protocols string, listeners ...Listener) Request {
	return Request{
		Protocols: strings.Split(protocols, ","), Listeners: listeners, Generation: 3, Path: "/srv/bin/server",
		Pipes: Pipes{Ready: 21, Names: 22}, Ack: Ack{Master: 100, Socket: "/run/supervise/ack.sock"},
	}
}

func TestPlans(t *testing.T) {
	word := request("tableflip", web)
	word.Words = []string{"./server", "--addr=web.internal:8080", "-v"}
	for name, r := range map[string]Request{
		"systemd-none":       request("systemd"),
		"systemd-one":        request("systemd", web),
		"systemd-two":        request("systemd", web, api),
		"fd-two":             request("fd", web, api),
		"tableflip-none":     request("tableflip"),
		"tableflip-loopback": request("tableflip", web),
		"tableflip-wildcard": request("tableflip", admin),
		"tableflip-unix":     request("tableflip", api),
		"tableflip-udp":      request("tableflip", dns),
		"tableflip-words":    word,
		"server-starter":     request("server-starter", web, any4, admin, api, dns),
		"einhorn":            request("einhorn", web, api),
		"nginx":              request("nginx", web, api),
		"php-fpm":            request("php-fpm", web, api),
		"unicorn":            request("unicorn", web, api),
		"gunicorn":           request("gunicorn", web, api),
		"puma":               request("puma", web, api),
		"inetd":              request("inetd", web),
		"grace":              request("grace", web, any4),
		"endless-one":        request("endless", web),
		"endless-two":        request("endless", web, any4),
		"overseer":           request("overseer", web, any4),
		"goagain":            request("goagain", web),
		"auto":               request("systemd,server-starter,einhorn", web, api),
		"flip-and-starter":   request("server-starter,tableflip", api),
	} {
		p, err := For(r)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		golden(t, name, dump(t, p))
	}
}

// TestRefused: what cannot work is an error that names the consequence.
func TestRefused(t *testing.T) {
	named := func(name string) Listener { l := web; l.Name = name; return l }
	at := func(network, addr string) Listener { return Listener{FD: 9, Name: "x", Network: network, Addr: addr} }
	fixed := func(words ...string) Request {
		r := request("tableflip", web)
		r.Words = words
		return r
	}
	for want, r := range map[string]Request{
		`protocol "nonsense" is unknown`:                            request("nonsense", web),
		"handoff systemd and tableflip exclude one another":         request("systemd,tableflip", web),
		"handoff tableflip and grace exclude one another":           request("tableflip,grace", web),
		"handoff systemd and grace exclude one another":             request("systemd,grace", web),
		"handoff systemd and puma exclude one another":              request("systemd,puma", web),
		"handoff endless and goagain exclude one another":           request("endless,goagain", web),
		"handoff inetd takes one socket, and there are 2":           request("inetd", web, api),
		"handoff goagain takes one socket":                          request("goagain", web, api),
		`handoff systemd cannot name a listener ""`:                 request("systemd", named("")),
		`handoff systemd cannot name a listener "a:b"`:              request("systemd", named("a:b")),
		`handoff systemd cannot name a listener "a\nb"`:             request("systemd", named("a\nb")),
		`handoff systemd cannot name a listener "é"`:                request("systemd", named("é")),
		"listener \"" + strings.Repeat("x", 256):                    request("systemd", named(strings.Repeat("x", 256))),
		"handoff server-starter cannot hand over x (unix /a=b)":     request("server-starter", at("unix", "/a=b")),
		"it knows stream sockets only":                              request("server-starter", dns),
		"handoff php-fpm cannot hand over dns":                      request("php-fpm", dns),
		"handoff php-fpm cannot hand over x (unix @x)":              request("php-fpm", at("unix", "@x")),
		"handoff endless cannot hand over api (unix /run/api.sock)": request("endless", api),
		"handoff grace cannot hand over dns":                        request("grace", dns),
		"handoff unicorn cannot hand over dns":                      request("unicorn", dns),
		"handoff puma cannot hand over dns":                         request("puma", dns),
		"handoff gunicorn cannot hand over dns":                     request("gunicorn", dns),
		"handoff overseer cannot hand over dns":                     request("overseer", dns),
		"handoff goagain cannot hand over dns":                      request("goagain", dns),
		`handoff tableflip cannot go with "fd://3"`:                 fixed("server", "fd://3"),
		`handoff tableflip cannot go with "--fd=4"`:                 fixed("server", "--fd=4"),
		`handoff tableflip cannot go with "--fd 3"`:                 fixed("server", "--fd", "3"),
		`handoff tableflip cannot go with "bind fd@3"`:              fixed("bind fd@3"),
	} {
		if p, err := For(r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, %v; want an error with %q", p, err, want)
		}
	}
	for _, fine := range []Request{fixed("fd://5"), fixed("fd://31"), fixed("--fd", "30"), fixed("abfd=3"), request("systemd", named(strings.Repeat("x", 255)))} {
		if _, err := For(fine); err != nil {
			t.Error(err)
		}
	}
}

// TestSpellings: a text that can mean two listeners means the nearest.
func TestSpellings(t *testing.T) {
	tcp := func(name, addr string) Listener { return Listener{Name: name, Network: "tcp", Addr: addr} }
	only6 := Listener{Name: "six", Network: "tcp", Addr: "[::]:80", V6Only: true}
	for _, c := range []struct {
		listeners []Listener
		asked     string // network and text
		want      string // name of the listener; "" is none
	}{
		{[]Listener{tcp("a", "127.0.0.1:80"), tcp("b", "[::1]:80")}, "tcp localhost:80", "a"},
		{[]Listener{tcp("a", "127.0.0.1:80"), tcp("b", "[::1]:80")}, "tcp6 localhost:80", "b"},
		{[]Listener{tcp("b", "[::1]:80")}, "tcp localhost:80", "b"},
		{[]Listener{tcp("a", "127.0.0.1:80"), tcp("b", "0.0.0.0:80")}, "tcp :80", "b"},
		{[]Listener{tcp("a", "127.0.0.1:80"), tcp("b", "0.0.0.0:80")}, "tcp localhost:http", "a"},
		{[]Listener{tcp("a", "10.0.0.1:80"), tcp("b", "10.0.0.2:80")}, "tcp :80", "a"},
		{[]Listener{tcp("a", "10.0.0.1:80"), tcp("b", "10.0.0.2:80")}, "tcp4 10.0.0.2:80", "b"},
		{[]Listener{tcp("a", "10.0.0.1:80")}, "tcp6 :80", ""},
		{[]Listener{tcp("a", "10.0.0.1:80")}, "tcp 10.0.0.1:81", ""},
		{[]Listener{tcp("four", "0.0.0.0:80"), only6}, "tcp :80", "four"},
		{[]Listener{tcp("four", "0.0.0.0:80"), only6}, "tcp6 :80", "six"},
		{[]Listener{tcp("four", "0.0.0.0:80"), only6}, "tcp [::]:80", "six"},
		{[]Listener{tcp("a", "[::]:443")}, "tcp :https", "a"},
		{[]Listener{tcp("a", "[::]:443")}, "tcp4 0.0.0.0:443", "a"},
		{[]Listener{dns}, "udp localhost:domain", "dns"},
		{[]Listener{dns}, "tcp localhost:domain", ""},
	} {
		network, addr, _ := strings.Cut(c.asked, " ")
		got := ""
		for _, s := range spellings(c.listeners, nil) {
			if s.network == network && s.addr() == addr {
				got = s.listener.Name
			}
		}
		if got != c.want {
			t.Errorf("%s with %s is %q, want %q", c.asked, names(c.listeners), got, c.want)
		}
	}
	var texts []string
	for _, s := range spellings([]Listener{web}, []string{"-l=web.example:8080", "http://other:8080/x", "0:8080", "x:18080", "a:b:8080", "[0:0::1]:8080"}) {
		texts = append(texts, s.network+" "+s.addr())
	}
	for _, want := range []string{"tcp web.example:8080", "tcp4 other:8080", "tcp 0:8080", "tcp [0:0::1]:8080"} {
		if !slices.Contains(texts, want) {
			t.Errorf("%s is missing of %q", want, texts)
		}
	}
	for _, bad := range []string{"tcp x:18080", "tcp a:b:8080"} {
		if slices.Contains(texts, bad) {
			t.Errorf("%s is there", bad)
		}
	}
}

// TestProperties: each spelling has one fd, each fd of the names is a copy of
// the listener that it names, and the gob stream is one value.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var listeners []Listener
		for i := range rapid.IntRange(0, 20).Draw(t, "n") {
			l := Listener{FD: 100 + i, Name: fmt.Sprint("s", i), Network: rapid.SampledFrom([]string{"tcp", "udp", "unix"}).Draw(t, "network")}
			l.Addr = fmt.Sprintf("/run/%d", i)
			if l.Network != "unix" {
				host := rapid.SampledFrom([]string{"127.0.0.1", "0.0.0.0", "::", "::1", "10.0.0.7"}).Draw(t, "host")
				l.Addr = net.JoinHostPort(host, fmt.Sprint(rapid.SampledFrom([]int{53, 80, 8080, 8081}).Draw(t, "port")))
			}
			listeners = append(listeners, l)
		}
		words := rapid.SliceOf(rapid.SampledFrom([]string{"a:80", "localhost:8080", "b:8081", "{fd:s0}", strings.Repeat("long", 50) + ":80"})).Draw(t, "words")
		r := request("tableflip", listeners...)
		r.Words = words
		p, err := For(r)
		if err != nil {
			t.Fatal(err)
		}
		entries := decode(t, p.Names)
		seen := map[string]bool{}
		for i, e := range entries {
			text := strings.Join(e, " ")
			if seen[text] {
				t.Fatalf("%s twice: the earlier fd would leak", text)
			}
			seen[text] = true
			fd := p.Files[2+i]
			l := listeners[fd-100]
			if !strings.HasPrefix(e[1], l.Network) {
				t.Fatalf("%s names %v", text, l)
			}
		}
		if want := len(listeners) * b2i(slices.Contains(words, "{fd:s0}")); len(p.Files) != 2+len(entries)+want || len(p.Numbers) != want {
			t.Fatalf("%d files, %d names, %d listeners", len(p.Files), len(entries), len(listeners))
		}
		for i, n := range p.Numbers {
			if p.Files[n-FirstFD] != listeners[i].FD {
				t.Fatalf("{fd:%s} is %d, a copy of %d", listeners[i].Name, n, p.Files[n-FirstFD])
			}
		}
	})
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestGobNames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var entries [][3]string
		var want [][]string
		for range rapid.IntRange(0, 300).Draw(t, "n") {
			e := [3]string{rapid.String().Draw(t, "kind"), strings.Repeat("x", rapid.SampledFrom([]int{0, 1, 127, 128, 70000}).Draw(t, "length")), rapid.String().Draw(t, "addr")}
			entries = append(entries, e)
			want = append(want, e[:])
		}
		if got := decode(t, gobNames(entries)); len(want) > 0 && !reflect.DeepEqual(got, want) {
			t.Fatalf("%q\nwant %q", got, want)
		}
	})
}

func TestParseAck(t *testing.T) {
	for line, want := range map[string]int{
		`{"command": "worker:ack", "pid": 42}` + "\n":         42,
		`{"command":"worker:ack","pid":42}`:                   42,
		`{"pid":7,"command":"worker:ack"}`:                    7,
		"---%0Acommand: worker:ack%0Apid: 812%0A\n":           812,
		"--- %0A:command: worker:ack%0A:pid: 812%0A\n":        812,
		`{"command":"worker:ping","pid":42,"request_id":"1"}`: 0,
		`{"command":"worker:ack"}`:                            0,
		`{"command":"worker:ack","pid":-1}`:                   0,
		`{"command":"worker:ack","pid":99999999999999}`:       0,
		`{"command":"worker:ack","pid":"x"}`:                  0,
		"":                                                    0,
	} {
		if pid, ok := ParseAck([]byte(line)); pid != want || ok != (want != 0) {
			t.Errorf("%q is %d, %v; want %d", line, pid, ok, want)
		}
	}
}

func FuzzParseAck(f *testing.F) {
	f.Add([]byte(`{"command": "worker:ack", "pid": 42}`))
	f.Add([]byte("---%0Acommand: worker:ack%0Apid: 812%0A\n"))
	f.Fuzz(func(t *testing.T, line []byte) {
		if pid, ok := ParseAck(line); ok && pid <= 0 {
			t.Errorf("%q acknowledges %d", line, pid)
		}
	})
}

// TestTable: doc.go has a line for each protocol, with its stop signal.
func TestTable(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range protocols() {
		var line string
		for l := range strings.Lines(string(doc)) {
			if strings.HasPrefix(l, "//\t"+p.name+" ") {
				line = l
			}
		}
		drain := "KillSignal="
		if p.stop != 0 {
			drain = strings.TrimPrefix(unix.SignalName(syscall.Signal(p.stop)), "SIG")
		}
		if !strings.Contains(line, drain) {
			t.Errorf("%s: %q says not %s", p.name, line, drain)
		}
	}
}
