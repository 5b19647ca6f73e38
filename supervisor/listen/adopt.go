package listen

import (
	"fmt"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor/config"
	"github.com/supervise/supervise/supervisor/sockdiag"
)

// given is an inherited descriptor after a look at it.
type given struct {
	fd    int // -1 once it belongs to a Socket
	found config.Socket
	proto int
}

// examine finds out what the inherited descriptors are, and makes them
// close-on-exec. It gives all of them also on error, to be closed.
func examine(inherited []Inherited) ([]*given, error) {
	var all []*given
	for _, in := range inherited {
		unix.CloseOnExec(in.FD)
		all = append(all, &given{fd: in.FD, found: config.Socket{Name: in.Name, Source: "inherited descriptor " + strconv.Itoa(in.FD)}})
	}
	for _, g := range all {
		if err := g.examine(); err != nil {
			return all, failed("adopt", g.found, err)
		}
	}
	return all, nil
}

func (g *given) examine() error {
	domain, err := unix.GetsockoptInt(g.fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return err
	}
	typ, err := unix.GetsockoptInt(g.fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return err
	}
	if g.proto, err = unix.GetsockoptInt(g.fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); err != nil {
		return err
	}
	o := &g.found.Options
	o.Mark, o.Priority, o.IPTOS, o.IPTTL = -1, -1, -1, -1
	switch {
	case domain == unix.AF_UNIX:
		g.found.Network = map[int]string{unix.SOCK_STREAM: "unix", unix.SOCK_DGRAM: "unixgram", unix.SOCK_SEQPACKET: "unixpacket"}[typ]
		if g.found.Path, err = pathOf(g.fd); err != nil {
			return err
		}
		if g.found.Path == "" {
			return fmt.Errorf("the socket is not bound: %w", unix.EINVAL)
		}
	case (domain == unix.AF_INET || domain == unix.AF_INET6) && typ == unix.SOCK_STREAM && (g.proto == unix.IPPROTO_TCP || g.proto == unix.IPPROTO_MPTCP):
		g.found.Network = "tcp"
	case (domain == unix.AF_INET || domain == unix.AF_INET6) && typ == unix.SOCK_DGRAM && g.proto == unix.IPPROTO_UDP:
		g.found.Network = "udp"
	default:
		return fmt.Errorf("neither tcp, udp nor unix (domain %d, type %d, protocol %d): %w", domain, typ, g.proto, unix.EPROTONOSUPPORT)
	}
	if domain != unix.AF_UNIX {
		if g.found.Addr, err = boundAddr(g.fd); err != nil {
			return err
		}
		if g.found.Addr.Port() == 0 {
			return fmt.Errorf("the socket is not bound: %w", unix.EINVAL)
		}
		g.found.Zone = g.found.Addr.Addr().Zone()
		if domain == unix.AF_INET6 {
			only, err := unix.GetsockoptInt(g.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
			g.found.V6Only = err == nil && only == 1
		}
	}
	if _, err := unix.Getpeername(g.fd); err == nil {
		return fmt.Errorf("the socket is a connection: %w", unix.EISCONN)
	}
	return nil
}

// match finds for each configured socket the inherited one that takes its
// place: of the same network and address first, else of the same network and name.
func match(sockets []config.Socket, all []*given) []*given {
	taken := make([]*given, len(sockets))
	used := map[*given]bool{}
	pass := func(fits func(c config.Socket, g *given) bool) {
		for i, c := range sockets {
			for _, g := range all {
				if taken[i] == nil && !used[g] && c.Network == g.found.Network && fits(c, g) {
					taken[i], used[g] = g, true
				}
			}
		}
	}
	pass(sameAddress)
	pass(func(c config.Socket, g *given) bool { return c.Name != "" && c.Name == g.found.Name })
	return taken
}

func sameAddress(c config.Socket, g *given) bool {
	if !c.Addr.IsValid() {
		return c.Path == g.found.Path
	}
	return c.Addr.Port() == g.found.Addr.Port() && c.Addr.Addr().Unmap() == g.found.Addr.Addr().Unmap() &&
		(!c.Addr.Addr().IsUnspecified() || c.Addr.Addr().Is4() || c.V6Only == g.found.V6Only)
}

// adopt makes the Socket of an inherited descriptor, in place of c if that is
// not nil. The descriptor is the Socket's from then on, and closed on error.
func (g *given) adopt(c *config.Socket) (s *Socket, warns []Warning, err error) {
	fd := g.fd
	g.fd = -1
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	cfg := g.found
	if c != nil {
		cfg = *c
		if !sameAddress(*c, g) && (!c.Addr.IsValid() || c.Addr.Port() != 0) {
			warns = append(warns, Warning{*c, "the inherited socket of this name has another address, and that is used: " + subject(g.found), nil})
		}
		cfg.Path, cfg.Addr, cfg.V6Only, cfg.Zone = g.found.Path, g.found.Addr, g.found.V6Only, g.found.Zone
	}
	if err := unix.SetNonblock(fd, !cfg.Options.Blocking); err != nil {
		return nil, warns, failed("set O_NONBLOCK", cfg, err)
	}
	if cfg.Network != "udp" && cfg.Network != "unixgram" && !accepting(fd) {
		if err := unix.Listen(fd, backlog(cfg)); err != nil {
			return nil, warns, failed("listen", cfg, err)
		}
	}
	if cfg.Path != "" {
		s, w, err := adoptUnix(cfg, fd)
		return s, append(warns, w...), err
	}
	if s, err = newInet(cfg, fd); err != nil {
		return nil, warns, failed("adopt", cfg, err)
	}
	s.inherited = true
	var cause error
	if s.shared, cause = s.becomeGroup(fd, g.proto); s.shared != "" && !cfg.Options.Shared {
		warns = append(warns, Warning{cfg, "one shared listener instead of lanes, connections may be lost at a rollout: " + s.shared, cause})
	}
	return s, warns, nil
}

func adoptUnix(cfg config.Socket, fd int) (*Socket, []Warning, error) {
	s := &Socket{cfg: cfg, shared: sharedUnix, inherited: true, group: &group{}}
	l, err := s.newLane(fd)
	if err != nil {
		return nil, nil, failed("adopt", cfg, err)
	}
	s.group.order = []*member{{fd: fd, lane: l}}
	s.group.steered = []*Lane{l}
	if cfg.Path[0] == '@' {
		return s, nil, nil
	}
	p, warns, err := holdPath(cfg, cfg.Path)
	if err != nil {
		// Bound in another directory or namespace, or removed: it works all
		// the same for whoever reaches it.
		return s, []Warning{{cfg, "the path of the inherited socket is not there", err}}, nil
	}
	s.path = p
	return s, warns, nil
}

// becomeGroup turns the one inherited listener into the first lane of a group.
// If that cannot be, it says why not, in words and with the cause if there is one.
func (s *Socket) becomeGroup(fd, proto int) (why string, cause error) {
	switch {
	case s.cfg.Options.Shared:
		return "Shared=yes", nil
	case s.cfg.Options.ReusePort:
		return "ReusePort=yes: other programs may join the port, so that nobody knows the order of its group", nil
	}
	if set, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT); err == nil && set == 1 {
		switch others, err := s.others(); {
		case err != nil:
			return "it may be in a SO_REUSEPORT group with others, which the kernel cannot be asked (below systemd, RestrictAddressFamilies= needs AF_NETLINK)", err
		case others:
			return "it is in a SO_REUSEPORT group with others already", nil
		}
	}
	if err := on(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT); err != nil {
		return "SO_REUSEPORT cannot be set", err
	}
	if s.cfg.Network == "tcp" {
		if err := on(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR); err != nil {
			return "SO_REUSEADDR cannot be set", err
		}
	}
	if err := s.found(); err != nil {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && int(st.Uid) != unix.Geteuid() {
			return fmt.Sprintf("it belongs to user %d, and the members of a group must have one owner", st.Uid), err
		}
		return "no second listener can join it", err
	}
	return "", nil
}

// others says whether another socket listens at the same address.
func (s *Socket) others() (bool, error) {
	q := sockdiag.Query{Protocol: sockdiag.TCP, States: sockdiag.Mask(sockdiag.Listen), LocalPort: s.addr.Port()}
	if s.cfg.Network == "udp" {
		q.Protocol, q.States = sockdiag.UDP, 0
	}
	found, err := sockdiag.Inet(q)
	if err != nil {
		return false, err
	}
	own := s.group.order[0].lane.inode
	for _, o := range found {
		if uint64(o.Inode) != own && o.Src == netip.AddrPortFrom(s.addr.Addr().WithZone(""), s.addr.Port()) {
			return true, nil
		}
	}
	return false, nil
}
