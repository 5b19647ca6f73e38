package intercept

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// maxSockaddr is the size of struct sockaddr_storage: the kernel refuses more.
const maxSockaddr = 128

// Sizes of struct sockaddr_in, of struct sockaddr_in6 and of the shorter one
// of RFC 2133 that the kernel accepts too, and of struct sockaddr_un.
const (
	sizeofInet4    = 16
	sizeofInet6    = 28
	sizeofInet6Old = 24
	sizeofUnix     = 110
)

// sockaddr is an address as a child gave it to bind(2).
type sockaddr struct {
	family int
	addr   netip.AddrPort // AF_INET, AF_INET6
	scope  uint32         // AF_INET6
	path   string         // AF_UNIX: as given; "@" and name if abstract
	raw    []byte         // what was parsed
}

// parseSockaddr reads an address of AF_INET, AF_INET6 or AF_UNIX as the
// kernel would. ok is false for any other family, for what the kernel would
// refuse with EINVAL, and for a bind that leaves the choice to the kernel (port
// 0, unix autobind): such a bind is nobody's but the kernel's.
func parseSockaddr(b []byte) (sa sockaddr, ok bool) {
	if len(b) < 2 || len(b) > maxSockaddr {
		return sockaddr{}, false
	}
	sa.raw = b
	sa.family = int(binary.NativeEndian.Uint16(b))
	switch sa.family {
	case unix.AF_INET:
		if len(b) < sizeofInet4 {
			return sockaddr{}, false
		}
		sa.addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:]))
		return sa, sa.addr.Port() != 0
	case unix.AF_INET6:
		if len(b) < sizeofInet6Old {
			return sockaddr{}, false
		}
		ip := netip.AddrFrom16([16]byte(b[8:24]))
		sa.addr = netip.AddrPortFrom(ip, binary.BigEndian.Uint16(b[2:]))
		// The kernel looks at the scope of link-local addresses only.
		if len(b) >= sizeofInet6 && (ip.IsLinkLocalUnicast() || ip.IsLinkLocalMulticast()) {
			sa.scope = binary.NativeEndian.Uint32(b[24:])
		}
		return sa, sa.addr.Port() != 0
	case unix.AF_UNIX:
		if len(b) == 2 || len(b) > sizeofUnix {
			return sockaddr{}, false
		}
		name := b[2:]
		if name[0] == 0 { // abstract: all bytes count, zeros too
			sa.path = "@" + string(name[1:])
			return sa, true
		}
		for i, c := range name {
			if c == 0 {
				name = name[:i]
				break
			}
		}
		sa.path = string(name)
		return sa, true
	}
	return sockaddr{}, false
}

func (sa sockaddr) abstract() bool {
	return sa.family == unix.AF_UNIX && len(sa.raw) > 2 && sa.raw[2] == 0
}
