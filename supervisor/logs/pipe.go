package logs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// chunk is read at once: half of a pipe's usual capacity.
	chunk = 32 << 10

	// maxDrained bounds what drain may add to a queue that nobody takes from:
	// a pipe can be of 1 MiB at most without privilege.
	maxDrained = 2 << 20

	// closeBound is for a write that cannot be interrupted (see sink).
	closeBound = time.Second
)

// maxResync is how far the beginning of a line is looked for after output was
// dropped: what has no lines goes on somewhere.
const maxResync = 64 << 10

// pipe carries one stream (or two that are one) from the child to its
// destination. Reading happens under mu, in the copying goroutine or in drain;
// only the goroutine writes. It reads no more until what it read is written:
// that is the back-pressure. While the destination is stalled it reads all the
// same, and drops.
type pipe struct {
	r      *os.File
	raw    syscall.RawConn
	prefix string
	lines  *ring
	to     *sink
	done   chan struct{} // closed when the goroutine has ended

	mu      sync.Mutex
	tail    *tail
	buf     []byte // with a prefix: what was just read
	queue   []byte // read, not yet written
	held    []byte // with a prefix: a line that has not ended yet
	midline bool   // with a prefix: a line was too long to hold and has begun
	busy    int    // bytes being written
	eof     bool
	stalled bool // the destination takes nothing: what is read is dropped
	resync  int  // after that: how many bytes more may be dropped until a line begins
	lost    loss
	waiters []chan struct{}

	total *counter // what was dropped and reported
}

// newPipe takes ownership of r and d, on error too.
func newPipe(r int, d dest, prefix string, o Options, out *Output) (*pipe, error) {
	s, err := newSink(d, o.Patience, o.Report)
	if err != nil {
		unix.Close(r)
		return nil, err
	}
	f := os.NewFile(uintptr(r), "output")
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		s.close()
		return nil, fmt.Errorf("cannot read output: %w", err)
	}
	return &pipe{
		r: f, raw: raw, prefix: prefix, lines: out.lines, to: s,
		tail: out.lines.stream(), done: make(chan struct{}), total: &out.dropped,
	}, nil
}

// copy is the goroutine.
func (p *pipe) copy(left *countdown) {
	defer close(p.done)
	defer left.down()
	defer p.settle()
	defer p.to.end()
	for {
		if !p.write() {
			return
		}
		// One read of what there is; sleeps until there is something.
		err := p.raw.Read(func(fd uintptr) bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			if len(p.queue) > 0 || p.eof { // drain was here
				return true
			}
			return p.read(int(fd), chunk) != 0 || p.eof
		})
		if errors.Is(err, os.ErrDeadlineExceeded) {
			_ = p.r.SetReadDeadline(time.Time{}) // drain woke us
		} else if err != nil {
			p.mu.Lock()
			p.ended()
			p.mu.Unlock()
		}
	}
}

// read takes at most limit bytes into the queue and the ring; 0 if there are
// none. Called with mu held.
func (p *pipe) read(fd, limit int) int {
	limit = min(limit, chunk)
	// Without a prefix the queue is read into directly.
	old := len(p.queue)
	direct := p.prefix == "" && !p.stalled && p.resync == 0
	var into []byte
	if direct {
		p.queue = slices.Grow(p.queue, limit)
		into = p.queue[old : old+limit]
	} else {
		p.buf = slices.Grow(p.buf, limit)
		into = p.buf[:limit]
	}
	for {
		n, err := unix.Read(fd, into)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return 0
		case err != nil || n == 0:
			p.ended()
			return 0
		}
		p.lines.write(p.tail, into[:n])
		switch {
		case direct:
			p.queue = p.queue[:old+n]
		case p.stalled:
			p.lost.add(into[:n])
		default:
			p.enqueue(p.fromLine(into[:n]))
		}
		return n
	}
}

// ended notes that no more will come. Called with mu held.
func (p *pipe) ended() {
	p.eof = true
	p.endLine()
}

// fromLine drops what comes before the beginning of a line, after a stall.
// Called with mu held.
func (p *pipe) fromLine(b []byte) []byte {
	if p.resync == 0 {
		return b
	}
	n := min(len(b), p.resync)
	p.resync -= n
	if i := bytes.IndexByte(b[:n], '\n'); i >= 0 {
		n, p.resync = i+1, 0
	}
	p.lost.add(b[:n])
	return b[n:]
}

// endLine ends a line that waits for its end. Called with mu held.
func (p *pipe) endLine() {
	if p.prefix == "" || len(p.held) == 0 && !p.midline {
		return
	}
	if !p.midline {
		p.queue = append(p.queue, p.prefix...)
	}
	p.queue = append(append(p.queue, p.held...), '\n')
	p.held, p.midline = p.held[:0], false
}

// enqueue puts b into the queue, each line with its prefix. Called with mu held.
func (p *pipe) enqueue(b []byte) {
	if p.prefix == "" {
		p.queue = append(p.queue, b...)
		return
	}
	for len(b) > 0 {
		line, rest, ended := bytes.Cut(b, []byte{'\n'})
		b = rest
		p.held = append(p.held, line...)
		if !ended && len(p.held) < pieceSize {
			return
		}
		if !p.midline {
			p.queue = append(p.queue, p.prefix...)
		}
		p.queue = append(p.queue, p.held...)
		p.held, p.midline = p.held[:0], !ended
		if ended {
			p.queue = append(p.queue, '\n')
		}
	}
}

// write writes the queue; false when there is nothing more to come.
func (p *pipe) write() bool {
	var spare []byte
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.queue) > 0 {
		out := p.queue
		p.queue, p.busy = spare[:0], len(out)
		p.mu.Unlock()
		left, stalled := p.to.write(out)
		p.mu.Lock()
		p.busy = 0
		if stalled {
			p.stall(left)
			spare = nil
			continue
		}
		if p.lost.add(left); len(left) == 0 && p.resync == 0 {
			p.settleLocked() // it works again
		}
		if spare = out; cap(spare) > 4*chunk {
			spare = nil // a drain made it large
		}
	}
	if spare != nil {
		p.queue = spare[:0]
	}
	for _, w := range p.waiters {
		close(w)
	}
	p.waiters = nil
	return !p.eof
}

// stall reads on and drops what it reads until the destination has taken all
// that is kept for it: left, and what is in the queue. Called with mu held,
// which it releases meanwhile.
func (p *pipe) stall(left []byte) {
	p.queue = append(slices.Clone(left), p.queue...)
	p.stalled, p.midline = true, false
	p.lost.since = time.Now()
	// What is dropped begins with a line, where there are lines.
	i := bytes.LastIndexByte(p.queue, '\n')
	unended := i < 0
	if !unended {
		p.lost.add(p.queue[i+1:])
		p.queue = p.queue[:i+1]
	}
	p.lost.add(p.held)
	p.held = p.held[:0]
	p.mu.Unlock()
	p.to.report(&StallError{For: p.to.patience})
	err := p.raw.Control(p.stalling)
	p.mu.Lock()
	if err != nil { // closed meanwhile
		p.to.gone, p.to.left = true, true
	}
	p.stalled = false
	if p.lost.bytes > 0 {
		if p.resync = maxResync; unended {
			p.queue = append(p.queue, '\n') // else two halves would make one line
		}
	}
}

// stalling is the wait of stall. source is open until it returns.
func (p *pipe) stalling(source uintptr) {
	for {
		p.mu.Lock()
		from := int(source)
		if p.eof {
			from = -1
		}
		p.mu.Unlock()
		switch p.to.wait(from, time.Time{}) {
		case waitQuit:
			p.to.gone, p.to.left = true, true
			return
		case waitSource:
			p.mu.Lock()
			p.read(int(source), chunk)
			p.mu.Unlock()
		case waitDest:
			p.mu.Lock()
			n, err := p.to.take(p.queue)
			p.queue = p.queue[n:]
			done := len(p.queue) == 0 || err != nil && err != unix.EAGAIN
			p.mu.Unlock()
			if done {
				return
			}
		case waitTime:
		}
	}
}

// settle reports what was dropped, if that has not been done.
func (p *pipe) settle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settleLocked()
}

// settleLocked says nothing about a reader that went away: it has been said.
func (p *pipe) settleLocked() {
	if err := p.lost.settle(p.total); err != nil && (!p.to.gone || p.to.left) {
		p.to.report(err)
	}
}

// drain reads all that is in the pipe now. It stops at what was there when it
// began, for a grandchild may write faster than we read.
func (p *pipe) drain() {
	err := p.raw.Control(func(fd uintptr) {
		p.mu.Lock()
		defer p.mu.Unlock()
		n, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ)
		if err != nil {
			return
		}
		for n > 0 && !p.eof && len(p.queue) < maxDrained {
			got := p.read(int(fd), n)
			if got == 0 {
				break
			}
			n -= got
		}
	})
	if err == nil {
		p.wake()
	}
}

// wake lets the goroutine look at the queue if it sleeps in read. A past deadline
// stays until the goroutine has seen it, so no wake-up is lost.
func (p *pipe) wake() { _ = p.r.SetReadDeadline(time.Unix(1, 0)) }

// flushed is closed when the queue is empty and nothing is being written. It
// ends a held line.
func (p *pipe) flushed() <-chan struct{} {
	c := make(chan struct{})
	p.mu.Lock()
	p.endLine()
	idle := len(p.queue) == 0 && p.busy == 0
	if idle {
		close(c)
	} else {
		p.waiters = append(p.waiters, c)
	}
	p.mu.Unlock()
	if !idle {
		p.wake()
	}
	return c
}

func (p *pipe) unwritten() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.queue) + p.busy
}

// close ends the goroutine, wherever it is. One that the kernel holds in a write
// to a shared blocking destination is left to itself.
func (p *pipe) close() error {
	p.to.stop()
	err := p.r.Close() // wakes the reader with os.ErrClosed
	if errors.Is(err, os.ErrClosed) {
		return nil // closed before
	}
	select {
	case <-p.done:
		p.to.close()
	case <-time.After(closeBound):
		err = errors.Join(err, errors.New("cannot end output: a write does not return"))
	}
	return err
}

// abandon gives back what newPipe made, when no goroutine was started.
func (p *pipe) abandon() {
	p.r.Close()
	p.to.close()
}

// countdown closes a channel when all pipes are through.
type countdown struct {
	left atomic.Int32
	zero chan struct{}
}

func newCountdown(n int, zero chan struct{}) *countdown {
	c := &countdown{zero: zero}
	c.left.Store(int32(n))
	if n == 0 {
		close(zero)
	}
	return c
}

func (c *countdown) down() {
	if c.left.Add(-1) == 0 {
		close(c.zero)
	}
}
