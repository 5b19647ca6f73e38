package config

import (
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// withoutSource makes what was written not count in a comparison.
func withoutSource(sockets []Socket) []Socket {
	out := append([]Socket(nil), sockets...)
	for i := range out {
		out[i].Source = ""
	}
	return out
}

// TestParseListen reads every form; want is String of each socket.
func TestParseListen(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{":8080", "tcp://:8080"},
		{"8080", "tcp://:8080"},
		{"*:8080", "tcp://:8080"},
		{"+:8080", "tcp://:8080"},
		{" :8080 ", "tcp://:8080"},
		{":0", "tcp://:0"},
		{"127.0.0.1:8080", "tcp://127.0.0.1:8080"},
		{"0.0.0.0:80", "tcp://0.0.0.0:80"},
		{"[::]:80", "tcp://[::]:80"},
		{"[::1]:080", "tcp://[::1]:80"},
		{"[fe80::1%eth0]:80", "tcp://[fe80::1%eth0]:80"},
		{"[fe80::1]:80%eth0", "tcp://[fe80::1%eth0]:80"},
		{"http://[fe80::1%25eth0]:80", "tcp://[fe80::1%eth0]:80"},
		{"[::ffff:1.2.3.4]:80", "tcp://1.2.3.4:80"},
		{"localhost:5000", "tcp://127.0.0.1:5000 tcp://[::1]:5000?optional=yes"},
		{"LocalHost:0", "tcp://127.0.0.1:0 tcp://[::1]:0?optional=yes"},
		{"tcp://127.0.0.1:80", "tcp://127.0.0.1:80"},
		{"TCP://:80", "tcp://:80"},
		{"tcp::80", "tcp://:80"},
		{"tcp://80", "tcp://:80"},
		{"tcp4://:80", "tcp://0.0.0.0:80"},
		{"tcp4://localhost:80", "tcp://127.0.0.1:80"},
		{"tcp6://:80", "tcp6://[::]:80"},
		{"tcp6://[::]:80", "tcp6://[::]:80"},
		{"tcp6://[::1]:80", "tcp://[::1]:80"},
		{"tcp6://localhost:80", "tcp://[::1]:80"},
		{"udp://:53", "udp://:53"},
		{"udp4://*:53", "udp://0.0.0.0:53"},
		{"udp6://:53", "udp6://[::]:53"},
		{"http://localhost:5000", "tcp://127.0.0.1:5000 tcp://[::1]:5000?optional=yes"},
		{"http://*:80", "tcp://:80"},
		{"http://+:80/", "tcp://:80"},
		{"http://127.0.0.1", "tcp://127.0.0.1:80"},
		{"https://127.0.0.1", "tcp://127.0.0.1:443"},
		{"https://[::1]", "tcp://[::1]:443"},
		{"http://*", "tcp://:80"},
		{"http://unix:/run/x.sock", "unix:/run/x.sock"},
		{"http://unix:/run/x.sock:/", "unix:/run/x.sock"},
		{"http://a.sock=127.0.0.1:80", ""}, // a host with '=' is no name of a socket
		{"/run/x.sock", "unix:/run/x.sock"},
		{"./x.sock", "unix:./x.sock"},
		{"@abstract", "unix:@abstract"},
		{"@a=b", "unix:@a=b"},
		{"unix:/run/x.sock", "unix:/run/x.sock"},
		{"unix:///run/x.sock", "unix:/run/x.sock"},
		{"unix:////run/x.sock", "unix:/run/x.sock"},
		{"unix:x.sock", "unix:x.sock"},
		{"unix:@abstract", "unix:@abstract"},
		{"unix:/run/a%20b.sock", "unix:/run/a%20b.sock"},
		{"unix:/run/a=b.sock", "unix:/run/a=b.sock"},
		{"unixgram:/run/x.sock", "unixgram:/run/x.sock"},
		{"unixpacket:@x", "unixpacket:@x"},
		{"web=:80", "web=tcp://:80"},
		{"web = :80", "web=tcp://:80"},
		{"web@1=8080", "web@1=tcp://:8080"},
		{"web=/run/x.sock", "web=unix:/run/x.sock"},
		{"web=localhost:1", "web=tcp://127.0.0.1:1 web=tcp://[::1]:1?optional=yes"},
		{":80;:81", "tcp://:80 tcp://:81"},
		{"http://localhost:1;https://*:2;", "tcp://127.0.0.1:1 tcp://[::1]:1?optional=yes tcp://:2"},
		{"a=:80;b=unix:@b?mode=0600; ;", "a=tcp://:80 b=unix:@b?mode=0600"},
		{":8080?backlog=4096&mode=0660&user=www&group=www&nodelay=1", "tcp://:8080?backlog=4096&mode=0660&user=www&group=www&no-delay=yes"},
		{":80?nodelay", "tcp://:80?no-delay=yes"},
		{":80?keepalivetime=5", "tcp://:80?keep-alive-time=5s"},
		{":80?keep-alive-time=1min", "tcp://:80?keep-alive-time=1min"},
		{":80?KeepAliveTimeSec=5s", "tcp://:80?keep-alive-time=5s"},
		{":80?keep_alive_time_sec=5s", "tcp://:80?keep-alive-time=5s"},
		{":80?backlog=4294967295", "tcp://:80"},
		{":80?bind-ipv6-only=ipv6-only", "tcp6://[::]:80"},
		{"tcp6://:80?bindipv6only=both", "tcp://[::]:80"},
		{":80?ip-tos=low-delay&receivebuffer=64K", "tcp://:80?ip-tos=16&receive-buffer=65536"},
		{"/x?removeonstop=no&socketmode=600&socketuser=1000", "unix:/x?mode=0600&user=1000&remove-on-stop=no"},
		{"http://*:80?shared", "tcp://:80?shared=yes"},
	} {
		sockets, err := ParseListen(c.in)
		if c.want == "" {
			if err == nil {
				t.Errorf("ParseListen(%q) = %v, want an error", c.in, sockets)
			}
			continue
		}
		if err != nil {
			t.Errorf("ParseListen(%q): %v", c.in, err)
			continue
		}
		var texts []string
		for _, s := range sockets {
			texts = append(texts, s.String())
		}
		if got := strings.Join(texts, " "); got != c.want {
			t.Errorf("ParseListen(%q) = %s, want %s", c.in, got, c.want)
		}
		again, err := ParseListen(strings.Join(texts, ";"))
		if err != nil {
			t.Errorf("ParseListen(%q): %v", texts, err)
			continue
		}
		for i, s := range withoutSource(sockets) {
			if withoutSource(again)[i] != s {
				t.Errorf("%q read back = %#v, want %#v", texts[i], again[i], s)
			}
		}
	}
}

// TestParseListenErrors looks that an error quotes what is wrong, or says what
// would be right.
func TestParseListenErrors(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", "empty"},
		{";", "empty"},
		{":80;;:81", "between two ';'"},
		{"example.com:80", `"example.com" is a name`},
		{"http://example.com", `"example.com" is a name`},
		{"127.0.0.1", "127.0.0.1:8080"},
		{"localhost", "localhost:8080"},
		{"127.1:80", `"127.1" is no address`},
		{"::1:80", "[::1]:8080"},
		{"[::1", "']'"},
		{"[::1]", "no port"},
		{"[::1]80", `"80" follows`},
		{"[127.0.0.1]:80", "brackets"},
		{"[fe80::1%eth0]:80%eth1", "two zones"},
		{"[::1%lo]:80", "bind-to-device=lo"},
		{"[fe80::1%a/b]:80", `"a/b"`},
		{"[fe80::1%averyveryverylongname]:80", "interface"},
		{":http", `"http"`},
		{":99999", "65535"},
		{":-1", `"-1"`},
		{"tcp4://[::1]:80", "no IPv4 address"},
		{"tcp6://127.0.0.1:80", "no IPv6 address"},
		{"tcp6://[::ffff:1.2.3.4]:80", "no IPv6 address"},
		{"ftp://:80", `"ftp"`},
		{"vsock:1:2", "not supported yet"},
		{"http:127.0.0.1:80", "http://127.0.0.1:80"},
		{"http://", "host is missing"},
		{"http://8080", "http://*:8080"},
		{"http://127.0.0.1/path", `"/path"`},
		{"http://u@127.0.0.1", `"@"`},
		{"http://pipe:/x", "unix"},
		{"http://unix:/x:/path", `":/path"`},
		{"unix://run/x", "unix:/run/x"},
		{"unix:", "path is missing"},
		{"@", "path is missing"},
		{"unix:/run/", "directory"},
		{"unix:..", "directory"},
		{"unix:/a\nb", "control character"},
		{"/" + strings.Repeat("x", 107), "108 bytes"},
		{"@" + strings.Repeat("x", 108), "108 bytes"},
		{"=:80", "empty"},
		{"wéb=:80", `'é'`},
		{strings.Repeat("x", 256) + "=:80", "255"},
		{":80?", "no name"},
		{":80?x=1", "known are backlog"},
		{":80?backlog=x", `"x"`},
		{":80?backlog", "no value"},
		{":80?backlog=", "no value"},
		{":80?nodelay=1&no-delay=1", "given twice"},
		{":80?nodelay=maybe", "yes or no"},
		{":80?keepalivetime=1500ms", "whole seconds"},
		{":80?keepalivetime=infinity", "infinity"},
		{":80?ipttl=256", "255"},
		{"/x?mode=888", "octal"},
		{"/x?mode=1777", "octal"},
		{":80?bindipv6only=yes", "ipv6-only"},
	} {
		sockets, err := ParseListen(c.in)
		if err == nil {
			t.Errorf("ParseListen(%q) = %v, want an error", c.in, sockets)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("ParseListen(%q): %v; want %q in it", c.in, err, c.want)
		}
	}
}

func TestParseListenFields(t *testing.T) {
	s, err := ParseListen("web=:80")
	if err != nil {
		t.Fatal(err)
	}
	want := Socket{
		Name: "web", Network: "tcp", Addr: netip.MustParseAddrPort("[::]:80"),
		DualStack: true, Source: "web=:80", Options: DefaultSocketOptions(),
	}
	if s[0] != want {
		t.Errorf("got %#v, want %#v", s[0], want)
	}
	s, err = ParseListen("/" + strings.Repeat("x", 106))
	if err != nil || len(s[0].Path) != 107 {
		t.Errorf("a path of 107 bytes: %v", err)
	}
	s, err = ParseListen("@" + strings.Repeat("x", 107))
	if err != nil || len(s[0].Path) != 108 {
		t.Errorf("an abstract name of 107 bytes: %v", err)
	}
}

func TestUnused(t *testing.T) {
	s, err := ParseListen(":80?mode=0660&nodelay")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(s[0].Unused(), " "); got != "mode" {
		t.Errorf("Unused = %q, want mode", got)
	}
}

// TestSocketStringReadBack makes sockets with random options.
func TestSocketStringReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := map[string]*rapid.Generator[string]{
			argBool:   rapid.SampledFrom([]string{"yes", "no", "1", "off"}),
			argSpan:   rapid.SampledFrom([]string{"0", "1", "75s", "1min 20s", "2h"}),
			argNumber: rapid.StringMatching(`[1-9][0-9]?`),
			argSize:   rapid.SampledFrom([]string{"4096", "64K", "1.5M", "1G"}),
			argMode:   rapid.StringMatching(`0[0-7]{3}`),
			argUser:   rapid.SampledFrom([]string{"www", "1000", "www-data"}),
			argGroup:  rapid.SampledFrom([]string{"www", "1000"}),
			argDevice: rapid.SampledFrom([]string{"lo", "eth0.1"}),
		}
		address := rapid.SampledFrom([]string{
			":80", "[::]:80", "tcp4://:0", "tcp6://:1", "127.0.0.1:65535", "udp://:53", "udp6://:53",
			"[fe80::1%2]:80", "/run/x", "@x", "unixgram:y", "unixpacket:@z", "localhost:80",
		}).Draw(t, "address")
		name := rapid.StringMatching(`([a-z][ -.0-9<>@A-Z\]-z]{0,9}[a-z]=)?`).Draw(t, "name")
		text := name + address
		separator := "?"
		for _, o := range socketOptions() {
			generator, ok := values[o.arg]
			if !ok || !rapid.Bool().Draw(t, o.key) {
				continue
			}
			text += separator + o.directive + "=" + generator.Draw(t, o.key)
			separator = "&"
		}
		sockets, err := ParseListen(text)
		if err != nil {
			t.Fatalf("ParseListen(%q): %v", text, err)
		}
		for _, s := range sockets {
			again, err := ParseListen(s.String())
			if err != nil || len(again) != 1 || withoutSource(again)[0] != withoutSource([]Socket{s})[0] {
				t.Fatalf("%q read back = %#v, %v; want %#v", s.String(), again, err, s)
			}
		}
	})
}

func TestSetOption(t *testing.T) {
	s := Socket{Network: "tcp", Options: DefaultSocketOptions()}
	fresh := s
	for _, o := range SocketDirectives() {
		if o.Help == "" || o.For == "" || o.Section == "" {
			t.Errorf("%s is described by halves: %+v", o.Name, o)
		}
		if err := s.SetOption(o.Name, ""); err != nil {
			t.Errorf("SetOption(%s, \"\"): %v", o.Name, err)
		}
	}
	if s != fresh {
		t.Errorf("empty values made %+v", s)
	}
	if err := s.SetOption("SocketMode", "0600"); err != nil || s.Options.Mode != 0o600 {
		t.Errorf("SocketMode: %v, %v", s.Options.Mode, err)
	}
	if err := s.SetOption("SocketMode", ""); err != nil || s != fresh {
		t.Errorf("SocketMode reset: %v, %v", s.Options.Mode, err)
	}
}

func TestNameSockets(t *testing.T) {
	parse := func(s string) []Socket {
		sockets, err := ParseListen(s)
		if err != nil {
			t.Fatal(err)
		}
		return sockets
	}
	for _, c := range []struct{ service, listen, names, clash string }{
		{"web", ":80", "web", ""},
		{"web", ":80;:81;x=:82", "web web x", ""},
		{"", ":80", "socket", ""},
		{"a:b", ":80", "a_b", ""},
		{"@a/é", ":80", "a__", ""},
		{"web", ":80;:80", "", "same address"},
		{"web", "a=:80;b=[::]:80", "", `"a=:80" and "b=[::]:80"`},
		{"web", ":80;0.0.0.0:80", "", "includes"},
		{"web", ":80;127.0.0.1:80", "", "includes"},
		{"web", "localhost:80;[::1]:80", "", "same address"},
		{"web", "tcp6://:80;tcp4://:80", "web web", ""},
		{"web", ":80;udp://:80", "web web", ""},
		{"web", ":0;:0", "web web", ""},
		{"web", "127.0.0.1:80;127.0.0.2:80", "web web", ""},
		{"web", ":80?bindtodevice=eth0;:80?bindtodevice=eth1", "web web", ""},
		{"web", ":80?reuseport;127.0.0.1:80?reuseport", "web web", ""},
		{"web", "udp://:53;udp://127.0.0.1:53", "web web", ""},
		{"web", "/run/x;unixgram:/run//x", "", "same path"},
		{"web", "@x;unix:x", "web web", ""},
	} {
		sockets := parse(c.listen)
		err := NameSockets(c.service, sockets)
		if c.clash != "" {
			if err == nil || !strings.Contains(err.Error(), c.clash) {
				t.Errorf("NameSockets(%q): %v, want %q in it", c.listen, err, c.clash)
			}
			continue
		}
		var names []string
		for _, s := range sockets {
			names = append(names, s.Name)
			if e := CheckName(s.Name); e != nil {
				t.Errorf("NameSockets(%q): %v", c.listen, e)
			}
		}
		if got := strings.Join(names, " "); err != nil || got != c.names {
			t.Errorf("NameSockets(%q, %q) = %q, %v; want %q", c.service, c.listen, got, err, c.names)
		}
	}
}

func FuzzParseListen(f *testing.F) {
	for _, s := range []string{
		":8080", "web=127.0.0.1:80?backlog=1&mode=0600", "http://localhost:5000;https://*", "unix:@a", "unix:////x",
		"[fe80::1%eth0]:80", "[x]:80%2", "/a?user=b", "a==@b", "tcp6://:1?bind-ipv6-only=both", "http://unix:/a:/", "x=unix: a",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		sockets, err := ParseListen(s)
		if err != nil {
			return
		}
		for _, socket := range sockets {
			again, err := ParseListen(socket.String())
			if err != nil {
				t.Fatalf("%q gave %q, which is not read: %v", s, socket.String(), err)
			}
			if len(again) != 1 || withoutSource(again)[0] != withoutSource([]Socket{socket})[0] {
				t.Fatalf("%q gave %#v, which reads back as %#v", s, socket, again)
			}
		}
		_ = NameSockets("web", sockets)
	})
}
