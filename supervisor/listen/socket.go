package listen

import (
	"fmt"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor/config"
)

// Socket is one address that is held from Open to Close. Its address, with the
// port that was chosen for port 0, never changes. A Set makes and closes it.
type Socket struct {
	cfg       config.Socket
	addr      netip.AddrPort // of tcp and udp
	path      *path          // of unix sockets with a path, else nil
	shared    string         // why there is one listener only; "" has lanes
	inherited bool
	learned   bool // see Set.Learn
	group     *group
	next      int // number of the next lane
}

// Name is FileDescriptorName=. Two sockets may have one name ("localhost").
func (s *Socket) Name() string { return s.cfg.Name }

// Network is that of config.Socket: "tcp", "udp", "unix", "unixgram" or "unixpacket".
func (s *Socket) Network() string { return s.cfg.Network }

// Config is the configuration that it was opened with; of a socket that was
// inherited and not configured, what was found out.
func (s *Socket) Config() config.Socket { return s.cfg }

// AddrPort is the bound address of a TCP or UDP socket, else invalid.
func (s *Socket) AddrPort() netip.AddrPort { return s.addr }

// Addr is the bound address as getsockname(2) tells it and as net.Addr prints
// it: "host:port", a path, or '@' and an abstract name.
func (s *Socket) Addr() string {
	if s.addr.IsValid() {
		return s.addr.String()
	}
	return s.cfg.Path
}

// DialAddr is where a client of this machine connects to: Addr, with a loopback
// address in place of a wildcard.
func (s *Socket) DialAddr() string {
	if s.addr.IsValid() {
		return s.dialAddr().String()
	}
	return s.cfg.Path
}

func (s *Socket) dialAddr() netip.AddrPort {
	a := s.addr.Addr()
	switch {
	case !a.IsUnspecified():
		return s.addr
	case a.Is6() && s.v6only():
		return netip.AddrPortFrom(netip.IPv6Loopback(), s.addr.Port())
	default:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), s.addr.Port())
	}
}

// v6only says that an IPv6 wildcard takes no IPv4.
func (s *Socket) v6only() bool { return s.cfg.V6Only }

// Port is the port of a TCP or UDP socket, else 0.
func (s *Socket) Port() int { return int(s.addr.Port()) }

// Shared says whether all generations share one listener, and why.
func (s *Socket) Shared() (shared bool, why string) { return s.shared != "", s.shared }

// Inherited says that the listener was given to supervise and not opened by it.
func (s *Socket) Inherited() bool { return s.inherited }

// Lanes gives the lanes that are open now, oldest first.
func (s *Socket) Lanes() []*Lane {
	s.group.mu.Lock()
	defer s.group.mu.Unlock()
	return s.lanes()
}

// Steered gives the lanes that new connections come to. Of a shared socket it
// is its one lane.
func (s *Socket) Steered() []*Lane {
	s.group.mu.Lock()
	defer s.group.mu.Unlock()
	return append([]*Lane(nil), s.group.steered...)
}

func (s *Socket) newLane(fd int) (*Lane, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("cannot look at descriptor %d: %w", fd, err)
	}
	l := &Lane{socket: s, fd: fd, inode: st.Ino, number: s.next}
	s.next++
	return l, nil
}

// open opens a further lane. New connections do not come to it yet.
func (s *Socket) open() (*Lane, error) {
	g := s.group
	g.mu.Lock()
	defer g.mu.Unlock()
	fd, err := g.join(false)
	if err != nil {
		return nil, fmt.Errorf("cannot open a lane of %s: %w", strconv.Quote(s.Name()), err)
	}
	l, err := s.newLane(fd)
	if err != nil {
		_ = unix.Shutdown(fd, unix.SHUT_RD)
		unix.Close(fd)
		return nil, err
	}
	g.add(&member{fd: fd, lane: l})
	return l, nil
}
