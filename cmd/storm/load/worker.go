package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// worker makes one request after the other. Everything in it is its own.
type worker struct {
	load   *Load
	number int
	made   int64 // requests made
	dialed int64 // unix connections opened
	dialer net.Dialer
	result Result // its counts, and Answered
	times  histogram

	conn   net.Conn // between requests only with KeepAlive
	http2  *http2   // of conn, with HTTP2
	body   []byte   // of an answer of HTTP2
	opened time.Time
	reused bool
	buf    []byte
	line   []byte // of Echo

	connecting time.Duration // of the latest request, 0 on a kept connection
	answered   time.Time     // when the latest answer was complete
}

func newWorker(l *Load, number int) *worker {
	w := &worker{load: l, number: number, buf: make([]byte, 64<<10)}
	w.result.Answered = map[int]int64{}
	w.dialer.KeepAlive = -1
	w.dialer.SetMultipathTCP(false)
	if len(l.options.Sources) > 0 {
		w.dialer.Control = lateport
	}
	return w
}

// lateport lets the kernel choose the port at connect(2), when it knows the
// whole connection, rather than at bind(2), where a port in TIME_WAIT to
// anybody is taken (IP_BIND_ADDRESS_NO_PORT, ip(7)).
func lateport(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	})
	return errors.Join(err, failed)
}

func (w *worker) run() {
	defer w.hangUp()
	l, o := w.load, &w.load.options
	var interval time.Duration
	next := l.began
	if o.Rate > 0 {
		interval = time.Duration(int64(time.Second) * int64(o.Workers) / int64(o.Rate))
		next = next.Add(interval * time.Duration(w.number) / time.Duration(o.Workers))
	}
	for !l.over.Load() {
		if o.Requests > 0 && l.claimed.Add(1) > o.Requests {
			return
		}
		if interval > 0 {
			// What was missed in a stall is not made up for: a burst after
			// each stall would be a load that nobody asked for.
			if now := time.Now(); next.After(now) {
				time.Sleep(next.Sub(now))
			} else {
				next = now
			}
			next = next.Add(interval)
		}
		began := time.Now()
		a, failure := w.request()
		if failure != nil {
			w.hangUp()
			w.result.count(failure.Kind)
			l.fail(failure)
			if failure.Kind == Refused || failure.Kind == Local {
				time.Sleep(time.Millisecond) // or a dead server makes this a busy loop
			}
			continue
		}
		took := w.answered.Sub(began)
		w.times[bucket(took)]++
		if took > w.result.Max {
			w.result.Max = took
			w.result.Slowest = Slow{Began: began, Connect: w.connecting, Phase: *l.phase.Load()}
		}
		w.result.OK++
		if a.Pid != 0 {
			w.result.Answered[a.Pid]++
			l.lastPid.Store(int64(a.Pid))
		}
		l.ok.Add(1)
	}
}

func (l *Load) fail(f *Failure) {
	l.mu.Lock()
	if len(l.failures) < l.options.KeepFailures {
		l.failures = append(l.failures, *f)
	}
	l.mu.Unlock()
	l.failed.Add(1)
}

func (w *worker) hangUp() {
	if w.conn != nil {
		w.conn.Close()
		w.conn, w.http2 = nil, nil
	}
}

// request makes one request. After a failure the connection is of no use.
func (w *worker) request() (Answer, *Failure) {
	o := &w.load.options
	w.made++
	turn := int(w.made) + w.number
	f := Failure{Began: time.Now(), Remote: o.Addrs[turn%len(o.Addrs)]}
	deadline := f.Began.Add(o.Timeout)
	a, err := w.try(&f, turn, deadline)
	for err != nil && w.again(err, &f) && time.Now().Before(deadline) {
		w.hangUp()
		f = Failure{Began: f.Began, Remote: f.Remote}
		a, err = w.try(&f, turn, deadline)
	}
	if f.Reused {
		w.result.Reused++
	}
	if err != nil {
		f.Kind, f.Err, f.Ended, f.Phase = kindOf(err, f.Received), err.Error(), time.Now(), *w.load.phase.Load()
		return a, &f
	}
	return a, nil
}

// again reports whether a request that failed is made again, and counts it.
func (w *worker) again(err error, f *Failure) bool {
	if errors.Is(err, errMoved) {
		w.result.Moved++
		return true
	}
	kind := kindOf(err, f.Received)
	if w.load.options.Repeat && f.Reused && f.Received == 0 && (kind == EOF || kind == Reset) {
		w.result.Stale++
		return true
	}
	return false
}

func (w *worker) try(f *Failure, turn int, deadline time.Time) (Answer, error) {
	o := &w.load.options
	w.connecting = 0
	if w.http2 != nil && w.http2.spent(w.buf) {
		w.hangUp()
	}
	if w.conn == nil {
		began := time.Now()
		conn, err := w.dial(f.Remote, turn, deadline)
		w.connecting = time.Since(began)
		if err != nil {
			return Answer{}, err
		}
		w.conn, w.opened, w.reused = conn, began, false
	}
	f.Connected, f.Opened, f.Reused = true, w.opened, w.reused
	f.Local, f.Remote = w.conn.LocalAddr().String(), w.conn.RemoteAddr().String()
	if err := w.conn.SetDeadline(deadline); err != nil {
		return Answer{}, err
	}
	switch o.Protocol {
	case Echo:
		return w.echo(f)
	case HTTP2:
		return w.roundTrip(f)
	}
	if _, err := w.conn.Write(o.Request); err != nil {
		return Answer{}, err
	}
	f.Sent = true
	a, err := w.readAnswer(f)
	if err != nil {
		return a, err
	}
	w.answered = time.Now()
	if err := o.Check(a); err != nil {
		return a, badAnswer(err.Error())
	}
	if !o.KeepAlive {
		w.awaitClose()
	}
	if !o.KeepAlive || a.closes {
		w.hangUp()
	}
	w.reused = true
	return a, nil
}

// roundTrip makes one request of HTTP/2.
func (w *worker) roundTrip(f *Failure) (Answer, error) {
	o := &w.load.options
	var err error
	if w.http2 == nil {
		if w.http2, err = beginHTTP2(w.conn); err != nil {
			return Answer{}, err
		}
	}
	a, err := w.http2.roundTrip(o.Request, w.buf, w.body, f)
	if err != nil {
		return a, err
	}
	w.answered = time.Now()
	w.body = a.Body
	if err := o.Check(a); err != nil {
		return a, badAnswer(err.Error())
	}
	if !o.KeepAlive || a.closes {
		w.hangUp()
	}
	w.reused = true
	return a, nil
}

// dial opens a connection. A full queue of a unix listener gives EAGAIN at
// once where TCP would wait; here one waits as for TCP.
func (w *worker) dial(addr string, turn int, deadline time.Time) (net.Conn, error) {
	o := &w.load.options
	w.dialer.Deadline = deadline
	if o.Network == "unix" {
		// A name of its own, so that the server's end can be told from
		// others by getpeername(2): see package crash.
		w.dialed++
		w.dialer.LocalAddr = &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("@storm-%x-%d-%d", w.load.began.UnixNano(), w.number, w.dialed)}
	} else if len(o.Sources) > 0 {
		w.dialer.LocalAddr = sourceAddr(o.Network, o.Sources[turn%len(o.Sources)])
	}
	for {
		conn, err := w.dialer.DialContext(context.Background(), o.Network, addr)
		if !errors.Is(err, unix.EAGAIN) || time.Now().After(deadline) {
			return conn, err
		}
		time.Sleep(time.Millisecond)
	}
}

// awaitClose lets the server close first, as it said that it will, so that
// TIME_WAIT and its port are not kept on our side. It is no part of the
// answer, which is complete.
func (w *worker) awaitClose() {
	w.conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	w.conn.Read(w.buf)
}

// echo sends a line of its own and wants it back.
func (w *worker) echo(f *Failure) (Answer, error) {
	o := &w.load.options
	w.line = fmt.Appendf(w.line[:0], "storm %d %d %d\n", w.number, w.made, f.Began.UnixNano())
	if _, err := w.conn.Write(w.line); err != nil {
		return Answer{}, err
	}
	f.Sent = true
	datagrams := o.Network[:2] == "ud"
	for {
		n, err := w.conn.Read(w.buf[f.Received:])
		if err != nil {
			return Answer{}, err
		}
		if datagrams && !bytes.Equal(w.buf[:n], w.line) {
			continue // the late answer to an earlier one
		}
		f.Received += n
		got := w.buf[:f.Received]
		if !bytes.HasPrefix(w.line, got) {
			return Answer{}, badAnswer(fmt.Sprintf("echo of %q is %q", w.line, got))
		}
		if len(got) < len(w.line) {
			continue
		}
		w.answered = time.Now()
		if !o.KeepAlive {
			w.hangUp()
		}
		w.reused = true
		a := Answer{Body: got}
		if err := o.Check(a); err != nil {
			return a, badAnswer(err.Error())
		}
		return a, nil
	}
}

// badAnswer is an answer that came and is wrong.
type badAnswer string

func (b badAnswer) Error() string { return string(b) }

// readAnswer reads one HTTP/1.x response (RFC 9112), body included; at most
// the size of the buffer, which is a limit of this client.
func (w *worker) readAnswer(f *Failure) (Answer, error) {
	var a Answer
	var header []byte
	for header == nil {
		n, err := w.read(f)
		if end := bytes.Index(w.buf[:f.Received], []byte("\r\n\r\n")); end >= 0 {
			header = w.buf[:end+4]
		} else if err != nil {
			return a, err
		} else if n == 0 {
			return a, badAnswer("an answer larger than the buffer")
		}
	}
	length, chunked, err := parseHeader(&a, header)
	if err != nil {
		return a, err
	}
	for {
		body := w.buf[len(header):f.Received]
		switch {
		case chunked && bytes.HasSuffix(body, []byte("0\r\n\r\n")),
			!chunked && length >= 0 && len(body) == length:
			a.Body = body
			if a.Pid == 0 {
				a.Pid = pidOf(body)
			}
			return a, nil
		case !chunked && length >= 0 && len(body) > length:
			return a, badAnswer(fmt.Sprintf("%d bytes after the answer", len(body)-length))
		}
		n, err := w.read(f)
		if errors.Is(err, io.EOF) && n == 0 && length < 0 && !chunked {
			length = len(body) // the end of the connection is the end of the body
			a.closes = true
		} else if err != nil {
			return a, err
		} else if n == 0 {
			return a, badAnswer("an answer larger than the buffer")
		}
	}
}

// read appends to what was received. It gives 0 and no error when the buffer
// is full.
func (w *worker) read(f *Failure) (int, error) {
	if f.Received == len(w.buf) {
		return 0, nil
	}
	n, err := w.conn.Read(w.buf[f.Received:])
	f.Received += n
	return n, err
}

// parseHeader fills a from a response's head. A length of -1 is unknown.
func parseHeader(a *Answer, head []byte) (length int, chunked bool, err error) {
	length = -1
	line, rest, _ := bytes.Cut(head, []byte("\r\n"))
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.")) || line[8] != ' ' {
		return 0, false, badAnswer(fmt.Sprintf("not an HTTP answer: %.40q", line))
	}
	if a.Status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, false, badAnswer(fmt.Sprintf("not an HTTP status: %.40q", line))
	}
	a.closes = line[7] == '0'
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(value)); err != nil || length < 0 {
				return 0, false, badAnswer(fmt.Sprintf("Content-Length: %.40q", value))
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = bytes.EqualFold(value, []byte("chunked"))
		case bytes.EqualFold(name, []byte("Connection")):
			a.closes = bytes.EqualFold(value, []byte("close"))
		case bytes.EqualFold(name, []byte("X-Pid")):
			a.Pid, _ = strconv.Atoi(string(value))
		}
	}
	return length, chunked, nil
}
