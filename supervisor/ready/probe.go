package ready

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Probe asks a candidate from outside. Try is one try: nil is a yes, an error
// says in words why not yet. It blocks, so it runs in a goroutine of the
// caller's, and ctx bounds it. String is what is asked, for messages.
type Probe interface {
	Try(ctx context.Context) error
	String() string
}

// Dial opens the connection that a probe uses; the probe closes it. For a
// managed socket it is the dial of the candidate's own lane, and so the answer
// is the candidate's by construction, whoever else serves the address.
type Dial func(ctx context.Context) (net.Conn, error)

const (
	// maxHead bounds the header of an answer; servers themselves rarely
	// allow more than a quarter of it.
	maxHead = 64 << 10

	// maxBody is how much of a body is read so that the server can finish
	// its write; no health page is longer.
	maxBody = 64 << 10
)

// HTTP is a probe that wants an answer with status 200 to 399. Redirects are
// an answer and not followed; no proxy is used. It speaks HTTP/1.1 by hand: the
// client of net/http costs 1.1 MB of binary and 1.5 MB of memory (PSS) after one
// request, measured, for the sake of one line of text.
type HTTP struct {
	Host string // Host header
	Path string // with query, begins with '/'
	Dial Dial
	text string
}

// NewHTTP makes a probe of a URL: http://host:port/path, or
func NewHTTP(rawURL string, dial Dial) (*HTTP, error) {
	network, address, p, err := parseProbeURL(rawURL)
	if err != nil {
		return nil, fmt.Errorf("cannot probe %q: %w", rawURL, err)
	}
	if p.Dial = dial; dial == nil {
		p.Dial = func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, address)
		}
	}
	return p, nil
}

// Target is the network and address that a probe URL names, in the words of
// net.Dial: what the caller compares with its sockets to find the lane to dial.
func Target(rawURL string) (network, address string, err error) {
	network, address, _, err = parseProbeURL(rawURL)
	if err != nil {
		err = fmt.Errorf("cannot probe %q: %w", rawURL, err)
	}
	return network, address, err
}

func parseProbeURL(raw string) (network, address string, p *HTTP, err error) {
	scheme, rest, ok := strings.Cut(raw, "://")
	scheme = strings.ToLower(scheme)
	if !ok || scheme != "http" {
		return "", "", nil, errors.New("not an http:// URL")
	}
	p = &HTTP{text: raw}
	if rest, ok := strings.CutPrefix(rest, "unix:"); ok {
		path, uri, _ := strings.Cut(rest, ":")
		if path == "" {
			return "", "", nil, errors.New("no path after the unix prefix")
		}
		p.Host, p.Path = "localhost", uri
		if !strings.HasPrefix(uri, "/") {
			p.Path = "/" + uri
		}
		if strings.ContainsAny(p.Path, " \r\n\x00") {
			return "", "", nil, errors.New("blank or control character in the path")
		}
		return "unix", path, p, nil
	}
	u, err := url.Parse(raw)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return "", "", nil, err
	}
	if u.Hostname() == "" && u.Port() == "" {
		return "", "", nil, errors.New("no host")
	}
	host, port := u.Hostname(), u.Port()
	if host == "" || host == "*" || host == "+" {
		host = "localhost"
	}
	if port == "" {
		port = "80"
	}
	p.Host, p.Path = u.Host, u.RequestURI()
	if u.Hostname() != host {
		p.Host = net.JoinHostPort(host, port)
	}
	if strings.ContainsAny(p.Host, " \r\n\x00") {
		return "", "", nil, errors.New("blank or control character in the host")
	}
	return "tcp", net.JoinHostPort(host, port), p, nil
}

func (p *HTTP) String() string { return "GET " + p.text }

// Try sends one request on a connection of its own.
func (p *HTTP) Try(ctx context.Context) error {
	conn, err := p.Dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	// Whatever blocks below ends with ctx.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	err = p.ask(ctx, conn)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w: no answer in time", context.Cause(ctx))
	}
	return err
}

func (p *HTTP) ask(ctx context.Context, conn net.Conn) error {
	if _, err := io.WriteString(conn, "GET "+p.Path+" HTTP/1.1\r\nHost: "+p.Host+
		"\r\nUser-Agent: supervise\r\nAccept: */*\r\nConnection: close\r\n\r\n"); err != nil {
		return fmt.Errorf("cannot send request: %w", err)
	}
	status, err := readAnswer(bufio.NewReaderSize(conn, 4096))
	if err != nil {
		return err
	}
	if status < 200 || status > 399 {
		return fmt.Errorf("answered with status %d", status)
	}
	return nil
}

// readAnswer reads a response as far as its status needs, and then what may
// still be on its way, so that a server does not see its write fail.
func readAnswer(r *bufio.Reader) (status int, err error) {
	left := maxHead
	line := func() (string, error) {
		var text []byte
		for {
			part, more, err := r.ReadLine()
			if err != nil {
				if err == io.EOF {
					err = errors.New("closed before a full answer")
				}
				return "", err
			}
			if left -= len(part) + 2; left < 0 {
				return "", fmt.Errorf("header longer than %d bytes", maxHead)
			}
			text = append(text, part...)
			if !more {
				return string(text), nil
			}
		}
	}
	for {
		first, err := line()
		if err != nil {
			return 0, err
		}
		version, rest, ok := strings.Cut(first, " ")
		code, _, _ := strings.Cut(rest, " ")
		status, err = strconv.Atoi(code)
		if !ok || err != nil || len(code) != 3 || status < 100 || !strings.HasPrefix(version, "HTTP/1.") {
			return 0, fmt.Errorf("not an HTTP/1 answer: %s", excerpt(first))
		}
		length, closes := int64(-1), false
		for {
			field, err := line()
			if err != nil {
				return 0, err
			}
			if field == "" {
				break
			}
			name, value, _ := strings.Cut(field, ":")
			value = strings.TrimSpace(value)
			switch strings.ToLower(name) {
			case "content-length":
				if n, err := strconv.ParseInt(value, 10, 64); err == nil {
					length = n
				}
			case "connection":
				closes = strings.EqualFold(value, "close")
			}
		}
		if status < 200 && status != 101 { // 100, 103: the answer is still to come
			continue
		}
		if status == 204 || status == 304 || status == 101 {
			return status, nil
		}
		if length >= 0 || closes {
			if length < 0 || length > maxBody {
				length = maxBody
			}
			_, _ = io.CopyN(io.Discard, r, length)
		}
		return status, nil
	}
}

// Command is a probe that wants a command to exit with status 0.
type Command struct {
	Argv []string

	// Run starts argv, waits for it and gives its exit status; it is the
	// caller's, for all exit statuses go to its one reaper. When ctx ends it
	// kills what it started.
	Run func(ctx context.Context, argv []string) (status int, err error)
}

func (p *Command) String() string { return strings.Join(p.Argv, " ") }

// Try runs the command once.
func (p *Command) Try(ctx context.Context) error {
	status, err := p.Run(ctx, p.Argv)
	if err != nil {
		return err
	}
	if status != 0 {
		return fmt.Errorf("exited with status %d", status)
	}
	return nil
}
