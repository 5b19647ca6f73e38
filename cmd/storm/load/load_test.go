package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const patience = 30 * time.Second

// serve answers every connection of a new listener with what do does to it.
func serve(t *testing.T, network, addr string, do func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				do(c)
			}()
		}
	}()
	return l.Addr().String()
}

// hear reads a request to its end.
func hear(c net.Conn) {
	buf := make([]byte, 4096)
	var got []byte
	for !strings.Contains(string(got), "\r\n\r\n") {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		got = append(got, buf[:n]...)
	}
}

func run(t *testing.T, o Options) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := Run(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	if ctx.Err() != nil {
		t.Fatalf("not done in %v: %+v", patience, r)
	}
	return r
}

// Every way in which a request can end is told from every other.
func TestKinds(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for _, test := range []struct {
		name string
		kind Kind // "" is ok
		do   func(net.Conn)
		addr string
		want Failure
	}{
		{name: "ok", do: func(c net.Conn) {
			hear(c)
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nhello pid 12")
		}},
		{name: "until end", do: func(c net.Conn) {
			hear(c)
			fmt.Fprint(c, "HTTP/1.0 200 OK\r\nX-Pid: 12\r\n\r\nhello")
		}},
		{name: "chunked", do: func(c net.Conn) {
			hear(c)
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Pid: 12\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
		}},
		{name: "refused", kind: Refused, addr: closed.Addr().String()},
		{name: "eof", kind: EOF, do: hear, want: Failure{Connected: true, Sent: true}},
		{name: "reset", kind: Reset, do: func(c net.Conn) {
			hear(c)
			c.(*net.TCPConn).SetLinger(0)
		}, want: Failure{Connected: true, Sent: true}},
		{name: "cut", kind: Bad, do: func(c net.Conn) {
			hear(c)
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nhello")
		}, want: Failure{Connected: true, Sent: true, Received: 44}},
		{name: "cut head", kind: Bad, do: func(c net.Conn) {
			hear(c)
			fmt.Fprint(c, "HTTP/1.1 20")
		}, want: Failure{Connected: true, Sent: true, Received: 11}},
		{name: "status", kind: Bad, do: func(c net.Conn) {
			hear(c)
			fmt.Fprint(c, "HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n")
		}, want: Failure{Connected: true, Sent: true, Received: 41}},
		{name: "nonsense", kind: Bad, do: func(c net.Conn) {
			hear(c)
			fmt.Fprint(c, "SSH-2.0-x\r\n\r\n")
		}, want: Failure{Connected: true, Sent: true, Received: 13}},
		{name: "timeout", kind: Timeout, do: func(c net.Conn) { io.Copy(io.Discard, c) }, want: Failure{Connected: true, Sent: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			addr := test.addr
			if addr == "" {
				addr = serve(t, "tcp", "127.0.0.1:0", test.do)
			}
			timeout := patience
			if test.kind == Timeout {
				timeout = 50 * time.Millisecond
			}
			r := run(t, Options{Addrs: []string{addr}, Workers: 2, Requests: 6, Timeout: timeout})
			want := Result{}
			if test.kind == "" {
				want.OK = 6
			}
			for range 6 {
				want.count(test.kind)
			}
			got := r
			got.Failures, got.Answered, got.Elapsed, got.Max, got.P50, got.P99, got.P999 = nil, nil, 0, 0, 0, 0, 0
			got.Slowest = Slow{}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("got %+v, want %+v", r, want)
			}
			if test.kind == "" {
				if r.Answered[12] != 6 {
					t.Errorf("pids: %v", r.Answered)
				}
				if r.P50 == 0 || r.P50 > r.P99 || r.P99 > r.P999 || r.P999 > r.Max {
					t.Errorf("times out of order: %+v", r)
				}
				return
			}
			for _, f := range r.Failures {
				if f.Kind != test.kind || f.Connected != test.want.Connected || f.Sent != test.want.Sent || f.Received != test.want.Received {
					t.Errorf("got %+v, want %s %+v", f, test.kind, test.want)
				}
				if f.Connected == (f.Local == "") {
					t.Errorf("local address: %+v", f)
				}
			}
		})
	}
}

// A kept connection that the server closes between two requests, without a word,
// is a failure of the second one.
func TestKeepAlive(t *testing.T) {
	addr := serve(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
		for range 3 {
			hear(c)
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
	r := run(t, Options{Addrs: []string{addr}, Workers: 1, Requests: 9, KeepAlive: true})
	if r.OK != 7 || r.Failed() != 2 || r.EOF+r.Reset != 2 || r.Reused != 6 {
		t.Errorf("got %+v, want 7 ok, 2 lost, 6 reused", r)
	}
	again := run(t, Options{Addrs: []string{addr}, Workers: 1, Requests: 9, KeepAlive: true, Repeat: true})
	if again.OK != 9 || again.Failed() != 0 || again.Stale != 2 {
		t.Errorf("got %+v, want 9 ok and 2 made again", again)
	}
	for _, f := range r.Failures {
		if !f.Reused || f.Received != 0 || f.Opened.IsZero() || f.Opened.After(f.Began) {
			t.Errorf("got %+v", f)
		}
	}
}

func TestNetHTTP(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Pid", "7")
		if r.URL.Path == "/large" {
			w.Write(make([]byte, 20000))
		}
	}))
	defer server.Close()
	for _, keep := range []bool{false, true} {
		for _, path := range []string{"/", "/large"} {
			r := run(t, Options{Addrs: []string{server.Listener.Addr().String()}, Path: path, Requests: 200, KeepAlive: keep})
			if r.OK != 200 || r.Answered[7] != 200 {
				t.Errorf("%s, keep-alive %v: %+v", path, keep, r)
			}
		}
	}
}

// HTTP/2 of net/http: a Connection: close becomes a GOAWAY, after which the
// client uses a new connection, and nothing is lost.
func TestHTTP2(t *testing.T) {
	var asked atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1)%50 == 0 {
			w.Header().Set("Connection", "close")
		}
		switch r.URL.Path {
		case "/busy":
			w.WriteHeader(http.StatusServiceUnavailable)
		case "/large":
			w.Write(make([]byte, 100000))
		}
		fmt.Fprintf(w, "%s pid 7", r.Proto)
	}))
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	defer server.Close()
	o := Options{Addrs: []string{server.Listener.Addr().String()}, Protocol: HTTP2, KeepAlive: true, Requests: 1000}
	r := run(t, o)
	if r.OK != 1000 || r.Answered[7] != 1000 || r.Reused < 900 {
		t.Errorf("%+v", r)
	}
	o.Path, o.Requests = "/large", 20
	if r := run(t, o); r.OK != 20 {
		t.Errorf("%+v", r)
	}
	o.Path = "/busy"
	if r := run(t, o); r.Bad != 20 || !strings.Contains(r.Failures[0].Err, "status 503") {
		t.Errorf("%+v", r)
	}
}

// What GOAWAY and REFUSED_STREAM declare as not processed is moved; what ends
// without is lost.
func TestHTTP2Ends(t *testing.T) {
	ok := append(frame(frameHeaders, flagEndHeaders, 1, 0x88), frame(frameData, flagEndStream, 1, '7')...)
	for _, test := range []struct {
		name        string
		first       []byte // what the first connection gets as an answer
		moved, lost int64
	}{
		{"goaway", frame(frameGoAway, 0, 0, make([]byte, 8)...), 1, 0},
		{"refused", frame(frameReset, 0, 1, 0, 0, 0, 7), 1, 0},
		{"reset", frame(frameReset, 0, 1, 0, 0, 0, 2), 0, 1},
		{"goaway of a later one", frame(frameGoAway, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0), 0, 1},
		{"end", nil, 0, 1},
	} {
		var n atomic.Int64
		addr := serve(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
			buf := make([]byte, 4096)
			for got := 0; got < 100; { // preface, SETTINGS, WINDOW_UPDATE and most of HEADERS
				more, err := c.Read(buf)
				if err != nil {
					return
				}
				got += more
			}
			c.Write(frame(frameSettings, 0, 0))
			if n.Add(1) == 1 {
				c.Write(test.first)
			} else {
				c.Write(ok)
			}
			c.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, c)
		})
		r := run(t, Options{Addrs: []string{addr}, Protocol: HTTP2, Workers: 1, Requests: 2, Path: "/" + strings.Repeat("x", 300)})
		if r.Moved != test.moved || r.Failed() != test.lost || r.OK != 2-test.lost {
			t.Errorf("%s: %+v", test.name, r)
		}
	}
}

func FuzzHTTP2(f *testing.F) {
	f.Add(append(frame(frameHeaders, flagEndHeaders, 1, 0x88), frame(frameData, flagEndStream, 1, '7')...))
	f.Add(frame(frameHeaders, flagPadded|flagPriority, 1, 1, 0, 0, 0, 0, 0, 0x48, 0x83, 0x64, 0x0e, 0x3f, 0))
	f.Add(frame(frameGoAway, 0, 0, make([]byte, 8)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		h := &http2{conn: discard{}, in: bufio.NewReader(bytes.NewReader(b)), next: 1}
		h.roundTrip(nil, make([]byte, 64<<10), nil, &Failure{})
		statusOf(b)
	})
}

// discard is a connection to nowhere.
type discard struct{ net.Conn }

func (discard) Write(b []byte) (int, error) { return len(b), nil }

func TestDigits(t *testing.T) {
	// RFC 7541, C.6.
	for code, want := range map[string]string{"\x64\x02": "302", "\x64\x0e\xff": "307", "": ""} {
		if got := digits([]byte(code)); got != want {
			t.Errorf("%x: %q, want %q", code, got, want)
		}
	}
}

func TestEcho(t *testing.T) {
	copyAll := func(c net.Conn) { io.Copy(c, c) }
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	go func() {
		buf := make([]byte, 2000)
		for {
			n, from, err := packets.ReadFrom(buf)
			if err != nil {
				return
			}
			packets.WriteTo(buf[:n], from)
		}
	}()
	for network, addr := range map[string]string{
		"tcp":  serve(t, "tcp", "127.0.0.1:0", copyAll),
		"unix": serve(t, "unix", filepath.Join(t.TempDir(), "echo"), copyAll),
		"udp":  packets.LocalAddr().String(),
	} {
		for _, keep := range []bool{false, true} {
			r := run(t, Options{Network: network, Addrs: []string{addr}, Protocol: Echo, Requests: 200, KeepAlive: keep})
			if r.OK != 200 {
				t.Errorf("%s, keep-alive %v: %+v", network, keep, r)
			}
		}
	}
	r := run(t, Options{Network: "unix", Addrs: []string{filepath.Join(t.TempDir(), "none")}, Requests: 3})
	if r.Refused != 3 {
		t.Errorf("no unix path: %+v", r)
	}
	wrong := serve(t, "tcp", "127.0.0.1:0", func(c net.Conn) { fmt.Fprint(c, "storm?"); io.Copy(io.Discard, c) })
	if r := run(t, Options{Addrs: []string{wrong}, Protocol: Echo, Requests: 3}); r.Bad != 3 {
		t.Errorf("wrong echo: %+v", r)
	}
}

func TestSourcesAndMarks(t *testing.T) {
	seen := make(chan string, 100)
	addr := serve(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		seen <- host
		hear(c)
	})
	l, err := Start(Options{Addrs: []string{addr}, Workers: 1, Requests: 16})
	if err != nil {
		t.Fatal(err)
	}
	l.Mark("rollout 1")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := l.WaitTotal(ctx, 16); err != nil {
		t.Fatal(err)
	}
	if _, err := l.WaitPid(ctx, func(int) bool { return true }); err == nil || ctx.Err() != nil {
		t.Errorf("waiting for an answer after the end: %v", err)
	}
	r := l.Stop()
	if again := l.Stop(); again.Total() != r.Total() || r.EOF != 16 {
		t.Errorf("stopped twice: %+v and %+v", r, again)
	}
	if last := r.Failures[15]; last.Phase != "rollout 1" {
		t.Errorf("mark: %+v", last)
	}
	from := map[string]int{}
	for range 16 {
		from[<-seen]++
	}
	for i := 1; i <= 8; i++ {
		if from[fmt.Sprintf("127.0.0.%d", i)] != 2 {
			t.Fatalf("sources: %v", from)
		}
	}
}

func TestAsk(t *testing.T) {
	addr := serve(t, "tcp", "127.0.0.1:0", hear)
	_, err := Ask(t.Context(), Options{Addrs: []string{addr}})
	var f *Failure
	if !errors.As(err, &f) || f.Kind != EOF {
		t.Errorf("got %v, want an eof", err)
	}
	if _, err := Ask(t.Context(), Options{}); err == nil {
		t.Error("no address is no error")
	}
}

// The quantiles of random times are the sorted ones, at most 1/32 too high.
func TestHistogram(t *testing.T) {
	random := rand.New(rand.NewSource(1))
	var h histogram
	var all []time.Duration
	for range 10000 {
		d := time.Duration(random.Int63()) >> random.Intn(62)
		all = append(all, d)
		h[bucket(d)]++
		if up := top(bucket(d)); up < d || up-d > d/32 {
			t.Fatalf("%d is in a bucket to %d", d, up)
		}
	}
	slices.Sort(all)
	for _, q := range []float64{0.001, 0.5, 0.9, 0.99, 0.999, 1} {
		want := all[max(int(q*10000)-1, 0)]
		if got := h.at(q); got < want || got-want > want/32 {
			t.Errorf("quantile %v: got %d, want %d", q, got, want)
		}
	}
}

// Foreign bytes as an answer: no panic, and never more than was there.
func FuzzParseHeader(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n"))
	f.Add([]byte("HTTP/1.0 404 \r\nTransfer-Encoding: chunked\r\nX-Pid: 3\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 2\r\n\r\n"))
	f.Fuzz(func(t *testing.T, head []byte) {
		var a Answer
		length, _, err := parseHeader(&a, head)
		if err == nil && length < -1 {
			t.Errorf("length %d", length)
		}
	})
}
