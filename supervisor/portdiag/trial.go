package portdiag

import (
	"net"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// Trial is a bind that was tried on a socket of our own, closed at once.
type Trial struct {
	How   string `json:"how"` // what was asked for, in a few words
	OK    bool   `json:"ok"`
	Errno string `json:"errno,omitempty"`

	err unix.Errno
}

// trialSet are the options of one trial.
type trialSet struct {
	reuseAddr, reusePort, v6only bool
}

// try binds addr and closes the socket. It neither listens nor connects: a
// TCP socket that is only bound receives nothing and leaves nothing behind.
// For an instant it is in the way of others, as any bind is, but only if the
// address was free.
//
// UDP is tried without options only: with SO_REUSEADDR or SO_REUSEPORT our
// socket would take datagrams away from a living server.
func try(how, network string, addr netip.AddrPort, set trialSet) Trial {
	t := Trial{How: how}
	err := tryBind(network, addr, set)
	t.OK = err == nil
	if e, ok := err.(unix.Errno); ok {
		t.err = e
		t.Errno = unix.ErrnoName(e)
	} else if err != nil {
		t.Errno = err.Error()
	}
	return t
}

func tryBind(network string, addr netip.AddrPort, set trialSet) error {
	family, typ, proto := unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_TCP
	if addr.Addr().Is4() {
		family = unix.AF_INET
	}
	if network == "udp" {
		typ, proto = unix.SOCK_DGRAM, unix.IPPROTO_UDP
	}
	fd, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	type option struct{ level, name, value int }
	var options []option
	if family == unix.AF_INET6 {
		options = append(options, option{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, boolInt(set.v6only)})
	}
	if network == "tcp" {
		options = append(options,
			option{unix.SOL_SOCKET, unix.SO_REUSEADDR, boolInt(set.reuseAddr)},
			option{unix.SOL_SOCKET, unix.SO_REUSEPORT, boolInt(set.reusePort)})
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return err
		}
	}
	if addr.Addr().Is4() {
		return unix.Bind(fd, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()})
	}
	zone, err := zoneIndex(addr.Addr().Zone())
	if err != nil {
		return unix.ENODEV
	}
	return unix.Bind(fd, &unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16(), ZoneId: zone})
}

func zoneIndex(zone string) (uint32, error) {
	if zone == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	i, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, err
	}
	return uint32(i.Index), nil
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// trials tries the bind as asked and, while that does not succeed because the
// address is in use, in the variants that would tell something.
func trials(t Target) []Trial {
	asked := trialSet{v6only: t.V6Only}
	all := []Trial{try("without options", t.Network, t.Addr, asked)}
	if all[0].err != unix.EADDRINUSE || t.Network != "tcp" || t.Addr.Port() == 0 {
		return all
	}
	withReuse := asked
	withReuse.reuseAddr = true
	all = append(all, try("with SO_REUSEADDR", t.Network, t.Addr, withReuse))
	if all[1].OK {
		return all
	}
	group := withReuse
	group.reusePort = true
	all = append(all, try("with SO_REUSEPORT too", t.Network, t.Addr, group))
	port := t.Addr.Port()
	v4, v6 := netip.AddrPortFrom(netip.IPv4Unspecified(), port), netip.AddrPortFrom(netip.IPv6Unspecified(), port)
	loop := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
	switch a := t.Addr.Addr(); {
	case a == netip.IPv6Unspecified() && !t.V6Only:
		all = append(all,
			try("IPv6 only ([::] with IPV6_V6ONLY)", t.Network, v6, trialSet{reuseAddr: true, v6only: true}),
			try("IPv4 only (0.0.0.0)", t.Network, v4, trialSet{reuseAddr: true}),
			try("127.0.0.1 only", t.Network, loop, trialSet{reuseAddr: true}))
	case a == netip.IPv4Unspecified():
		all = append(all, try("127.0.0.1 only", t.Network, loop, trialSet{reuseAddr: true}))
	}
	return all
}
