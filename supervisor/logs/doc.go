// Package logs takes the output of one generation to where it belongs, and
// remembers the last lines of it, to be told when the generation fails.
//
// # Where it goes
//
// Where our own output is a terminal, the child gets that terminal: isatty(3)
// stays true, job control works, nothing is remembered. Otherwise it gets a pipe,
// and what comes out of it is passed on byte for byte, binary data and endless
// lines included: to our own output, to a log file that is rotated and reopened
// (File), or line by line to the journal, with fields (Journal). If stdout and
// stderr go to the same place, one pipe serves both and keeps their order.
// Grandchildren that outlive the main process write on as before.
//
// # A destination that does not take it
//
// The child waits for a slow reader, as it would without us: the only buffers are
// the pipe and one of 32 KiB. But not for ever. A destination that takes nothing
// for Patience (1 s), or does not take those 32 KiB within five of them, is
// stalled: what the child writes from then on is read, remembered as last lines,
// counted and dropped, whole lines of it, until the destination has taken what
// was kept for it. Both moments are reported, the second with the count
// (LossError). A destination that fails (a full disk, a reader that went away) is
// reported once; what it did not take is counted too.
//
// The same holds for our own log: Writer.
//
// It costs one goroutine per pipe, which sleeps while nothing is written.
//
// # Limits
//
// Two streams that meet in one destination are mixed by line where lines are
// shorter than PIPE_BUF (4096 bytes). Where a pipe or terminal of ours cannot be
// opened a second time, a write that blocks in it cannot be interrupted, and
// Close leaves its goroutine behind. A regular file on a disk that hangs blocks
// whoever writes to it. A line for the journal is split at 48 KiB, as journald
// splits those that it reads from a service itself.
package logs
