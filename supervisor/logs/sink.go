package logs

import (
	"bytes"
	"fmt"

	"golang.org/x/sys/unix"
)

// pieceSize is PIPE_BUF: a write of that size into a pipe is not mixed with
// others', and does not block once poll(2) has said POLLOUT.
const pieceSize = 4096

// sink writes to one of our own fds, which others share: its O_NONBLOCK is not
// touched. A pipe or terminal is opened once more, which gives a non-blocking
// description of our own; where that is not permitted (a container's stdout that
// belongs to root), the shared one is used, and two sinks that were told POLLOUT
// for the same last page may make one of them block. A wait can be ended through
// an eventfd, so that no goroutine is left behind.
type sink struct {
	fd      int
	own     bool // fd was opened here
	quit    int  // eventfd
	regular bool // never blocks
	socket  bool
	failing bool
	gone    bool // will never work again
	report  func(error)
}

func newSink(fd int, report func(error)) (*sink, error) {
	quit, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("cannot write output: eventfd: %w", err)
	}
	s := &sink{fd: fd, quit: quit, report: report}
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		s.regular = true // closed: the first write will say so, at once
		return s, nil
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		s.regular = true
	case unix.S_IFSOCK:
		s.socket = true
	case unix.S_IFIFO, unix.S_IFCHR:
		again, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		if err == nil {
			s.fd, s.own = again, true
		}
	}
	return s, nil
}

// write writes b, waiting as long as it takes. It never fails for its caller: a
// destination that does not work is reported and passed over.
func (s *sink) write(b []byte) {
	// What cannot block is tried first; the shared description could block.
	ask := !s.regular && !s.own && !s.socket
	for len(b) > 0 && !s.gone {
		piece := b
		if !s.regular {
			piece = b[:cut(b)]
		}
		if ask && !s.wait() {
			s.gone = true
			return
		}
		n, err := s.try(piece)
		switch err {
		case nil:
			s.failing = false
			b = b[n:]
		case unix.EINTR:
		case unix.EAGAIN:
			// Full, or another writer was faster.
			if !s.wait() {
				s.gone = true
				return
			}
		default:
			if !s.failing && s.report != nil {
				s.report(fmt.Errorf("cannot pass on output: write: %w", err))
			}
			s.failing = true
			// A full disk may have room later; a closed pipe never has.
			s.gone = err != unix.ENOSPC && err != unix.EDQUOT && err != unix.EIO
			return
		}
	}
}

func (s *sink) try(b []byte) (int, error) {
	if s.socket {
		return unix.SendmsgN(s.fd, b, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	}
	return unix.Write(s.fd, b)
}

// cut is the size of the next piece: at most PIPE_BUF, ending with a line if one
// ends in it, so that other writers come between lines.
func cut(b []byte) int {
	if len(b) <= pieceSize {
		return len(b)
	}
	if i := bytes.LastIndexByte(b[:pieceSize], '\n'); i >= 0 {
		return i + 1
	}
	return pieceSize
}

// wait sleeps until the destination takes a piece or has failed; false when stop
// was called.
func (s *sink) wait() bool {
	for {
		fds := []unix.PollFd{
			{Fd: int32(s.fd), Events: unix.POLLOUT},
			{Fd: int32(s.quit), Events: unix.POLLIN},
		}
		if _, err := unix.Poll(fds, -1); err == unix.EINTR {
			continue
		}
		// What can be written is written, also when we shall stop.
		return fds[0].Revents != 0 || fds[1].Revents == 0
	}
}

// stop ends a wait, now or later.
func (s *sink) stop() {
	_, _ = unix.Write(s.quit, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

// close comes after the writer has ended.
func (s *sink) close() {
	unix.Close(s.quit)
	if s.own {
		unix.Close(s.fd)
	}
}
