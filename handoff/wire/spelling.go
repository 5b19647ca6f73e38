package wire

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// A program looks for its listener by the text that it would have bound. Which
// text that is nobody knows, but there are few that can mean a given socket:
//
//	exact     what getsockname(2) says
//	same      another text for the same address: ":80" of a wildcard, "localhost:80"
//	          of a loopback, ":http" of port 80; "tcp4" where the family allows it
//	named     a text of the command line with that port: "web.internal:80"
//	instead   an address that the program cannot bind beside this one, or that
//	          --listen puts in its place: with 127.0.0.1:80 held, ":80"
//
// A text that can mean two listeners means the one to which it is nearest; of
// two that are as near, the first.

// spelling is one text under which a program may ask for a listener.
type spelling struct {
	listener *Listener
	index    int    // of the listener
	network  string // tcp, tcp4, tcp6, udp, ...
	host     string // as before the port, with brackets
	port     string // a number, or a name
	distance int
}

const (
	exact = iota
	same
	named
	instead
)

func (s *spelling) addr() string { return s.host + ":" + s.port }

// maxSpellings bounds the fds that a child is given beyond those it uses.
const maxSpellings = 400

// spellings gives every text under which an inet listener may be asked for, each
// (network, text) once, the nearest first for each listener and in their order.
func spellings(listeners []Listener, words []string) []spelling {
	type key struct{ network, addr string }
	best := map[key]spelling{}
	for i := range listeners {
		for _, s := range spell(&listeners[i], i, words) {
			k := key{s.network, s.addr()}
			if other, ok := best[k]; !ok || s.distance < other.distance {
				best[k] = s
			}
		}
	}
	all := make([]spelling, 0, len(best))
	for _, s := range best {
		all = append(all, s)
	}
	if len(all) > maxSpellings { // many sockets: what is farthest goes
		slices.SortFunc(all, func(a, b spelling) int { return cmp.Compare(a.distance, b.distance) })
		all = all[:maxSpellings]
	}
	slices.SortFunc(all, func(a, b spelling) int {
		return cmp.Or(cmp.Compare(a.index, b.index), cmp.Compare(a.distance, b.distance),
			cmp.Compare(a.network, b.network), cmp.Compare(a.addr(), b.addr()))
	})
	return all
}

// spell gives the spellings of one listener; none for a unix one.
func spell(l *Listener, index int, words []string) []spelling {
	at, err := netip.ParseAddrPort(l.Addr)
	if err != nil || l.Network != "tcp" && l.Network != "udp" {
		return nil
	}
	ip, number := at.Addr(), strconv.Itoa(int(at.Port()))
	four, six := l.Network+"4", l.Network+"6"
	var all []spelling
	add := func(distance int, host, port string, networks ...string) {
		for _, network := range networks {
			all = append(all, spelling{l, index, network, host, port, distance})
		}
	}
	ports := []string{number}
	if name := serviceName(l.Network, at.Port()); name != "" {
		ports = append(ports, name)
	}
	for _, port := range ports {
		switch {
		case ip.Is4() && ip.IsUnspecified():
			add(exact, "0.0.0.0", port, l.Network, four)
			add(exact, "", port, four)
			add(same, "", port, l.Network)
			add(instead, "[::]", port, l.Network)
			add(instead, "127.0.0.1", port, l.Network, four)
			add(instead, "localhost", port, l.Network, four)
		case ip.Is6() && ip.IsUnspecified() && l.V6Only:
			add(exact, "[::]", port, l.Network, six)
			add(exact, "", port, six)
			add(instead, "", port, l.Network)
			add(instead, "[::1]", port, l.Network, six)
			add(instead, "localhost", port, l.Network, six)
		case ip.Is6() && ip.IsUnspecified():
			add(exact, "[::]", port, l.Network)
			add(exact, "", port, l.Network)
			add(same, "[::]", port, six)
			add(same, "", port, six, four)
			add(same, "0.0.0.0", port, l.Network, four)
			add(instead, "[::1]", port, l.Network, six)
			add(instead, "127.0.0.1", port, l.Network, four)
			add(instead, "localhost", port, l.Network, four, six)
		case ip.Is4():
			add(exact, ip.String(), port, l.Network, four)
			if ip.IsLoopback() {
				add(same, "localhost", port, l.Network, four)
			}
			add(instead, "", port, l.Network, four)
			add(instead, "0.0.0.0", port, l.Network, four)
			add(instead, "[::]", port, l.Network)
		default:
			add(exact, "["+ip.String()+"]", port, l.Network, six)
			if ip.IsLoopback() {
				// Where there are both, Go's "localhost" is the IPv4 one.
				add(same, "localhost", port, six)
				add(named, "localhost", port, l.Network)
			}
			add(instead, "", port, l.Network, six)
			add(instead, "[::]", port, l.Network, six)
		}
	}
	for _, host := range hosts(words, ports) {
		switch literal, err := netip.ParseAddr(strings.Trim(host, "[]")); {
		case err != nil:
			add(named, host, number, l.Network, four, six)
			for _, port := range ports[1:] {
				add(named, host, port, l.Network, four, six)
			}
		case literal == ip: // 0:0:0:0:0:0:0:1
			add(same, host, number, l.Network)
		default:
			add(instead, host, number, l.Network)
		}
	}
	return all
}

// hosts finds what stands before ":PORT" in the words: host names and unusual
// spellings of addresses.
func hosts(words, ports []string) []string {
	var found []string
	for _, word := range words {
		for _, text := range strings.FieldsFunc(word, func(r rune) bool { return strings.ContainsRune(" \t\n,;='\"/|<>(){}", r) }) {
			for _, port := range ports {
				host, ok := strings.CutSuffix(text, ":"+port)
				if ok && host != "" && !slices.Contains(found, host) && (!strings.Contains(host, ":") || host[0] == '[') {
					found = append(found, host)
				}
			}
		}
	}
	return found
}

// serviceName is the name that Go's net package knows a port by without
// /etc/services (lookup.go, "services"); "" is none.
func serviceName(network string, port uint16) string {
	if port == 53 {
		return "domain"
	}
	if network != "tcp" {
		return ""
	}
	return map[uint16]string{
		21: "ftp", 22: "ssh", 23: "telnet", 25: "smtp", 70: "gopher", 80: "http", 110: "pop3", 143: "imap2",
		220: "imap3", 443: "https", 465: "submissions", 990: "ftps", 993: "imaps", 995: "pop3s",
	}[port]
}
