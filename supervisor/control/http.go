package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
)

// The subset of HTTP/1.1 (RFC 9112) that is spoken: one request on a
// connection; a body only with Content-Length; an answer with Content-Length, or
// in chunks where it grows while it is read (to a client of HTTP/1.0: until the
// connection ends).

const (
	maxHead = 8 << 10
	maxBody = 64 << 10
)

// request is one request, complete.
type request struct {
	method string
	path   string
	query  url.Values
	host   string // Host, "" where there is none
	http10 bool
	body   []byte
}

// readRequest reads one. goOn is called when the client waits for our word
// before it sends its body (Expect: 100-continue). The error is an *Error when
// the client is to hear of it, else the connection's.
func readRequest(r io.Reader, goOn func() error) (*request, error) {
	buf := make([]byte, 0, 1<<10)
	head, rest := 0, 0
	for {
		if head, rest = headEnd(buf); rest > 0 {
			break
		}
		if len(buf) >= maxHead {
			return nil, Errorf(BadRequest, "the head of the request is longer than %d bytes", maxHead)
		}
		if len(buf) == cap(buf) {
			buf = append(make([]byte, 0, min(2*cap(buf), maxHead)), buf...)
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if n == 0 && err != nil {
			return nil, err
		}
	}
	req, length, expects, err := parseHead(buf[:head])
	if err != nil {
		return nil, err
	}
	if length > maxBody {
		return nil, Errorf(BadRequest, "the body of the request is longer than %d bytes", maxBody)
	}
	body := buf[rest:]
	if len(body) > length {
		body = body[:length]
	}
	if expects && len(body) < length {
		if err := goOn(); err != nil {
			return nil, err
		}
	}
	req.body = make([]byte, length)
	n := copy(req.body, body)
	if _, err := io.ReadFull(r, req.body[n:]); err != nil {
		return nil, err
	}
	return req, nil
}

// headEnd finds the empty line: the head's length, and where the body begins;
// 0 when it has not come yet. Lines may end in LF alone (RFC 9112, 2.2).
func headEnd(b []byte) (head, rest int) {
	if i := bytes.Index(b, []byte("\n\r\n")); i >= 0 {
		head, rest = i, i+3
	}
	if i := bytes.Index(b, []byte("\n\n")); i >= 0 && (rest == 0 || i < head) {
		head, rest = i, i+2
	}
	return head, rest
}

func parseHead(head []byte) (req *request, length int, expects bool, err error) {
	first, fields, _ := strings.Cut(string(head), "\n")
	words := strings.Split(strings.TrimSuffix(first, "\r"), " ")
	if len(words) != 3 || !isToken(words[0]) {
		return nil, 0, false, Errorf(BadRequest, "this is not HTTP: %.40q", first)
	}
	req = &request{method: words[0]}
	switch words[2] {
	case "HTTP/1.1":
	case "HTTP/1.0":
		req.http10 = true
	default:
		return nil, 0, false, Errorf(BadRequest, "unknown protocol %.20q: HTTP/1.1 is spoken here", words[2])
	}
	u, e := url.ParseRequestURI(words[1])
	if e != nil {
		return nil, 0, false, Errorf(BadRequest, "cannot read the path %.80q", words[1])
	}
	req.path = u.Path
	if req.query, e = url.ParseQuery(u.RawQuery); e != nil {
		return nil, 0, false, Errorf(BadRequest, "cannot read the query %.80q", u.RawQuery)
	}
	length = -1
	for line := range strings.SplitSeq(fields, "\n") {
		line = strings.TrimSuffix(line, "\r")
		if line == "" {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || !isToken(name) {
			return nil, 0, false, Errorf(BadRequest, "cannot read the header line %.40q", line)
		}
		value = strings.Trim(value, " \t")
		switch strings.ToLower(name) {
		case "content-length":
			n, e := strconv.ParseUint(value, 10, 31)
			if e != nil || length >= 0 && length != int(n) {
				return nil, 0, false, Errorf(BadRequest, "cannot read the length %.40q", value)
			}
			length = int(n)
		case "transfer-encoding":
			return nil, 0, false, Errorf(Unsupported, "a body in chunks is not read here: send Content-Length")
		case "host":
			req.host = value
		case "expect":
			expects = strings.EqualFold(value, "100-continue")
		}
	}
	return req, max(length, 0), expects, nil
}

// isToken: RFC 9110, 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

// reason is the reason phrase of a status: RFC 9110, 15.
func reason(status int) string {
	switch status {
	case 200:
		return "OK"
	case 400:
		return "Bad Request"
	case 403:
		return "Forbidden"
	case 404:
		return "Not Found"
	case 409:
		return "Conflict"
	case 501:
		return "Not Implemented"
	case 503:
		return "Service Unavailable"
	}
	return "Internal Server Error"
}

// writeJSON writes a whole answer.
func writeJSON(w io.Writer, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		status, body = 500, []byte(`{"error":{"code":"internal","message":"cannot write the answer"}}`)
	}
	body = append(body, '\n')
	head := fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n",
		status, reason(status), len(body))
	_, werr := w.Write(append([]byte(head), body...))
	return errors.Join(err, werr)
}

// writeError writes an answer that is none.
func writeError(w io.Writer, err error) {
	e := asError(err)
	_ = writeJSON(w, e.Code.status(), errorAnswer{Error: e})
}

// errorAnswer is the body of an answer that is none.
type errorAnswer struct {
	Error *Error `json:"error"`
}

// asError makes an *Error of any error.
func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Code: Internal, Message: err.Error()}
}

// stream is an answer that grows: one JSON value on each line. The head goes
// out with the first line, so that until then the answer can be an error.
type stream struct {
	w      io.Writer
	http10 bool
	begun  bool
}

func (s *stream) begin() []byte {
	if s.begun {
		return nil
	}
	s.begun = true
	head := "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nCache-Control: no-store\r\nConnection: close\r\n"
	if !s.http10 {
		head += "Transfer-Encoding: chunked\r\n"
	}
	return []byte(head + "\r\n")
}

// line writes one value, at once.
func (s *stream) line(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	text = append(text, '\n')
	out := s.begin()
	if s.http10 {
		out = append(out, text...)
	} else {
		out = append(out, fmt.Sprintf("%x\r\n", len(text))...)
		out = append(out, text...)
		out = append(out, "\r\n"...)
	}
	_, err = s.w.Write(out)
	return err
}

// flushHead sends the head though there is no line yet: the client then knows
// that it was heard.
func (s *stream) flushHead() error {
	if s.begun {
		return nil
	}
	_, err := s.w.Write(s.begin())
	return err
}

// end ends the answer.
func (s *stream) end() error {
	out := s.begin()
	if !s.http10 {
		out = append(out, "0\r\n\r\n"...)
	}
	if len(out) == 0 {
		return nil
	}
	_, err := s.w.Write(out)
	return err
}
