package ready

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor/sockdiag"
)

// Listener is a socket that a process listens on by itself.
type Listener struct {
	Network string         // "tcp", "udp", "unix", "unixpacket"
	Addr    netip.AddrPort // tcp, udp
	Path    string         // unix*: path, or '@' and an abstract name
	Inode   uint64
	PID     int // the first process found that holds it

	// Ephemeral: a UDP port of the range that the kernel chooses from, and so
	// perhaps a client's. Servers there exist too; nothing tells them apart.
	Ephemeral bool
}

// Listening finds the sockets that processes listen on, also those that nobody
// lent to them: TCP (and MPTCP) and unix sockets in state LISTEN, and bound UDP
// sockets without a peer; each once, ordered by inode. A process that may not be
// looked at is an error, after all others have been; one that ended is none.
// Sockets of another network namespace are not found.
func Listening(pids []int) ([]Listener, error) {
	holder := map[uint64]int{}
	var denied error
	for _, pid := range pids {
		err := eachFD(pid, func(_ int, link string) {
			if in, ok := socketInode(link); ok {
				if _, known := holder[in]; !known {
					holder[in] = pid
				}
			}
		})
		if errors.Is(err, fs.ErrPermission) {
			denied = fmt.Errorf("cannot see the listeners of process %d: %w", pid, err)
		}
	}
	if len(holder) == 0 {
		return nil, denied
	}

	c, err := sockdiag.Dial()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var all []Listener
	add := func(l Listener) {
		if pid, ok := holder[l.Inode]; ok && l.Inode != 0 {
			delete(holder, l.Inode) // each once: a subflow has its owner's inode
			l.PID = pid
			all = append(all, l)
		}
	}

	tcp, err := c.Inet(sockdiag.Query{Protocol: sockdiag.TCP, States: sockdiag.Mask(sockdiag.Listen)})
	if err != nil {
		return nil, err
	}
	for _, s := range tcp {
		add(Listener{Network: "tcp", Addr: s.Src, Inode: uint64(s.Inode)})
	}

	// A kernel without the module for one of the next two cannot answer; what
	// it could not be asked about is left out.
	udp, err := c.Inet(sockdiag.Query{Protocol: sockdiag.UDP, States: sockdiag.Mask(sockdiag.Close)})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, err
	}
	low, high := ephemeralRange()
	for _, s := range udp {
		if p := s.Src.Port(); p != 0 && s.Dst.Port() == 0 {
			add(Listener{Network: "udp", Addr: s.Src, Inode: uint64(s.Inode), Ephemeral: low <= p && p <= high})
		}
	}

	local, err := c.Unix(sockdiag.UnixQuery{States: sockdiag.Mask(sockdiag.Listen)})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, err
	}
	for _, s := range local {
		network := "unix"
		if s.Type == unix.SOCK_SEQPACKET {
			network = "unixpacket"
		}
		add(Listener{Network: network, Path: s.Name, Inode: uint64(s.Inode)})
	}
	slices.SortFunc(all, func(a, b Listener) int { return cmp.Compare(a.Inode, b.Inode) })
	return all, denied
}

// ephemeralRange is net.ipv4.ip_local_port_range, which is IPv6's as well.
func ephemeralRange() (low, high uint16) {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err == nil {
		if n, _ := fmt.Sscan(string(b), &low, &high); n == 2 {
			return low, high
		}
	}
	return 32768, 60999 // the kernel's default
}
