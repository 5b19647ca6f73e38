package logs

import "sync/atomic"

// Place is where a stream goes: the first of Null, Journal and File that is set,
// else FD.
type Place struct {
	// Null: nowhere. It is remembered all the same.
	Null bool

	// Journal says what goes with each line to the journal.
	Journal *Journal

	// File is appended to. It stays the caller's, and open until Close has
	// returned.
	File *File

	// FD is one of our own. It stays the caller's, and open until Close has
	// returned. A closed one is allowed: the output is then read, remembered and
	// dropped. A terminal is lent to the child as it is, all else through a pipe.
	FD int

	// Prefix, if not "", is put before each line ("web.3 | "). Lines are then
	// passed on when they are complete, and a terminal is behind a pipe, too.
	Prefix string
}

// terminal reports whether the child gets it as it is.
func (p Place) terminal() bool {
	return !p.Null && p.Journal == nil && p.File == nil && p.Prefix == "" && isTerminal(p.FD)
}

// same reports whether two streams that go to p and q should share a pipe, which
// keeps their order.
func (p Place) same(q Place) bool {
	switch {
	case p.Prefix != q.Prefix:
		return false
	case p.Null || q.Null:
		return p.Null && q.Null
	case p.Journal != nil || q.Journal != nil:
		return p.Journal != nil && q.Journal != nil && *p.Journal == *q.Journal
	case p.File != nil || q.File != nil:
		return p.File == q.File
	}
	return sameFile(p.FD, q.FD)
}

func (p Place) open(pid *atomic.Int64) dest {
	switch {
	case p.Null:
		return nowhere{}
	case p.Journal != nil:
		return newJournalDest(*p.Journal, pid)
	case p.File != nil:
		return p.File.dest()
	}
	return newStream(p.FD)
}

// nowhere takes everything.
type nowhere struct{}

func (nowhere) try(b []byte) (int, error) { return len(b), nil }
func (nowhere) end()                      {}
func (nowhere) fd() int                   { return -1 }
func (nowhere) hopeless(error) bool       { return false }
func (nowhere) close()                    {}
