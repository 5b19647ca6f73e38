package handoff

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
)

func (p *process) listen(network, address string) (net.Listener, error) {
	if err := p.load(); err != nil {
		return nil, err
	}
	a, err := newAsk(network, address)
	if err != nil {
		return nil, err
	}
	if a.packet() {
		return nil, fmt.Errorf("cannot listen on %s %s: %s is for ListenPacket", network, address, network)
	}
	if h := p.inherited.take(&a); h != nil {
		if h.asked != "" {
			p.flip.keep(&a, h.stream)
		}
		return h.stream, nil
	}
	l, err := p.flip.inherit(&a)
	if l != nil || err != nil {
		return l, err
	}
	if l, err = net.Listen(a.network, a.address); err != nil {
		return nil, p.explain(&a, err)
	}
	p.flip.keep(&a, l)
	return l, nil
}

func (p *process) listenPacket(network, address string) (net.PacketConn, error) {
	if err := p.load(); err != nil {
		return nil, err
	}
	a, err := newAsk(network, address)
	if err != nil {
		return nil, err
	}
	if !a.packet() {
		return nil, fmt.Errorf("cannot listen on %s %s: %s is for Listen", network, address, network)
	}
	if h := p.inherited.take(&a); h != nil {
		if h.asked != "" {
			p.flip.keep(&a, h.packet)
		}
		return h.packet, nil
	}
	c, err := p.flip.inheritPacket(&a)
	if c != nil || err != nil {
		return c, err
	}
	if c, err = net.ListenPacket(a.network, a.address); err != nil {
		return nil, p.explain(&a, err)
	}
	p.flip.keep(&a, c)
	return c, nil
}

// bindError is a bind that failed, with what is known about it on lines of
// their own.
type bindError struct {
	ask   ask
	err   error
	facts []string
}

func (e *bindError) Unwrap() error { return e.err }

func (e *bindError) Error() string {
	cause := e.err
	if op := (*net.OpError)(nil); errors.As(cause, &op) {
		cause = op.Err // it says "listen tcp 127.0.0.1:8080" once more
	}
	if call := (*os.SyscallError)(nil); errors.As(cause, &call) {
		cause = call.Err
	}
	s := fmt.Sprintf("cannot listen on %s %s: %v", e.ask.network, e.ask.address, cause)
	for _, f := range e.facts {
		s += "\n\t" + f
	}
	return s
}

// explain says more about a bind that failed: who is there already, and
// whether listeners were given that did not fit.
func (p *process) explain(a *ask, err error) error {
	e := &bindError{ask: *a, err: err}
	if !addressInUse(err) {
		return e
	}
	for _, who := range holders(a) {
		if who.pid == p.env.pid {
			e.facts = append(e.facts, fmt.Sprintf("this process listens on %s itself", who.where))
			continue
		}
		e.facts = append(e.facts, who.String())
	}
	if a.unix() && len(e.facts) == 0 {
		if _, err := os.Stat(a.address); err == nil {
			e.facts = append(e.facts, "nobody is known to listen there: a process that was killed leaves the path behind; remove it if that is so")
		}
	}
	if left := p.inherited.left(); len(left) > 0 {
		var names []string
		for _, h := range left {
			names = append(names, h.String())
		}
		e.facts = append(e.facts, "inherited, but not for this address: "+strings.Join(names, ", "))
	}
	if p.inherited.missed != "" {
		e.facts = append(e.facts, p.inherited.missed)
	}
	if port := a.port; port != 0 {
		e.facts = append(e.facts, fmt.Sprintf("supervise why %d says more, and what to do", port))
	}
	return e
}

// holder is a process that has a listening socket.
type holder struct {
	where string // "127.0.0.1:8080", a path
	pid   int    // 0: not to be seen by this process
	name  string
}

func (h holder) String() string {
	if h.pid == 0 {
		return fmt.Sprintf("%s is held by a process of another user or namespace", h.where)
	}
	return fmt.Sprintf("%s is held by process %d (%s)", h.where, h.pid, h.name)
}
