package wire

import (
	"strconv"
	"strings"
)

// addNginx is the variable by which nginx hands its listeners to its successor
// (src/core/nginx.c, ngx_add_inherited_sockets): numbers that each end in ';', the
// last one too. nginx asks the sockets for their addresses, closes those that no
// "listen" names and binds what it misses. ANGIE is the same for Angie.
//
// With the variable nginx stays in the foreground whatever "daemon" says.
func addNginx(_ *Request, p *Plan) error {
	var b strings.Builder
	for _, n := range p.Numbers {
		b.WriteString(strconv.Itoa(n) + ";")
	}
	p.setenv("NGINX", b.String())
	p.setenv("ANGIE", b.String())
	return nil
}
