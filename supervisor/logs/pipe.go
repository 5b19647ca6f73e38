package logs

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
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

// scratches are what pipes read into: one for each read under way, not one for
// each pipe.
var scratches = sync.Pool{New: func() any { return new([chunk]byte) }}

// maxResync is how far the beginning of a line is looked for after output was
// dropped: what has no lines goes on somewhere.
const maxResync = 64 << 10

// pipe carries one stream (or two that are one) from the child to its
// destination. Reading happens under mu, in the copying goroutine or in drain;
// only the goroutine writes. It reads no more until what it read is written:
// that is the back-pressure. While the destination is stalled it reads all the
// same, and drops. While nothing comes there is no goroutine: the pipe is parked
// with the Pump, which starts one when there is something to read.
type pipe struct {
	fd     int // closed when all has been copied and close was called
	prefix string
	lines  *ring
	to     *sink
	done   chan struct{} // closed when all has been copied, or the pipe was closed
	left   *countdown
	pump   *Pump

	mu      sync.Mutex
	tail    *tail
	queue   []byte // read, not yet written
	held    []byte // with a prefix: a line that has not ended yet
	midline bool   // with a prefix: a line was too long to hold and has begun
	busy    int    // bytes being written
	eof     bool
	parked  uint64 // number at the pump; 0: the goroutine runs, or has ended
	closed  bool
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
	return &pipe{
		fd: r, prefix: prefix, lines: out.lines, to: s,
		tail: out.lines.stream(), done: make(chan struct{}), total: &out.dropped, pump: o.Pump,
	}, nil
}

// copy is the goroutine. It ends when nothing more can come, and when there is
// nothing now.
func (p *pipe) copy() {
	busy := false // something came since it lingered
	for p.write() {
		p.mu.Lock()
		nothing := len(p.queue) == 0 && !p.eof && p.read(p.fd, chunk) == 0 && !p.eof
		if nothing && busy && !p.closed {
			p.mu.Unlock()
			busy = false
			p.linger()
			continue
		}
		parked := nothing && p.park()
		p.mu.Unlock()
		if parked {
			return
		}
		busy = true
	}
	p.through()
}

// lingerFor is how long more is waited for after something came. To park and to
// be woken costs four system calls and a goroutine, for each write of a child
// that writes much.
const lingerFor = time.Millisecond

func (p *pipe) linger() {
	fds := [...]unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
	_, _ = unix.Poll(fds[:], int(lingerFor/time.Millisecond))
}

// park ends the goroutine until there is something to read. Called with mu held.
func (p *pipe) park() bool {
	if p.closed {
		p.eof = true
		return false
	}
	id, err := p.pump.park(p.fd, p.wake)
	if err != nil {
		p.to.report(fmt.Errorf("cannot wait for output: %w", err))
		p.eof = true
		return false
	}
	p.parked = id
	// Nothing is kept while nothing comes: there may be thousands of pipes.
	p.queue = nil
	if p.held = p.held[:len(p.held):len(p.held)]; len(p.held) == 0 {
		p.held = nil
	}
	return true
}

// wake starts the goroutine if it is parked.
func (p *pipe) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.parked == 0 {
		return // it runs, or has ended: it looks at the queue before it parks
	}
	p.pump.unpark(p.parked)
	p.parked = 0
	go p.copy()
}

// through is the end of the copying.
func (p *pipe) through() {
	p.to.end()
	p.settle()
	p.left.down()
	close(p.done)
}

// read takes at most limit bytes into the queue and the ring; 0 if there are
// none. Called with mu held.
func (p *pipe) read(fd, limit int) int {
	scratch := scratches.Get().(*[chunk]byte)
	defer scratches.Put(scratch)
	into := scratch[:min(limit, chunk)]
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
		spare = out
	}
	p.queue = nil
	if cap(spare) <= 4*chunk { // else a drain made it large
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
	p.stalling()
	p.mu.Lock()
	p.stalled = false
	if p.lost.bytes > 0 {
		if p.resync = maxResync; unended {
			p.queue = append(p.queue, '\n') // else two halves would make one line
		}
	}
}

// stalling is the wait of stall.
func (p *pipe) stalling() {
	for {
		p.mu.Lock()
		from := p.fd
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
			p.read(p.fd, chunk)
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
	p.mu.Lock()
	if !p.closed {
		n, err := unix.IoctlGetInt(p.fd, unix.TIOCINQ)
		for err == nil && n > 0 && !p.eof && len(p.queue) < maxDrained {
			got := p.read(p.fd, n)
			if got == 0 {
				break
			}
			n -= got
		}
	}
	queued := len(p.queue) > 0
	p.mu.Unlock()
	if queued {
		p.wake()
	}
}

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

// close ends the copying, wherever it is. A goroutine that the kernel holds in a
// write to a shared blocking destination is left to itself.
func (p *pipe) close() error {
	p.mu.Lock()
	before := p.closed
	p.closed = true
	p.mu.Unlock()
	if before {
		return nil
	}
	p.to.stop()
	p.wake() // it ends then
	select {
	case <-p.done:
		p.to.close()
		if err := unix.Close(p.fd); err != nil {
			return fmt.Errorf("cannot close output: %w", err)
		}
		return nil
	case <-time.After(closeBound):
		return errors.New("cannot end output: a write does not return")
	}
}

// abandon gives back what newPipe made, when no goroutine was started.
func (p *pipe) abandon() {
	_ = unix.Close(p.fd)
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
