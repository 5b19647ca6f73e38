package supervisor

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/supervise/supervise/supervisor/config"
)

// TestSymlinks: links are made, made anew where they lead elsewhere, and removed
// where they are ours; what is no link is left alone.
func TestSymlinks(t *testing.T) {
	dir := t.TempDir()
	path, link, stale, file := filepath.Join(dir, "x.sock"), filepath.Join(dir, "a", "link"), filepath.Join(dir, "stale"), filepath.Join(dir, "file")
	if err := os.Symlink("/nowhere", stale); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	unit := &config.SocketUnit{Name: "x", Symlinks: []string{link, stale, file}, Sockets: []config.Socket{{Network: "unix", Path: path}}, RemoveOnStop: true}
	r := &runner{cfg: &config.Service{Name: "x", SocketUnits: []*config.SocketUnit{unit}}, loop: &loop{log: hclog.NewNullLogger()}}
	for range 2 {
		r.makeSymlinks()
		for _, l := range []string{link, stale} {
			if to, err := os.Readlink(l); err != nil || to != path {
				t.Errorf("%s leads to %q, %v", l, to, err)
			}
		}
	}
	r.removeSymlinks()
	for _, l := range []string{link, stale} {
		if _, err := os.Lstat(l); err == nil {
			t.Errorf("%s is left", l)
		}
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "precious" {
		t.Errorf("the file is %q, %v", text, err)
	}
}
