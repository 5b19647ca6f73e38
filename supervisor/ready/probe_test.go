package ready

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func to(network, addr string) Dial {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, addr)
	}
}

// dialled connects now, so that a short context is left for what follows.
func dialled(t *testing.T, network, addr string) Dial {
	t.Helper()
	c, err := net.DialTimeout(network, addr, deadline)
	if err != nil {
		t.Fatal(err)
	}
	return func(context.Context) (net.Conn, error) { return c, nil }
}

func TestHTTPServer(t *testing.T) {
	var host, proto string
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ok":
			host, proto = r.Host, r.Proto
			_, _ = w.Write([]byte(strings.Repeat("x", 20000)))
		case "/moved":
			http.Redirect(w, r, "/broken", http.StatusFound)
		case "/early":
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusNoContent)
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	plain := httptest.NewServer(h)
	defer plain.Close()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	local := &http.Server{Handler: h}
	defer local.Close()
	go func() { _ = local.Serve(l) }()

	for _, base := range []string{plain.URL, "http://unix:" + path + ":"} {
		for p, ok := range map[string]bool{"/ok": true, "/ok?a=b": true, "/moved": true, "/early": true, "/": false} {
			probe, err := NewHTTP(base+p, nil)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), deadline)
			err = probe.Try(ctx)
			cancel()
			if (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "status 503") {
				t.Errorf("%s: %v", probe, err)
			}
			if p == "/ok" && (proto != "HTTP/1.1" || !strings.HasSuffix(base, host) && host != "localhost") {
				t.Errorf("%s: Host %s, %s", base, host, proto)
			}
		}
	}
}

// The dial function alone decides who answers.
func TestHTTPLane(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	p, err := NewHTTP("http://192.0.2.1:1/", to("tcp", s.Listener.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Try(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestHTTPSilent(t *testing.T) {
	_, _, addr := tcpListener(t, 0) // nobody accepts
	for _, u := range []string{"http://" + addr} {
		p, err := NewHTTP(u, nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		if err := p.Try(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", u, err)
		}
		cancel()
	}
}

func TestReadAnswer(t *testing.T) {
	for text, want := range map[string]string{
		"HTTP/1.1 200 OK\r\n\r\n":                                     "",
		"HTTP/1.0 200\r\n\r\nbody":                                    "",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n":        "",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab":              "",
		"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nab":             "",
		"HTTP/1.1 200 OK\r\n":                                         "closed before",
		"":                                                            "closed before",
		"HTTP/1.1 2000 OK\r\n\r\n":                                    "not an HTTP/1",
		"HTTP/1.1 099 OK\r\n\r\n":                                     "not an HTTP/1",
		"HTTP/2 200 OK\r\n\r\n":                                       "not an HTTP/1",
		"SSH-2.0-OpenSSH_9.2\r\n":                                     "not an HTTP/1",
		"HTTP/1.1 200 OK\r\n" + strings.Repeat("a: b\r\n", 20000):     "header longer",
		"HTTP/1.1 200 " + strings.Repeat("x", 2*maxHead) + "\r\n\r\n": "header longer",
	} {
		_, err := readAnswer(bufio.NewReader(strings.NewReader(text)))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v", text, err)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
	f.Add("HTTP/1.1 100 \r\n\r\nHTTP/1.1 101 \n\n")
	f.Fuzz(func(t *testing.T, text string) {
		status, err := readAnswer(bufio.NewReader(strings.NewReader(text)))
		if err == nil && (status < 101 || status > 999) {
			t.Errorf("%q: %d", text, status)
		}
	})
}

func TestTarget(t *testing.T) {
	for raw, want := range map[string]string{
		"http://localhost:8080/x":      "tcp localhost:8080",
		"http://localhost":             "tcp localhost:80",
		"HTTP://[::1]/x":               "tcp [::1]:80",
		"http://:8080/":                "tcp localhost:8080",
		"http://*:8080/":               "tcp localhost:8080",
		"http://unix:/run/x.sock:/uri": "unix /run/x.sock",
		"http://unix:@abs":             "unix @abs",
	} {
		network, addr, err := Target(raw)
		if network+" "+addr != want || err != nil {
			t.Errorf("%s: %s %s %v", raw, network, addr, err)
		}
	}
	for _, raw := range []string{"", "x", "ftp://x/", "https://x/", "http://", "http:///x", "http://unix:", "http://unix:/x:/a b", "http://a b/", "http://x:y/", "http://x/\r\n"} {
		if _, _, err := Target(raw); err == nil {
			t.Errorf("%q is taken", raw)
		}
	}
}

func TestTCP(t *testing.T) {
	fd, _, addr := tcpListener(t, 0)
	p := &TCP{Address: addr, Dial: dialled(t, "tcp", addr)}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	if err := p.Try(ctx); err == nil || !strings.Contains(err.Error(), "not accepted yet") {
		t.Errorf("nobody accepts: %v", err)
	}
	cancel()

	p.Dial = to("tcp", addr)
	ctx, cancel = context.WithTimeout(context.Background(), deadline)
	defer cancel()
	k := start(t, "accept", fd)
	if err := p.Try(ctx); err != nil {
		t.Errorf("accepted: %v", err)
	}
	p.Tree = func() []int { return []int{k.pid} }
	if err := p.Try(ctx); err != nil {
		t.Errorf("accepted by the candidate: %v", err)
	}
	stranger := start(t, "hold", -1)
	p.Tree = func() []int { return []int{stranger.pid} }
	short, cancel2 := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel2()
	if err := p.Try(short); err == nil || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("accepted by another: %v", err)
	}
}

// A Go server's listener is MPTCP, a unix socket has no port: both are seen.
func TestTCPOtherKinds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	k := start(t, "bind "+path, -1)
	addr, _, _ := strings.Cut(k.line(t), " ")
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	p := &TCP{Address: addr, Dial: to("tcp", addr), Tree: func() []int { return []int{k.pid} }}
	if err := p.Try(ctx); err != nil {
		t.Error(err)
	}
	// The child does not accept on its unix socket.
	unserved := dialled(t, "unix", path)
	short, cancel2 := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel2()
	p = &TCP{Address: path, Dial: unserved}
	if err := p.Try(short); err == nil || !strings.Contains(err.Error(), "not accepted yet") {
		t.Errorf("unix: %v", err)
	}

	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s)
	path += "2"
	if err := errors.Join(unix.Bind(s, &unix.SockaddrUnix{Name: path}), unix.Listen(s, 5)); err != nil {
		t.Fatal(err)
	}
	k = start(t, "accept", s)
	p = &TCP{Address: path, Dial: to("unix", path), Tree: func() []int { return []int{k.pid} }}
	if err := p.Try(ctx); err != nil {
		t.Errorf("unix, accepted: %v", err)
	}
}

func TestCommand(t *testing.T) {
	for _, c := range []struct {
		status int
		err    error
		ok     bool
	}{{0, nil, true}, {3, nil, false}, {0, errors.New("cannot start"), false}} {
		p := &Command{Argv: []string{"check", "it"}, Run: func(_ context.Context, argv []string) (int, error) {
			if strings.Join(argv, " ") != "check it" {
				t.Errorf("%q", argv)
			}
			return c.status, c.err
		}}
		if err := p.Try(context.Background()); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c, err)
		}
	}
	_ = []Probe{&HTTP{}, &TCP{}, &Command{}}
}
