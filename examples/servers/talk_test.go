package servers

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/cmd/storm/load"
)

// talk is a protocol that package load does not speak: one exchange on a
// connection of its own.
type talk struct {
	send []byte // none: the server speaks first

	// done says whether all of a good answer has come; an error is a bad one.
	done func(answer []byte) (bool, error)
}

var (
	redis = talk{send: []byte("PING\r\n"), done: line("+PONG\r\n")}
	ssh   = talk{done: line("SSH-2.0-")}
	imap  = talk{done: line("* OK ")}

	// The first packet of the MySQL protocol: length, number 0, version 10.
	mysql = talk{done: func(a []byte) (bool, error) {
		if len(a) < 5 {
			return false, nil
		}
		if a[3] != 0 || a[4] != 10 {
			return true, fmt.Errorf("greeting %.60q", a)
		}
		return len(a) >= 4+int(a[0])+int(a[1])<<8, nil
	}}

	// The address of hello.test (RFC 1035, over TCP: the length before it).
	dns = talk{send: []byte("\x00\x1c\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x05hello\x04test\x00\x00\x01\x00\x01"), done: func(a []byte) (bool, error) {
		if len(a) < 2 || len(a) < 2+int(binary.BigEndian.Uint16(a)) {
			return false, nil
		}
		if !bytes.HasPrefix(a[2:], []byte("\x12\x34")) || !bytes.HasSuffix(a, []byte("\x00\x04\xc0\x00\x02\x01")) {
			return true, fmt.Errorf("answer %q", a)
		}
		return true, nil
	}}

	fastCGI = talk{send: fastCGIRequest(), done: func(a []byte) (bool, error) {
		var out []byte
		for len(a) >= 8 {
			n := int(binary.BigEndian.Uint16(a[4:]))
			if len(a) < 8+n+int(a[6]) {
				break
			}
			switch a[1] {
			case 6: // FCGI_STDOUT
				out = append(out, a[8:8+n]...)
			case 3: // FCGI_END_REQUEST
				if !bytes.HasSuffix(out, []byte("\r\n\r\npong")) {
					return true, fmt.Errorf("answer %q", out)
				}
				return true, nil
			}
			a = a[8+n+int(a[6]):]
		}
		return false, nil
	}}
)

// line wants a line that begins with these words.
func line(begin string) func([]byte) (bool, error) {
	return func(a []byte) (bool, error) {
		if n := min(len(a), len(begin)); string(a[:n]) != begin[:n] {
			return true, fmt.Errorf("answer %.60q", a)
		}
		return len(a) >= len(begin) && bytes.HasSuffix(a, []byte("\n")), nil
	}
}

// fastCGIRequest asks for the ping page of PHP-FPM: records of the FastCGI
// specification, version 1, all of request 1.
func fastCGIRequest() []byte {
	var b []byte
	record := func(kind byte, body string) {
		b = append(b, 1, kind, 0, 1, byte(len(body)>>8), byte(len(body)), 0, 0)
		b = append(b, body...)
	}
	var params strings.Builder
	for _, kv := range [][2]string{
		{"SCRIPT_NAME", "/ping"},
		{"SCRIPT_FILENAME", "/ping"},
		{"REQUEST_METHOD", "GET"},
		{"REQUEST_URI", "/ping"},
		{"QUERY_STRING", ""},
		{"SERVER_PROTOCOL", "HTTP/1.1"},
	} {
		params.Write([]byte{byte(len(kv[0])), byte(len(kv[1]))})
		params.WriteString(kv[0] + kv[1])
	}
	record(1, "\x00\x01\x00\x00\x00\x00\x00\x00") // FCGI_BEGIN_REQUEST: responder, closes
	record(4, params.String())                    // FCGI_PARAMS
	record(4, "")
	record(5, "") // FCGI_STDIN
	return b
}

// talks is a load of one talk.
type talks struct {
	talk    *talk
	network string
	addr    string
	stop    chan struct{}
	once    sync.Once
	all     sync.WaitGroup
	ok      atomic.Int64
	failed  atomic.Int64
	phase   atomic.Pointer[string]

	mu     sync.Mutex
	result load.Result
}

const talkTimeout = 10 * time.Second

func startTalks(of *talk, network, addr string, rate int) *talks {
	p := &talks{talk: of, network: network, addr: addr, stop: make(chan struct{})}
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

func (p *talks) request() {
	f := load.Failure{Began: time.Now(), Remote: p.addr}
	connecting, err := p.talk.exchange(p.network, &f, talkTimeout)
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
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ENOENT):
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
func (of *talk) exchange(network string, f *load.Failure, timeout time.Duration) (connecting time.Duration, err error) {
	c, err := dial(network, f.Remote, f.Began.Add(timeout))
	connecting = time.Since(f.Began)
	if err != nil {
		return connecting, err
	}
	defer c.Close()
	f.Connected, f.Local = true, c.LocalAddr().String()
	if err := c.SetDeadline(f.Began.Add(timeout)); err != nil {
		return connecting, err
	}
	if len(of.send) > 0 {
		if _, err := c.Write(of.send); err != nil {
			return connecting, err
		}
	}
	f.Sent = true
	answer := make([]byte, 4096)
	for {
		n, err := c.Read(answer[f.Received:])
		f.Received += n
		if done, bad := of.done(answer[:f.Received]); bad != nil || done {
			return connecting, bad
		}
		if err != nil {
			return connecting, err
		}
		if f.Received == len(answer) {
			return connecting, errors.New("an answer larger than the buffer")
		}
	}
}

// dialled numbers the names of clients of unix sockets.
var dialled atomic.Int64

// dial waits for a place in the queue of a unix socket, as it would for TCP, and
// has a name there, by which the server's end can be told from others.
func dial(network, addr string, deadline time.Time) (net.Conn, error) {
	d := net.Dialer{Deadline: deadline}
	if network == "unix" {
		d.LocalAddr = &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("@talk-%d-%d", os.Getpid(), dialled.Add(1))}
	}
	for {
		c, err := d.Dial(network, addr)
		if !errors.Is(err, unix.EAGAIN) || time.Now().After(deadline) {
			return c, err
		}
		time.Sleep(time.Millisecond)
	}
}

func (of *talk) once(network, addr string, timeout time.Duration) error {
	_, err := of.exchange(network, &load.Failure{Began: time.Now(), Remote: addr}, timeout)
	return err
}

func (p *talks) OK() int64         { return p.ok.Load() }
func (p *talks) Failed() int64     { return p.failed.Load() }
func (p *talks) Mark(phase string) { p.phase.Store(&phase) }

func (p *talks) Stop() load.Result {
	p.once.Do(func() { close(p.stop) })
	p.all.Wait()
	return p.result
}
