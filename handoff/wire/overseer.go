package wire

import "strconv"

// addOverseer makes the child a slave of github.com/jpillora/overseer
// (proc_slave.go): OVERSEER_NUM_FDS sockets from fd 3 up, in the order of the
// program's Addresses. It drains on its RestartSignal, by default USR2, and then
// sends USR1 to its parent; it ends when its parent is another one.
func addOverseer(r *Request, p *Plan) error {
	for _, l := range r.Listeners {
		if !l.isStream() {
			return cannotSay("overseer", l, "it would end with \"failed to inherit file descriptor\"; leave it out")
		}
	}
	p.setenv("OVERSEER_IS_SLAVE", "1")
	p.setenv("OVERSEER_SLAVE_ID", strconv.Itoa(r.Generation))
	p.setenv("OVERSEER_NUM_FDS", strconv.Itoa(len(r.Listeners)))
	p.setenv("OVERSEER_BIN_ID", strconv.Itoa(r.Generation))
	p.setenv("OVERSEER_BIN_PATH", r.Path)
	return nil
}
