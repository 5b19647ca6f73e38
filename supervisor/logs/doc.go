// Package logs takes the output of one generation to where it belongs, and
// remembers the last lines of it, to be told when the generation fails.
//
// Rules. Where our own output is a terminal, the child gets that terminal:
// isatty(3) stays true, job control works, nothing is remembered. Otherwise it
// gets a pipe, and what comes out of it is passed on byte for byte, binary data
// and endless lines included. If stdout and stderr go to the same place, one pipe
// serves both and keeps their order. A slow reader of our output makes the child
// wait, as it would without us: the only buffers are the pipe and one of 32 KiB.
// If our output fails, that is said once and the child is not harmed: its pipe is
// read on. Grandchildren that outlive the main process write on as before.
//
// It costs one goroutine per pipe, which sleeps while nothing is written.
//
// Limits. Two streams that meet in one destination are mixed by line where lines
// are shorter than PIPE_BUF (4096 bytes). Where a pipe or terminal of ours cannot
// be opened a second time, a write that blocks in it cannot be interrupted, and
// Close leaves its goroutine behind.
package logs
