package shim

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkStart compares start to reaped of /bin/true, and the time until
// the start call returns, with a heap of 10 and of 100 MB in use.
func BenchmarkStart(b *testing.B) {
	for _, heap := range []int{0, 10, 100} {
		ballast := make([]byte, heap<<20)
		for i := 0; i < len(ballast); i += 4096 {
			ballast[i] = 1
		}
		name := map[int]string{0: "0MB", 10: "10MB", 100: "100MB"}[heap]
		shims := []struct {
			name  string
			share uintptr
		}{{"shim", ownStack}, {"vfork", unix.CLONE_VM | unix.CLONE_VFORK}, {"fork", 0}}
		for _, s := range shims {
			b.Run(s.name+"/"+name, func(b *testing.B) {
				spec := New("/bin/true", []string{"true"}, nil)
				spec.PIDEnv = []string{"LISTEN_PID"}
				for b.Loop() {
					c, err := start(spec, s.share)
					if err != nil {
						b.Fatal(err)
					}
					unix.Wait4(c.PID, nil, 0, nil)
					c.Close()
				}
			})
		}
		b.Run("ForkExec/"+name, func(b *testing.B) {
			for b.Loop() {
				pid, err := syscall.ForkExec("/bin/true", []string{"true"}, &syscall.ProcAttr{Files: []uintptr{0, 1, 2}})
				if err != nil {
					b.Fatal(err)
				}
				syscall.Wait4(pid, nil, 0, nil)
			}
		})
		b.Run("os-exec/"+name, func(b *testing.B) {
			for b.Loop() {
				c := exec.Command("/bin/true")
				c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
				if err := c.Run(); err != nil {
					b.Fatal(err)
				}
			}
		})
		if len(ballast) > 0 && ballast[0] != 1 {
			b.Fatal("ballast")
		}
	}
}
