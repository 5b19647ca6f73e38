package intercept

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Key is what a child asked for with bind(2): two binds with the same key
// can be answered with the same listener, and with no other. It is comparable.
//
// The protocol is not part of it: Go binds MPTCP since 1.24, and a plain TCP
// listener answers that as well. Nor is the fd number.
type Key struct {
	Family int            // AF_INET, AF_INET6, AF_UNIX
	Type   int            // SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET
	Addr   netip.AddrPort // AF_INET, AF_INET6: as asked, without zone; never port 0
	Path   string         // AF_UNIX: absolute, without symbolic links, as we see it; or "@" and the abstract name
	V6Only bool           // AF_INET6: IPV6_V6ONLY
	Scope  uint32         // AF_INET6: interface index of a link-local address
	Device string         // SO_BINDTODEVICE
	NetNS  uint64         // SO_NETNS_COOKIE; 0 if the kernel has none (before 5.14)
}

// Abstract tells whether the key is an abstract unix name.
func (k Key) Abstract() bool { return k.Family == unix.AF_UNIX && k.Path != "" && k.Path[0] == '@' }

// Network is the network as Go's net package names it: "tcp4", "tcp6",
// "udp4", "udp6", "unix", "unixgram", "unixpacket".
func (k Key) Network() string {
	name := map[[2]int]string{
		{unix.AF_INET, unix.SOCK_STREAM}: "tcp4", {unix.AF_INET6, unix.SOCK_STREAM}: "tcp6",
		{unix.AF_INET, unix.SOCK_DGRAM}: "udp4", {unix.AF_INET6, unix.SOCK_DGRAM}: "udp6",
		{unix.AF_UNIX, unix.SOCK_STREAM}: "unix", {unix.AF_UNIX, unix.SOCK_DGRAM}: "unixgram", {unix.AF_UNIX, unix.SOCK_SEQPACKET}: "unixpacket",
	}[[2]int{k.Family, k.Type}]
	if name == "" {
		return fmt.Sprintf("family %d type %d", k.Family, k.Type)
	}
	return name
}

func (k Key) String() string {
	s := k.Network() + " "
	if k.Family == unix.AF_UNIX {
		return s + printable(k.Path)
	}
	s += k.Addr.String()
	if k.V6Only {
		s += " v6only"
	}
	if k.Scope != 0 {
		s += fmt.Sprintf(" scope %d", k.Scope)
	}
	if k.Device != "" {
		s += " device " + printable(k.Device)
	}
	return s
}

// printable quotes foreign bytes where they could harm a terminal or a log.
func printable(s string) string {
	if q := fmt.Sprintf("%q", s); q != `"`+s+`"` {
		return q
	}
	return s
}

// Conflicts tells whether a listener at k makes a bind of other fail with
// EADDRINUSE though the keys differ, if neither has SO_REUSEPORT: another shape
// of the same port, such as [::]:80 and 0.0.0.0:80. Equal keys are no conflict
// in this sense.
func (k Key) Conflicts(other Key) bool {
	if k == other || k.Type != other.Type || k.Family == unix.AF_UNIX || other.Family == unix.AF_UNIX {
		return false
	}
	if k.Addr.Port() != other.Addr.Port() || k.NetNS != other.NetNS {
		return false
	}
	if k.Device != "" && other.Device != "" && k.Device != other.Device {
		return false
	}
	if k.Scope != 0 && other.Scope != 0 && k.Scope != other.Scope {
		return false
	}
	a, b := k.Addr.Addr(), other.Addr.Addr()
	if (a.Is4() || a.Is4In6()) != (b.Is4() || b.Is4In6()) {
		// Only a dual-stack wildcard reaches into the other family.
		return dualWildcard(k) || dualWildcard(other)
	}
	a, b = a.Unmap(), b.Unmap()
	return a == b || a.IsUnspecified() || b.IsUnspecified()
}

func dualWildcard(k Key) bool {
	return k.Family == unix.AF_INET6 && !k.V6Only && k.Addr.Addr() == netip.IPv6Unspecified()
}
