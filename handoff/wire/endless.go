package wire

import (
	"slices"
	"strings"
)

// addEndless is the protocol of github.com/fvbock/endless (endless.go): one
// server of the program after the other takes fd 3 and up, or, with
// ENDLESS_SOCKET_ORDER, that fd at whose place its address stands; an address that
// does not stand there takes fd 3, whichever that is. So each spelling has a place
// and a copy. Once a server listens it sends SIGTERM to its parent, be it
// process 1.
func addEndless(r *Request, p *Plan) error {
	for _, l := range r.Listeners {
		if l.Network != "tcp" {
			return cannotSay("endless", l, "it knows tcp only; leave it out")
		}
	}
	p.setenv("ENDLESS_CONTINUE", "1")
	if len(r.Listeners) == 1 {
		return nil // fd 3, however it is spelled
	}
	order := make([]string, len(r.Listeners))
	for i, l := range r.Listeners {
		order[i] = l.Addr
	}
	for _, s := range spellings(r.Listeners, r.Words) {
		if !slices.Contains(order, s.addr()) {
			order = append(order, s.addr())
			p.copy(*s.listener)
		}
	}
	p.setenv("ENDLESS_SOCKET_ORDER", strings.Join(order, ","))
	return nil
}
