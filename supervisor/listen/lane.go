package listen

import (
	"cmp"
	"errors"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor/sockdiag"
)

// Lane is one listener of a socket. Its descriptor is lent to the processes of
// one generation (of a shared socket: of all) and stays the Set's.
type Lane struct {
	socket *Socket
	number int
	inode  uint64

	// Under the mutex of the socket's group.
	fd    int // -1 once closed
	lent  bool
	kept  bool // the manager above has it too, and goes on with it when we are gone: see keep
	quiet bool // a Gate saw, after steering away, that no handshake is in flight
}

// FD is the descriptor to lend: close-on-exec here, to be duplicated into the
// child. The borrower never closes it. -1 once the lane is closed.
func (l *Lane) FD() int {
	l.socket.group.mu.Lock()
	defer l.socket.group.mu.Unlock()
	return l.fd
}

// Inode is the number in "socket:[inode]" of /proc/PID/fd. It stays known after
// the lane is closed.
func (l *Lane) Inode() uint64 { return l.inode }

// Socket is what the lane belongs to.
func (l *Lane) Socket() *Socket { return l.socket }

// Number counts the lanes of one socket from 0. No number is used twice.
func (l *Lane) Number() int { return l.number }

// Queue tells how much waits to be taken: connections in the accept queue and
// its limit; of UDP bytes in the receive buffer, with the kernel's overhead, and
// their limit; of unixgram the bytes of the first datagram, and 0. Handshakes in
// flight do not count: see Gate.
func (l *Lane) Queue() (queued, backlog int, err error) {
	l.socket.group.mu.Lock()
	defer l.socket.group.mu.Unlock()
	return l.queue()
}

func (l *Lane) queue() (queued, backlog int, err error) {
	if l.fd < 0 {
		return 0, 0, ErrClosed
	}
	switch l.socket.cfg.Network {
	case "tcp":
		if proto, err := unix.GetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); err == nil && proto == unix.IPPROTO_MPTCP {
			return l.mptcpQueue()
		}
		// tcp_get_info(): of a listener these two are the accept queue's.
		info, err := unix.GetsockoptTCPInfo(l.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return 0, 0, err
		}
		if info.State != uint8(sockdiag.Listen) {
			return 0, 0, nil // shut down: its queue was reset
		}
		return int(info.Unacked), int(info.Sacked), nil
	case "udp":
		var mem [9]uint32 // SK_MEMINFO_*
		size := uint32(unsafe.Sizeof(mem))
		_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(l.fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&mem)), uintptr(unsafe.Pointer(&size)), 0)
		if e != 0 {
			return 0, 0, e
		}
		return int(mem[unix.SK_MEMINFO_RMEM_ALLOC]), int(mem[unix.SK_MEMINFO_RCVBUF]), nil
	default:
		found, err := sockdiag.Unix(sockdiag.UnixQuery{Inode: uint32(l.inode)})
		if err != nil {
			return 0, 0, err
		}
		if len(found) == 0 {
			return 0, 0, unix.ENOENT
		}
		if l.socket.cfg.Network == "unixgram" {
			return int(found[0].RQueue), 0, nil // its other number is about sending
		}
		return int(found[0].RQueue), int(found[0].WQueue), nil
	}
}

func (l *Lane) mptcpQueue() (queued, backlog int, err error) {
	found, err := sockdiag.Inet(sockdiag.Query{
		Protocol: sockdiag.TCP, LocalPort: l.socket.addr.Port(), States: sockdiag.Mask(sockdiag.Listen),
	})
	for _, s := range found {
		if uint64(s.Inode) == l.inode {
			return int(s.RQueue), int(s.WQueue), nil
		}
	}
	return 0, 0, cmp.Or(err, error(unix.ENOENT))
}

// Healthy is false when a process shut the listener down (shutdown(2) on a
// copy acts on all). epoll tells it by EPOLLHUP or EPOLLRDHUP on FD. The cure is
// Set.HealLane.
func (l *Lane) Healthy() bool {
	l.socket.group.mu.Lock()
	defer l.socket.group.mu.Unlock()
	return l.healthy()
}

func (l *Lane) healthy() bool {
	if l.fd < 0 {
		return false
	}
	fds := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLRDHUP}}
	for {
		_, err := unix.Poll(fds, 0)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return false
		}
	}
	if fds[0].Revents&(unix.POLLHUP|unix.POLLRDHUP|unix.POLLNVAL) != 0 {
		return false
	}
	switch l.socket.cfg.Network {
	case "udp", "unixgram":
		return true
	}
	return accepting(l.fd)
}

// lanes gives the lanes of the group, oldest first.
func (s *Socket) lanes() []*Lane {
	var all []*Lane
	for _, m := range s.group.order {
		if m.lane != nil {
			all = append(all, m.lane)
		}
	}
	slices.SortFunc(all, func(a, b *Lane) int { return cmp.Compare(a.number, b.number) })
	return all
}
