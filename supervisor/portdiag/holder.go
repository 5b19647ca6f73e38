package portdiag

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Holder is a socket that stands in the way of a bind, or a group of
// connections in one state and of the same processes that do, with the
// processes that have it open.
type Holder struct {
	Network string         `json:"network"` // "tcp", "udp", "unix", "unixgram" or "unixpacket"
	State   State          `json:"state"`
	Local   netip.AddrPort `json:"local,omitzero"`
	Remote  netip.AddrPort `json:"remote,omitzero"` // of a connection; of a group: of one of them
	Path    string         `json:"path,omitempty"`  // unix: the path, or @NAME in the abstract namespace
	V6Only  bool           `json:"v6only,omitempty"`
	MPTCP   bool           `json:"mptcp,omitempty"`
	Device  uint32         `json:"device,omitempty"` // interface index of SO_BINDTODEVICE, 0 is none

	UID   uint32 `json:"uid"`  // who made the socket
	User  string `json:"user"` // the same by name
	Inode uint64 `json:"inode,omitempty"`
	Count int    `json:"count"` // sockets in the group; 1 for what listens or is bound

	// Connections counts those on the address of a listener, in any state
	// but closed.
	Connections int `json:"connections,omitempty"`
	// Expires is when the last of the group is gone by itself (TIME_WAIT, and
	// FIN_WAIT2 of a process that closed it); 0 is not known.
	Expires time.Duration `json:"expires_ns,omitempty"`

	// Since is when the address was bound, as far as it is known: of a unix
	// path, when its file was made. The kernel does not tell it for others;
	// they are not older than their oldest process.
	Since time.Time `json:"since,omitzero"`

	// Processes have it open: first the one that is an ancestor of the
	// others, else the oldest. None is normal for TIME_WAIT and for
	// connections that their process has closed.
	Processes []Process `json:"processes,omitempty"`
	// Hidden says why the owner is not among Processes; "" when it is, or
	// when there is none.
	Hidden string `json:"hidden,omitempty"`
}

// State is the state of a socket in the words of ss(8) and netstat(8), except
// for Bound.
type State string

const (
	Listen      State = "LISTEN"
	Bound       State = "BOUND" // bound, and neither listening nor connected
	Established State = "ESTABLISHED"
	SynSent     State = "SYN_SENT"
	SynRecv     State = "SYN_RECV"
	FinWait1    State = "FIN_WAIT1"
	FinWait2    State = "FIN_WAIT2"
	TimeWait    State = "TIME_WAIT"
	CloseWait   State = "CLOSE_WAIT"
	LastAck     State = "LAST_ACK"
	Closing     State = "CLOSING"
)

// titleLimit keeps the line of String readable: Java command lines have
// thousands of characters.
const titleLimit = 80

// String says it in one line, for an error message:
//
//	pid 4711 (nginx: master process /usr/sbin/nginx), user root, listening on 0.0.0.0:80
func (h Holder) String() string {
	var b strings.Builder
	switch {
	case len(h.Processes) > 0:
		p := h.Processes[0]
		fmt.Fprintf(&b, "pid %d (%s)", p.PID, p.Title(titleLimit))
		if n := len(h.Processes) - 1; n > 0 {
			fmt.Fprintf(&b, " and %s", plural(n, "other process", "other processes"))
		}
		fmt.Fprintf(&b, ", user %s, ", p.User)
	case h.Hidden != "":
		fmt.Fprintf(&b, "a process that we cannot see (%s), socket of user %s, ", h.Hidden, h.User)
	case h.Inode != 0:
		fmt.Fprintf(&b, "no process (a kernel service, another PID namespace, or a descriptor in flight), socket of user %s, ", h.User)
	default:
		b.WriteString("no process, ")
	}
	b.WriteString(h.what())
	return b.String()
}

// what says what the socket does, without its owner.
func (h Holder) what() string {
	at := h.address()
	switch h.State {
	case Listen:
		return "listening on " + at + listenNote(h)
	case Bound:
		if h.Network == "tcp" {
			return "bound to " + at + " but not listening"
		}
		return "bound to " + at
	case TimeWait:
		s := fmt.Sprintf("%s of %s in TIME_WAIT", plural(h.Count, "connection", "connections"), at)
		if h.Expires > 0 {
			s += fmt.Sprintf(" for %d s more", seconds(h.Expires))
		}
		return s
	}
	if h.Count == 1 && h.Remote.IsValid() && h.Remote.Port() != 0 {
		return fmt.Sprintf("connection %s to %s in %s", at, plain(h.Remote), h.State)
	}
	if h.Network != "tcp" {
		return "bound to " + at
	}
	return fmt.Sprintf("%s of %s in %s", plural(h.Count, "connection", "connections"), at, h.State)
}

func listenNote(h Holder) string {
	switch {
	case h.MPTCP:
		return " (MPTCP)"
	case h.V6Only && h.Local.Addr().IsUnspecified():
		return " (IPv6 only)"
	}
	return ""
}

// address is the local address as people write it, with the network where it
// is not TCP.
func (h Holder) address() string {
	switch h.Network {
	case "tcp":
		return plain(h.Local)
	case "udp":
		return "udp " + plain(h.Local)
	}
	return h.Network + " " + printable(h.Path, 0)
}

// plain writes an IPv4-mapped address as the IPv4 address that it is.
func plain(a netip.AddrPort) string {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()).String()
}

// seconds rounds up: "0 s more" would say that it is over.
func seconds(d time.Duration) int {
	return int((d + time.Second - 1) / time.Second)
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}
