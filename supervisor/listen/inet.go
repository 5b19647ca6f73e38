package listen

import (
	"errors"
	"math"
	"net"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor/config"
)

// role says which member of a group inet opens.
type role int

const (
	first   role = iota // binds without SO_REUSEPORT, so that any other holder is a clean EADDRINUSE
	further             // joins the group
	plug                // joins, drops every packet, and is never steered to
)

// inet opens a TCP or UDP listener at at. like is a member of the group to
// join, -1 for the first. Errors are *OpenError; warnings are the options that
// could not be set.
func inet(c config.Socket, at netip.AddrPort, r role, like int) (fd int, warns []Warning, err error) {
	stream := c.Network == "tcp"
	domain, typ, proto := unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDP
	if at.Addr().Is6() {
		domain = unix.AF_INET6
	}
	if stream {
		typ, proto = unix.SOCK_STREAM, unix.IPPROTO_TCP // never MPTCP: no program can be attached to it
	}
	flags := unix.SOCK_CLOEXEC
	if !c.Options.Blocking {
		flags |= unix.SOCK_NONBLOCK
	}
	fd, err = unix.Socket(domain, typ|flags, proto)
	if err != nil {
		return -1, nil, failed("socket", c, err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
			fd = -1
		}
	}()
	if stage, err := mustSet(fd, domain, c); err != nil {
		return fd, nil, failed(stage, c, err)
	}
	if like >= 0 {
		if stage, err := resemble(fd, like, domain); err != nil {
			return fd, nil, failed(stage, c, err)
		}
	}
	if stream {
		if err := on(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR); err != nil {
			return fd, nil, failed("set SO_REUSEADDR", c, err)
		}
	}
	reusePort := func() error {
		if err := on(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT); err != nil {
			return failed("set SO_REUSEPORT", c, err)
		}
		return nil
	}
	if r != first || c.Options.ReusePort {
		if err := reusePort(); err != nil {
			return fd, nil, err
		}
	}
	if r == plug {
		if err := dropAll(fd); err != nil {
			return fd, nil, failed("set SO_ATTACH_FILTER", c, err)
		}
	} else {
		warns = maySet(fd, domain, stream, c)
	}
	if err := bind(fd, at, domain, typ); err != nil {
		return fd, nil, failed("bind", c, err)
	}
	if r == first && !c.Options.Shared {
		if err := reusePort(); err != nil {
			return fd, nil, err
		}
	}
	if stream {
		n := backlog(c)
		if r == plug {
			n = 1
		}
		if err := unix.Listen(fd, n); err != nil {
			return fd, nil, failed("listen", c, err)
		}
	}
	return fd, warns, nil
}

// bind binds fd to at, whose port may be 0.
//
// A socket that was bound to port 0 loses its port when somebody shuts it down:
// the kernel keeps only what was asked for (SOCK_BINDPORT_LOCK), and listen(2)
// then takes another one. So another socket finds a free port, and fd asks for
// that one.
func bind(fd int, at netip.AddrPort, domain, typ int) error {
	if at.Port() != 0 {
		return bindTo(fd, at)
	}
	var err error
	for range portTries {
		if err = bindFree(fd, at, domain, typ); !errors.Is(err, unix.EADDRINUSE) {
			return err
		}
	}
	return err
}

func bindFree(fd int, at netip.AddrPort, domain, typ int) error {
	scout, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	open := true
	defer func() {
		if open {
			unix.Close(scout)
		}
	}()
	if domain == unix.AF_INET6 {
		only, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
		if err == nil {
			err = unix.SetsockoptInt(scout, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only)
		}
		if err != nil {
			return err
		}
	}
	for _, opt := range []int{unix.IP_FREEBIND, unix.IP_TRANSPARENT} {
		if v, err := unix.GetsockoptInt(fd, unix.IPPROTO_IP, opt); err == nil && v != 0 {
			_ = on(scout, unix.IPPROTO_IP, opt)
		}
	}
	if err := bindTo(scout, at); err != nil {
		return err
	}
	free, err := boundAddr(scout)
	if err != nil {
		return err
	}
	if typ == unix.SOCK_STREAM {
		// Both with SO_REUSEADDR and neither listening: nobody gets between.
		if err := on(scout, unix.SOL_SOCKET, unix.SO_REUSEADDR); err != nil {
			return err
		}
	} else {
		unix.Close(scout)
		open = false
	}
	return bindTo(fd, free)
}

func bindTo(fd int, at netip.AddrPort) error {
	sa, err := sockaddr(at)
	if err != nil {
		return err
	}
	return unix.Bind(fd, sa)
}

// mustSet sets what decides whether and where bind(2) succeeds.
func mustSet(fd, domain int, c config.Socket) (stage string, err error) {
	o := c.Options
	if domain == unix.AF_INET6 {
		only := 1
		if c.Addr.Addr().IsUnspecified() && !c.V6Only {
			only = 0
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only); err != nil {
			return "set IPV6_V6ONLY", err
		}
	}
	if o.BindToDevice != "" {
		if err := unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, o.BindToDevice); err != nil {
			return "set SO_BINDTODEVICE", err
		}
	}
	if o.FreeBind {
		if err := byFamily(fd, domain, unix.IP_FREEBIND, unix.IPV6_FREEBIND, 1); err != nil {
			return "set IP_FREEBIND", err
		}
	}
	if o.Transparent {
		if err := byFamily(fd, domain, unix.IP_TRANSPARENT, unix.IPV6_TRANSPARENT, 1); err != nil {
			return "set IP_TRANSPARENT", err
		}
	}
	return "", nil
}

// resemble gives fd what the members of a group must have in common: owner,
// device, V6ONLY, and what allowed them to bind. It matters for groups that
// began with a listener of somebody else.
func resemble(fd, like, domain int) (stage string, err error) {
	var mine, its unix.Stat_t
	if err := errors.Join(unix.Fstat(fd, &mine), unix.Fstat(like, &its)); err != nil {
		return "stat", err
	}
	if mine.Uid != its.Uid {
		// With CAP_CHOWN, fchown(2) changes the owner that bind(2) compares.
		if err := unix.Fchown(fd, int(its.Uid), -1); err != nil {
			return "chown to uid " + strconv.Itoa(int(its.Uid)), err
		}
	}
	if dev, err := unix.GetsockoptString(like, unix.SOL_SOCKET, unix.SO_BINDTODEVICE); err == nil && dev != "" {
		if err := unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, dev); err != nil {
			return "set SO_BINDTODEVICE", err
		}
	}
	type option struct {
		name       string
		level, opt int
	}
	options := []option{{"IP_FREEBIND", unix.IPPROTO_IP, unix.IP_FREEBIND}, {"IP_TRANSPARENT", unix.IPPROTO_IP, unix.IP_TRANSPARENT}}
	if domain == unix.AF_INET6 {
		options = append(options, option{"IPV6_V6ONLY", unix.IPPROTO_IPV6, unix.IPV6_V6ONLY})
	}
	for _, o := range options {
		want, err := unix.GetsockoptInt(like, o.level, o.opt)
		if err != nil {
			continue
		}
		if have, err := unix.GetsockoptInt(fd, o.level, o.opt); err == nil && have == want {
			continue
		}
		if err := unix.SetsockoptInt(fd, o.level, o.opt, want); err != nil {
			return "set " + o.name, err
		}
	}
	return "", nil
}

// maySet sets what a server can live without. What fails is a warning, as for
// systemd.
func maySet(fd, domain int, stream bool, c config.Socket) []Warning {
	o := c.Options
	var warns []Warning
	try := func(name string, wanted bool, set func() error) {
		if !wanted {
			return
		}
		if err := set(); err != nil {
			warns = append(warns, Warning{c, name + " could not be set, and is the kernel's default now", err})
		}
	}
	number := func(level, opt, value int) func() error {
		return func() error { return unix.SetsockoptInt(fd, level, opt, value) }
	}
	seconds := func(d time.Duration) int { return int(math.Ceil(d.Seconds())) }

	try("Mark=", o.Mark > 0, number(unix.SOL_SOCKET, unix.SO_MARK, o.Mark))
	try("Priority=", o.Priority > 0, number(unix.SOL_SOCKET, unix.SO_PRIORITY, o.Priority))
	try("ReceiveBuffer=", o.ReceiveBuffer > 0, func() error {
		return forced(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, o.ReceiveBuffer)
	})
	try("SendBuffer=", o.SendBuffer > 0, func() error {
		return forced(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, o.SendBuffer)
	})
	try("IPTOS=", o.IPTOS > 0, func() error { return byFamily(fd, domain, unix.IP_TOS, unix.IPV6_TCLASS, o.IPTOS) })
	try("IPTTL=", o.IPTTL > 0, func() error { return byFamily(fd, domain, unix.IP_TTL, unix.IPV6_UNICAST_HOPS, o.IPTTL) })
	if !stream {
		try("Broadcast=", o.Broadcast, number(unix.SOL_SOCKET, unix.SO_BROADCAST, 1))
		return warns
	}
	try("KeepAlive=", o.KeepAlive, number(unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1))
	try("KeepAliveTimeSec=", o.KeepAliveTime > 0, number(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, seconds(o.KeepAliveTime)))
	try("KeepAliveIntervalSec=", o.KeepAliveIntv > 0, number(unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, seconds(o.KeepAliveIntv)))
	try("KeepAliveProbes=", o.KeepAliveProb > 0, number(unix.IPPROTO_TCP, unix.TCP_KEEPCNT, o.KeepAliveProb))
	try("NoDelay=", o.NoDelay, number(unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
	try("DeferAcceptSec=", o.DeferAccept > 0, number(unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, seconds(o.DeferAccept)))
	try("FastOpen=", o.FastOpen > 0, number(unix.IPPROTO_TCP, unix.TCP_FASTOPEN, o.FastOpen))
	return warns
}

// byFamily sets an option that has one number for IPv4 and one for IPv6. An
// IPv6 socket gets both, for a dual-stack one has IPv4 traffic too; the second
// may fail.
func byFamily(fd, domain, v4, v6, value int) error {
	if domain == unix.AF_INET {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, v4, value)
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, v4, value)
	return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, v6, value)
}

// forced sets a buffer size beyond the system's limit where that is allowed.
func forced(fd, force, opt, value int) error {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, value) == nil {
		return nil
	}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt, value)
}

func on(fd, level, opt int) error { return unix.SetsockoptInt(fd, level, opt, 1) }

// backlog is the length of the accept queue to ask for; the kernel cuts it to
// net.core.somaxconn.
func backlog(c config.Socket) int {
	if c.Options.Backlog > 0 {
		return c.Options.Backlog
	}
	return math.MaxInt32
}

func sockaddr(at netip.AddrPort) (unix.Sockaddr, error) {
	a := at.Addr()
	if a.Is4() {
		return &unix.SockaddrInet4{Port: int(at.Port()), Addr: a.As4()}, nil
	}
	sa := &unix.SockaddrInet6{Port: int(at.Port()), Addr: a.As16()}
	if zone := a.Zone(); zone != "" {
		n, err := strconv.Atoi(zone)
		if err != nil {
			i, err := net.InterfaceByName(zone)
			if err != nil {
				return nil, errors.Join(err, unix.ENODEV)
			}
			n = i.Index
		}
		sa.ZoneId = uint32(n)
	}
	return sa, nil
}

// boundAddr is getsockname(2) of an IP socket, IPv4-mapped ones as they are.
func boundAddr(fd int) (netip.AddrPort, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, err
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)), nil
	case *unix.SockaddrInet6:
		a := netip.AddrFrom16(sa.Addr)
		if sa.ZoneId != 0 {
			zone := strconv.Itoa(int(sa.ZoneId))
			if i, err := net.InterfaceByIndex(int(sa.ZoneId)); err == nil {
				zone = i.Name
			}
			a = a.WithZone(zone)
		}
		return netip.AddrPortFrom(a, uint16(sa.Port)), nil
	}
	return netip.AddrPort{}, unix.EAFNOSUPPORT
}

// openInet opens the first lane of a TCP or UDP socket at port, 0 for any.
func openInet(c config.Socket, port uint16) (*Socket, []Warning, error) {
	at := netip.AddrPortFrom(c.Addr.Addr().Unmap(), port)
	fd, warns, err := inet(c, at, first, -1)
	if err != nil && at.Addr().Is6() && at.Addr().IsUnspecified() && !c.V6Only &&
		(errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)) {
		cause := err
		at = netip.AddrPortFrom(netip.IPv4Unspecified(), port)
		if fd, warns, err = inet(c, at, first, -1); err == nil {
			warns = append(warns, Warning{c, "IPv6 cannot be used: listening on IPv4 only", cause})
		}
	}
	if err != nil {
		return nil, nil, err
	}
	s, err := newInet(c, fd)
	if err != nil {
		unix.Close(fd)
		return nil, nil, failed("getsockname", c, err)
	}
	switch {
	case c.Options.Shared:
		s.shared = "Shared=yes"
	case c.Options.ReusePort:
		s.shared = "ReusePort=yes: other programs may join the port, so that nobody knows the order of its group"
	default:
		if err := s.found(); err != nil {
			s.shared = "the kernel does not steer: " + err.Error()
			warns = append(warns, Warning{c, "one shared listener instead of lanes: connections may be lost at a rollout", err})
		}
	}
	return s, warns, nil
}

// newInet makes the Socket of a listening fd, with one lane and no steering yet.
func newInet(c config.Socket, fd int) (*Socket, error) {
	at, err := boundAddr(fd)
	if err != nil {
		return nil, err
	}
	s := &Socket{cfg: c, addr: at, group: &group{tcp: c.Network == "tcp"}}
	l, err := s.newLane(fd)
	if err != nil {
		return nil, err
	}
	s.group.order = []*member{{fd: fd, lane: l}}
	s.group.steered = []*Lane{l}
	return s, nil
}

// found makes a group of the socket's one listener, steered to it.
func (s *Socket) found() error {
	g := s.group
	g.mu.Lock()
	defer g.mu.Unlock()
	g.join = func(isPlug bool) (int, error) {
		r := further
		if isPlug {
			r = plug
		}
		for _, m := range g.order { // a child may have taken it away
			if v, err := unix.GetsockoptInt(m.fd, unix.SOL_SOCKET, unix.SO_REUSEPORT); err == nil && v == 0 {
				_ = on(m.fd, unix.SOL_SOCKET, unix.SO_REUSEPORT)
			}
			if g.tcp {
				_ = on(m.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR)
			}
		}
		fd, _, err := inet(s.cfg, s.addr, r, g.order[0].fd)
		return fd, err
	}
	g.steering = true
	err := g.attach()
	if errors.Is(err, unix.EINVAL) {
		// A socket that got SO_REUSEPORT after it was in the kernel's tables
		// has no group until a second one joins. That one is a plug, so that
		// no client can get into it before the program is there. The group
		// stays when it leaves.
		var fd int
		if fd, err = g.join(true); err == nil {
			g.order = append(g.order, &member{fd: fd})
			err = g.attach()
			g.unplug()
		}
	}
	if err != nil {
		g.steering = false
	}
	return err
}
