package intercept

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func rawInet4(addr string) []byte {
	ap := netip.MustParseAddrPort(addr)
	b := binary.NativeEndian.AppendUint16(nil, unix.AF_INET)
	b = binary.BigEndian.AppendUint16(b, ap.Port())
	b = append(b, ap.Addr().AsSlice()...)
	return append(b, make([]byte, 8)...)
}

func rawInet6(addr string, scope uint32) []byte {
	ap := netip.MustParseAddrPort(addr)
	b := binary.NativeEndian.AppendUint16(nil, unix.AF_INET6)
	b = binary.BigEndian.AppendUint16(b, ap.Port())
	b = append(b, 0, 0, 0, 0)
	ip := ap.Addr().As16()
	b = append(b, ip[:]...)
	return binary.NativeEndian.AppendUint32(b, scope)
}

func rawUnix(path string) []byte {
	return append(binary.NativeEndian.AppendUint16(nil, unix.AF_UNIX), path...)
}

func TestParseSockaddr(t *testing.T) {
	for _, c := range []struct {
		name  string
		raw   []byte
		ok    bool
		addr  string
		path  string
		scope uint32
	}{
		{name: "v4", raw: rawInet4("127.0.0.1:80"), ok: true, addr: "127.0.0.1:80"},
		{name: "v4 wildcard", raw: rawInet4("0.0.0.0:65535"), ok: true, addr: "0.0.0.0:65535"},
		{name: "v4 port 0", raw: rawInet4("127.0.0.1:0")},
		{name: "v4 short", raw: rawInet4("127.0.0.1:80")[:15]},
		{name: "v4 long", raw: append(rawInet4("127.0.0.1:80"), make([]byte, 100)...), ok: true, addr: "127.0.0.1:80"},
		{name: "v6", raw: rawInet6("[::1]:80", 7), ok: true, addr: "[::1]:80"},
		{name: "v6 port 0", raw: rawInet6("[::1]:0", 0)},
		{name: "v6 of RFC 2133", raw: rawInet6("[::]:80", 0)[:24], ok: true, addr: "[::]:80"},
		{name: "v6 short", raw: rawInet6("[::]:80", 0)[:23]},
		{name: "v6 mapped", raw: rawInet6("[::ffff:127.0.0.1]:80", 0), ok: true, addr: "[::ffff:127.0.0.1]:80"},
		{name: "v6 link-local", raw: rawInet6("[fe80::1]:80", 3), ok: true, addr: "[fe80::1]:80", scope: 3},
		{name: "v6 link-local, no scope", raw: rawInet6("[fe80::1]:80", 3)[:24], ok: true, addr: "[fe80::1]:80"},
		{name: "unix", raw: rawUnix("/run/x\x00"), ok: true, path: "/run/x"},
		{name: "unix, no zero", raw: rawUnix("/run/x"), ok: true, path: "/run/x"},
		{name: "unix, rubbish behind zero", raw: rawUnix("x\x00yyy"), ok: true, path: "x"},
		{name: "unix full", raw: rawUnix(strings.Repeat("x", 108)), ok: true, path: strings.Repeat("x", 108)},
		{name: "unix too long", raw: rawUnix(strings.Repeat("x", 109))},
		{name: "unix autobind", raw: rawUnix("")},
		{name: "abstract", raw: rawUnix("\x00a\x00b"), ok: true, path: "@a\x00b"},
		{name: "abstract empty", raw: rawUnix("\x00"), ok: true, path: "@"},
		{name: "netlink", raw: append(binary.NativeEndian.AppendUint16(nil, unix.AF_NETLINK), make([]byte, 10)...)},
		{name: "unspec", raw: make([]byte, 16)},
		{name: "nothing"},
		{name: "one byte", raw: []byte{2}},
		{name: "too long", raw: append(rawInet4("1.1.1.1:1"), make([]byte, 128)...)},
	} {
		t.Run(c.name, func(t *testing.T) {
			sa, ok := parseSockaddr(c.raw)
			if ok != c.ok {
				t.Fatalf("ok %v", ok)
			}
			if !ok {
				return
			}
			if c.addr != "" && sa.addr != netip.MustParseAddrPort(c.addr) || sa.path != c.path || sa.scope != c.scope {
				t.Errorf("got %+v", sa)
			}
		})
	}
}

func FuzzSockaddr(f *testing.F) {
	f.Add(rawInet4("127.0.0.1:80"))
	f.Add(rawInet6("[fe80::1]:80", 3))
	f.Add(rawUnix("/run/x\x00"))
	f.Add(rawUnix("\x00abstract"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		sa, ok := parseSockaddr(raw)
		if !ok {
			return
		}
		switch sa.family {
		case unix.AF_INET, unix.AF_INET6:
			if !sa.addr.IsValid() || sa.addr.Port() == 0 || sa.path != "" {
				t.Fatalf("%x: %+v", raw, sa)
			}
		case unix.AF_UNIX:
			if sa.path == "" || sa.addr.IsValid() || len(sa.path) > 108 {
				t.Fatalf("%x: %+v", raw, sa)
			}
			if !sa.abstract() && strings.ContainsRune(sa.path, 0) {
				t.Fatalf("%x: a zero in a path", raw)
			}
		default:
			t.Fatalf("%x: family %d", raw, sa.family)
		}
		_ = Key{Family: sa.family, Addr: sa.addr, Path: sa.path}.String()
	})
}

// FuzzSockaddrAgainstKernel binds what the parser says it understands, and
// compares with getsockname.
func FuzzSockaddrAgainstKernel(f *testing.F) {
	f.Add(rawInet4("127.0.0.1:45001"))
	f.Add(rawInet6("[::1]:45001", 0))
	f.Add(rawInet6("[::1]:45001", 0)[:24])
	f.Add(rawUnix("\x00intercept-test"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		sa, ok := parseSockaddr(raw)
		if !ok || sa.family == unix.AF_UNIX && !sa.abstract() {
			return
		}
		fd, err := unix.Socket(sa.family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Skip(err)
		}
		defer func() { _ = unix.Close(fd) }()
		switch bindRaw(fd, raw) {
		case 0:
		case unix.EINVAL:
			if !sa.addr.Addr().IsLinkLocalUnicast() && !sa.addr.Addr().IsMulticast() {
				t.Fatalf("%x: the kernel does not understand what we do", raw)
			}
			return
		default:
			return
		}
		got, err := unix.Getsockname(fd)
		if err != nil {
			t.Fatal(err)
		}
		switch got := got.(type) {
		case *unix.SockaddrInet4:
			if netip.AddrPortFrom(netip.AddrFrom4(got.Addr), uint16(got.Port)) != sa.addr {
				t.Fatalf("%x: %v, the kernel %+v", raw, sa.addr, got)
			}
		case *unix.SockaddrInet6:
			if netip.AddrPortFrom(netip.AddrFrom16(got.Addr), uint16(got.Port)) != sa.addr {
				t.Fatalf("%x: %v, the kernel %+v", raw, sa.addr, got)
			}
		}
	})
}

func FuzzFdinfo(f *testing.F) {
	f.Add([]byte("pos:\t0\nflags:\t02000002\nmnt_id:\t15\nino:\t1\ntfd:        5 events:       19 data: 1122334455667788  pos:0 ino:61af sdev:7\n"))
	f.Add([]byte("tfd: 5 events:"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = fdinfoFlags(b)
		for _, w := range parseWatches(b) {
			if w.fd < 0 {
				t.Fatal("negative fd")
			}
		}
	})
}

func TestParseWatches(t *testing.T) {
	got := parseWatches([]byte("pos:\t0\nflags:\t02\n" +
		"tfd:        5 events:       19 data: 1122334455667788  pos:0 ino:61af sdev:7\n" +
		"tfd:       17 events: 80002001 data:                0  pos:0 ino:3 sdev:7\n"))
	want := []watchedInode{
		{watch{fd: 5, events: 0x19, data: 0x1122334455667788}, 0x61af},
		{watch{fd: 17, events: 0x80002001}, 3},
	}
	if len(got) != len(want) || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %+v", got)
	}
}

// TestConflicts compares what Conflicts says with what the kernel does, for
// every pair of shapes of one port.
func TestConflicts(t *testing.T) {
	shapes := []struct {
		addr   string
		v6only bool
	}{
		{"0.0.0.0", false},
		{"127.0.0.1", false},
		{"127.0.0.2", false},
		{"::", false},
		{"::", true},
		{"::1", false},
		{"::1", true},
		{"::ffff:127.0.0.1", false},
		{"::ffff:127.0.0.2", false},
	}
	open := func(i int, port uint16) (int, Key, error) {
		ip := netip.MustParseAddr(shapes[i].addr)
		k := Key{Family: unix.AF_INET, Type: unix.SOCK_STREAM, Addr: netip.AddrPortFrom(ip, port), V6Only: shapes[i].v6only}
		var raw []byte
		if ip.Is4() {
			raw = rawInet4(ip.String() + ":1")
		} else {
			raw, k.Family = rawInet6("["+ip.String()+"]:1", 0), unix.AF_INET6
		}
		binary.BigEndian.PutUint16(raw[2:], port)
		fd, err := unix.Socket(k.Family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Skip(err)
		}
		if k.Family == unix.AF_INET6 {
			v := 0
			if k.V6Only {
				v = 1
			}
			if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, v); err != nil {
				t.Fatal(err)
			}
		}
		if errno := bindRaw(fd, raw); errno != 0 {
			return fd, k, errno
		}
		return fd, k, unix.Listen(fd, 1)
	}
	port := freePort(t)
	for i := range shapes {
		for j := range shapes {
			a, ka, err := open(i, port)
			if err != nil {
				t.Fatal(ka, err)
			}
			b, kb, err := open(j, port)
			_, _ = unix.Close(a), unix.Close(b)
			if err != nil && err != unix.EADDRINUSE {
				t.Fatal(kb, err)
			}
			want := err == unix.EADDRINUSE
			if got := ka == kb || ka.Conflicts(kb); got != want {
				t.Errorf("%s and %s: conflict %v, the kernel %v", ka, kb, got, want)
			}
			if ka.Conflicts(kb) != kb.Conflicts(ka) {
				t.Errorf("%s and %s: not symmetric", ka, kb)
			}
		}
	}
}

func portOf(t testing.TB, fd int) uint16 {
	t.Helper()
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return uint16(sa.Port)
	case *unix.SockaddrInet6:
		return uint16(sa.Port)
	}
	t.Fatalf("no port: %v", sa)
	return 0
}

func TestKeyString(t *testing.T) {
	for want, k := range map[string]Key{
		"tcp4 127.0.0.1:80":                 {Family: unix.AF_INET, Type: unix.SOCK_STREAM, Addr: netip.MustParseAddrPort("127.0.0.1:80")},
		"tcp6 [::]:80 v6only device eth0":   {Family: unix.AF_INET6, Type: unix.SOCK_STREAM, Addr: netip.MustParseAddrPort("[::]:80"), V6Only: true, Device: "eth0"},
		"udp6 [fe80::1]:80 scope 3":         {Family: unix.AF_INET6, Type: unix.SOCK_DGRAM, Addr: netip.MustParseAddrPort("[fe80::1]:80"), Scope: 3},
		"unix /run/x":                       {Family: unix.AF_UNIX, Type: unix.SOCK_STREAM, Path: "/run/x"},
		`unixpacket "@a\x00\x1b"`:           {Family: unix.AF_UNIX, Type: unix.SOCK_SEQPACKET, Path: "@a\x00\x1b"},
		"family 40 type 1 invalid AddrPort": {Family: 40, Type: 1},
	} {
		if got := k.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if !bytes.ContainsRune([]byte(Event{Kind: Unheld, Err: unix.EPERM}.String()), ':') {
		t.Error("an event without words")
	}
}
