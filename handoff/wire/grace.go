package wire

import "strconv"

// addGrace is the protocol of github.com/facebookgo/grace (gracenet/net.go):
// LISTEN_FDS alone, fds from 3 up. It asks the sockets for their addresses. Once
// it serves it sends SIGTERM to its parent, unless that is process 1.
func addGrace(r *Request, p *Plan) error {
	for _, l := range r.Listeners {
		if !l.isStream() {
			return cannotSay("grace", l, "it would end with \"error inheriting socket\"; leave it out")
		}
	}
	p.setenv("LISTEN_FDS", strconv.Itoa(len(r.Listeners)))
	return nil
}
