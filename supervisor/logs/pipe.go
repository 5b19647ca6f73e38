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

// pipe carries one stream (or two that are one) from the child to its
// destination. Reading happens under mu, in the copying goroutine or in drain;
// only the goroutine writes. It reads no more until what it read is written:
// that is the back-pressure.
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
	waiters []chan struct{}
}

func newPipe(r, to int, prefix string, lines *ring, report func(error)) (*pipe, error) {
	s, err := newSink(to, report)
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
		r: f, raw: raw, prefix: prefix, lines: lines, to: s,
		tail: lines.stream(), done: make(chan struct{}),
	}, nil
}

// copy is the goroutine.
func (p *pipe) copy(left *countdown) {
	defer close(p.done)
	defer left.down()
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
	var into []byte
	if p.prefix == "" {
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
		if p.prefix == "" {
			p.queue = p.queue[:old+n]
		} else {
			p.enqueue(into[:n])
		}
		return n
	}
}

// ended notes that no more will come. Called with mu held.
func (p *pipe) ended() {
	p.eof = true
	p.endLine()
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
		p.to.write(out)
		p.mu.Lock()
		p.busy = 0
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
