package config

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"strings"
)

// NameSockets gives every socket without a name the name of the service, as
// systemd gives all sockets of a unit the unit's name: names may repeat, in
// LISTEN_FDNAMES too. Without a service name it is "socket". It then looks for
// sockets that cannot be bound together and tells all of them, each by what was
// written.
func NameSockets(service string, sockets []Socket) error {
	fallback := socketName(service)
	for i := range sockets {
		if sockets[i].Name == "" {
			sockets[i].Name = fallback
		}
	}
	var errs []error
	for i := range sockets {
		for j := range i {
			if why := clash(sockets[j], sockets[i]); why != "" {
				errs = append(errs, fmt.Errorf("cannot listen on both %q and %q: %s; leave one out", source(sockets[j]), source(sockets[i]), why))
			}
		}
	}
	return errors.Join(errs...)
}

// socketName makes a valid name of a service's name.
func socketName(service string) string {
	name := strings.TrimSpace(strings.Map(func(r rune) rune {
		if nameRune(r) {
			return r
		}
		return '_'
	}, service))
	name = strings.TrimLeft(name, "@")
	if len(name) > maxName {
		name = strings.TrimSpace(name[:maxName])
	}
	if name == "" {
		return "socket"
	}
	return name
}

func source(s Socket) string {
	if s.Source != "" {
		return s.Source
	}
	return s.String()
}

// clash says why a and b cannot be bound together; "" if they can.
func clash(a, b Socket) string {
	if a.IsUnix() || b.IsUnix() {
		if a.IsUnix() && b.IsUnix() && unixKey(a.Path) == unixKey(b.Path) {
			return "they are the same path"
		}
		return ""
	}
	if a.Network != b.Network || a.Addr.Port() != b.Addr.Port() || a.Addr.Port() == 0 {
		return ""
	}
	if a.Options.BindToDevice != b.Options.BindToDevice && a.Options.BindToDevice != "" && b.Options.BindToDevice != "" {
		return ""
	}
	x, y := a.Addr.Addr(), b.Addr.Addr()
	switch {
	case x == y && a.Options.BindToDevice == b.Options.BindToDevice:
		return "they are the same address"
	case a.Options.ReusePort && b.Options.ReusePort:
		return ""
	case a.Network == "tcp" && (covers(a, y) || covers(b, x)):
		// For udp it depends on options that only the opener knows.
		return "one includes the other"
	}
	return ""
}

// covers says whether s is a wildcard that includes ip.
func covers(s Socket, ip netip.Addr) bool {
	own := s.Addr.Addr()
	switch {
	case !own.IsUnspecified():
		return own == ip
	case own.Is4():
		return ip.Is4()
	}
	return ip.Is6() || !s.V6Only
}

// unixKey makes two ways to write one path equal. An abstract name has one way.
func unixKey(p string) string {
	if strings.HasPrefix(p, "@") {
		return p
	}
	return path.Clean(p)
}

// ListenDirective gives the directive and value of a .socket unit that say the
// address of s, without name and options.
func (s Socket) ListenDirective() (name, value string) {
	switch s.Network {
	case "udp":
		return "ListenDatagram", s.inetDirective()
	case "unixgram":
		return "ListenDatagram", s.Path
	case "unixpacket":
		return "ListenSequentialPacket", s.Path
	case "unix":
		return "ListenStream", s.Path
	}
	return "ListenStream", s.inetDirective()
}

// inetDirective writes the address as systemd.socket(5) has it, which puts an
// IPv6 zone behind the port: "[fe80::1]:80%eth0".
func (s Socket) inetDirective() string {
	ip := s.Addr.Addr()
	if ip.Zone() == "" {
		return s.Addr.String()
	}
	return netip.AddrPortFrom(ip.WithZone(""), s.Addr.Port()).String() + "%" + ip.Zone()
}
