package intercept

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// transplant registers our listener in the epoll sets of the child where the
// socket that it replaced was registered, with the same events and data. A
// server that calls epoll_ctl before bind would be deaf without.
//
// The kernel keys a registration by open file and fd NUMBER, and looks the
// number up in the table of the caller. So it is done by a thread with an fd
// table of its own, in which the listener stands under the child's number.
func (t thread) transplant(listener int, watches []watch) error {
	if len(watches) == 0 {
		return nil
	}
	return Thread(func() error {
		// The copied table keeps every fd of ours open until this thread ends,
		// which is at once.
		if err := unix.Unshare(unix.CLONE_FILES); err != nil {
			return fmt.Errorf("cannot unshare the fd table: %w", err)
		}
		var failed error
		for _, w := range watches {
			if err := t.register(listener, w); err != nil {
				failed = errors.Join(failed, err)
			}
		}
		return failed
	})
}

// register does it for one set, in a fd table that nobody else uses.
func (t thread) register(listener int, w watch) error {
	fail := func(err error) error {
		return fmt.Errorf("cannot move a registration to epoll fd %d of thread %d: %w", w.epoll, t.tid, err)
	}
	ep, err := t.getfd(w.epoll)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = unix.Close(ep) }()
	// Both out of the way of the number that will be overwritten.
	above := w.fd + 1
	high, err := unix.FcntlInt(uintptr(ep), unix.F_DUPFD_CLOEXEC, above)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = unix.Close(high) }()
	held, err := unix.FcntlInt(uintptr(listener), unix.F_DUPFD_CLOEXEC, above)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = unix.Close(held) }()
	if err := unix.Dup3(held, w.fd, unix.O_CLOEXEC); err != nil {
		return fail(err)
	}
	if err := epollAdd(high, w.fd, w.events, w.data); err != nil && err != unix.EEXIST {
		return fail(err)
	}
	return nil
}

func epollAdd(ep, fd int, events uint32, data uint64) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(uint32(data)), Pad: int32(uint32(data >> 32))}
	return unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &ev)
}
