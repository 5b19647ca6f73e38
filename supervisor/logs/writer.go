package logs

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"time"
)

// maxWaiting bounds what a Writer keeps for a reader that is slow.
const maxWaiting = 256 << 10

// Writer writes our own log to one of our fds and never makes its caller wait:
// whoever decides must not hang because nobody reads what it says. What is not
// taken at once is kept, up to 256 KiB, and written by a goroutine that lives as
// long as something waits; what is more than that is dropped, whole writes of it,
// and a line at that place says how much.
//
// Its methods may be called from any goroutine.
type Writer struct {
	mu      sync.Mutex
	to      *sink
	queue   []byte
	writing bool // the goroutine lives
	idle    chan struct{}
	lost    loss
	closed  bool
	gap     func(lines int64) string
}

// NewWriter writes to fd, which stays the caller's. gap words a line, with its
// line feed, that stands where lines of the log were dropped.
func NewWriter(fd int, gap func(lines int64) string) (*Writer, error) {
	s, err := newSink(newStream(fd), 0, nil)
	if err != nil {
		return nil, err
	}
	return &Writer{to: s, gap: gap}, nil
}

// Write takes all of b, always: nobody is there to be told that a log fails.
func (w *Writer) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return len(b), nil
	}
	rest := b
	if !w.writing && len(w.queue) == 0 {
		n, _ := w.to.take(b)
		rest = b[n:]
		if len(rest) == 0 || w.to.failing || w.to.gone {
			return len(b), nil
		}
	}
	if len(w.queue)+len(rest) > maxWaiting {
		w.lost.add(rest)
		return len(b), nil
	}
	w.note()
	w.queue = append(w.queue, rest...)
	if !w.writing {
		w.writing, w.idle = true, make(chan struct{})
		go w.drain(w.idle)
	}
	return len(b), nil
}

// note says in the log what is missing from it. Called with mu held.
func (w *Writer) note() {
	var total counter
	var e *LossError
	if errors.As(w.lost.settle(&total), &e) {
		w.queue = append(w.queue, w.gap(e.Lines)...)
	}
}

// drain is the goroutine: it waits as long as it takes.
func (w *Writer) drain(idle chan struct{}) {
	defer close(idle)
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		n, _ := w.to.take(w.queue)
		w.queue = w.queue[n:]
		if len(w.queue) == 0 || w.to.failing || w.to.gone {
			if w.note(); len(w.queue) > 0 && !w.to.failing && !w.to.gone {
				continue
			}
			w.queue, w.writing = nil, false
			return
		}
		w.mu.Unlock()
		why := w.to.wait(-1, time.Time{})
		w.mu.Lock()
		if why == waitQuit {
			w.queue, w.writing = nil, false
			return
		}
	}
}

// Close waits until what was written is taken, no longer than until the deadline,
// and ends. What is left is lost: how many lines, the error says.
func (w *Writer) Close(deadline time.Time) error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return nil
	}
	w.closed = true
	idle := w.idle
	w.mu.Unlock()
	var err error
	if idle != nil {
		timer := time.NewTimer(time.Until(deadline))
		defer timer.Stop()
		select {
		case <-idle:
		case <-timer.C:
			w.mu.Lock()
			if left := bytes.Count(w.queue, []byte{'\n'}); left > 0 {
				err = fmt.Errorf("cannot write log: %d lines not taken in time", left)
			}
			w.mu.Unlock()
			w.to.stop()
			<-idle
		}
	}
	w.to.close()
	return err
}
