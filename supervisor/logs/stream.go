package logs

import (
	"bytes"
	"fmt"

	"golang.org/x/sys/unix"
)

// pieceSize is PIPE_BUF: a write of that size into a pipe is not mixed with
// others', and does not block once poll(2) has said POLLOUT.
const pieceSize = 4096

// stream is one of our own fds as a destination. Others share it: its O_NONBLOCK
// is not touched. A pipe or terminal is opened once more, which gives a
// non-blocking description of our own; where that is not permitted (a container's
// stdout that belongs to root), the shared one is used, and two writers that were
// told POLLOUT for the same last page may make one of them block.
type stream struct {
	to      int
	own     bool // to was opened here
	regular bool // never blocks
	socket  bool
}

func newStream(fd int) *stream {
	s := &stream{to: fd}
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		s.regular = true // closed: the first write will say so, at once
		return s
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		s.regular = true
	case unix.S_IFSOCK:
		s.socket = true
	case unix.S_IFIFO, unix.S_IFCHR:
		again, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		if err == nil {
			s.to, s.own = again, true
		}
	}
	return s
}

func (s *stream) fd() int { return s.to }
func (s *stream) end()    {}

func (s *stream) close() {
	if s.own {
		unix.Close(s.to)
	}
}

// hopeless: a full disk may have room later; a closed pipe never has.
func (s *stream) hopeless(err error) bool {
	return err != unix.ENOSPC && err != unix.EDQUOT && err != unix.EIO
}

func (s *stream) try(b []byte) (int, error) {
	done := 0
	for done < len(b) {
		piece := b[done:]
		if !s.regular {
			piece = piece[:cut(piece)]
			if !s.own && !s.socket && !s.writable() {
				return done, unix.EAGAIN
			}
		}
		n, err := s.write(piece)
		if err == unix.EINTR {
			continue
		}
		done += max(n, 0)
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

func (s *stream) write(b []byte) (int, error) {
	if s.socket {
		return unix.SendmsgN(s.to, b, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	}
	return unix.Write(s.to, b)
}

// writable asks before a write to a shared description, which could block.
func (s *stream) writable() bool {
	fds := [...]unix.PollFd{{Fd: int32(s.to), Events: unix.POLLOUT}}
	n, err := unix.Poll(fds[:], 0)
	return n != 0 || err != nil
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
