package wire

import "strings"

// addUnicorn is the variable by which Unicorn hands its listeners to its
// successor (lib/unicorn/http_server.rb, inherit_listeners!). It asks the sockets
// for their addresses, so all that it is given it listens on.
func addUnicorn(r *Request, p *Plan) error {
	for _, l := range r.Listeners {
		if !l.isStream() {
			return cannotSay("unicorn", l, "it listens on tcp and unix sockets; leave it out")
		}
	}
	p.setenv("UNICORN_FD", strings.Join(numbers(p), ","))
	return nil
}
