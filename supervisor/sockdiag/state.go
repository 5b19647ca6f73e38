package sockdiag

import "strconv"

// State is the state of a socket as the kernel numbers it (net/tcp_states.h).
// UDP and Unix sockets use Established, Close and, Unix only, Listen.
type State uint8

const (
	Established State = iota + 1
	SynSent
	SynRecv // half-open: with inode 0, a handshake that no accept(2) has seen
	FinWait1
	FinWait2
	TimeWait
	Close
	CloseWait
	LastAck
	Listen
	Closing
	NewSynRecv    // never shown: the kernel shows such sockets as SynRecv
	BoundInactive // asked for only (Linux 6.8): bound TCP sockets that neither listen nor connect; shown as Close
)

// AllStates asks for every state of a socket that is in the kernel's tables,
// including the bound but inactive ones.
const AllStates uint32 = 1<<(BoundInactive+1) - 2

// Mask gives the bits of Query.States for states.
func Mask(states ...State) uint32 {
	var m uint32
	for _, s := range states {
		m |= 1 << s
	}
	return m
}

// String gives the name that ss(8) and netstat(8) print, in capitals.
func (s State) String() string {
	names := [...]string{
		Established: "ESTABLISHED", SynSent: "SYN_SENT", SynRecv: "SYN_RECV", FinWait1: "FIN_WAIT1",
		FinWait2: "FIN_WAIT2", TimeWait: "TIME_WAIT", Close: "CLOSE", CloseWait: "CLOSE_WAIT", LastAck: "LAST_ACK",
		Listen: "LISTEN", Closing: "CLOSING", NewSynRecv: "NEW_SYN_RECV", BoundInactive: "BOUND_INACTIVE",
	}
	if s == 0 || int(s) >= len(names) {
		return "state " + strconv.Itoa(int(s))
	}
	return names[s]
}
