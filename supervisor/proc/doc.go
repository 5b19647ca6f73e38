// Package proc is one process tree and how it ends: who belongs to a
// generation, signals that cannot hit a stranger, the end of all of it, and
// the reaping of what died.
//
// Two ways to know who belongs to a generation. With a cgroup v2 directory of
// its own the kernel knows, and cgroup.kill ends all of it at once. Without
// one (no cgroup v2, read-only, not delegated) membership is put together from what /proc
// tells, see Tree, and ending is a chase that is repeated until nobody is found.
//
// The supervisor is one goroutine around one epoll instance. Nothing here
// starts a goroutine, blocks, or logs: descriptors are handed out for epoll,
// and calls return what is left to do.
//
// No process is signalled by number, with one exception: the process group
// of a main process that is not reaped yet, whose number cannot be reused. All others are opened as
// a pidfd first, looked at second and signalled third: what was looked at is
// then what is signalled, or nothing is.
//
// Limits: a privileged process can leave its cgroup for one outside of the
// tree, and is then not found. Without a cgroup, a process that cleared its
// environment, left process group and session, and lost its parents, all
// before anyone looked, is told apart only by being the sole tree or by its
// start time.
package proc
