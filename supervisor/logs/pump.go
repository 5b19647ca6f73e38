package logs

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Pump waits for all outputs that have nothing to say, in one goroutine, so that
// a service whose output is silent costs a pipe and no stack.
type Pump struct {
	epoll *os.File
	raw   syscall.RawConn

	mu     sync.Mutex
	lastID uint64
	parked map[uint64]parked
}

type parked struct {
	fd   int
	wake func()
}

// NewPump makes a pump. Close ends it, after all outputs.
func NewPump() (*Pump, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot create an epoll instance for output: %w", err)
	}
	// An epoll descriptor can itself be waited for: so the wait costs no thread.
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("cannot create an epoll instance for output: %w", err)
	}
	p := &Pump{epoll: os.NewFile(uintptr(fd), "output"), parked: map[uint64]parked{}}
	if p.raw, err = p.epoll.SyscallConn(); err != nil {
		_ = p.epoll.Close()
		return nil, fmt.Errorf("cannot wait for output: %w", err)
	}
	go p.run()
	return p, nil
}

// Close ends the goroutine. What is parked then is never woken.
func (p *Pump) Close() error { return p.epoll.Close() }

// park has wake called once when fd can be read or has come to its end, and
// gives a number for unpark.
func (p *Pump) park(fd int, wake func()) (uint64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lastID++
	id := p.lastID
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: int32(id), Pad: int32(id >> 32)}
	var ctl error
	if err := p.raw.Control(func(epoll uintptr) { ctl = unix.EpollCtl(int(epoll), unix.EPOLL_CTL_ADD, fd, &ev) }); err != nil {
		return 0, err
	}
	if ctl != nil {
		return 0, ctl
	}
	p.parked[id] = parked{fd, wake}
	return id, nil
}

// unpark ends a wait. The descriptor must still be open.
func (p *Pump) unpark(id uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if one, ok := p.parked[id]; ok {
		delete(p.parked, id)
		_ = p.raw.Control(func(epoll uintptr) { _ = unix.EpollCtl(int(epoll), unix.EPOLL_CTL_DEL, one.fd, nil) })
	}
}

func (p *Pump) run() {
	var evs [64]unix.EpollEvent
	for {
		n := 0
		err := p.raw.Read(func(epoll uintptr) bool {
			var err error
			if n, err = unix.EpollWait(int(epoll), evs[:], 0); errors.Is(err, unix.EINTR) {
				n = 0
			}
			return n > 0
		})
		if err != nil {
			return
		}
		for _, ev := range evs[:max(n, 0)] {
			id := uint64(uint32(ev.Fd)) | uint64(uint32(ev.Pad))<<32
			p.mu.Lock()
			one, ok := p.parked[id]
			p.mu.Unlock()
			if ok {
				one.wake()
			}
		}
	}
}
