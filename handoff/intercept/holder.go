package intercept

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Holder is who holds listeners. Its methods are called by [Server.Serve], one
// at a time, while the child waits: they must not block, and they know the
// generation because each has a server of its own.
type Holder interface {
	// Bind decides about a bind of a fixed address, before it happens. The socket
	// has the options that the child set before; see [CopyOptions].
	Bind(*Call) Decision

	// Listen is told that a socket listens: for a stream after listen(2)
	// succeeded, for a datagram after bind(2) did. It is called for lent listeners
	// as well (this is the news that the child uses them), and for each further
	// listen(2) on the same socket.
	//
	// It reports whether it keeps call.Socket, which it must then close some day.
	// It may keep it only if call.Bound; otherwise the answer is ignored, because
	// a socket whose bind was not seen could not be handed over again.
	Listen(*Call) (keep bool)

	// Unlink is asked before a child removes a unix socket. To report true means
	// that the path belongs to the holder: it stays, and the child is told that it
	// is gone.
	Unlink(*Removal) (held bool)

	// Event is told what happened that nobody asked about.
	Event(Event)
}

// Call is a bind or listen of a child that waits for its answer. It is only
// valid until the method that it was given to returns.
type Call struct {
	TID int // the calling thread, of whatever process of the generation
	FD  int // the fd number of the socket in the child

	Key    Key    // what the child asked for at bind; for a Listen without Bound: zero
	Socket int    // a duplicate of the child's socket, close-on-exec; the server closes it unless Listen keeps it
	Cookie uint64 // SO_COOKIE: the identity of the socket
	Inode  uint64 // as in "socket:[INODE]" of /proc/PID/fd
	Proto  int    // IPPROTO_TCP, IPPROTO_MPTCP, IPPROTO_UDP; 0 for unix

	Backlog int  // Listen: what the child asked for
	Bound   bool // Listen: the bind of this very socket was seen, for a fixed address
	Lent    bool // Listen: the socket is one that a Decision lent or gave

	// Unix paths, at Bind: what is at the path now. Exists without Dev and Ino of
	// the holder's own socket means that somebody else's file is in the way.
	Exists   bool
	Dev, Ino uint64
}

// TGID is the process of the calling thread.
func (c *Call) TGID() (int, error) { return thread{tid: c.TID}.tgid() }

// Removal is an unlink or unlinkat of a unix socket.
type Removal struct {
	TID      int
	Path     string // absolute, without symbolic links, as we see it
	Dev, Ino uint64
}

type decisionKind uint8

const (
	decidePass decisionKind = iota
	decideSwap
	decideErrno
)

// Decision answers a bind. The zero value passes it.
type Decision struct {
	kind  decisionKind
	errno unix.Errno
	fd    int
	give  bool

	// Own says, for a listener lent or given, that no living generation but this
	// one uses it. Its socket options and its O_NONBLOCK, which belong to the
	// description that all its users share, are then made those of the socket that
	// it replaces: a server that blocks in accept(2) needs a blocking one. Without
	// Own nothing is touched.
	Own bool

	// NoCloexec leaves the child's fd open over exec, also where the child had
	// asked for close-on-exec. .NET disconnects a listener when it disposes of it,
	// for all its users, unless it finds the fd without close-on-exec.
	NoCloexec bool
}

// Pass lets the bind happen as if nobody were there.
func Pass() Decision { return Decision{} }

// Lend answers the bind with a listener that stays the holder's: it keeps fd
// open and closes it some day.
func Lend(fd int) Decision { return Decision{kind: decideSwap, fd: fd} }

// Give answers the bind with a socket of our making that becomes the child's
// alone: the server closes fd. Listen offers it again when the child listens;
// until then nobody knows whether it is a server's socket at all, for clients
// bind too.
func Give(fd int) Decision { return Decision{kind: decideSwap, fd: fd, give: true, Own: true} }

// Errno fails the bind.
func Errno(errno unix.Errno) Decision { return Decision{kind: decideErrno, errno: errno} }

// EventKind says what an Event is about.
type EventKind uint8

const (
	// BindFailed: a bind for a fixed address failed, or is about to, with Err, an
	// errno: EADDRINUSE if somebody outside of this generation has the address.
	BindFailed EventKind = iota + 1
	// Unheld: a bind or listen went to the kernel because it could not be managed,
	// for the reason Err. It cannot be handed over; the next start is a plain one.
	Unheld
	// Damaged: a listener was put into the child, but not all that belongs to it,
	// for the reason Err: an option not copied, an epoll registration not moved.
	Damaged
)

func (k EventKind) String() string {
	switch k {
	case BindFailed:
		return "bind failed"
	case Unheld:
		return "not held"
	case Damaged:
		return "damaged"
	}
	return fmt.Sprintf("event %d", uint8(k))
}

// Event is what happened to one call.
type Event struct {
	Kind EventKind
	TID  int
	Key  Key // zero if the call could not be understood
	Err  error
}

func (e Event) String() string {
	if e.Key == (Key{}) {
		return fmt.Sprintf("%s: thread %d: %v", e.Kind, e.TID, e.Err)
	}
	return fmt.Sprintf("%s: %s: thread %d: %v", e.Kind, e.Key, e.TID, e.Err)
}
