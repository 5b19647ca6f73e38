package listen

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Mute makes the lanes of a socket deaf to new connections: a filter drops the
// first packet of each (SYN without ACK), and handshakes that have begun go on.
// The client's kernel sends it again after a second, and then another listener
// may be there. For a socket that is about to be dropped: what waits in its
// queue can be served first, and nobody gets into it meanwhile.
//
// A filter that the child attached is replaced (SO_ATTACH_FILTER, socket(7)).
// Connections inherit it, and it drops nothing of theirs. Only TCP can be muted.
func (s *Socket) Mute() error {
	const (
		flags = 13 // offset in the TCP header, where the filter begins
		syn   = 0x02
		ack   = 0x10
	)
	return s.filter(func(fd int) error {
		p := []unix.SockFilter{
			{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: flags},
			{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: syn | ack},
			{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: syn, Jf: 1},
			{Code: unix.BPF_RET | unix.BPF_K, K: 0},
			{Code: unix.BPF_RET | unix.BPF_K, K: ^uint32(0)},
		}
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]})
	})
}

// Unmute ends Mute.
func (s *Socket) Unmute() error {
	return s.filter(func(fd int) error {
		err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
		if errors.Is(err, unix.ENOENT) {
			return nil // it was not muted
		}
		return err
	})
}

func (s *Socket) filter(set func(fd int) error) error {
	g := s.group
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.tcp {
		return fmt.Errorf("cannot filter new connections of %s: %w", subject(s.cfg), unix.ENOTSUP)
	}
	var errs []error
	for _, m := range g.order {
		if m.lane == nil {
			continue // a plug drops everything
		}
		if err := set(m.fd); err != nil {
			errs = append(errs, fmt.Errorf("cannot filter new connections of %s: %w", subject(s.cfg), err))
		}
	}
	return errors.Join(errs...)
}
