package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Client asks one supervisor. It holds no connection: each call makes one. Its
// methods may be called from many goroutines.
type Client struct {
	path string
	pid  int
}

// DialError says that no supervisor answers at a path.
type DialError struct {
	Path string
	Err  error
}

func (e *DialError) Error() string {
	return fmt.Sprintf("cannot reach a supervisor at %s: %v", e.Path, e.Err)
}

// Unwrap returns the cause.
func (e *DialError) Unwrap() error { return e.Err }

// Dial looks whether a supervisor listens at path. The error is a *DialError.
func Dial(path string) (*Client, error) {
	c := &Client{path: path}
	conn, err := c.connect(context.Background())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return nil, &DialError{Path: path, Err: err}
	}
	_ = raw.Control(func(fd uintptr) {
		// Of the side that connected, these are the credentials of who called listen(2).
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			c.pid = int(cred.Pid)
		}
	})
	return c, nil
}

// Path is where the supervisor listens.
func (c *Client) Path() string { return c.path }

// PID is the supervisor's, 0 where it is in another pid namespace.
func (c *Client) PID() int { return c.pid }

// queueGrace is how long a client tries to get into a full queue.
const queueGrace = 5 * time.Second

func (c *Client) connect(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.path)
	// The queue is full, which connect(2) of a unix socket that does not block
	// does not wait for.
	for deadline := time.Now().Add(queueGrace); errors.Is(err, unix.EAGAIN) && time.Now().Before(deadline) && ctx.Err() == nil; {
		time.Sleep(5 * time.Millisecond)
		conn, err = d.DialContext(ctx, "unix", c.path)
	}
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err
		}
		return nil, &DialError{Path: c.path, Err: err}
	}
	return conn, nil
}

// maxLine bounds one line of an answer, and one that comes as a whole.
const maxLine = 16 << 20

// get asks for one value.
func (c *Client) get(ctx context.Context, path string, q url.Values, v any) error {
	body, end, err := c.ask(ctx, "GET", path, q, nil)
	if err != nil {
		return err
	}
	defer end()
	text, err := io.ReadAll(io.LimitReader(body, maxLine))
	if err != nil {
		return c.broken(ctx, err)
	}
	if err := json.Unmarshal(text, v); err != nil {
		return c.broken(ctx, err)
	}
	return nil
}

// lines asks for an answer that is one value on each line.
func (c *Client) lines(ctx context.Context, method, path string, q url.Values, send []byte, each func([]byte) error) error {
	body, end, err := c.ask(ctx, method, path, q, send)
	if err != nil {
		return err
	}
	defer end()
	s := bufio.NewScanner(body)
	s.Buffer(nil, maxLine)
	for s.Scan() {
		if err := each(s.Bytes()); err != nil {
			return err
		}
	}
	if err := s.Err(); err != nil {
		return c.broken(ctx, err)
	}
	return ctx.Err()
}

func (c *Client) broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("cannot read the answer of the supervisor at %s: %w", c.path, err)
}

// ask sends a request and reads the head of the answer. An answer that is none
// comes back as *Error. The caller calls end when it has read the body.
func (c *Client) ask(ctx context.Context, method, path string, q url.Values, send []byte) (body io.Reader, end func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	conn, err := c.connect(ctx)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	end = func() { stop(); conn.Close() }
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: supervise\r\nConnection: close\r\n", method, path)
	if method == "POST" {
		fmt.Fprintf(&b, "Content-Type: application/json\r\nContent-Length: %d\r\n", len(send))
	}
	b.WriteString("\r\n")
	b.Write(send)
	// A refusal may come before all of it was taken, so its end is not waited for here.
	_, werr := conn.Write(b.Bytes())
	status, body, err := readAnswer(bufio.NewReader(conn))
	if err != nil {
		end()
		if werr != nil {
			err = werr
		}
		return nil, nil, c.broken(ctx, err)
	}
	if status == 200 {
		return body, end, nil
	}
	defer end()
	var a errorAnswer
	text, err := io.ReadAll(io.LimitReader(body, maxLine))
	if err != nil || json.Unmarshal(text, &a) != nil || a.Error == nil {
		return nil, nil, c.broken(ctx, fmt.Errorf("status %d: %.200s", status, text))
	}
	return nil, nil, a.Error
}

// readAnswer reads the head of an answer and gives its body.
func readAnswer(r *bufio.Reader) (status int, body io.Reader, err error) {
	room := maxBody
	read := func() (string, error) {
		var line []byte
		for {
			if room--; room < 0 {
				return "", errors.New("the head of the answer is too long")
			}
			b, err := r.ReadByte()
			if err != nil {
				return "", noEOF(err)
			}
			if b == '\n' {
				return strings.TrimSuffix(string(line), "\r"), nil
			}
			line = append(line, b)
		}
	}
	first, err := read()
	if err != nil {
		return 0, nil, err
	}
	proto, rest, _ := strings.Cut(first, " ")
	code, _, _ := strings.Cut(rest, " ")
	if status, err = strconv.Atoi(code); err != nil || !strings.HasPrefix(proto, "HTTP/1.") {
		return 0, nil, fmt.Errorf("it does not speak HTTP: %.40q", first)
	}
	length, chunked := int64(-1), false
	for {
		line, err := read()
		if err != nil {
			return 0, nil, err
		}
		if line == "" {
			break
		}
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.ToLower(name) {
		case "content-length":
			if length, err = strconv.ParseInt(value, 10, 63); err != nil || length < 0 {
				return 0, nil, fmt.Errorf("it sends a length that is none: %.40q", value)
			}
		case "transfer-encoding":
			chunked = strings.EqualFold(value, "chunked")
		}
	}
	switch {
	case chunked:
		return status, &chunkReader{r: r}, nil
	case length >= 0:
		return status, io.LimitReader(r, length), nil
	}
	return status, r, nil
}

// chunkReader reads a body in chunks: RFC 9112, 7.1. An end without the last
// chunk is io.ErrUnexpectedEOF: the supervisor died.
type chunkReader struct {
	r    *bufio.Reader
	left int64
	some bool // a chunk was read, its CRLF was not
	err  error
}

func (c *chunkReader) Read(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	if c.left == 0 {
		if c.err = c.next(); c.err != nil {
			return 0, c.err
		}
	}
	n, err := c.r.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	if err != nil {
		c.err = noEOF(err)
	}
	return n, c.err
}

func (c *chunkReader) next() error {
	if c.some {
		if _, err := c.r.Discard(2); err != nil {
			return noEOF(err)
		}
	}
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return noEOF(err)
	}
	size, _, _ := strings.Cut(strings.TrimSpace(string(line)), ";")
	if c.left, err = strconv.ParseInt(size, 16, 63); err != nil || c.left < 0 {
		return fmt.Errorf("a chunk without a size: %.40q", line)
	}
	c.some = true
	if c.left == 0 {
		return io.EOF
	}
	return nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
