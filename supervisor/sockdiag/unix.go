package sockdiag

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// UnixQuery says which Unix sockets Unix shall show. The kernel cannot filter
// by name.
type UnixQuery struct {
	States uint32 // bits 1<<State: Established, Close, Listen; 0 is all
	Inode  uint32 // only this one (no dump); 0 is all
}

// UnixSocket is an AF_UNIX socket.
type UnixSocket struct {
	Type   uint8 // SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET
	State  State
	Name   string // path as bound, or '@' and an abstract name; "" is unnamed
	Inode  uint32 // as in "socket:[inode]" of /proc/PID/fd; 0: not accepted yet
	Cookie uint64 // the kernel's name for this socket, never used twice
	Peer   uint32 // inode of the other end, 0: none, or one that was not accepted yet

	// RQueue and WQueue are bytes to be read and bytes that the peer has not
	// read; for a listener the length of the accept queue and its limit.
	RQueue, WQueue uint32

	UID      *uint32  // owner, nil: not told (Linux before 5.3)
	VfsInode uint32   // inode of the path, 0: none
	VfsDev   uint32   // device of the path in the kernel's own form: major<<20 | minor
	Shutdown uint8    // 1: shut down for reading, 2: for writing
	Pending  []uint32 // of a listener: inodes of the clients that wait to be accepted
}

// Sizes and numbers of linux/unix_diag.h.
const (
	unixMsgSize = 16

	unixShowAll = 0x01 | 0x02 | 0x04 | 0x08 | 0x10 | 0x40

	unixAttrName     = 0
	unixAttrVfs      = 1
	unixAttrPeer     = 2
	unixAttrIcons    = 3
	unixAttrRQLen    = 4
	unixAttrShutdown = 6
	unixAttrUID      = 7
)

// Unix shows the Unix sockets that q asks for. With q.Inode the error wraps
// ENOENT when there is none.
func Unix(q UnixQuery) ([]UnixSocket, error) {
	c, err := Dial()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Unix(q)
}

// Unix is the function Unix on a connection that is kept.
func (c *Conn) Unix(q UnixQuery) ([]UnixSocket, error) {
	states := q.States
	if states == 0 {
		states = AllStates
	}
	ne := binary.NativeEndian
	body := make([]byte, 24)
	body[0] = unix.AF_UNIX
	ne.PutUint32(body[4:], states)
	ne.PutUint32(body[8:], q.Inode)
	ne.PutUint32(body[12:], unixShowAll)
	ne.PutUint32(body[16:], noCookie)
	ne.PutUint32(body[20:], noCookie)
	var all []UnixSocket
	err := c.ask(body, q.Inode == 0, func() { all = all[:0] }, func(b []byte) error {
		s, err := decodeUnix(b)
		if err == nil && states&(1<<s.State) != 0 {
			all = append(all, s)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot list unix sockets: %w", err)
	}
	return all, nil
}

// decodeUnix reads a unix_diag_msg and its attributes.
func decodeUnix(b []byte) (UnixSocket, error) {
	if len(b) < unixMsgSize {
		return UnixSocket{}, fmt.Errorf("a unix_diag message of %d bytes: %w", len(b), unix.EBADMSG)
	}
	ne := binary.NativeEndian
	s := UnixSocket{
		Type:   b[1],
		State:  State(b[2] & 0x0f),
		Inode:  ne.Uint32(b[4:]),
		Cookie: uint64(ne.Uint32(b[8:])) | uint64(ne.Uint32(b[12:]))<<32,
	}
	err := attributes(b[unixMsgSize:], func(typ uint16, v []byte) {
		switch {
		case typ == unixAttrName && len(v) > 0:
			s.Name = name(v)
		case typ == unixAttrVfs && len(v) == 8:
			s.VfsInode, s.VfsDev = ne.Uint32(v), ne.Uint32(v[4:])
		case typ == unixAttrPeer && len(v) == 4:
			s.Peer = ne.Uint32(v)
		case typ == unixAttrIcons:
			for ; len(v) >= 4; v = v[4:] {
				s.Pending = append(s.Pending, ne.Uint32(v))
			}
		case typ == unixAttrRQLen && len(v) == 8:
			s.RQueue, s.WQueue = ne.Uint32(v), ne.Uint32(v[4:])
		case typ == unixAttrShutdown && len(v) == 1:
			s.Shutdown = v[0]
		case typ == unixAttrUID && len(v) == 4:
			uid := ne.Uint32(v)
			s.UID = &uid
		}
	})
	return s, err
}

// name turns sun_path into text: a path ends at its NUL, an abstract name
// begins with one and may hold more.
func name(v []byte) string {
	if v[0] == 0 {
		return "@" + string(v[1:])
	}
	for i, c := range v {
		if c == 0 {
			return string(v[:i])
		}
	}
	return string(v)
}
