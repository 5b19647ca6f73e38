package logs

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultPatience is how long a destination may take nothing before what comes
// is dropped. A server blocked in a write to its log for longer than this would
// be a worse thing than a gap in the log.
const DefaultPatience = time.Second

// patienceInAll is how many times its patience a writer waits for one queue to
// be taken by a destination that does take something, now and then.
const patienceInAll = 5

// dest is a place for output, written to without ever waiting.
type dest interface {
	// try gives away of b what is taken at once. unix.EAGAIN says that the
	// rest has to wait until fd can be written to; another error that what is
	// left of b cannot be written now.
	try(b []byte) (n int, err error)

	// end ends a line that was taken and waits for its end.
	end()

	// fd is what poll(2) is asked about.
	fd() int

	// hopeless reports whether after err it will never work again.
	hopeless(err error) bool

	close()
}

// sink is a destination with somebody who waits for it. A wait can be ended
// through an eventfd, so that no goroutine is left behind.
type sink struct {
	dest
	quit     int // eventfd
	patience time.Duration
	failing  bool
	gone     bool // will never work again
	left     bool // gone because we gave up on it
	report   func(error)
}

// newSink takes ownership of d, on error too.
func newSink(d dest, patience time.Duration, report func(error)) (*sink, error) {
	quit, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		d.close()
		return nil, fmt.Errorf("cannot write output: eventfd: %w", err)
	}
	if patience <= 0 {
		patience = DefaultPatience
	}
	if report == nil {
		report = func(error) {}
	}
	return &sink{dest: d, quit: quit, patience: patience, report: report}, nil
}

// write writes b and waits as long as the patience lasts. What is left was not
// taken: with stalled because the destination takes nothing, else because it
// does not work, which has been reported.
func (s *sink) write(b []byte) (left []byte, stalled bool) {
	var started, last time.Time // of waiting; of progress
	for len(b) > 0 && !s.gone {
		n, err := s.take(b)
		b = b[n:]
		if err == nil {
			continue
		}
		if err != unix.EAGAIN {
			return b, false
		}
		now := time.Now()
		if started.IsZero() {
			started, last = now, now
		}
		if n > 0 {
			last = now
		}
		until := last.Add(s.patience)
		if most := started.Add(patienceInAll * s.patience); most.Before(until) {
			until = most
		}
		switch s.wait(-1, until) {
		case waitTime:
			return b, true
		case waitQuit:
			s.gone, s.left = true, true
		case waitDest, waitSource:
		}
	}
	return b, false
}

// take is try, with failures reported once until it works again.
func (s *sink) take(b []byte) (int, error) {
	if s.gone {
		return 0, unix.EPIPE
	}
	n, err := s.try(b)
	switch err {
	case nil:
		s.failing = false
	case unix.EAGAIN:
	default:
		if !s.failing {
			s.report(fmt.Errorf("cannot pass on output: write: %w", err))
		}
		s.failing = true
		s.gone = s.hopeless(err)
	}
	return n, err
}

type waited int

const (
	waitDest   waited = iota // the destination takes something, or has failed
	waitSource               // there is something to read, or its end
	waitQuit                 // stop was called
	waitTime                 // until has come
)

// wait sleeps until the destination can be written to, source (-1: none) can be
// read, stop was called, or until (zero: never) has come. What can be written is
// written, also when we shall stop.
func (s *sink) wait(source int, until time.Time) waited {
	for {
		timeout := -1
		if !until.IsZero() {
			timeout = max(0, int((time.Until(until)+time.Millisecond-1)/time.Millisecond))
		}
		fds := [...]unix.PollFd{
			{Fd: int32(s.fd()), Events: unix.POLLOUT},
			{Fd: int32(s.quit), Events: unix.POLLIN},
			{Fd: int32(source), Events: unix.POLLIN},
		}
		n, err := unix.Poll(fds[:], timeout)
		switch {
		case err == unix.EINTR:
		case err != nil || fds[0].Revents != 0:
			return waitDest // on error the write will say which
		case fds[1].Revents != 0:
			return waitQuit
		case fds[2].Revents != 0:
			return waitSource
		case n == 0:
			return waitTime
		}
	}
}

// stop ends a wait, now or later.
func (s *sink) stop() {
	_, _ = unix.Write(s.quit, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

// close comes after the writer has ended.
func (s *sink) close() {
	unix.Close(s.quit)
	s.dest.close()
}
