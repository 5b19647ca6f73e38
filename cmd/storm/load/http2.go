package load

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// http2 is one HTTP/2 connection without TLS, by prior knowledge (RFC 9113,
// 3.3), with one stream at a time. It knows what it needs: of the answer's
// header only the status, and no CONTINUATION. Flow control is opened wide at the
// beginning, so a connection is good for 1 GiB of answers.
type http2 struct {
	conn net.Conn
	in   *bufio.Reader
	next uint32 // stream
	last uint32 // of GOAWAY, when going
	away bool   // GOAWAY has come
}

// Frames and flags of RFC 9113, 6.
const (
	frameData         = 0
	frameHeaders      = 1
	frameReset        = 3
	frameSettings     = 4
	framePing         = 6
	frameGoAway       = 7
	frameWindowUpdate = 8

	flagAck        = 1 // of SETTINGS and PING
	flagEndStream  = 1 // of DATA and HEADERS
	flagEndHeaders = 4
	flagPadded     = 8
	flagPriority   = 32

	refusedStream = 7

	maxFrame = 16384 // what a peer may send without our SETTINGS_MAX_FRAME_SIZE
)

// errMoved is a request that the server says it has not processed: the stream is
// higher than its GOAWAY tells, or was reset by REFUSED_STREAM. The client makes
// it again, and nothing is lost (RFC 9113, 6.8 and 8.7).
var errMoved = errors.New("not processed, to be made again elsewhere")

func frame(kind, flags byte, stream uint32, payload ...byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(payload))<<8|uint32(kind))
	b = append(b, flags)
	b = binary.BigEndian.AppendUint32(b, stream)
	return append(b, payload...)
}

// beginHTTP2 sends the preface: no push, no dynamic table, all windows open.
func beginHTTP2(conn net.Conn) (*http2, error) {
	const window = 1<<31 - 1
	var settings []byte
	for _, s := range []struct {
		id    uint16
		value uint32
	}{{1, 0}, {2, 0}, {4, window}} {
		settings = binary.BigEndian.AppendUint16(settings, s.id)
		settings = binary.BigEndian.AppendUint32(settings, s.value)
	}
	hello := []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	hello = append(hello, frame(frameSettings, 0, 0, settings...)...)
	hello = append(hello, frame(frameWindowUpdate, 0, 0, binary.BigEndian.AppendUint32(nil, 1<<30)...)...)
	if _, err := conn.Write(hello); err != nil {
		return nil, err
	}
	return &http2{conn: conn, in: bufio.NewReaderSize(conn, 4096), next: 1}, nil
}

// headersOf is the HPACK block of a GET (RFC 7541): :method GET, :scheme http,
// and two literals without indexing, :path and :authority.
func headersOf(path, authority string) []byte {
	block := []byte{0x82, 0x86}
	block = appendLiteral(block, 4, path)
	return appendLiteral(block, 1, authority)
}

func appendLiteral(block []byte, name byte, value string) []byte {
	block = append(block, name)
	block = appendInteger(block, 7, len(value))
	return append(block, value...)
}

func appendInteger(b []byte, bits int, n int) []byte {
	top := 1<<bits - 1
	if n < top {
		return append(b, byte(n))
	}
	b = append(b, byte(top))
	for n -= top; n >= 128; n >>= 7 {
		b = append(b, byte(n&127|128))
	}
	return append(b, byte(n))
}

// spent reports whether the connection is not to be used for another stream:
// the server has said GOAWAY. A client of HTTP/2 reads at any time, so what has
// come since the last answer is heard before the next request is sent.
func (h *http2) spent(buf []byte) bool {
	for !h.away && (h.in.Buffered() > 0 || pending(h.conn)) {
		if _, _, _, err := h.frame(buf); err != nil {
			return false // the request will say what is wrong
		}
	}
	return h.away || h.next > 1<<30
}

// pending reports whether there is something to read.
func pending(c net.Conn) bool {
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return false
	}
	n, one := 0, [1]byte{}
	var failed error
	err = raw.Control(func(fd uintptr) {
		n, _, failed = unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	})
	return err == nil && failed == nil && n > 0
}

// frame reads one frame and answers what must be answered. The payload is valid
// until buf is used again.
func (h *http2) frame(buf []byte) (kind, flags byte, payload []byte, err error) {
	var head [9]byte
	if _, err := io.ReadFull(h.in, head[:]); err != nil {
		return 0, 0, nil, err
	}
	length := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
	kind, flags = head[3], head[4]
	if length > maxFrame || length > len(buf) {
		return 0, 0, nil, badAnswer(fmt.Sprintf("a frame of %d bytes", length))
	}
	payload = buf[:length]
	if _, err := io.ReadFull(h.in, payload); err != nil {
		return 0, 0, nil, err
	}
	switch {
	case kind == frameSettings && flags&flagAck == 0:
		_, err = h.conn.Write(frame(frameSettings, flagAck, 0))
	case kind == framePing && flags&flagAck == 0:
		_, err = h.conn.Write(frame(framePing, flagAck, 0, payload...))
	case kind == frameGoAway:
		if length < 8 {
			return 0, 0, nil, badAnswer("a GOAWAY that is too short")
		}
		h.away, h.last = true, binary.BigEndian.Uint32(payload)&^(1<<31)
	}
	return kind, flags, payload, err
}

// roundTrip makes one request. The body is appended to body[:0].
func (h *http2) roundTrip(headers, buf, body []byte, f *Failure) (Answer, error) {
	stream := h.next
	h.next += 2
	if _, err := h.conn.Write(frame(frameHeaders, flagEndStream|flagEndHeaders, stream, headers...)); err != nil {
		// What the server had said before it closed is there all the same.
		for {
			if _, _, _, e := h.frame(buf); e != nil {
				return Answer{}, err
			}
			if h.away && stream > h.last {
				return Answer{}, errMoved
			}
		}
	}
	f.Sent = true
	a := Answer{Body: body[:0]}
	for {
		kind, flags, payload, err := h.frame(buf)
		if err != nil {
			return a, err
		}
		if h.away && stream > h.last {
			return a, errMoved
		}
		switch kind {
		case frameHeaders, frameData:
			f.Received += 9 + len(payload)
			if payload, err = unpadded(kind, flags, payload); err != nil {
				return a, err
			}
			if kind == frameData {
				a.Body = append(a.Body, payload...)
			} else if a.Status == 0 {
				if flags&flagEndHeaders == 0 {
					return a, badAnswer("a header in several frames")
				}
				if a.Status, err = statusOf(payload); err != nil {
					return a, err
				}
			}
			if flags&flagEndStream != 0 {
				a.Pid = pidOf(a.Body)
				a.closes = h.away
				return a, nil
			}
		case frameReset:
			if len(payload) == 4 && binary.BigEndian.Uint32(payload) == refusedStream {
				return a, errMoved
			}
			return a, badAnswer(fmt.Sprintf("the stream is reset, code %x", payload))
		}
	}
}

// unpadded takes padding and priority off (RFC 9113, 6.1 and 6.2).
func unpadded(kind, flags byte, p []byte) ([]byte, error) {
	pad := 0
	if flags&flagPadded != 0 {
		if len(p) == 0 {
			return nil, badAnswer("padding that is not there")
		}
		pad, p = int(p[0]), p[1:]
	}
	if kind == frameHeaders && flags&flagPriority != 0 {
		if len(p) < 5 {
			return nil, badAnswer("a priority that is not there")
		}
		p = p[5:]
	}
	if pad > len(p) {
		return nil, badAnswer("padding that is not there")
	}
	return p[:len(p)-pad], nil
}

// statusOf reads :status, which comes first, from a block (RFC 7541): an entry
// of the static table, or a literal with its name from there.
func statusOf(block []byte) (int, error) {
	bad := badAnswer(fmt.Sprintf("no :status in %.20x", block))
	for len(block) > 0 && block[0]&0xe0 == 0x20 { // the table's new size
		_, rest, ok := integer(block, 5)
		if !ok {
			return 0, bad
		}
		block = rest
	}
	if len(block) == 0 {
		return 0, bad
	}
	static := [...]int{8: 200, 204, 206, 304, 400, 404, 500}
	bits := 4
	switch {
	case block[0]&0x80 != 0:
		i, _, ok := integer(block, 7)
		if !ok || i >= len(static) || static[i] == 0 {
			return 0, bad
		}
		return static[i], nil
	case block[0]&0x40 != 0:
		bits = 6
	}
	name, rest, ok := integer(block, bits)
	if !ok || name < 8 || name >= len(static) || len(rest) == 0 {
		return 0, bad
	}
	huffman := rest[0]&0x80 != 0
	n, rest, ok := integer(rest, 7)
	if !ok || n > len(rest) {
		return 0, bad
	}
	text := string(rest[:n])
	if huffman {
		text = digits(rest[:n])
	}
	status, err := strconv.Atoi(text)
	if err != nil {
		return 0, bad
	}
	return status, nil
}

// integer reads an integer with a prefix of so many bits (RFC 7541, 5.1).
func integer(b []byte, bits int) (n int, rest []byte, ok bool) {
	top := 1<<bits - 1
	n = int(b[0]) & top
	if n < top {
		return n, b[1:], true
	}
	for i, shift := 1, 0; i < len(b) && shift < 28; i, shift = i+1, shift+7 {
		n += int(b[i]&127) << shift
		if b[i]&128 == 0 {
			return n, b[i+1:], true
		}
	}
	return 0, nil, false
}

// digits decodes Huffman code of nothing but digits (RFC 7541, appendix B): 0 to
// 2 are 00000 to 00010, 3 to 9 are 011001 to 011111. The rest is padding.
func digits(code []byte) string {
	var text []byte
	for at := 0; ; {
		five, ok := bitsAt(code, at, 5)
		if !ok {
			return string(text)
		}
		if five <= 2 {
			text = append(text, '0'+byte(five))
			at += 5
			continue
		}
		six, ok := bitsAt(code, at, 6)
		if !ok || six < 0b011001 || six > 0b011111 {
			return string(text)
		}
		text = append(text, '3'+byte(six-0b011001))
		at += 6
	}
}

func bitsAt(b []byte, at, n int) (v int, ok bool) {
	if at+n > 8*len(b) {
		return 0, false
	}
	for i := at; i < at+n; i++ {
		v = v<<1 | int(b[i/8]>>(7-i%8)&1)
	}
	return v, true
}
