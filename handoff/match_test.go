package handoff

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// at is a listener that only has an address.
type at struct {
	net.Listener
	addr net.Addr
}

func (l at) Addr() net.Addr { return l.addr }

// packetAt is the same for datagrams.
type packetAt struct {
	net.PacketConn
	addr net.Addr
}

func (c packetAt) LocalAddr() net.Addr { return c.addr }

// have makes an inherited socket of "name=tcp 127.0.0.1:80".
func have(t *testing.T, s string) *inherited {
	t.Helper()
	h := &inherited{}
	if name, rest, ok := strings.Cut(s, "="); ok && isName(name) {
		h.name, s = name, rest
	}
	network, addr, _ := strings.Cut(s, " ")
	switch network {
	case "tcp":
		a, err := net.ResolveTCPAddr("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if a.IP == nil {
			a.IP = net.IPv6unspecified
		}
		h.stream = at{addr: a}
	case "udp":
		a, err := net.ResolveUDPAddr("udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		h.packet = packetAt{addr: a}
	case "unixgram":
		h.packet = packetAt{addr: &net.UnixAddr{Net: network, Name: addr}}
	default:
		h.stream = at{addr: &net.UnixAddr{Net: network, Name: addr}}
	}
	return h
}

func TestFits(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		network, address, have string
		want                   fitness
	}{
		{"tcp", ":80", "tcp [::]:80", fitsAddress},
		{"tcp", ":80", "tcp 0.0.0.0:80", fitsAddress},
		{"tcp", "0.0.0.0:80", "tcp [::]:80", fitsAddress},
		{"tcp", "[::]:80", "tcp 0.0.0.0:80", fitsAddress},
		{"tcp", ":http", "tcp 0.0.0.0:80", fitsAddress},
		{"tcp", ":80", "tcp 127.0.0.1:80", fitsPort},
		{"tcp", ":80", "tcp 127.0.0.1:81", fitsKind},
		{"tcp", ":0", "tcp 127.0.0.1:81", fitsKind},
		{"tcp", "127.0.0.1:80", "tcp 127.0.0.1:80", fitsAddress},
		{"tcp", "127.0.0.1:80", "tcp 127.0.0.1:81", fitsKind},
		{"tcp", "[::ffff:127.0.0.1]:80", "tcp 127.0.0.1:80", fitsAddress},
		{"tcp", "localhost:80", "tcp 127.0.0.1:80", fitsAddress},
		{"tcp", "localhost:80", "tcp [::1]:80", fitsAddress},
		{"tcp4", ":80", "tcp 0.0.0.0:80", fitsAddress},
		{"tcp6", ":80", "tcp [::]:80", fitsAddress},
		{"unix", "/run/x", "unix /run/x", fitsAddress},
		{"unix", "/run/../run/x", "unix /run/x", fitsAddress},
		{"unix", "x", "unix " + filepath.Join(here, "x"), fitsAddress},
		{"unix", "@x", "unix @x", fitsAddress},
		{"unix", "/run/y", "unix /run/x", fitsKind},
		{"unix", "@y", "unix /run/x", fitsKind},
		{"udp", ":53", "udp 0.0.0.0:53", fitsAddress},
		{"unixgram", "/run/x", "unixgram /run/x", fitsAddress},
		{"tcp", ":80", "unix /run/x", fitsKind},
		{"tcp", "localhost:80", "unix /run/x", fitsKind},

		// Never wider than what was asked for, never another kind.
		{"tcp", "127.0.0.1:80", "tcp 0.0.0.0:80", fitsNot},
		{"tcp", "127.0.0.1:80", "tcp [::]:80", fitsNot},
		{"tcp", "127.0.0.1:80", "tcp 192.0.2.1:80", fitsNot},
		{"tcp", "localhost:80", "tcp [::]:80", fitsNot},
		{"tcp4", ":80", "tcp [::]:80", fitsNot},
		{"tcp6", ":80", "tcp 0.0.0.0:80", fitsNot},
		{"tcp", "192.0.2.1:80", "unix /run/x", fitsNot},
		{"tcp", "example.invalid:80", "tcp 127.0.0.1:80", fitsNot},
		{"tcp", "80", "tcp 127.0.0.1:80", fitsNot},
		{"unix", "/run/x", "tcp 127.0.0.1:80", fitsNot},
		{"unixpacket", "/run/x", "unix /run/x", fitsNot},
		{"tcp", ":80", "unixpacket /run/x", fitsNot},
		{"udp", ":53", "tcp 0.0.0.0:53", fitsNot},
		{"tcp", ":53", "udp 0.0.0.0:53", fitsNot},
		{"udp", ":53", "unixgram /run/x", fitsNot},

		// Names.
		{"tcp", "admin=127.0.0.1:9090", "admin=tcp 0.0.0.0:80", fitsName},
		{"tcp", "admin=127.0.0.1:9090", "admin.socket=tcp 0.0.0.0:80", fitsName},
		{"tcp", "admin=127.0.0.1:9090", "web=tcp 127.0.0.1:9090", fitsAddress},
		{"tcp", "admin=:9090", "web=tcp 127.0.0.1:9090", fitsPort},
		{"tcp", "admin=:9090", "web=tcp 127.0.0.1:80", fitsNot},
		{"tcp", "admin=:9090", "admin=udp 0.0.0.0:9090", fitsNot},
		{"unix", "admin=/run/x", "admin=unix /run/y", fitsName},
		{"unix", "/run/a=b", "unix /run/a=b", fitsAddress},
	} {
		a, err := newAsk(test.network, test.address)
		if err != nil {
			t.Fatal(err)
		}
		if got := a.fits(have(t, test.have)); got != test.want {
			t.Errorf("%s %s fits %s: %d, want %d", test.network, test.address, test.have, got, test.want)
		}
	}
	if _, err := newAsk("icmp", "x"); err == nil {
		t.Error("icmp is taken")
	}
}

// Each socket is given away once, the best first, then in order.
func TestTake(t *testing.T) {
	in := &inheritance{}
	for _, s := range []string{"tcp 127.0.0.1:81", "tcp 127.0.0.1:80", "admin=tcp 127.0.0.1:9", "udp 127.0.0.1:80"} {
		in.sockets = append(in.sockets, have(t, s))
	}
	for _, test := range []struct{ network, address, want string }{
		{"tcp", "admin=:1", "admin (tcp 127.0.0.1:9)"},
		{"tcp", ":80", "tcp 127.0.0.1:80"},
		{"tcp", ":80", "tcp 127.0.0.1:81"},
		{"tcp", ":80", ""},
		{"udp", ":5", "udp 127.0.0.1:80"},
	} {
		a, err := newAsk(test.network, test.address)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if h := in.take(&a); h != nil {
			got = h.String()
		}
		if got != test.want {
			t.Errorf("%s %s takes %q, want %q", test.network, test.address, got, test.want)
		}
	}
	if left := in.left(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func FuzzAsk(f *testing.F) {
	for _, s := range []string{":80", "a=:80", "[::1]:x", "/run/x", "@x", "localhost:", "=", "a=b=c"} {
		f.Add("tcp", s)
		f.Add("unix", s)
	}
	f.Fuzz(func(t *testing.T, network, address string) {
		a, err := newAsk(network, address)
		if err != nil {
			return
		}
		if a.literal() != address {
			t.Errorf("%q is read as %q", address, a.literal())
		}
		for _, s := range []string{"tcp 0.0.0.0:80", "unix /run/x", "udp [::]:80"} {
			if f := a.fits(have(t, s)); f == fitsAddress && a.host.IsValid() && s[:4] != "unix" {
				t.Errorf("%s %s gets the wider %s", network, address, s)
			}
		}
	})
}
