package ready

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSpeaksNotify(t *testing.T) {
	dir := t.TempDir()
	file := func(content []byte) string {
		p := filepath.Join(dir, "exe")
		if err := os.WriteFile(p, content, 0o700); err != nil {
			t.Fatal(err)
		}
		return p
	}
	// The word at every place around the border of two reads.
	for at := speaksChunk - 20; at <= speaksChunk+20; at++ {
		b := bytes.Repeat([]byte{'N'}, 2*speaksChunk+100)
		copy(b[at:], "NOTIFY_SOCKET")
		if !SpeaksNotify(file(b)) {
			t.Fatalf("not found at %d", at)
		}
	}
	for text, want := range map[string]bool{"": false, "NOTIFY_SOCKE": false, "#!/bin/sh\nsystemd-notify --ready": true, "\x00sd_notify\x00": true} {
		if SpeaksNotify(file([]byte(text))) != want {
			t.Errorf("%q", text)
		}
	}
	if SpeaksNotify(dir) || SpeaksNotify(dir+"/none") || SpeaksNotify("/dev/zero") {
		t.Error("what is no file speaks")
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if SpeaksNotify(fifo) {
		t.Error("a FIFO speaks")
	}
	if exe, err := os.Executable(); err != nil || !SpeaksNotify(exe) {
		t.Errorf("this program speaks: %v", err)
	}
}
