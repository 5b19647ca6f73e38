// Package intercept answers the bind(2) of a child with a listener that
// somebody else holds, so that a server that knows no handoff protocol keeps
// its port over restarts.
//
// A seccomp filter in the child reports bind and listen (and unlink, where
// unix sockets matter) to the supervisor (seccomp_unotify(2)). The supervisor
// looks at the socket, asks a [Holder] what to do, and either lets the kernel
// go on, or puts a held listener under the same fd number of the child
// (SECCOMP_IOCTL_NOTIF_ADDFD) and says that the bind was done.
//
//	[Thread]( [Install] ; fork )          one filter, one notify fd per generation
//	notify fd -> [NewServer](fd, options, holder)
//	epoll says [Server.FD] is readable -> [Server.Serve]
//
// The one rule that everything here serves: never hold a socket that could not
// be handed over again, because the held copy itself would make the next
// generation fail with EADDRINUSE. So a socket is offered to the holder at
// listen(2), and only if its bind was seen here, for a fixed address; port 0,
// a bind by io_uring, and a process that cannot be looked into are left to the
// kernel, and what is not held is a plain restart.
//
// Limits:
//   - It is a convenience and no sandbox: the child may get round the filter
//     (io_uring), and what is read from its memory may change afterwards. What
//     decides is therefore read from the socket once it is a copy of ours.
//   - A bind that is answered with a held listener is not judged by the
//     child's own Landlock rules. A port that needs CAP_NET_BIND_SERVICE is
//     only answered if the child has it.
//   - What the child attached to its socket before bind and cannot be read
//     back (BPF programs, ULPs, IP_ADD_MEMBERSHIP) is not copied.
//   - A copy of the socket in another process, made by fork before bind, goes
//     on referring to the socket that was replaced. Copies in the same fd
//     table are replaced too.
//   - One notify fd for a chain of filters: under another supervisor of this
//     kind there is none ([ErrNested]).
//   - Binds in another network namespace, and unix paths in another mount
//     namespace, are left to the kernel.
//
// Needs Linux 5.9 for ADDFD; what newer kernels add is used when there.
package intercept
