package wire

import "strings"

// addGunicorn is the pair of variables by which gunicorn hands its listeners to
// its successor (gunicorn/arbiter.py, start). A master that finds GUNICORN_PID
// takes itself for a second one until that process is no more its parent; so the
// pid is the child's own, and it is the only master from its first round on.
func addGunicorn(r *Request, p *Plan) error {
	for _, l := range r.Listeners {
		if !l.isStream() {
			return cannotSay("gunicorn", l, "it listens on tcp and unix sockets; leave it out")
		}
	}
	p.setenv("GUNICORN_FD", strings.Join(numbers(p), ","))
	p.PIDEnv = append(p.PIDEnv, "GUNICORN_PID")
	return nil
}
