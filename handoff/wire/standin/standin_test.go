package standin

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	Play()
	os.Exit(m.Run())
}

// upgrade starts argv0 as tableflip starts its successor.
func upgrade(t *testing.T, argv0 string) (cmd *exec.Cmd, ready, names *os.File) {
	t.Helper()
	ready, readyW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	namesR, names, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	socket, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command(argv0, "-c", "echo successor")
	cmd.Env = []string{parentVariable + "=yes"}
	cmd.ExtraFiles = []*os.File{readyW, namesR, socket, socket}
	return cmd, ready, names
}

func TestDrain(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "d")
	d, err := Make(dir, "/bin/sh", "web", exe)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := d.Drain()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := d.Drain(); again != fd || err != nil {
		t.Errorf("a second Drain gives %d, %v", again, err)
	}
	cmd, ready, names := upgrade(t, d.Argv0("web"))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range cmd.ExtraFiles {
		f.Close()
	}
	b := make([]byte, 2)
	if n, err := ready.Read(b); n != 1 || b[0] != 42 {
		t.Fatalf("ready pipe: %q, %v", b[:n], err)
	}
	if n, err := ready.Read(b); err != io.EOF {
		t.Errorf("then %d bytes, %v", n, err)
	}
	if n, err := unix.Read(fd, b); n != 1 || err != nil {
		t.Errorf("the supervisor hears %d bytes, %v", n, err)
	}
	// The sockets were closed before it was ready, and it is there until we are gone.
	for _, n := range []string{"5", "6"} {
		if what, _ := os.Readlink(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "fd", n)); what == "/dev/null" {
			t.Errorf("fd %s, a socket, is open", n)
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		t.Fatalf("it ended before its parent: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	names.Close()
	if err := <-ended; err != nil {
		t.Errorf("it ends with %v", err)
	}
	d.Remove()
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the directory is left: %v", err)
	}
	d.Remove()
}

// TestUpgrade: when the supervisor did not ask, it is the program itself.
func TestUpgrade(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d, err := Make(filepath.Join(t.TempDir(), "d"), "/bin/sh", "web", exe)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Remove()
	cmd, _, _ := upgrade(t, d.Argv0("web"))
	out, err := cmd.Output()
	if err != nil || string(out) != "successor\n" {
		t.Errorf("it says %q, %v", out, err)
	}
}

func TestMake(t *testing.T) {
	dir := t.TempDir()
	if _, err := Make(dir, "/bin/sh", "web", "/bin/true"); err == nil {
		t.Error("a directory that exists was taken")
	}
	var none *Dir
	none.Remove()
}
