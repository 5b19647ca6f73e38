package supervisor

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/handoff/intercept"
	"github.com/supervise/supervise/supervisor/config"
	"github.com/supervise/supervise/supervisor/listen"
	"github.com/supervise/supervise/supervisor/proc"
	"github.com/supervise/supervise/supervisor/ready"
)

// Adoption: a server that runs already, started by anything, is taken over.
// Duplicates of its listeners are had by pidfd_getfd(2) and become the first
// lanes of their sockets; it is the current generation, and the command is the
// candidate of a rollout. Until that succeeds nothing has happened to it. It is
// no child of ours: its pidfd tells when it ends, and nobody how.

// elder is a server that is to be adopted: what was taken from it.
type elder struct {
	pid, pidfd int
	taken      []taken
	sockets    []*listen.Socket // held by the set from holdElder on
}

type taken struct {
	fd int // -1 once it is the set's
	of ready.Listener
}

// findElder looks at a running server and takes duplicates of its listeners.
// Nothing happens to it. The error is a *StartError.
func (r *runner) findElder(pid int) (e *elder, err error) {
	fail := func(status int, hint, format string, args ...any) (*elder, error) {
		e.close()
		return nil, &StartError{Status: status, Err: fmt.Errorf("cannot adopt process %d: "+format, append([]any{pid}, args...)...), Hint: hint}
	}
	if pid == os.Getpid() || pid == os.Getppid() {
		return fail(ExitUsage, "give the pid of the server that is to be replaced", "it is supervise itself, or what started it")
	}
	pidfd, err := proc.Open(pid)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return fail(ExitUnavailable, "supervise why ADDRESS tells which process has an address", "no such process")
	}
	if err != nil {
		return fail(ExitPermission, "", "%w", err)
	}
	e = &elder{pid: pid, pidfd: pidfd}
	pids, err := proc.ElderTree(proc.TreeConfig{}, pid, pidfd).Pids()
	if err != nil {
		return fail(ExitUnavailable, "", "%w", err)
	}
	const permit = "run supervise as the same user (and with a kernel.yama.ptrace_scope of 0), or as root; in a container: --cap-add SYS_PTRACE"
	own, err := ready.Listening(pids)
	for _, o := range own {
		if o.Network == "udp" {
			if o.Ephemeral {
				continue // a client's, perhaps
			}
			if !r.cfg.InterceptUDP {
				return fail(ExitUsage, "write --intercept-udp, where two generations may read from one port", "it also serves udp %s, which the command could not bind beside it", o.Addr)
			}
		}
		fd, err := intercept.Take(o.PID, o.Inode)
		if err != nil {
			return fail(ExitPermission, permit, "its listener cannot be taken: %w", err)
		}
		if o.Path != "" && o.Path[0] != '@' && !filepath.IsAbs(o.Path) {
			if dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", o.PID)); err == nil {
				o.Path = filepath.Join(dir, o.Path)
			}
		}
		e.taken = append(e.taken, taken{fd: fd, of: o})
	}
	switch {
	case err != nil && len(own) == 0:
		return fail(ExitPermission, permit, "%w", err)
	case len(e.taken) == 0:
		return fail(ExitUnavailable, "give the pid of the process that serves, and run supervise in its network namespace", "neither it nor a process that it started listens on anything here")
	}
	return e, nil
}

// close gives back what was taken. It may be called of nil.
func (e *elder) close() {
	if e == nil {
		return
	}
	for i := range e.taken {
		if e.taken[i].fd >= 0 {
			_ = unix.Close(e.taken[i].fd)
			e.taken[i].fd = -1
		}
	}
	if e.pidfd >= 0 {
		_ = unix.Close(e.pidfd)
		e.pidfd = -1
	}
}

// without leaves out the configured sockets that the elder has. It may be
// called of nil.
func (e *elder) without(sockets []config.Socket) []config.Socket {
	if e == nil {
		return sockets
	}
	return slices.DeleteFunc(slices.Clone(sockets), func(c config.Socket) bool {
		return slices.ContainsFunc(e.taken, func(t taken) bool { return isOf(c, t.of) })
	})
}

// isOf reports whether a configured socket is the one that a process listens on.
func isOf(c config.Socket, o ready.Listener) bool {
	if !o.Addr.IsValid() || !c.Addr.IsValid() {
		return c.Path != "" && c.Path == o.Path
	}
	at := netip.AddrPortFrom(c.Addr.Addr().Unmap(), c.Addr.Port())
	return strings.HasPrefix(o.Network, c.Network) && at == netip.AddrPortFrom(o.Addr.Addr().Unmap(), o.Addr.Port())
}

// holdElder takes the elder's listeners into the set.
func (r *runner) holdElder() error {
	e := r.elder
	if e == nil {
		return nil
	}
	for i, t := range e.taken {
		e.taken[i].fd = -1
		one, warnings, err := r.set.Learn(listen.Inherited{FD: t.fd, Name: r.cfg.Name, Path: t.of.Path})
		for _, w := range warnings {
			r.log.Warn(w.String(), "service", r.cfg.Name)
		}
		if err != nil {
			return &StartError{Status: ExitUnavailable, Err: fmt.Errorf("cannot adopt process %d: %w", e.pid, err)}
		}
		for _, c := range r.cfg.Sockets {
			if isOf(c, t.of) {
				r.set.Announce(one, c.Name)
			}
		}
		e.sockets = append(e.sockets, one)
	}
	return nil
}

// adopt makes the elder the current generation and starts the rollout.
func (r *runner) adopt(e *elder) {
	r.elder = nil
	const first = 1
	in := &instance{of: r, n: first, pid: e.pid, pidfd: e.pidfd, access: "none", elder: true}
	in.tree = proc.ElderTree(proc.TreeConfig{Name: r.cfg.Name, Generation: first}, e.pid, e.pidfd)
	in.claimed, in.listening = map[*listen.Lane]bool{}, map[*listen.Lane]bool{}
	r.served = map[*listen.Socket]bool{}
	for _, one := range e.sockets {
		lane := one.Lanes()[0]
		in.lanes = append(in.lanes, lane)
		in.claimed[lane], in.listening[lane] = true, true
		r.served[one] = true // what the command must listen on to be ready
	}
	r.instances[in.n], r.mains[in.pid] = in, in
	if err := r.poll.add(in.pidfd, unix.EPOLLIN, func() { r.foreignMainDied(in, in.pid) }); err != nil {
		r.warn(in, "cannot watch the adopted server", err)
	}
	r.send(evElder{pid: e.pid})
}
