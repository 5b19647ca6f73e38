package wire

import (
	"slices"
	"strconv"
)

// addPuma is the set of variables by which Puma hands its listeners to itself at
// a restart (lib/puma/binder.rb, create_inherited_fds): "fd:url". The url is
// compared as a text with the argument of "bind". An unused tcp fd is closed, so
// each spelling has a copy of its own; the path of an unused unix socket would be
// removed, so that has one.
func addPuma(r *Request, p *Plan) error {
	n := 0
	inherit := func(fd int, url string) {
		p.setenv("PUMA_INHERIT_"+strconv.Itoa(n), strconv.Itoa(fd)+":"+url)
		n++
	}
	var seen []string
	for i, l := range r.Listeners {
		switch l.Network {
		case "tcp":
		case "unix":
			inherit(p.Numbers[i], "unix://"+l.Addr)
		default:
			return cannotSay("puma", l, "it listens on tcp and unix sockets; leave it out")
		}
	}
	for _, s := range spellings(r.Listeners, r.Words) {
		if s.listener.Network != "tcp" || s.host == "" || slices.Contains(seen, s.addr()) {
			continue // tcp://:80 is no URL to Ruby
		}
		seen = append(seen, s.addr())
		fd := p.Numbers[s.index]
		if s.addr() != s.listener.Addr {
			fd = p.copy(*s.listener)
		}
		inherit(fd, "tcp://"+s.addr())
	}
	return nil
}

func numbers(p *Plan) []string {
	texts := make([]string, len(p.Numbers))
	for i, n := range p.Numbers {
		texts[i] = strconv.Itoa(n)
	}
	return texts
}
