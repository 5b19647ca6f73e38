// Package signs guesses from a program's file which handoff library was linked
// into it, so that the right protocol can be chosen before it runs.
//
// Only Go programs are looked into: the protocols that cannot be offered to everybody
// are those of Go libraries. Whether it is one costs a few reads of a page. The
// module list that the Go linker leaves in the file then answers mostly; where it
// names the library, or where there is none, the text that the library looks for in its
// environment is searched for in the read-only data, about 1 ms for 10 MB.
//
// Limits: it is a guess, and the user's word beats it. A packed file (UPX), a
// script and a wrapper show nothing. A copy of a library under another name is
// found by its text only where there is no module list.
package signs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Signs are what was found.
type Signs struct {
	Tableflip bool // github.com/cloudflare/tableflip, and not our library, which has it in it
	Grace     bool // github.com/facebookgo/grace: with LISTEN_FDS it ends its parent
}

const (
	searchLimit = 256 << 20 // bytes of read-only data looked at
	searchChunk = 256 << 10
	infoLimit   = 64 << 10 // bytes at the start of the data segment in which the module list stands
)

// library is what one of them looks like.
type library struct {
	module string // last words of its path in the module list; a fork keeps them
	text   string // in the read-only data
}

var (
	tableflip = library{module: "/tableflip", text: "TABLEFLIP_HAS_PARENT_7DIU3"}
	grace     = library{module: "facebookgo/grace", text: "facebookgo/grace/grace"} // in the names of its functions
	ours      = "github.com/supervise/supervise/handoff."
)

// Of looks into the file at path. What cannot be read, and what is no Go program,
// shows nothing.
func Of(path string) Signs {
	// Without O_NONBLOCK a FIFO would hold us until somebody writes.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return Signs{}
	}
	defer f.Close()
	return look(f)
}

// look finds the signs in an ELF file.
func look(f io.ReaderAt) Signs {
	p, ok := read(f)
	if !ok || !p.isGo(f) {
		return Signs{}
	}
	modules, known := p.modules(f)
	find := func(l library) bool {
		return (!known || bytes.Contains(modules, []byte(l.module))) && p.contains(f, l.text)
	}
	return Signs{Tableflip: find(tableflip) && !p.contains(f, ours), Grace: find(grace)}
}

// program is the part of an ELF file that matters here.
type program struct {
	notes, readonly, data []span
}

// Of elf(5); debug/elf is 0.3 MB and reads far more of a file.
const (
	class64      = 2 // ELFCLASS64
	littleEndian = 1 // ELFDATA2LSB
	typeLoad     = 1 // PT_LOAD
	typeNote     = 4 // PT_NOTE
	mayExecute   = 1 // PF_X
	mayWrite     = 2 // PF_W
)

type span struct{ off, size int64 }

// read takes the program headers of a 64- or 32-bit little-endian ELF file.
func read(f io.ReaderAt) (p program, ok bool) {
	var head [64]byte
	if n, err := f.ReadAt(head[:], 0); n < 52 || err != nil && !errors.Is(err, io.EOF) || string(head[:4]) != "\x7fELF" || head[5] != littleEndian {
		return p, false
	}
	le := binary.LittleEndian
	wide := head[4] == class64
	off, size, n := int64(le.Uint32(head[28:])), int(le.Uint16(head[42:])), int(le.Uint16(head[44:]))
	if wide {
		off, size, n = int64(le.Uint64(head[32:])), int(le.Uint16(head[54:])), int(le.Uint16(head[56:]))
	}
	least := 32
	if wide {
		least = 56
	}
	if size < least || n > 128 || off <= 0 {
		return p, false
	}
	table := make([]byte, size*n)
	if _, err := f.ReadAt(table, off); err != nil {
		return p, false
	}
	for ; len(table) > 0; table = table[size:] {
		kind, flags := le.Uint32(table), uint32(0)
		var s span
		if wide {
			flags, s = le.Uint32(table[4:]), span{int64(le.Uint64(table[8:])), int64(le.Uint64(table[32:]))}
		} else {
			flags, s = le.Uint32(table[24:]), span{int64(le.Uint32(table[4:])), int64(le.Uint32(table[16:]))}
		}
		switch {
		case s.off < 0 || s.size <= 0:
		case kind == typeNote:
			p.notes = append(p.notes, s)
		case kind == typeLoad && flags&mayWrite != 0:
			p.data = append(p.data, s)
		case kind == typeLoad && flags&mayExecute == 0:
			p.readonly = append(p.readonly, s)
		}
	}
	return p, true
}

// isGo finds the note that holds the Go build id (name "Go", type 4).
func (p *program) isGo(f io.ReaderAt) bool {
	const name = "\x04\x00\x00\x00Go\x00\x00"
	for _, s := range p.notes {
		note := make([]byte, min(s.size, 4096))
		n, _ := f.ReadAt(note, s.off)
		if bytes.Contains(note[:n], []byte(name)) {
			return true
		}
	}
	return false
}

// modules gives the module list (debug/buildinfo: magic, pointer size, flags,
// then at 32 two strings, each with its length before it). Known is false where
// there is none, as without modules and with some other build tools.
func (p *program) modules(f io.ReaderAt) (list []byte, known bool) {
	const magic = "\xff Go buildinf:"
	for _, s := range p.data {
		b := make([]byte, min(s.size, infoLimit))
		n, _ := f.ReadAt(b, s.off)
		b = b[:n]
		at := bytes.Index(b, []byte(magic))
		if at < 0 || len(b) < at+32 || b[at+15]&2 == 0 { // before Go 1.18 there are pointers
			continue
		}
		b = b[at+32:]
		for range 2 {
			size, n := binary.Uvarint(b)
			if n <= 0 || size > uint64(len(b)-n) {
				return nil, false // a long one: let the text decide
			}
			list, b = b[n:n+int(size)], b[n+int(size):]
		}
		return list, len(list) > 0
	}
	return nil, false
}

// contains searches the read-only data.
func (p *program) contains(f io.ReaderAt, text string) bool {
	buf := make([]byte, searchChunk+len(text))
	left := int64(searchLimit)
	for _, s := range p.readonly {
		kept := 0
		for at := int64(0); at < s.size && left > 0; {
			n, err := f.ReadAt(buf[kept:min(int64(len(buf)), int64(kept)+s.size-at)], s.off+at)
			b := buf[:kept+n]
			if bytes.Contains(b, []byte(text)) {
				return true
			}
			if err != nil || n == 0 {
				break
			}
			at, left = at+int64(n), left-int64(n)
			kept = copy(buf, b[max(0, len(b)-len(text)+1):])
		}
	}
	return false
}

// Cache remembers what files showed, by the file and not by its name: a deploy
// that replaces it is seen. The zero value is empty. Its methods may be called by
// several goroutines.
type Cache struct {
	mu    sync.Mutex
	known map[identity]Signs
}

type identity struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
}

// cacheSize bounds the files that are remembered: one service has one or two.
const cacheSize = 64

// Of is the function Of, once for each file.
func (c *Cache) Of(path string) Signs {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return Signs{}
	}
	id := identity{st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim}
	c.mu.Lock()
	defer c.mu.Unlock() // also while it is looked at: the second who asks waits for the first
	if s, ok := c.known[id]; ok {
		return s
	}
	s := Of(path)
	if c.known == nil || len(c.known) >= cacheSize {
		c.known = map[identity]Signs{}
	}
	c.known[id] = s
	return s
}
