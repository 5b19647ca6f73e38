package portdiag

import "net/netip"

// span is the set of local addresses that a bound socket covers, as the
// kernel's inet_rcv_saddr_equal compares them.
type span struct {
	addr   netip.Addr // unmapped, without zone
	v6only bool       // of an IPv6 wildcard: does not cover IPv4
}

// spanOf is the span of an address that a socket is, or would be, bound to.
// An IPv4-mapped address is the IPv4 address: so the kernel treats it.
func spanOf(addr netip.Addr, v6only bool) span {
	return span{addr.Unmap().WithZone(""), v6only}
}

// overlaps says that two sockets with these spans meet on one port: the same
// address, or a wildcard that covers the other.
func (s span) overlaps(o span) bool {
	return s.addr == o.addr || s.covers(o) || o.covers(s)
}

// covers says that s is a wildcard to which o belongs. The IPv6 wildcard
// covers IPv4 too unless IPV6_V6ONLY is set (ipv6(7)).
func (s span) covers(o span) bool {
	if !s.addr.IsUnspecified() {
		return false
	}
	if s.addr.Is4() == o.addr.Is4() {
		return true
	}
	return s.addr.Is6() && !s.v6only
}
