// Package wire says what a child must be given so that it finds its
// listeners: the sender's half of every handoff protocol, as pure values. It
// starts nothing, opens nothing and reads no environment.
//
// Each protocol stands in a file of its own and returns a Plan. What a Plan
// cannot contain because nobody knows it before the fork, the child's own
// pid, it names in PIDEnv; handoff/shim fills it in.
package wire

// FirstFD is the number in the child of the first fd of a Plan: 0 to 2 are
// the standard streams.
const FirstFD = 3

// Listener is one listening socket that is lent to a child.
type Listener struct {
	FD      int    // in the supervisor; never closed by whoever carries out the plan
	Name    string // of the socket, for LISTEN_FDNAMES and {fd:NAME}
	Network string // "tcp", "udp", "unix", "unixgram", "unixpacket"
	Addr    string // "127.0.0.1:8080", a path, "@name"
}

// Plan is what the child must be given.
type Plan struct {
	Files  []int    // Files[i] of the supervisor becomes fd FirstFD+i of the child
	Env    []string // K=V to be added to the environment
	PIDEnv []string // names of variables whose value is the child's own pid
}
