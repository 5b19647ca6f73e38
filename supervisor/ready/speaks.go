package ready

import (
	"bytes"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

const (
	speaksLimit = 512 << 20 // bytes looked at: a JVM or a browser, not a disk image
	speaksChunk = 256 << 10
)

// SpeaksNotify guesses whether a program will send READY=1: its file contains
// the name of the variable, or of the libsystemd function (which reads the
// variable on its behalf), or, if it is a script, of the tool. It is a guess
// both ways: an interpreter says nothing about the program that it runs, and one
// that can notify may not do so. What cannot be read speaks not.
func SpeaksNotify(exePath string) bool {
	// Without O_NONBLOCK a FIFO would hold us until somebody writes.
	f, err := os.OpenFile(exePath, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return false
	}
	words := [][]byte{[]byte("NOTIFY_SOCKET"), []byte("sd_notify"), []byte("systemd-notify")}
	const overlap = len("systemd-notify") - 1

	// Read rather than mapped: a file that is cut meanwhile is then only short.
	buf := make([]byte, overlap+speaksChunk)
	kept := 0
	for off := int64(0); off < speaksLimit; {
		n, err := f.ReadAt(buf[kept:], off)
		b := buf[:kept+n]
		for _, w := range words {
			if bytes.Contains(b, w) {
				return true
			}
		}
		if err != nil && err != io.EOF || err == io.EOF || n == 0 {
			return false
		}
		off += int64(n)
		kept = copy(buf, b[max(0, len(b)-overlap):])
	}
	return false
}
