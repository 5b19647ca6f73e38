package intercept

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestReadMemory: both ways read the same, up to where memory ends.
func TestReadMemory(t *testing.T) {
	page := os.Getpagesize()
	mem, err := unix.Mmap(-1, 0, 2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(mem) }()
	if err := unix.Mprotect(mem[page:], unix.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	self := thread{tid: unix.Getpid()}
	addr := uint64(uintptr(unsafe.Pointer(&mem[0])))
	end := addr + uint64(page)
	copy(mem[page-8:page], "abc\x00defg")
	for name, read := range map[string]func(uint64, []byte) (int, error){"process_vm_readv": self.read, "mem": self.readMem} {
		buf := make([]byte, 8)
		if n, err := read(end-8, buf); n != 8 || err != nil || string(buf) != "abc\x00defg" {
			t.Errorf("%s: %d, %v, %q", name, n, err, buf)
		}
		if n, err := read(8, buf); n != 0 || err != unix.EFAULT {
			t.Errorf("%s: address 8: %d, %v", name, n, err)
		}
	}
	if err := self.readFull(end-4, make([]byte, 8)); err != unix.EFAULT {
		t.Errorf("over the end: %v", err)
	}
	if s, err := self.readPath(end - 8); s != "abc" || err != nil {
		t.Errorf("path: %q, %v", s, err)
	}
	if s, err := self.readPath(end - 4); err != unix.EFAULT {
		t.Errorf("path without an end: %q, %v", s, err)
	}
	long := append([]byte(strings.Repeat("x", 5000)), 0)
	if _, err := self.readPath(uint64(uintptr(unsafe.Pointer(&long[0])))); err != unix.ENAMETOOLONG {
		t.Errorf("long path: %v", err)
	}
	runtime.KeepAlive(long)
	if w, err := self.readWords(end-8, 2); err != nil || len(w) != 2 || w[0] != 0x00636261 {
		t.Errorf("words: %x, %v", w, err)
	}
}

// TestThreadGroup: a thread that does not lead its process is found by each way.
func TestThreadGroup(t *testing.T) {
	err := Thread(func() error {
		th := thread{tid: unix.Gettid()}
		tgid, err := th.tgid()
		if err != nil || tgid != unix.Getpid() {
			return fmt.Errorf("tgid %d, %v", tgid, err)
		}
		fd, err := th.getfd(1)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	})
	if err != nil {
		t.Error(err)
	}
	if _, err := (thread{tid: 1 << 30}).getfd(1); err == nil {
		t.Error("a thread that is not there")
	}
}

// TestInterruptedCalls: before 5.19 any signal interrupts a call while it is
// answered, and the kernel starts it again. Nothing else must come of it.
func TestInterruptedCalls(t *testing.T) {
	h, port := newHolder(t), freePort(t)
	type begun struct{ fd, tid int }
	began, stop, done := make(chan begun), make(chan bool), make(chan error, 1)
	go func() {
		done <- Thread(func() error {
			// Without no-new-privs, so only as root.
			fd, errno := setFilter(Program(runtime.GOARCH, Options{}), unix.SECCOMP_FILTER_FLAG_NEW_LISTENER)
			if errno != 0 {
				began <- begun{-1, 0}
				return errno
			}
			unix.CloseOnExec(fd)
			began <- begun{fd, unix.Gettid()}
			for i := range 300 {
				s, err := serve(unix.AF_INET, "127.0.0.1", port, 5)
				s.close()
				if err != nil {
					return fmt.Errorf("%d: %w", i, err)
				}
			}
			return nil
		})
	}()
	b := <-began
	if b.fd < 0 {
		t.Skip(<-done)
	}
	rained := make(chan bool)
	go func() {
		defer close(rained)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Tgkill(unix.Getpid(), b.tid, unix.SIGURG)
				runtime.Gosched()
			}
		}
	}()
	srv, err := NewServer(b.fd, ServerOptions{}, self(h, 1))
	if err != nil {
		t.Fatal(err)
	}
	err = srv.Run()
	close(stop)
	<-rained
	if err := errors.Join(err, <-done, srv.Close()); err != nil {
		t.Errorf("%v\n%s", err, h.log())
	}
	if h.count("learn") != 1 || h.failed(BindFailed, unix.EADDRINUSE) != 0 {
		t.Errorf("decisions:\n%s", h.log())
	}
}
