package sockdiag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Protocol is an IP protocol number. MPTCP's has more than eight bits.
type Protocol uint16

const (
	TCP     Protocol = unix.IPPROTO_TCP
	UDP     Protocol = unix.IPPROTO_UDP
	UDPLite Protocol = unix.IPPROTO_UDPLITE
	MPTCP   Protocol = unix.IPPROTO_MPTCP // the sockets that programs hold; their subflows are shown under TCP
)

// String gives the name in lower case.
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case UDPLite:
		return "udplite"
	case MPTCP:
		return "mptcp"
	}
	return "protocol " + strconv.Itoa(int(p))
}

// Query says which sockets Inet shall show. The zero value of a field does not
// restrict, except that Protocol must be given.
type Query struct {
	Protocol  Protocol
	Family    uint8  // AF_INET or AF_INET6; 0 is both (two dumps). A dual-stack socket and what it accepts are AF_INET6
	States    uint32 // bits 1<<State, see Mask; 0 is AllStates
	LocalPort uint16 // compared in the kernel
	Info      bool   // ask for tcp_info, which costs some 250 bytes for each socket
}

// Socket is a TCP, MPTCP or UDP socket. Addresses of an IPv4 connection on a
// dual-stack socket are given as IPv4-mapped IPv6 addresses, as the kernel does.
type Socket struct {
	Family   uint8 // AF_INET or AF_INET6
	Protocol Protocol
	State    State
	Src, Dst netip.AddrPort // local and remote; no zone: see Iface
	Iface    uint32         // interface that it is bound to, 0 is none
	Cookie   uint64         // the kernel's name for this socket, never used twice; 0 for a half-open one
	UID      uint32         // owner
	Inode    uint32         // as in "socket:[inode]" of /proc/PID/fd; 0: no process holds it (not accepted yet, half-open, TIME_WAIT)

	// RQueue and WQueue are bytes not read by the program and not
	// acknowledged by the peer; for a listener the length of the accept queue
	// and its limit.
	RQueue, WQueue uint32

	Timer   uint8         // 0 none, 1 retransmit, 2 keep-alive, 3 TIME_WAIT, 4 zero window probe
	Retrans uint8         // retransmits so far
	Expires time.Duration // until the timer fires; milliseconds

	Info     *unix.TCPInfo // nil when not asked for or not told; what an older kernel does not have is zero
	InfoSize int           // bytes of Info that the kernel gave
	V6Only   *bool         // told for listening and unconnected IPv6 sockets
	Mark     *uint32       // told to CAP_NET_ADMIN
	Shutdown uint8         // 1: shut down for reading, 2: for writing
	CgroupID uint64        // inode of the cgroup2 directory at creation, 0: not told (Linux 5.7)
	MPTCP    bool          // an MPTCP socket, or a subflow of one (a subflow's is told to CAP_NET_ADMIN)
}

// Sizes and numbers of linux/inet_diag.h.
const (
	inetMsgSize = 72

	inetReqBytecode = 1
	inetReqProtocol = 3

	inetExtInfo = 2

	inetAttrInfo     = 2
	inetAttrShutdown = 8
	inetAttrProtocol = 10
	inetAttrV6Only   = 11
	inetAttrMark     = 15
	inetAttrULP      = 19
	inetAttrCgroup   = 21

	ulpName  = 1
	ulpMPTCP = 3

	bytecodeSourceEq = 11

	noCookie = ^uint32(0)
)

// Inet shows the sockets that q asks for. Errors wrap the errno: ENOENT means
// that the kernel has no diag module for the protocol.
func Inet(q Query) ([]Socket, error) {
	c, err := Dial()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Inet(q)
}

// Lookup finds the one socket whose local address is src and whose remote
// address is dst: of a connection seen by a client, the server's side is
// Lookup(TCP, remote, local). A connection in any state is found, also a
// half-open one and one in TIME_WAIT. The error wraps ENOENT if there is none.
func Lookup(proto Protocol, src, dst netip.AddrPort) (Socket, error) {
	c, err := Dial()
	if err != nil {
		return Socket{}, err
	}
	defer c.Close()
	return c.Lookup(proto, src, dst)
}

// Inet is the function Inet on a connection that is kept.
func (c *Conn) Inet(q Query) ([]Socket, error) {
	families := []uint8{unix.AF_INET, unix.AF_INET6}
	if q.Family != 0 {
		families = []uint8{q.Family}
	}
	var all []Socket
	for _, family := range families {
		body := inetRequest(q, family)
		from := len(all)
		err := c.ask(body, true, func() { all = all[:from] }, func(b []byte) error {
			s, err := decodeInet(b)
			if err != nil {
				return err
			}
			if s.Protocol == 0 {
				s.Protocol = q.Protocol
			}
			s.MPTCP = s.MPTCP || s.Protocol == MPTCP
			all = append(all, s)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("cannot list %v sockets: %w", q.Protocol, err)
		}
	}
	return all, nil
}

// Lookup is the function Lookup on a connection that is kept.
func (c *Conn) Lookup(proto Protocol, src, dst netip.AddrPort) (Socket, error) {
	var found Socket
	ok := false
	body, err := lookupRequest(proto, src, dst)
	if err == nil {
		err = c.ask(body, false, func() {}, func(b []byte) error {
			var err error
			found, err = decodeInet(b)
			ok = err == nil
			return err
		})
	}
	// The kernel falls back to the listener when there is no such connection.
	if err == nil && (!ok || !same(found.Src, src) || !same(found.Dst, dst)) {
		err = unix.ENOENT
	}
	if err != nil {
		return Socket{}, fmt.Errorf("cannot find the %v socket %v of peer %v: %w", proto, src, dst, err)
	}
	found.Protocol = proto
	found.MPTCP = found.MPTCP || proto == MPTCP
	return found, nil
}

func same(a, b netip.AddrPort) bool {
	return a.Port() == b.Port() && a.Addr().Unmap().WithZone("") == b.Addr().Unmap().WithZone("")
}

// inetRequest builds an inet_diag_req_v2 with the filter of q.
func inetRequest(q Query, family uint8) []byte {
	states := q.States
	if states == 0 {
		states = AllStates
	}
	if states&(1<<SynRecv) != 0 {
		states |= 1 << NewSynRecv
	}
	b := make([]byte, 56, 96)
	b[0], b[1] = family, uint8(q.Protocol)
	if q.Info {
		b[2] = 1 << (inetExtInfo - 1)
	}
	binary.NativeEndian.PutUint32(b[4:], states)
	if q.Protocol > 0xff {
		b = putAttribute(b, inetReqProtocol, binary.NativeEndian.AppendUint32(nil, uint32(q.Protocol)))
	}
	if q.LocalPort != 0 {
		// Two operations: compare, and its operand. "yes" leads exactly to
		// the end, which accepts; "no" leads past it, which rejects.
		op := []byte{bytecodeSourceEq, 8}
		op = binary.NativeEndian.AppendUint16(op, 12)
		op = append(op, 0, 0)
		op = binary.NativeEndian.AppendUint16(op, q.LocalPort)
		b = putAttribute(b, inetReqBytecode, op)
	}
	return b
}

// lookupRequest builds an inet_diag_req_v2 for exactly one socket.
func lookupRequest(proto Protocol, src, dst netip.AddrPort) ([]byte, error) {
	if !src.IsValid() || !dst.IsValid() {
		return nil, errors.New("two addresses are needed")
	}
	zone := src.Addr().Zone() + dst.Addr().Zone()
	if src.Addr().Zone() == dst.Addr().Zone() {
		zone = src.Addr().Zone()
	}
	iface := 0
	if zone != "" {
		n, err := strconv.Atoi(zone)
		if err != nil {
			i, err := net.InterfaceByName(zone)
			if err != nil {
				return nil, err
			}
			n = i.Index
		}
		iface = n
	}
	if proto == UDP || proto == UDPLite {
		src, dst = dst, src // "swapped for historical reasons", says the kernel
	}
	b := make([]byte, 56)
	s, d := src.Addr().Unmap(), dst.Addr().Unmap()
	if s.Is4() && d.Is4() {
		b[0] = unix.AF_INET
		copy(b[12:], s.AsSlice())
		copy(b[28:], d.AsSlice())
	} else {
		b[0] = unix.AF_INET6
		s16, d16 := s.As16(), d.As16()
		copy(b[12:], s16[:])
		copy(b[28:], d16[:])
	}
	b[1] = uint8(proto)
	b[2] = 1 << (inetExtInfo - 1)
	binary.NativeEndian.PutUint32(b[4:], AllStates)
	binary.BigEndian.PutUint16(b[8:], src.Port())
	binary.BigEndian.PutUint16(b[10:], dst.Port())
	binary.NativeEndian.PutUint32(b[44:], uint32(iface))
	binary.NativeEndian.PutUint32(b[48:], noCookie)
	binary.NativeEndian.PutUint32(b[52:], noCookie)
	if proto > 0xff {
		b = putAttribute(b, inetReqProtocol, binary.NativeEndian.AppendUint32(nil, uint32(proto)))
	}
	return b, nil
}

// decodeInet reads an inet_diag_msg and its attributes.
func decodeInet(b []byte) (Socket, error) {
	if len(b) < inetMsgSize {
		return Socket{}, fmt.Errorf("an inet_diag message of %d bytes: %w", len(b), unix.EBADMSG)
	}
	ne := binary.NativeEndian
	s := Socket{
		Family:  b[0],
		State:   State(b[1]),
		Timer:   b[2],
		Retrans: b[3],
		Src:     netip.AddrPortFrom(address(b[0], b[8:24]), binary.BigEndian.Uint16(b[4:])),
		Dst:     netip.AddrPortFrom(address(b[0], b[24:40]), binary.BigEndian.Uint16(b[6:])),
		Iface:   ne.Uint32(b[40:]),
		Cookie:  uint64(ne.Uint32(b[44:])) | uint64(ne.Uint32(b[48:]))<<32,
		Expires: time.Duration(ne.Uint32(b[52:])) * time.Millisecond,
		RQueue:  ne.Uint32(b[56:]),
		WQueue:  ne.Uint32(b[60:]),
		UID:     ne.Uint32(b[64:]),
		Inode:   ne.Uint32(b[68:]),
	}
	if s.State == NewSynRecv {
		s.State = SynRecv
	}
	err := attributes(b[inetMsgSize:], func(typ uint16, v []byte) {
		switch {
		case typ == inetAttrInfo && len(v) > 0:
			s.Info = new(unix.TCPInfo)
			s.InfoSize = copy((*[unsafe.Sizeof(unix.TCPInfo{})]byte)(unsafe.Pointer(s.Info))[:], v)
		case typ == inetAttrShutdown && len(v) == 1:
			s.Shutdown = v[0]
		case typ == inetAttrProtocol && len(v) == 1 && v[0] != 0:
			s.Protocol = Protocol(v[0])
		case typ == inetAttrV6Only && len(v) == 1:
			only := v[0] != 0
			s.V6Only = &only
		case typ == inetAttrMark && len(v) == 4:
			mark := ne.Uint32(v)
			s.Mark = &mark
		case typ == inetAttrCgroup && len(v) == 8:
			s.CgroupID = ne.Uint64(v)
		case typ == inetAttrULP:
			// A malformed inner part only leaves the flag unset.
			_ = attributes(v, func(typ uint16, v []byte) {
				if typ == ulpMPTCP || typ == ulpName && len(v) >= 5 && string(v[:5]) == "mptcp" {
					s.MPTCP = true
				}
			})
		}
	})
	return s, err
}

func address(family uint8, b []byte) netip.Addr {
	if family == unix.AF_INET {
		return netip.AddrFrom4([4]byte(b[:4]))
	}
	return netip.AddrFrom16([16]byte(b[:16]))
}
