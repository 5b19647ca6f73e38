package handoff

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
)

// ask is what a call of Listen wants.
type ask struct {
	network string // as given: "tcp", "tcp4", ..., "unixgram"
	address string // without the name
	name    string // of "name=address"; "" if none

	host netip.Addr // zero: a wildcard (0.0.0.0, too: who says it with "tcp" hardly means not IPv6), or see loop
	loop bool       // "localhost": any loopback address
	odd  bool       // the host is a name that only the resolver knows
	port int        // 0: any
}

// newAsk reads what was asked for. The address is not checked: what nobody
// inherited is for package net to complain about.
func newAsk(network, address string) (ask, error) {
	a := ask{network: network, address: address}
	switch network {
	case "tcp", "tcp4", "tcp6", "udp", "udp4", "udp6", "unix", "unixpacket", "unixgram":
	default:
		return a, fmt.Errorf("cannot listen on %s %s: %w", network, address, net.UnknownNetworkError(network))
	}
	if name, rest, ok := strings.Cut(address, "="); ok && isName(name) {
		a.name, a.address = name, rest
	}
	if a.unix() {
		return a, nil
	}
	host, port, err := net.SplitHostPort(a.address)
	if err != nil {
		a.odd = true
		return a, nil
	}
	a.port, _ = net.LookupPort(network, port)
	switch ip, err := netip.ParseAddr(host); {
	case host == "":
	case host == "localhost":
		a.loop = true
	case err != nil:
		a.odd = true
	case !ip.IsUnspecified():
		a.host = ip.Unmap()
	}
	return a, nil
}

// isName reports whether the text before '=' is the name of a socket: no
// address begins like that.
func isName(s string) bool {
	for _, c := range s {
		if !strings.ContainsRune("_-.", c) && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return s != ""
}

func (a *ask) unix() bool   { return strings.HasPrefix(a.network, "unix") }
func (a *ask) packet() bool { return strings.HasPrefix(a.network, "udp") || a.network == "unixgram" }

// fitness says how well an inherited socket fits; 0 not at all.
type fitness int

const (
	fitsNot     fitness = iota
	fitsKind            // the operator chose another address
	fitsPort            // the same port, on fewer addresses
	fitsAddress         // the same address
	fitsName            // the same name, or what our predecessor asked for literally
)

// fits judges one socket. It is never one that more clients can reach than
// was asked for.
func (a *ask) fits(h *inherited) fitness {
	if a.packet() != (h.packet != nil) {
		return fitsNot
	}
	if h.asked != "" { // our own predecessor: the same program, the same words
		if h.asked == a.network+" "+a.literal() {
			return fitsName
		}
		return fitsNot
	}
	if a.name != "" && strings.TrimSuffix(h.name, ".socket") == a.name {
		return fitsName
	}
	f := a.fitsAddress(h.addr())
	if a.name != "" && f == fitsKind {
		return fitsNot
	}
	return f
}

// literal is the address with its name.
func (a *ask) literal() string {
	if a.name == "" {
		return a.address
	}
	return a.name + "=" + a.address
}

func (a *ask) fitsAddress(have net.Addr) fitness {
	var at netip.AddrPort
	switch have := have.(type) {
	case *net.TCPAddr:
		at = have.AddrPort()
	case *net.UDPAddr:
		at = have.AddrPort()
	case *net.UnixAddr:
		return a.fitsPath(have)
	default:
		return fitsNot
	}
	if a.unix() {
		return fitsNot // anybody who can reach the host, for those who can reach a path
	}
	ip := at.Addr().Unmap()
	switch {
	case strings.HasSuffix(a.network, "4") && !ip.Is4(), strings.HasSuffix(a.network, "6") && ip.Is4():
		return fitsNot
	case a.odd:
		return fitsNot
	case a.loop && !ip.IsLoopback(), a.host.IsValid() && a.host != ip:
		return fitsNot
	case a.port != int(at.Port()):
		return fitsKind
	case !a.loop && !a.host.IsValid() && !ip.IsUnspecified():
		return fitsPort
	}
	return fitsAddress
}

func (a *ask) fitsPath(have *net.UnixAddr) fitness {
	if !a.unix() {
		// A unix socket instead of a TCP port: for those whom it is open to,
		// unless one particular address was meant.
		if a.host.IsValid() && !a.host.IsLoopback() || have.Net != "unix" || a.odd {
			return fitsNot
		}
		return fitsKind
	}
	if have.Net != a.network {
		return fitsNot
	}
	if a.address == have.Name {
		return fitsAddress
	}
	if strings.HasPrefix(a.address, "@") || strings.HasPrefix(have.Name, "@") {
		return fitsKind
	}
	one, err1 := filepath.Abs(a.address)
	two, err2 := filepath.Abs(have.Name)
	if err1 == nil && err2 == nil && one == two {
		return fitsAddress
	}
	return fitsKind
}

// take finds the best of the sockets that nobody has, the first of equals, and
// marks it; nil if none fits.
func (in *inheritance) take(a *ask) *inherited {
	in.mu.Lock()
	defer in.mu.Unlock()
	var best *inherited
	how := fitsNot
	for _, h := range in.sockets {
		if h.taken {
			continue
		}
		if f := a.fits(h); f > how {
			best, how = h, f
		}
	}
	if best != nil {
		best.taken = true
	}
	return best
}

// left are the sockets that nobody took.
func (in *inheritance) left() []*inherited {
	in.mu.Lock()
	defer in.mu.Unlock()
	var all []*inherited
	for _, h := range in.sockets {
		if !h.taken {
			all = append(all, h)
		}
	}
	return all
}
