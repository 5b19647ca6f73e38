package wire

import (
	"strconv"
	"syscall"
)

// addGoagain is the protocol of github.com/rcrowley/goagain (goagain.go) with its
// Single strategy: one fd, its name, and whom its Kill is to signal. That could be
// the old server; but when that ends is ours to decide, after the gate. So it is
// the supervisor, and the signal is lost on the way.
func addGoagain(r *Request, p *Plan) error {
	l := r.Listeners[0]
	if !l.isStream() {
		return cannotSay("goagain", l, "it knows tcp and unix sockets; leave it out")
	}
	p.setenv("GOAGAIN_FD", strconv.Itoa(p.Numbers[0]))
	p.setenv("GOAGAIN_NAME", l.Network+":"+l.Addr+"->")
	p.setenv("GOAGAIN_PPID", strconv.Itoa(r.Ack.Master))
	p.setenv("GOAGAIN_SIGNAL", strconv.Itoa(int(syscall.SIGQUIT)))
	return nil
}
