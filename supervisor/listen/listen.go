// Package listen opens, holds, names and lends listeners. It is the only owner
// of listening descriptors: a child is lent them, never given them.
//
// A configured address is a Socket. A Socket of TCP or UDP is a SO_REUSEPORT
// group of Lanes, one listener for each living generation. A small BPF program
// (SO_ATTACH_REUSEPORT_CBPF) steers all new connections to one lane, so that a
// rollout moves new clients from the old generation to the new one between two
// packets, and a lane whose generation died keeps its queue for the next. What
// cannot have lanes (Unix sockets, MPTCP, ReusePort=, foreign owners) is
// Shared: one lane that is lent to every generation, and Socket.Shared says why.
//
// The order of the group is the whole art. The program names a lane by its
// index, which is the order of joining, and when one leaves, the last moves
// into the gap. All of that is in group.go and nowhere else.
//
// # Ownership
//
// A Set owns its descriptors from Open to Close. They are raw, close-on-exec
// and non-blocking (unless Blocking was asked for), and never in an os.File: the
// flag belongs to the description that the children share. Lane.FD is lent: the
// borrower never closes it.
//
// # Concurrency
//
// A Set is used by one goroutine. Lane.Dial, Lane.Queue, Lane.Healthy and a
// Gate may be used by others at the same time; the state they share is in the
// group, under its mutex.
//
// # Limits
//
// Another program of the same user may join a group with SO_REUSEPORT. It gets
// no connection, but when it leaves, the order changes unseen. If two of four or
// more lanes are shut down by their children before the first is healed, the
// order of the others is not known for certain. A UDP lane that a child shut
// down cannot be healed.
package listen
