package logs

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	DefaultKeepLines = 40
	DefaultMaxLine   = 4 << 10
)

// Options say where the output of a generation goes. The zero value passes it to
// fd 0, so give at least Stdout and Stderr (usually 1 and 2).
type Options struct {
	Stdout, Stderr Place

	// Patience is how long a destination may take nothing before output is
	// dropped; 0 is DefaultPatience.
	Patience time.Duration

	KeepLines int // lines remembered; 0 is DefaultKeepLines, negative none
	MaxLine   int // bytes remembered of each; 0 is DefaultMaxLine

	// Pump waits for the output while there is none; nil: one of its own. It must
	// not be closed before the Output.
	Pump *Pump

	// Report is called from the copying goroutine when a destination begins to
	// fail or to stall (*StallError), once per stream until it works again, and
	// then with a *LossError. It may be nil, must not block, and must not call
	// the Output.
	Report func(error)
}

// Output is the output of one generation. Its methods may be called from any
// goroutine, except that ChildStdout, ChildStderr and Started belong to whoever
// starts the child.
type Output struct {
	stdout, stderr childEnd
	pipes          []*pipe // none, one for both, or one for each
	lines          *ring
	eof            chan struct{}
	dropped        counter
	pump           *Pump // its own, or nil
	pid            atomic.Int64
}

// childEnd is what the child gets as one of its streams.
type childEnd struct {
	fd   int
	ours bool // the write end of a pipe: closed by Started
}

// New prepares the pipes and starts the copying. The caller lends the two child
// ends to the child, calls Started when it is started (or could not be), and
// Close at the end. Errors name the stage and carry the errno.
func New(o Options) (*Output, error) {
	keep, width := o.KeepLines, o.MaxLine
	if keep == 0 {
		keep = DefaultKeepLines
	}
	if width <= 0 {
		width = DefaultMaxLine
	}
	out := &Output{lines: newRing(keep, width), eof: make(chan struct{})}

	var err error
	if o.Pump == nil && !(o.Stdout.terminal() && o.Stderr.terminal()) {
		if o.Pump, err = NewPump(); err != nil {
			return nil, err
		}
		out.pump = o.Pump
	}
	switch {
	case o.Stdout.terminal():
		out.stdout = childEnd{fd: o.Stdout.FD}
	default:
		out.stdout, err = out.addPipe(o, o.Stdout)
	}
	switch {
	case err != nil:
	case o.Stderr.terminal():
		out.stderr = childEnd{fd: o.Stderr.FD}
	case out.stdout.ours && o.Stdout.same(o.Stderr):
		out.stderr = childEnd{fd: out.stdout.fd}
	default:
		out.stderr, err = out.addPipe(o, o.Stderr)
	}
	if err != nil {
		for _, p := range out.pipes {
			p.abandon()
		}
		out.Started()
		out.closePump()
		return nil, err
	}
	left := newCountdown(len(out.pipes), out.eof)
	for _, p := range out.pipes {
		p.left = left
		go p.copy()
	}
	return out, nil
}

func (out *Output) addPipe(o Options, to Place) (childEnd, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return childEnd{}, fmt.Errorf("cannot make a pipe for output: %w", err)
	}
	// Our end only: the child's is another description and blocks, as
	// programs expect of their output.
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return childEnd{}, fmt.Errorf("cannot make a pipe for output: O_NONBLOCK: %w", err)
	}
	p, err := newPipe(fds[0], to.open(&out.pid), to.Prefix, o, out)
	if err != nil {
		unix.Close(fds[1])
		return childEnd{}, err
	}
	out.pipes = append(out.pipes, p)
	return childEnd{fds[1], true}, nil
}

// ChildStdout and ChildStderr are the fds to give the child as 1 and 2. They are
// close-on-exec and lent: do not close them. They are valid until Started.
func (out *Output) ChildStdout() int { return out.stdout.fd }

// ChildStderr: see ChildStdout. It may be the same number.
func (out *Output) ChildStderr() int { return out.stderr.fd }

// SetPID tells whose output it is, for destinations that note it: the main
// process. Before it is called nobody is named.
func (out *Output) SetPID(pid int) { out.pid.Store(int64(pid)) }

// Captured says that lines are remembered: that there is a pipe.
func (out *Output) Captured() bool { return len(out.pipes) > 0 }

// Started closes our copies of the child's ends, without which the end of the
// output would never be seen. Calling it again does nothing.
func (out *Output) Started() {
	for _, e := range []childEnd{out.stdout, out.stderr} {
		if e.ours {
			unix.Close(e.fd)
		}
	}
	out.stdout, out.stderr = childEnd{fd: -1}, childEnd{fd: -1}
}

// Drain takes what is in the pipes at this moment into memory, without waiting
// for anyone, so that Last is complete. Called when the main process has died.
// What it takes is passed on in order as soon as the destination is willing.
func (out *Output) Drain() {
	for _, p := range out.pipes {
		p.drain()
	}
}

// Last gives the last lines, at most n, oldest first, each without its line feed
// and cut to MaxLine bytes. An unterminated last line is one of them. The bytes
// are the child's: not necessarily text. Without capture there are none.
func (out *Output) Last(n int) []string { return out.lines.last(n) }

// Since gives the remembered lines that have ended after number n, oldest first,
// and a channel that is closed when there are more: for somebody who follows. A
// gap in the numbers is what was forgotten meanwhile. Without capture there are
// none, and never will be.
func (out *Output) Since(n uint64) ([]Line, <-chan struct{}) { return out.lines.since(n) }

// Dropped is what was read and not passed on, in all.
func (out *Output) Dropped() (lines, bytes int64) {
	lines, bytes = out.dropped.lines.Load(), out.dropped.bytes.Load()
	for _, p := range out.pipes {
		p.mu.Lock()
		lines, bytes = lines+p.lost.lines, bytes+p.lost.bytes
		p.mu.Unlock()
	}
	return lines, bytes
}

// Stalled reports whether a destination takes nothing, so that output is dropped.
func (out *Output) Stalled() bool {
	for _, p := range out.pipes {
		p.mu.Lock()
		stalled := p.stalled
		p.mu.Unlock()
		if stalled {
			return true
		}
	}
	return false
}

// EOF is closed when every process that could write has closed its end, and what
// it wrote has been passed on. Without capture it is closed from the beginning.
func (out *Output) EOF() <-chan struct{} { return out.eof }

// Flush drains, and waits until all that was read is written, no longer than
// until the deadline. Lines that wait for their end (with a Prefix) are ended
// and written.
func (out *Output) Flush(deadline time.Time) error {
	out.Drain()
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	late, left := false, 0
	for _, p := range out.pipes {
		flushed := p.flushed()
		if !late {
			select {
			case <-flushed:
			case <-timer.C:
				late = true
			}
		}
		left += p.unwritten()
	}
	if left > 0 {
		return fmt.Errorf("cannot flush output: %d bytes not taken in time", left)
	}
	return nil
}

// Close ends the copying and gives everything back. What was not written is
// lost: call Flush before. Who still writes into the pipe gets EPIPE and
// SIGPIPE, so it comes when the generation is gone or given up.
func (out *Output) Close() error {
	out.Started()
	var errs []error
	for _, p := range out.pipes {
		errs = append(errs, p.close())
	}
	out.closePump()
	return errors.Join(errs...)
}

func (out *Output) closePump() {
	if out.pump != nil {
		_ = out.pump.Close() // a second time it is closed already
	}
}
