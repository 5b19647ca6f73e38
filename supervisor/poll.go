package supervisor

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// poller is the one place where the loop sleeps: an epoll instance, level
// triggered, and a mailbox for what other goroutines have to say. Only post
// may be called from other goroutines.
type poller struct {
	epfd     int
	wakefd   int // eventfd: the mailbox is not empty
	handlers map[int]func()
	buf      [64]unix.EpollEvent

	mu     sync.Mutex
	mail   []func()
	closed bool
}

func newPoller() (*poller, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot create an epoll instance: %w", err)
	}
	wakefd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(epfd)
		return nil, fmt.Errorf("cannot create an eventfd: %w", err)
	}
	p := &poller{epfd: epfd, wakefd: wakefd, handlers: map[int]func(){}}
	if err := p.add(wakefd, unix.EPOLLIN, p.drainMail); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// add calls handle whenever one of events is true of fd, until remove. It does
// not own fd.
func (p *poller) add(fd int, events uint32, handle func()) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(fd)}
	if err := unix.EpollCtl(p.epfd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return fmt.Errorf("cannot watch descriptor %d: %w", fd, err)
	}
	p.handlers[fd] = handle
	return nil
}

// watches reports whether fd was added.
func (p *poller) watches(fd int) bool { return p.handlers[fd] != nil }

// remove ends the watch; fd must still be open.
func (p *poller) remove(fd int) {
	if _, ok := p.handlers[fd]; !ok {
		return
	}
	delete(p.handlers, fd)
	_ = unix.EpollCtl(p.epfd, unix.EPOLL_CTL_DEL, fd, nil)
}

// forget ends the watch of a descriptor that is closed, or will be next: the
// kernel forgets one with its last duplicate. Its number may come again soon.
func (p *poller) forget(fd int) { delete(p.handlers, fd) }

// post has f called by the loop, if that still runs. It never blocks.
func (p *poller) post(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mail = append(p.mail, f)
	if len(p.mail) == 1 && !p.closed {
		one := [8]byte{1} // any byte order: it is not zero
		_, _ = unix.Write(p.wakefd, one[:])
	}
}

func (p *poller) drainMail() {
	var b [8]byte
	_, _ = unix.Read(p.wakefd, b[:])
	p.mu.Lock()
	mail := p.mail
	p.mail = nil
	p.mu.Unlock()
	for _, f := range mail {
		f()
	}
}

// wait sleeps until something happens or deadline (zero: for ever) and calls
// the handlers. It must not be called with a deadline that has passed.
func (p *poller) wait(now, deadline time.Time) error {
	timeout := -1
	if !deadline.IsZero() {
		timeout = 0
		if d := deadline.Sub(now); d > 0 {
			timeout = int((d + time.Millisecond - 1) / time.Millisecond) // never too early
		}
	}
	n, err := unix.EpollWait(p.epfd, p.buf[:], timeout)
	if err != nil {
		if errors.Is(err, unix.EINTR) {
			return nil
		}
		return fmt.Errorf("cannot wait for events: %w", err)
	}
	for _, ev := range p.buf[:n] {
		// A handler may have removed the one that follows it.
		if handle := p.handlers[int(ev.Fd)]; handle != nil {
			handle()
		}
	}
	return nil
}

func (p *poller) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	_ = unix.Close(p.wakefd)
	_ = unix.Close(p.epfd)
}
