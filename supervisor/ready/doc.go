// Package ready answers one question: has this generation become able to
// serve? Each source of an answer is here, and each ends in a plain value that
// the loop turns into one event:
//
//   - Notify: the receiving side of sd_notify(3), one socket per generation.
//   - Probe: an HTTP request, a TCP connection, or a command.
//   - Seen: nobody said anything, but the processes can be watched waiting for
//     connections on a listener. Settler says when that has held long enough.
//   - Upward: the other direction, our own word to the service manager above.
//
// It is a leaf: it starts no process, no goroutine and no timer, writes no log,
// and knows nothing of services. Whom to believe, when to look next and what
// follows from an answer is the loop's to decide.
//
// Limits. What a process does is read from /proc, which needs the rights of
// ptrace(2) (same user and dumpable, or root); where they are missing the
// answer is weaker and says so (Asleep). A child in a network namespace of its
// own is not seen by sock_diag. AF_VSOCK notify sockets are not spoken.
package ready
