package wire

import (
	"fmt"
	"strings"
)

// Systemd is the protocol of sd_listen_fds(3): LISTEN_FDS, LISTEN_PID and
// LISTEN_FDNAMES, fds from 3 up in the order given. Without listeners the plan
// is empty: a program that counts zero sockets must bind for itself.
//
// It is an error when a name could not be read back: names are ASCII without
// control characters and ':', and at most 255 bytes long
// (sd_listen_fds_with_names(3)).
func Systemd(listeners []Listener) (Plan, error) {
	if len(listeners) == 0 {
		return Plan{}, nil
	}
	p := Plan{PIDEnv: []string{"LISTEN_PID"}}
	names := make([]string, len(listeners))
	for i, l := range listeners {
		if !validName(l.Name) {
			return Plan{}, fmt.Errorf("cannot name a listener %q: LISTEN_FDNAMES takes 1 to 255 ASCII characters without ':' and control characters", l.Name)
		}
		names[i] = l.Name
		p.Files = append(p.Files, l.FD)
	}
	p.Env = []string{
		fmt.Sprintf("LISTEN_FDS=%d", len(listeners)),
		"LISTEN_FDNAMES=" + strings.Join(names, ":"),
	}
	return p, nil
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
