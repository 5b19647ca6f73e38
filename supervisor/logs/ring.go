package logs

import (
	"bytes"
	"sync"
)

// maxKept bounds what one generation's last lines may take, whatever the options
// say: 64 lines of full width by default.
const maxKept = 256 << 10

// ring remembers the last lines of several streams. Its slots are reused, so
// that a talkative child costs no garbage.
type ring struct {
	mu    sync.Mutex
	lines [][]byte // slots; next is the oldest once all are used
	next  int
	used  int
	bytes int
	width int
	open  []*tail // streams, for their unfinished lines
}

// tail is the unfinished last line of one stream.
type tail struct {
	text []byte // cut to width
	some bool   // there is one: it may be of length 0 only if cut is
}

func newRing(lines, width int) *ring {
	return &ring{lines: make([][]byte, max(lines, 0)), width: width}
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
	if len(r.lines) == 0 || len(b) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	// Of a large piece only the last lines will stay: find where they begin.
	from := len(b)
	for range len(r.lines) + 1 {
		i := bytes.LastIndexByte(b[:from], '\n')
		if from = i; i < 0 {
			break
		}
	}
	if from >= 0 {
		t.text, t.some = t.text[:0], false
		b = b[from+1:]
	}
	for len(b) > 0 {
		line, rest, ended := bytes.Cut(b, []byte{'\n'})
		t.text = append(t.text, line[:min(len(line), r.width-len(t.text))]...)
		t.some = true
		if ended {
			r.push(t.text)
			t.text, t.some = t.text[:0], false
		}
		b = rest
	}
}

func (r *ring) push(line []byte) {
	slot := &r.lines[r.next]
	if r.used == len(r.lines) {
		r.bytes -= len(*slot)
	} else {
		r.used++
	}
	*slot = append((*slot)[:0], line...)
	r.bytes += len(line)
	r.next = (r.next + 1) % len(r.lines)
	for r.bytes > maxKept && r.used > 1 {
		old := &r.lines[(r.next-r.used+len(r.lines))%len(r.lines)]
		r.bytes -= len(*old)
		*old = nil // give the memory back too
		r.used--
	}
}

func (r *ring) last(n int) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for i := r.used; i > 0; i-- {
		out = append(out, string(r.lines[(r.next-i+len(r.lines))%len(r.lines)]))
	}
	for _, t := range r.open {
		if t.some {
			out = append(out, string(t.text))
		}
	}
	return out[max(0, len(out)-max(n, 0)):]
}
