package proc

import (
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

func TestIgnored(t *testing.T) {
	cmd := exec.Command("sh", "-c", `trap "" HUP USR2; trap "exit" TERM; echo up; read x`)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	got, err := Ignored(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	for sig, want := range map[unix.Signal]bool{unix.SIGHUP: true, unix.SIGUSR2: true, unix.SIGTERM: false, unix.SIGINT: false, 64: false} {
		if got.Has(sig) != want {
			t.Errorf("%v: %v in %x", sig, !want, got)
		}
	}
	if parent, err := Parent(cmd.Process.Pid); err != nil || parent != os.Getpid() {
		t.Errorf("its parent is %d, %v", parent, err)
	}
	in.Close()
	cmd.Wait()
	if _, err := Ignored(cmd.Process.Pid); err == nil {
		t.Error("a dead one has signals")
	}
}
