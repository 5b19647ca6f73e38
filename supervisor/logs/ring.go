package logs

import (
	"bytes"
	"sync"
	"time"
)

// maxKept bounds what one generation's last lines may take, whatever the options
// say: 64 lines of full width by default.
const maxKept = 256 << 10

// Line is one remembered line of a generation.
type Line struct {
	Number uint64    // 1 for its first line
	At     time.Time // when its end was read
	Text   string    // without its line feed, cut to MaxLine bytes; not necessarily text
}

// ring remembers the last lines of several streams. Its slots are reused, so
// that a talkative child costs no garbage.
type ring struct {
	mu      sync.Mutex
	lines   []slot // next is the oldest once all are used; made when there is a first line
	keep    int    // how many there are
	next    int
	used    int
	bytes   int
	width   int
	count   uint64  // lines that have ended
	open    []*tail // streams, for their unfinished lines
	changed chan struct{}
}

type slot struct {
	at   time.Time
	text []byte
}

// tail is the unfinished last line of one stream.
type tail struct {
	text []byte // cut to width
	some bool   // there is one: it may be of length 0 only if cut is
}

func newRing(lines, width int) *ring {
	return &ring{keep: max(lines, 0), width: width}
}

// stream registers a stream.
func (r *ring) stream() *tail {
	t := &tail{}
	r.mu.Lock()
	r.open = append(r.open, t)
	r.mu.Unlock()
	return t
}

// write takes in what a stream said.
func (r *ring) write(t *tail, b []byte) {
	if r.keep == 0 || len(b) == 0 {
		return
	}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	// Of a large piece only the last lines will stay: find where they begin.
	from := len(b)
	for range r.keep + 1 {
		i := bytes.LastIndexByte(b[:from], '\n')
		if from = i; i < 0 {
			break
		}
	}
	if from >= 0 {
		t.text, t.some = t.text[:0], false
		r.count += uint64(bytes.Count(b[:from+1], []byte{'\n'}))
		b = b[from+1:]
	}
	before := r.count
	for len(b) > 0 {
		line, rest, ended := bytes.Cut(b, []byte{'\n'})
		t.text = append(t.text, line[:min(len(line), r.width-len(t.text))]...)
		t.some = true
		if ended {
			r.push(now, t.text)
			t.text, t.some = t.text[:0], false
		}
		b = rest
	}
	if r.changed != nil && r.count > before {
		close(r.changed)
		r.changed = nil
	}
}

func (r *ring) push(at time.Time, line []byte) {
	r.count++
	if r.lines == nil {
		r.lines = make([]slot, r.keep)
	}
	s := &r.lines[r.next]
	if r.used == len(r.lines) {
		r.bytes -= len(s.text)
	} else {
		r.used++
	}
	s.at, s.text = at, append(s.text[:0], line...)
	r.bytes += len(line)
	r.next = (r.next + 1) % len(r.lines)
	for r.bytes > maxKept && r.used > 1 {
		old := r.slot(r.used)
		r.bytes -= len(old.text)
		old.text = nil // give the memory back too
		r.used--
	}
}

// slot is the one of i lines before the next.
func (r *ring) slot(i int) *slot { return &r.lines[(r.next-i+len(r.lines))%len(r.lines)] }

func (r *ring) last(n int) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for i := r.used; i > 0; i-- {
		out = append(out, string(r.slot(i).text))
	}
	for _, t := range r.open {
		if t.some {
			out = append(out, string(t.text))
		}
	}
	return out[max(0, len(out)-max(n, 0)):]
}

// since gives the remembered lines after number n, oldest first, and a channel
// that is closed when there is another one.
func (r *ring) since(n uint64) ([]Line, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Line
	for i := r.used; i > 0; i-- {
		if number := r.count - uint64(i) + 1; number > n {
			s := r.slot(i)
			out = append(out, Line{Number: number, At: s.at, Text: string(s.text)})
		}
	}
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	return out, r.changed
}
