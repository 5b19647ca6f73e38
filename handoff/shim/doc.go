// Package shim starts a process and decides what runs between fork and exec:
// descriptors at chosen numbers, LISTEN_PID with the child's own pid, a cgroup
// from birth, limits, user, and one report that names the step that failed.
//
// os/exec cannot do this: it has no hook in the child, and its ExtraFiles go
// through (*os.File).Fd, which clears O_NONBLOCK for all holders of a
// listener. A re-executed helper can, but adds 1.6 ms to every start.
//
// How: the child runs no Go at all. Start writes a list of system calls, with
// all their arguments, into memory mapped for this one child; a few lines of
// assembly (clone_*.s) run the list in order and stop at the first failure. So
// nothing in the child can meet a lock, the garbage collector, a growing stack
// or the instrumentation of a -race or -cover build. The list is plain data and is
// tested as such.
//
// The child shares our memory (CLONE_VM), because copying page tables costs
// 0.1 ms and more, but unlike vfork(2) it has a stack of its own, and Start
// does not wait for it: an exec that hangs on a dead file server, or a child
// that was stopped on its way, does not stop the supervisor. The list stays mapped until the
// report says that the exec is done.
//
// Limits: Linux 5.10 and newer, amd64 and arm64. A child with a Credential
// makes our own memory "not dumpable" (see PR_SET_DUMPABLE in prctl(2)), as
// os/exec does: no core dump of the supervisor and no debugger without
// CAP_SYS_PTRACE from then on. This is also what keeps the child's new user
// from touching the shared memory before the exec.
package shim
