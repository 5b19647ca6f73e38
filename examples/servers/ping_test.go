package servers

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/cmd/storm/load"
)

// ping asks redis, which speaks neither of the two protocols of package load:
// PING on a connection of its own, and +PONG is the good answer.
type ping struct {
	addr   string
	stop   chan struct{}
	once   sync.Once
	all    sync.WaitGroup
	ok     atomic.Int64
	failed atomic.Int64
	phase  atomic.Pointer[string]

	mu     sync.Mutex
	result load.Result
}

const pingTimeout = 10 * time.Second

func startPing(addr string, rate int) *ping {
	p := &ping{addr: addr, stop: make(chan struct{})}
	p.Mark("")
	pause := time.Duration(1)
	if rate > 0 {
		pause = workers * time.Second / time.Duration(rate)
	}
	for range workers {
		p.all.Go(func() {
			tick := time.NewTicker(pause)
			defer tick.Stop()
			for {
				select {
				case <-p.stop:
					return
				case <-tick.C:
					p.request()
				}
			}
		})
	}
	return p
}

func (p *ping) request() {
	f := load.Failure{Began: time.Now(), Remote: p.addr}
	connecting, err := exchange(&f, pingTimeout)
	f.Ended, f.Phase = time.Now(), *p.phase.Load()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		p.ok.Add(1)
		p.result.OK++
		if took := f.Ended.Sub(f.Began); took > p.result.Max {
			p.result.Max, p.result.Slowest = took, load.Slow{Began: f.Began, Connect: connecting, Phase: f.Phase}
		}
		return
	}
	p.failed.Add(1)
	f.Err = err.Error()
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		f.Kind = load.Refused
		p.result.Refused++
	case errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		f.Kind = load.Reset
		p.result.Reset++
	case errors.Is(err, os.ErrDeadlineExceeded):
		f.Kind = load.Timeout
		p.result.Timeout++
	case errors.Is(err, io.EOF):
		f.Kind = load.EOF
		p.result.EOF++
	default:
		f.Kind = load.Bad
		p.result.Bad++
	}
	p.result.Failures = append(p.result.Failures, f)
}

// exchange makes one request, and notes in f how far it got.
func exchange(f *load.Failure, timeout time.Duration) (connecting time.Duration, err error) {
	c, err := net.DialTimeout("tcp", f.Remote, timeout)
	connecting = time.Since(f.Began)
	if err != nil {
		return connecting, err
	}
	defer c.Close()
	f.Connected, f.Local = true, c.LocalAddr().String()
	if err := c.SetDeadline(f.Began.Add(timeout)); err != nil {
		return connecting, err
	}
	if _, err := io.WriteString(c, "PING\r\n"); err != nil {
		return connecting, err
	}
	f.Sent = true
	const pong = "+PONG\r\n"
	answer := make([]byte, len(pong))
	for f.Received < len(pong) {
		n, err := c.Read(answer[f.Received:])
		f.Received += n
		if err != nil {
			return connecting, err
		}
	}
	if string(answer) != pong {
		return connecting, errors.New("answer " + string(answer))
	}
	return connecting, nil
}

func pingOnce(addr string, timeout time.Duration) error {
	_, err := exchange(&load.Failure{Began: time.Now(), Remote: addr}, timeout)
	return err
}

func (p *ping) OK() int64         { return p.ok.Load() }
func (p *ping) Failed() int64     { return p.failed.Load() }
func (p *ping) Mark(phase string) { p.phase.Store(&phase) }

func (p *ping) Stop() load.Result {
	p.once.Do(func() { close(p.stop) })
	p.all.Wait()
	return p.result
}
