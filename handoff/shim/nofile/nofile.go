// Package nofile knows the RLIMIT_NOFILE that this process was started with.
//
// Go's syscall package raises the soft limit when it initialises and keeps
// the original private (os/exec gives it back to children). A supervisor that
// starts children by itself must give it back too: programs that use
// select(2), or loop over all descriptors, break or crawl under a limit of a
// million.
//
// This package imports nothing, hence is initialised before syscall: the
// language initialises, of the packages that are ready, the one whose import path sorts
// first, and "syscall" has imports that sort after our own path. A test
// holds this.
package nofile

// original is a constant of the process: read once, before any other code.
var original = read()

type limit struct{ soft, hard uint64 }

// Original returns the soft and hard limits that this process was started
// with; ok is false if they could not be read.
func Original() (soft, hard uint64, ok bool) {
	return original.soft, original.hard, original != limit{}
}

// Raised says whether soft and hard are what Go's runtime made of the
// original, so that a child should get the original back; any other value was
// set on purpose, by us or by prlimit(1) from outside. The rule is that of syscall/rlimit.go.
func Raised(soft, hard uint64) bool {
	return hard == original.hard && soft == hard-1 && original.soft < soft
}

func read() (l limit) {
	if prlimit(&l) != 0 {
		return limit{}
	}
	return l
}

// prlimit reads RLIMIT_NOFILE of this process; it returns the kernel's
// negative errno. In assembly because importing syscall is what must not be.
//
//go:noescape
func prlimit(l *limit) int
