package portdiag

import (
	"net/netip"
	"strings"
	"testing"
)

func TestParseTargets(t *testing.T) {
	for _, c := range []struct {
		text string
		want string // Target.String of each, joined by "; "
	}{
		{"5000", "tcp port 5000"},
		{":5000", "tcp port 5000"},
		{"*:5000", "tcp [::]:5000"},
		{"0.0.0.0:5000", "tcp 0.0.0.0:5000"},
		{"[::]:5000", "tcp [::]:5000"},
		{"[::1]:5000", "tcp [::1]:5000"},
		{"[fe80::1%lo]:80", "tcp [fe80::1%lo]:80"},
		{"tcp6://[::]:80", "tcp [::]:80 (IPv6 only)"},
		{"http://localhost:5000", "tcp 127.0.0.1:5000; tcp [::1]:5000"},
		{"http://127.0.0.1:5000/path?q=1", "tcp 127.0.0.1:5000"},
		{"https://127.0.0.1", "tcp 127.0.0.1:443"},
		{"http://*:5000;https://+:5001", "tcp [::]:5000; tcp [::]:5001"},
		{"http://unix:/run/k.sock", "unix /run/k.sock"},
		{"udp://:53", "udp [::]:53"},
		{"udp://127.0.0.1:53", "udp 127.0.0.1:53"},
		{"/run/x.sock", "unix /run/x.sock"},
		{"/run/x;y.sock", "unix /run/x;y.sock"},
		{"x.sock", "unix x.sock"},
		{"unix:///run/x.sock", "unix /run/x.sock"},
		{"unixgram:/run/x", "unixgram /run/x"},
		{"@name", "unix @name"},
		{"unix:@name", "unix @name"},
		{"/" + strings.Repeat("x", 200), "unix /" + strings.Repeat("x", 200)},
		{"Error: listen EADDRINUSE: address already in use :::3000", "tcp [::]:3000"},
		{"listen tcp 127.0.0.1:80: bind: permission denied", "tcp 127.0.0.1:80"},
		{"System.IO.IOException: Failed to bind to address http://localhost:5000: address already in use.", "tcp 127.0.0.1:5000; tcp [::1]:5000"},
		{"nginx: [emerg] bind() to unix:/run/x.sock failed (98: Address already in use)", "unix /run/x.sock"},
		{"docker: Error response from daemon: driver failed: Bind for 0.0.0.0:8080 failed: port is already allocated.", "tcp 0.0.0.0:8080"},
	} {
		ts, _, err := ParseTargets(c.text)
		if err != nil {
			t.Errorf("%q: %v", c.text, err)
			continue
		}
		var got []string
		for _, x := range ts {
			got = append(got, x.String())
		}
		if s := strings.Join(got, "; "); s != c.want {
			t.Errorf("%q: got %s, want %s", c.text, s, c.want)
		}
	}
	for _, text := range []string{"", "  ", "70000", "hello world", "127.0.0.1", "[::1", "ftp://x:1", ";"} {
		if ts, _, err := ParseTargets(text); err == nil {
			t.Errorf("%q: got %v", text, ts)
		}
	}
	// A message without an address is understood, but asks for one.
	ts, s, err := ParseTargets("OSError: [Errno 98] Address already in use")
	if err != nil || len(ts) != 0 || s == nil || s.Program != "Python" {
		t.Errorf("got %v, %+v, %v", ts, s, err)
	}
}

func FuzzParseTargets(f *testing.F) {
	f.Add("http://localhost:5000;[::1]:80;@x")
	f.Add("unix:")
	f.Fuzz(func(t *testing.T, text string) {
		// Names would be looked up; everything else is read without asking anybody.
		if strings.Trim(text, "0123456789.:;[]/@*+%") != "" {
			return
		}
		ts, _, err := ParseTargets(text)
		if err != nil {
			return
		}
		for _, x := range ts {
			if !x.unix() && !x.Addr.IsValid() {
				t.Errorf("%q: %+v", text, x)
			}
			_ = x.String()
		}
	})
}

func TestOverlap(t *testing.T) {
	s := func(a string, v6only bool) span { return spanOf(netip.MustParseAddr(a), v6only) }
	for _, c := range []struct {
		a, b span
		want bool
	}{
		{s("127.0.0.1", false), s("127.0.0.1", false), true},
		{s("127.0.0.1", false), s("127.0.0.2", false), false},
		{s("0.0.0.0", false), s("127.0.0.2", false), true},
		{s("::", false), s("127.0.0.2", false), true},
		{s("::", true), s("127.0.0.2", false), false},
		{s("::", true), s("::1", false), true},
		{s("::", true), s("0.0.0.0", false), false},
		{s("::", true), s("::", false), true},
		{s("::ffff:127.0.0.1", false), s("127.0.0.1", false), true},
		{s("::1", false), s("127.0.0.1", false), false},
	} {
		if c.a.overlaps(c.b) != c.want || c.b.overlaps(c.a) != c.want {
			t.Errorf("%v and %v: want %v", c.a, c.b, c.want)
		}
	}
}
