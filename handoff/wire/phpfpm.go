package wire

import (
	"strconv"
	"strings"
)

// addPHPFPM is the variable by which PHP-FPM hands its listeners to itself at a
// reload (sapi/fpm/fpm/fpm_sockets.c): "key=fd" joined by ','. The key is what
// the kernel says of the socket, host:port or a path, and is compared as a text
// with the pool's own resolved address: no further spelling is needed, and a unix path
// that no pool names would be unlinked.
func addPHPFPM(r *Request, p *Plan) error {
	pairs := make([]string, len(r.Listeners))
	for i, l := range r.Listeners {
		switch {
		case !l.isStream():
			return cannotSay("php-fpm", l, "a pool listens on tcp or unix sockets; leave it out")
		case strings.HasPrefix(l.Addr, "@"), strings.ContainsAny(l.Addr, "=,"):
			return cannotSay("php-fpm", l, "a pool has no such address; use a path without '=' and ','")
		}
		pairs[i] = l.Addr + "=" + strconv.Itoa(p.Numbers[i])
	}
	p.setenv("FPM_SOCKETS", strings.Join(pairs, ","))
	return nil
}
