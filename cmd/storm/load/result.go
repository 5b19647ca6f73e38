package load

import (
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"sort"
	"time"

	"golang.org/x/sys/unix"
)

// Kind is how a request failed.
type Kind string

const (
	Refused Kind = "refused" // ECONNREFUSED; on unix also ENOENT, the path is gone
	Reset   Kind = "reset"   // ECONNRESET or EPIPE
	EOF     Kind = "eof"     // closed before any byte of the answer
	Timeout Kind = "timeout" // no answer within Options.Timeout
	Bad     Kind = "bad"     // an answer, but cut short or not the wanted one
	Local   Kind = "local"   // our own fault: no free port, no descriptor
)

// Failure is one request that failed.
type Failure struct {
	Kind      Kind      `json:"kind"`
	Began     time.Time `json:"began"` // before the connection was opened
	Ended     time.Time `json:"ended"`
	Local     string    `json:"local,omitempty"` // our address on the connection, once connected
	Remote    string    `json:"remote"`
	Connected bool      `json:"connected"`
	Sent      bool      `json:"sent"`     // the whole request was written
	Received  int       `json:"received"` // bytes of the answer
	Opened    time.Time `json:"opened"`   // when the connection was, about; zero if it never was
	Reused    bool      `json:"reused"`   // not the first request on this connection
	Phase     string    `json:"phase"`    // of Load.Mark, at the end of the request
	Err       string    `json:"error"`
}

// Error makes a Failure an error, for Ask.
func (f *Failure) Error() string {
	stage := "connect"
	switch {
	case f.Received > 0:
		stage = fmt.Sprintf("read on after %d bytes", f.Received)
	case f.Sent:
		stage = "read an answer"
	case f.Connected:
		stage = "send the request"
	}
	return fmt.Sprintf("%s: cannot %s (%s): %s", f.Remote, stage, f.Kind, f.Err)
}

// Result is what became of all requests.
type Result struct {
	OK      int64 `json:"ok"`
	Refused int64 `json:"refused"`
	Reset   int64 `json:"reset"`
	EOF     int64 `json:"eof"`
	Timeout int64 `json:"timeout"`
	Bad     int64 `json:"bad"`
	Local   int64 `json:"local"`

	// Reused are the requests, good and failed, that were not the first on
	// their connection.
	Reused int64 `json:"reused"`

	// Stale are requests on kept connections that the server closed without having
	// said so on the answer before, and without any byte of an answer. A client
	// may make them again if they are idempotent (RFC 9112, 9.3.1); this one does so
	// with Options.Repeat, and otherwise they are failures.
	Stale int64 `json:"stale"`

	// Moved are requests of HTTP/2 that the server declared as not processed
	// (GOAWAY, REFUSED_STREAM) and that were made again on a new connection. They
	// are no failures: the protocol has a way to say so.
	Moved int64 `json:"moved"`

	Failures []Failure `json:"failures,omitempty"` // in order of Ended, at most Options.KeepFailures

	Elapsed time.Duration `json:"elapsed_ns"`
	Max     time.Duration `json:"max_ns"` // of good requests, exact
	Slowest Slow          `json:"slowest"`
	P50     time.Duration `json:"p50_ns"` // these are at most 3 % too high
	P99     time.Duration `json:"p99_ns"`
	P999    time.Duration `json:"p999_ns"`

	Answered map[int]int64 `json:"answered,omitempty"` // good answers per pid, where the answer tells it
}

// Slow tells of the good request that took Result.Max. A Connect of one second
// and more is a handshake that was dropped and sent again; else it was the
// server, or the queue before it, that took the time.
type Slow struct {
	Began   time.Time     `json:"began"`
	Connect time.Duration `json:"connect_ns"`
	Phase   string        `json:"phase"` // of Load.Mark, when the answer had come
}

// Failed is the number of all failures.
func (r Result) Failed() int64 {
	return r.Refused + r.Reset + r.EOF + r.Timeout + r.Bad + r.Local
}

// Total is the number of all requests.
func (r Result) Total() int64 { return r.OK + r.Failed() }

func (r *Result) count(k Kind) {
	switch k {
	case Refused:
		r.Refused++
	case Reset:
		r.Reset++
	case EOF:
		r.EOF++
	case Timeout:
		r.Timeout++
	case Bad:
		r.Bad++
	case Local:
		r.Local++
	}
}

func (l *Load) sum(workers []*worker) Result {
	r := Result{Elapsed: time.Since(l.began), Answered: map[int]int64{}, Failures: l.failures}
	var times histogram
	for _, w := range workers {
		r.OK += w.result.OK
		r.Refused += w.result.Refused
		r.Reset += w.result.Reset
		r.EOF += w.result.EOF
		r.Timeout += w.result.Timeout
		r.Bad += w.result.Bad
		r.Local += w.result.Local
		r.Reused += w.result.Reused
		r.Stale += w.result.Stale
		r.Moved += w.result.Moved
		if w.result.Max > r.Max {
			r.Max, r.Slowest = w.result.Max, w.result.Slowest
		}
		for pid, n := range w.result.Answered {
			r.Answered[pid] += n
		}
		times.merge(&w.times)
	}
	r.P50 = min(times.at(0.50), r.Max)
	r.P99 = min(times.at(0.99), r.Max)
	r.P999 = min(times.at(0.999), r.Max)
	sort.Slice(r.Failures, func(i, j int) bool { return r.Failures[i].Ended.Before(r.Failures[j].Ended) })
	return r
}

// kindOf tells what an error of dialling, writing or reading means.
func kindOf(err error, received int) Kind {
	switch {
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ENOENT):
		return Refused
	case errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		return Reset
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, unix.ETIMEDOUT):
		return Timeout
	case errors.Is(err, io.EOF) && received == 0:
		return EOF
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, new(badAnswer)):
		return Bad
	}
	var t interface{ Timeout() bool }
	if errors.As(err, &t) && t.Timeout() {
		return Timeout
	}
	return Local
}

// histogram counts durations in buckets of at most 1/32 of their value, so
// that it needs no memory per request: 60 powers of two of 32 buckets.
type histogram [60 * 32]int64

func bucket(d time.Duration) int {
	v := uint64(max(d, 0))
	if v < 32 {
		return int(v)
	}
	shift := bits.Len64(v) - 6
	return (shift+1)*32 + int(v>>shift) - 32
}

// top is the largest duration of a bucket.
func top(bucket int) time.Duration {
	if bucket < 32 {
		return time.Duration(bucket)
	}
	shift := bucket/32 - 1
	return time.Duration((uint64(bucket%32)+33)<<shift - 1)
}

func (h *histogram) merge(o *histogram) {
	for i, n := range o {
		h[i] += n
	}
}

func (h *histogram) at(quantile float64) time.Duration {
	var total, seen int64
	for _, n := range h {
		total += n
	}
	for i, n := range h {
		seen += n
		if total > 0 && float64(seen) >= quantile*float64(total) {
			return top(i)
		}
	}
	return 0
}
