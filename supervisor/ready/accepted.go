package ready

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor/sockdiag"
)

// TCP is a probe that wants its connection to be accepted. A connection that is
// established proves nothing: the kernel does that for any listener, also for
// one that we hold and nobody serves. It is accepted when a process has got a
// descriptor for its other end, which sock_diag shows as an inode. Nothing is
// sent. Unix stream sockets are probed likewise.
type TCP struct {
	Address string // for messages
	Dial    Dial

	// Tree, if not nil, gives the processes of the candidate, and one of them
	// must be the one that accepted. Needed wherever Dial can be answered by
	// somebody else: for an address that the child binds by itself.
	Tree func() []int
}

func (p *TCP) String() string { return "connect to " + p.Address }

// Try makes one connection and waits for it to be accepted. A server that closes
// it at once has accepted it too, which is believed where no Tree is given.
func (p *TCP) Try(ctx context.Context) error {
	conn, err := p.Dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	return p.accepted(ctx, conn)
}

// Owned is dial for probes that say something: the connection counts only once
// a process of the tree has accepted it, and else is an error. It is for
// addresses where somebody beside the candidate may answer: what the child
// binds by itself, and listeners that generations share.
func Owned(dial Dial, tree func() []int) Dial {
	return func(ctx context.Context) (net.Conn, error) {
		conn, err := dial(ctx)
		if err != nil {
			return nil, err
		}
		if err := (&TCP{Tree: tree}).accepted(ctx, conn); err != nil {
			_ = conn.Close()
			return nil, err
		}
		return conn, nil
	}
}

// accepted waits until the other end of conn was accepted.
func (p *TCP) accepted(ctx context.Context, conn net.Conn) error {
	pause := time.Millisecond
	var why error
	for {
		inode, err := otherEnd(conn)
		switch {
		case err == nil && inode != 0:
			if p.Tree == nil {
				return nil
			}
			if _, ok := AcceptedBy(inode, p.Tree()); ok {
				return nil
			}
			// A worker may still be on its way to another process.
			why = errors.New("accepted by a process that is not the candidate's")
		case err == nil:
			why = errors.New("connected, not accepted yet")
		default:
			why = err
		}
		if answered, err := hasAnswer(conn); err != nil {
			return err
		} else if answered && p.Tree == nil {
			return nil
		} else if answered && inode == 0 {
			return errors.New("closed before it could be seen who accepted it")
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%w: %w", context.Cause(ctx), why)
		case <-timer.C:
		}
		pause = min(2*pause, lastLook)
	}
}

// otherEnd gives the inode of the server's side of a connection, 0 while it is
// in the queue. The server is on this machine and in our network namespace.
func otherEnd(conn net.Conn) (uint32, error) {
	if conn.LocalAddr().Network() == "unix" {
		var st unix.Stat_t
		if err := onFD(conn, func(fd int) error { return unix.Fstat(fd, &st) }); err != nil {
			return 0, fmt.Errorf("cannot look at the connection: %w", err)
		}
		own, err := sockdiag.Unix(sockdiag.UnixQuery{Inode: uint32(st.Ino)})
		if err != nil || len(own) != 1 {
			return 0, err
		}
		return own[0].Peer, nil
	}
	local, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil {
		return 0, fmt.Errorf("cannot look at the connection: %w", err)
	}
	remote, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return 0, fmt.Errorf("cannot look at the connection: %w", err)
	}
	s, err := sockdiag.Lookup(sockdiag.TCP, remote, local)
	if errors.Is(err, unix.ENOENT) {
		return 0, nil
	}
	return s.Inode, err
}

// hasAnswer says that there are bytes or an end of file to read: only a process
// that accepted can have caused that. A reset is an error.
func hasAnswer(conn net.Conn) (bool, error) {
	answered := false
	err := onFD(conn, func(fd int) error {
		var b [1]byte
		_, _, err := unix.Recvfrom(fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		answered = err == nil
		if err == unix.EAGAIN || err == unix.EINTR {
			err = nil
		}
		return err
	})
	if err != nil {
		return false, fmt.Errorf("connection failed: %w", err)
	}
	return answered, nil
}

// onFD runs f with the descriptor of a connection.
func onFD(conn net.Conn, f func(fd int) error) error {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return errors.New("not a socket")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := raw.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}
