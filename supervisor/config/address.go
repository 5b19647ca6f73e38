package config

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

const (
	// maxPath is what fits sun_path of sockaddr_un (unix(7)): 108 bytes with
	// the NUL that ends a path; an abstract name spends that byte on the NUL in
	// front, for which '@' stands.
	maxPath     = 107
	maxAbstract = 108

	maxName = 255 // sd_listen_fds_with_names(3)
)

// ParseListen reads the value of --listen: one address or several separated by
// ';', each
//
//	[NAME=]ADDRESS[?option=value&...]
//
// where ADDRESS is one of
//
//	:8080  8080  *:8080  +:8080           every address, IPv6 and IPv4
//	127.0.0.1:8080  [::1]:8080  [fe80::1%eth0]:80
//	localhost:8080                        127.0.0.1 and [::1], in this order
//	tcp://...  tcp4://...  tcp6://...     the same, of one family where it says so
//	udp://...  udp4://...  udp6://...
//	http://...  https://...               the same as tcp; port 80 or 443 if there is none
//	http://unix:/run/x.sock               as Kestrel writes it
//	/run/x.sock  unix:/run/x.sock  unix:///run/x.sock  unix:x.sock
//	@name  unix:@name                     abstract
//	unixgram:...  unixpacket:...          datagram and seqpacket
//
// A NAME ends at a '=' that comes before any of ":/?[". The options are those of
// SocketDirectives. Port 0 is kept: whoever opens the socket chooses one.
//
// Host names other than localhost are refused. IPv4-mapped IPv6 addresses become
// IPv4, which is what the kernel makes of them, and are refused after tcp6 and
// udp6. A relative unix path stays relative: the caller makes it absolute, and
// has to check the length again. "%XX" in a path is literal. Paths with ';', '?'
// or control characters cannot be written.
//
// Sockets without NAME= have Name "" until NameSockets.
func ParseListen(s string) ([]Socket, error) {
	parts := strings.Split(s, ";")
	for len(parts) > 0 && strings.TrimSpace(parts[len(parts)-1]) == "" {
		parts = parts[:len(parts)-1]
	}
	if len(parts) == 0 {
		return nil, errors.New("cannot listen: the address is empty; write for example :8080 or unix:/run/x.sock")
	}
	var all []Socket
	for _, part := range parts {
		sockets, err := parseListenPart(strings.TrimSpace(part))
		if err != nil {
			return nil, fmt.Errorf("cannot listen on %q: %w", strings.TrimSpace(part), err)
		}
		all = append(all, sockets...)
	}
	return all, nil
}

func parseListenPart(part string) ([]Socket, error) {
	if part == "" {
		return nil, errors.New("there is an empty address between two ';'")
	}
	name, rest := cutName(part)
	if name != "" || strings.HasPrefix(part, "=") {
		if err := CheckName(name); err != nil {
			return nil, err
		}
	}
	address, query, hasQuery := strings.Cut(rest, "?")
	sockets, err := parseAddress(address)
	if err != nil {
		return nil, err
	}
	for i := range sockets {
		sockets[i].Name = name
		sockets[i].Source = part
		if !hasQuery {
			continue
		}
		if err := sockets[i].parseOptions(query); err != nil {
			return nil, err
		}
	}
	return sockets, nil
}

// cutName takes NAME= off the front. What looks like an address before the '='
// is none: a unix path or a query may have a '=' too.
func cutName(s string) (name, rest string) {
	i := strings.IndexAny(s, "=:/?[")
	if i < 0 || s[i] != '=' || s[0] == '@' {
		return "", s
	}
	return strings.TrimSpace(s[:i]), strings.TrimSpace(s[i+1:])
}

// CheckName says what is wrong with a name for a socket. Names are those of
// FileDescriptorName= (ASCII, no control characters, no ':', at most 255 bytes;
// systemd.socket(5)), and here also without "=/?[;{}", a leading '@' and outer
// blanks, because --listen and {fd:NAME} have to tell them from the rest.
func CheckName(name string) error {
	switch {
	case name == "":
		return errors.New("the name before '=' is empty")
	case len(name) > maxName:
		return fmt.Errorf("the name %q... is %d bytes long; %d is the most", name[:20], len(name), maxName)
	case strings.TrimSpace(name) != name:
		return fmt.Errorf("the name %q begins or ends with a blank", name)
	case name[0] == '@':
		return fmt.Errorf("the name %q begins with '@', as abstract addresses do", name)
	}
	for _, r := range name {
		if !nameRune(r) {
			return fmt.Errorf("the name %q has %q in it; use printable ASCII without \":=/?[;{}\"", name, r)
		}
	}
	return nil
}

func nameRune(r rune) bool { return r >= ' ' && r < 0x7f && !strings.ContainsRune(":=/?[;{}", r) }

// parseAddress reads an address without name and options.
func parseAddress(s string) ([]Socket, error) {
	if s == "" {
		return nil, errors.New("there is no address; write for example :8080 or unix:/run/x.sock")
	}
	if s[0] == '/' || s[0] == '@' || strings.HasPrefix(s, "./") || strings.HasPrefix(s, "../") {
		return parseUnix("unix", s)
	}
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok {
		return parseInet("tcp", s, "")
	}
	slashes := strings.HasPrefix(rest, "//")
	switch scheme = strings.ToLower(scheme); scheme {
	case "tcp", "tcp4", "tcp6", "udp", "udp4", "udp6":
		return parseInet(scheme, strings.TrimPrefix(rest, "//"), "")
	case "http", "https":
		if !slashes {
			return nil, fmt.Errorf("%q is no URL; write %s://%s", s, scheme, rest)
		}
		return parseHTTP(scheme, rest[len("//"):])
	case "unix", "unixgram", "unixpacket":
		path := rest
		if slashes {
			path = rest[len("//"):]
			if !strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "@") {
				return nil, fmt.Errorf("what follows %s:// is neither absolute nor abstract; write %s:/%s or %s:%s", scheme, scheme, path, scheme, path)
			}
		}
		return parseUnix(scheme, path)
	case "vsock":
		return nil, errors.New("vsock is not supported yet")
	}
	if slashes {
		return nil, fmt.Errorf("the scheme %q is unknown; known are tcp, tcp4, tcp6, udp, udp4, udp6, unix, unixgram, unixpacket, http and https", scheme)
	}
	return parseInet("tcp", s, "")
}

// parseHTTP reads what follows http:// or https://, which for a listener says
// no more than an address: TLS is the server's business.
func parseHTTP(scheme, rest string) ([]Socket, error) {
	if path, ok := strings.CutPrefix(rest, "unix:"); ok {
		path, uri, _ := strings.Cut(path, ":")
		if uri != "" && uri != "/" {
			return nil, fmt.Errorf("%q after the socket's path has no meaning for a listener; leave it out", ":"+uri)
		}
		return parseUnix("unix", path)
	}
	if strings.HasPrefix(rest, "pipe:") {
		return nil, errors.New("named pipes exist only on Windows; write http://unix:/run/x.sock")
	}
	authority, path, _ := strings.Cut(rest, "/")
	if path != "" {
		return nil, fmt.Errorf("the path %q has no meaning for a listener; leave it out", "/"+path)
	}
	if i := strings.IndexAny(authority, "@#"); i >= 0 {
		return nil, fmt.Errorf("%q has no meaning for a listener; leave it out", authority[i:i+1])
	}
	if authority == "" {
		return nil, fmt.Errorf("the host is missing; write %s://*:8080", scheme)
	}
	if allDigits(authority) {
		return nil, fmt.Errorf("%q is no host; write %s://*:%s", authority, scheme, authority)
	}
	port := "80"
	if scheme == "https" {
		port = "443"
	}
	// RFC 6874 writes the '%' before a zone as "%25".
	return parseInet("tcp", strings.Replace(authority, "%25", "%", 1), port)
}

// parseInet reads HOST:PORT, or PORT, of tcp or udp; scheme may end in 4 or 6.
// Port is what holds when none is given; "" makes that an error.
func parseInet(scheme, s, port string) ([]Socket, error) {
	network := strings.TrimRight(scheme, "46")
	family := strings.TrimPrefix(scheme, network)
	host, bracketed, given, err := splitHost(s)
	if err != nil {
		return nil, err
	}
	if given != "" {
		port = given
	}
	if port == "" {
		return nil, fmt.Errorf("there is no port; write %s:8080, or :0 for any free port", strings.TrimSuffix(s, ":"))
	}
	number, err := parsePort(port)
	if err != nil {
		return nil, err
	}
	socket := func(ip netip.Addr) Socket {
		return Socket{
			Network: network,
			Addr:    netip.AddrPortFrom(ip, number),
			Zone:    ip.Zone(),
			V6Only:  family == "6" && ip == netip.IPv6Unspecified(),
			Options: DefaultSocketOptions(),
		}
	}
	switch {
	case !bracketed && (host == "" || host == "*" || host == "+"):
		if family == "4" {
			return []Socket{socket(netip.IPv4Unspecified())}, nil
		}
		every := socket(netip.IPv6Unspecified())
		every.DualStack = family == ""
		return []Socket{every}, nil
	case !bracketed && strings.EqualFold(host, "localhost"):
		four, six := socket(netip.AddrFrom4([4]byte{127, 0, 0, 1})), socket(netip.IPv6Loopback())
		switch family {
		case "4":
			return []Socket{four}, nil
		case "6":
			return []Socket{six}, nil
		}
		six.Optional = true
		return []Socket{four, six}, nil
	}
	ip, err := parseIP(host, bracketed, family, port)
	if err != nil {
		return nil, err
	}
	return []Socket{socket(ip)}, nil
}

func parseIP(host string, bracketed bool, family, port string) (netip.Addr, error) {
	ip, err := netip.ParseAddr(host)
	switch {
	case err != nil && (bracketed || looksNumeric(host)):
		return ip, fmt.Errorf("%q is no address; write 127.0.0.1:%s or [::1]:%s", host, port, port)
	case err != nil:
		return ip, fmt.Errorf("%q is a name, and a listener needs an address (a name may stand for several, and for others tomorrow); write the address, localhost, or :%s for all", host, port)
	case bracketed && ip.Is4():
		return ip, fmt.Errorf("%q is IPv4 and takes no brackets; write %s:%s", "["+host+"]", host, port)
	case family == "4" && !ip.Is4():
		return ip, fmt.Errorf("%q is no IPv4 address", host)
	case family == "6" && (ip.Is4() || ip.Is4In6()):
		return ip, fmt.Errorf("%q is no IPv6 address; write tcp4:// or udp4://", host)
	}
	switch zone := ip.Zone(); {
	case zone == "":
	case !validZone(zone):
		return ip, fmt.Errorf("%q is no network interface; write a name or number after '%%'", zone)
	case !ip.IsLinkLocalUnicast() && !ip.IsLinkLocalMulticast() && !ip.IsInterfaceLocalMulticast():
		// The kernel would ignore it and listen on every interface (ipv6(7)).
		return ip, fmt.Errorf("the zone %q has a meaning for link-local addresses only; write ?bind-to-device=%s for one interface", zone, zone)
	}
	return ip.Unmap(), nil
}

// looksNumeric tells a botched address from a host name.
func looksNumeric(host string) bool {
	return strings.ContainsAny(host, ":%") || strings.Trim(host, "0123456789.") == ""
}

// validZone says whether zone can be an interface: its name as the kernel allows
// it (at most 15 bytes, no '/', ':' or blank), or its number.
func validZone(zone string) bool {
	for _, r := range zone {
		if r <= ' ' || r >= 0x7f || strings.ContainsRune("/:;?%[]", r) {
			return false
		}
	}
	return len(zone) <= 15 && zone != "." && zone != ".."
}

// splitHost takes HOST:PORT apart. Port is "" if there is none.
func splitHost(s string) (host string, bracketed bool, port string, err error) {
	if allDigits(s) {
		return "", false, s, nil
	}
	if inner, ok := strings.CutPrefix(s, "["); ok {
		host, rest, closed := strings.Cut(inner, "]")
		if !closed {
			return "", false, "", fmt.Errorf("the ']' after %q is missing", s)
		}
		port, ok := strings.CutPrefix(rest, ":")
		if !ok && rest != "" {
			return "", false, "", fmt.Errorf("%q follows the ']'; write [%s]:8080", rest, host)
		}
		// systemd writes the zone at the end: [x]:port%zone.
		if number, zone, ok := strings.Cut(port, "%"); ok {
			if strings.Contains(host, "%") {
				return "", false, "", fmt.Errorf("%q names two zones", s)
			}
			host, port = host+"%"+zone, number
		}
		return host, true, port, nil
	}
	if strings.Count(s, ":") > 1 {
		return "", false, "", fmt.Errorf("%q has more than one ':'; write an IPv6 address in brackets: [::1]:8080", s)
	}
	host, port, _ = strings.Cut(s, ":")
	return host, false, port, nil
}

func parsePort(s string) (uint16, error) {
	if !allDigits(s) {
		return 0, fmt.Errorf("the port %q is no number", s)
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("the port %s is out of range: ports go from 0 to 65535", s)
	}
	return uint16(n), nil
}

func allDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// parseUnix reads a path, or '@' and an abstract name.
func parseUnix(network, path string) ([]Socket, error) {
	if strings.HasPrefix(path, "//") {
		path = "/" + strings.TrimLeft(path, "/")
	}
	if err := checkUnixPath(path); err != nil {
		return nil, err
	}
	return []Socket{{Network: network, Path: path, Options: DefaultSocketOptions()}}, nil
}

func checkUnixPath(path string) error {
	last := path[strings.LastIndex(path, "/")+1:]
	abstract := strings.HasPrefix(path, "@")
	switch {
	case path == "" || path == "@":
		return errors.New("the path is missing; write unix:/run/x.sock or unix:@name")
	case strings.TrimSpace(path) != path:
		return fmt.Errorf("the path %q begins or ends with a blank", path)
	case strings.ContainsAny(path, ";?"):
		return fmt.Errorf("the path %q has ';' or '?' in it, which --listen cannot tell from a separator; choose another path", path)
	case abstract && len(path) > maxAbstract:
		return fmt.Errorf("the abstract name is %d bytes long; the kernel takes %d (unix(7))", len(path)-1, maxAbstract-1)
	case !abstract && len(path) > maxPath:
		return fmt.Errorf("the path is %d bytes long; the kernel takes %d (unix(7)); choose a shorter directory", len(path), maxPath)
	case !abstract && (last == "" || last == "." || last == ".."):
		return fmt.Errorf("the path %q is a directory", path)
	}
	for i := range len(path) {
		if path[i] < ' ' || path[i] == 0x7f {
			return fmt.Errorf("the path %q has a control character in it", path)
		}
	}
	return nil
}

// IsUnix says whether s is a unix socket of whatever type.
func (s Socket) IsUnix() bool { return strings.HasPrefix(s.Network, "unix") }

// NetworkAddr gives network and address in the form of package net, for messages
// and for net.Dial where the address is not a wildcard: "tcp", "[::]:8080".
func (s Socket) NetworkAddr() (network, address string) {
	if s.IsUnix() {
		return s.Network, s.Path
	}
	return s.Network, s.Addr.String()
}

// String writes s so that ParseListen reads it back as the same value but for
// Source: "web=tcp://127.0.0.1:8080?backlog=64".
func (s Socket) String() string {
	var b strings.Builder
	if s.Name != "" {
		b.WriteString(s.Name + "=")
	}
	switch {
	case s.IsUnix():
		b.WriteString(s.Network + ":" + s.Path)
	case s.DualStack:
		b.WriteString(s.Network + "://:" + strconv.Itoa(int(s.Addr.Port())))
	case s.V6Only:
		b.WriteString(s.Network + "6://" + s.Addr.String())
	default:
		b.WriteString(s.Network + "://" + s.Addr.String())
	}
	separator := "?"
	for _, o := range socketOptions() {
		if v := o.get(&s); v != "" {
			b.WriteString(separator + o.key + "=" + v)
			separator = "&"
		}
	}
	return b.String()
}
