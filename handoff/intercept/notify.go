package intercept

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The structures of linux/seccomp.h, which x/sys does not have. The sizes are
// part of the ioctl numbers and tested against them.
type (
	seccompData struct {
		Nr   int32
		Arch uint32
		IP   uint64
		Args [6]uint64
	}
	seccompNotif struct {
		ID    uint64
		PID   uint32 // a thread id, in our pid namespace; 0 if it has none there
		Flags uint32
		Data  seccompData
	}
	seccompNotifResp struct {
		ID    uint64
		Val   int64
		Error int32 // negative errno
		Flags uint32
	}
	seccompNotifAddfd struct {
		ID         uint64
		Flags      uint32
		SrcFD      uint32
		NewFD      uint32
		NewFDFlags uint32
	}
)

// Notification is one system call that waits for an answer.
type Notification struct {
	ID   uint64
	TID  int // the calling thread; not necessarily a process id
	Arch uint32
	Nr   int32
	Args [6]uint64
}

// ErrGone means that the call is no longer waiting: its thread was killed or
// interrupted.
var ErrGone = errors.New("the call is gone")

// Conn is the supervisor's end of one filter. It is used by one goroutine.
type Conn struct {
	fd int
}

// NewConn adopts notifyFD.
func NewConn(notifyFD int) *Conn { return &Conn{fd: notifyFD} }

// FD is the notify fd, for epoll: EPOLLIN says that a call waits, EPOLLHUP that
// nobody is left who has the filter, which is an exact "generation empty".
// Close closes it.
func (c *Conn) FD() int { return c.fd }

// Close closes the notify fd. A call that waits, and every later one, fails
// with ENOSYS in the child.
func (c *Conn) Close() error {
	if c.fd < 0 {
		return nil
	}
	err := unix.Close(c.fd)
	c.fd = -1
	return err
}

// Poll tells what epoll would, waiting for at most timeout milliseconds (-1:
// for ever).
func (c *Conn) Poll(timeout int) (ready, empty bool, err error) {
	fds := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, timeout)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return false, false, fmt.Errorf("cannot poll the notify fd: %w", err)
		}
		return fds[0].Revents&unix.POLLIN != 0, fds[0].Revents&unix.POLLHUP != 0, nil
	}
}

// Recv takes one waiting call. ok is false if there is none any more, which
// happens when a caller is killed between EPOLLIN and here. It does not block
// if the notify fd was readable and nobody else reads it.
func (c *Conn) Recv() (n Notification, ok bool, err error) {
	for {
		var req seccompNotif // must be all zero
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(c.fd), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&req)))
		switch errno {
		case 0:
			return Notification{ID: req.ID, TID: int(req.PID), Arch: req.Data.Arch, Nr: req.Data.Nr, Args: req.Data.Args}, true, nil
		case unix.EINTR:
		case unix.ENOENT:
			return Notification{}, false, nil
		default:
			return Notification{}, false, fmt.Errorf("cannot receive a call: %w", errno)
		}
	}
}

// Valid tells whether the call still waits. What was read about its thread
// before, by thread id, was then really about it.
func (c *Conn) Valid(id uint64) bool {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(c.fd), unix.SECCOMP_IOCTL_NOTIF_ID_VALID, uintptr(unsafe.Pointer(&id)))
	return errno == 0
}

// Reply answers the call: it returns val, or fails with errno if that is not
// 0. The error is ErrGone if nobody waits any more.
func (c *Conn) Reply(id uint64, val int64, errno unix.Errno) error {
	resp := seccompNotifResp{ID: id, Val: val, Error: -int32(errno)}
	if errno != 0 {
		resp.Val = 0
	}
	return c.send(&resp)
}

// Continue lets the kernel carry the call out as if there were no filter. The
// caller may have changed the memory behind its pointers since we looked.
func (c *Conn) Continue(id uint64) error {
	return c.send(&seccompNotifResp{ID: id, Flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE})
}

func (c *Conn) send(resp *seccompNotifResp) error {
	return c.ioctl("answer a call", unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(resp))
}

// AddFD puts a copy of our fd under number target of the caller, as dup3(2)
// would: what was there is closed. The call still waits for its answer.
func (c *Conn) AddFD(id uint64, fd, target int, cloexec bool) error {
	add := seccompNotifAddfd{ID: id, Flags: unix.SECCOMP_ADDFD_FLAG_SETFD, SrcFD: uint32(fd), NewFD: uint32(target)}
	if cloexec {
		add.NewFDFlags = unix.O_CLOEXEC
	}
	return c.ioctl("put a listener into the child", unix.SECCOMP_IOCTL_NOTIF_ADDFD, unsafe.Pointer(&add))
}

func (c *Conn) ioctl(what string, req uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(c.fd), req, uintptr(arg))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		case unix.ENOENT:
			return ErrGone
		default:
			return fmt.Errorf("cannot %s: %w", what, errno)
		}
	}
}
