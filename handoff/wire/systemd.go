package wire

import (
	"fmt"
	"strconv"
	"strings"
)

// addSystemd is the protocol of sd_listen_fds(3): LISTEN_FDS, LISTEN_PID,
// LISTEN_FDNAMES and LISTEN_PIDFDID, fds from 3 up in the order given.
//
// It is an error when a name could not be read back: names are ASCII without
// control characters and ':', and at most 255 bytes long
// (sd_listen_fds_with_names(3)).
func addSystemd(r *Request, p *Plan) error {
	names := make([]string, len(r.Listeners))
	for i, l := range r.Listeners {
		if !validName(l.Name) {
			return fmt.Errorf("handoff systemd cannot name a listener %q: LISTEN_FDNAMES takes 1 to 255 ASCII characters without ':' and control characters; write --listen NAME=%s", l.Name, l.Addr)
		}
		names[i] = l.Name
	}
	p.setenv("LISTEN_FDS", strconv.Itoa(len(r.Listeners)))
	p.setenv("LISTEN_FDNAMES", strings.Join(names, ":"))
	p.PIDEnv = append(p.PIDEnv, "LISTEN_PID")
	p.PIDFDID = true
	return nil
}

func validName(name string) bool {
	if name == "" || len(name) > 255 {
		return false
	}
	for i := range len(name) {
		if c := name[i]; c < ' ' || c >= 0x7f || c == ':' {
			return false
		}
	}
	return true
}
