package wire

import (
	"net/netip"
	"strconv"
	"strings"
)

// addServerStarter is the protocol of Perl's Server::Starter (0.35, its
// documentation under "WRITING A WORKER"), which start_server and its ports to
// other languages speak: "name=fd" joined by ';', and a count of starts from 1. The
// name is a bare port for 0.0.0.0, host:port, or a path.
//
// It has no word for a datagram socket, so that the worker would take it for a stream:
// such a socket is left out. A path with '=' or ';' could not be read back.
func addServerStarter(r *Request, p *Plan) error {
	var ports []string
	for i, l := range r.Listeners {
		if !l.isStream() {
			continue
		}
		name := l.Addr
		if l.isUnix() {
			if strings.ContainsAny(name, "=;") {
				return cannotSay("server-starter", l, "the path has '=' or ';' in it; choose another path")
			}
		} else if a, err := netip.ParseAddrPort(l.Addr); err == nil && a.Addr() == netip.IPv4Unspecified() {
			name = strconv.Itoa(int(a.Port()))
		}
		ports = append(ports, name+"="+strconv.Itoa(p.Numbers[i]))
	}
	if len(ports) == 0 {
		return cannotSay("server-starter", r.Listeners[0], "it knows stream sockets only; write --handoff systemd")
	}
	p.setenv("SERVER_STARTER_PORT", strings.Join(ports, ";"))
	p.setenv("SERVER_STARTER_GENERATION", strconv.Itoa(r.Generation))
	return nil
}
