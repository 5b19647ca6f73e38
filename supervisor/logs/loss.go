package logs

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"time"
)

// StallError is reported when a destination takes nothing any more and output
// begins to be dropped.
type StallError struct{ For time.Duration }

func (e *StallError) Error() string {
	return fmt.Sprintf("cannot pass on output: nobody took it for %s; what comes is dropped until somebody does", e.For.Round(time.Millisecond))
}

// LossError is reported when a destination takes output again, or is closed, and
// says what it did not get.
type LossError struct {
	Bytes, Lines int64
	For          time.Duration
}

func (e *LossError) Error() string {
	return fmt.Sprintf("output was dropped: %d lines, %d bytes, in %s", e.Lines, e.Bytes, e.For.Round(time.Millisecond))
}

// loss counts what was dropped since it was last reported. It belongs to whoever
// holds the lock beside it.
type loss struct {
	bytes, lines int64
	since        time.Time
}

func (l *loss) add(b []byte) {
	if len(b) == 0 {
		return
	}
	if l.bytes == 0 && l.since.IsZero() {
		l.since = time.Now()
	}
	l.bytes += int64(len(b))
	l.lines += int64(bytes.Count(b, []byte{'\n'}))
}

// settle gives the error that reports it, nil for nothing, and begins anew.
// total is added to.
func (l *loss) settle(total *counter) error {
	if l.bytes == 0 {
		l.since = time.Time{}
		return nil
	}
	e := &LossError{Bytes: l.bytes, Lines: l.lines, For: time.Since(l.since)}
	total.bytes.Add(l.bytes)
	total.lines.Add(l.lines)
	*l = loss{}
	return e
}

// counter is what was dropped in all, for status and metrics.
type counter struct{ bytes, lines atomic.Int64 }
