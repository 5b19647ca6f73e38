// Package portdiag answers the question behind "address already in use": who
// holds the address, and why a bind to it fails.
//
// It reads what the kernel tells everybody: sock_diag (sock_diag(7)) for the
// sockets and /proc (proc(5)) for the processes that hold them. It changes
// nothing, needs no root, and says what it could not see without it.
//
// Limits. Sockets are those of the caller's network namespace, processes
// those of its PID namespace and its /proc. The kernel does not tell since
// when a TCP or UDP socket exists, nor with which SO_REUSEADDR it was bound.
// Everything is a look at one moment; what it saw may be gone when it returns.
package portdiag
