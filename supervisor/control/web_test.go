package control

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// serveWeb serves the web on a loopback address.
func serveWeb(t *testing.T, b Backend, pages []Page) (addr string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 16); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	s := NewWeb(fd, b, pages)
	accept(t, s)
	return (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: name.(*unix.SockaddrInet4).Port}).String()
}

func TestWeb(t *testing.T) {
	addr := serveWeb(t, &fake{}, []Page{
		{Path: "/", Serve: func(context.Context) (Answer, error) {
			return Answer{Status: 200, Type: "text/html", Body: []byte("<p>"), Header: "X-Frame-Options: DENY\r\n"}, nil
		}},
		{Path: "/readyz", Serve: func(context.Context) (Answer, error) {
			return Answer{Status: 503, Type: "text/plain", Body: []byte("no\n")}, nil
		}},
		{Path: "/broken", Serve: func(context.Context) (Answer, error) { return Answer{}, Errorf(Unavailable, "later") }},
	})
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ask := func(method, path string) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(background(t), method, "http://"+addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res, string(b)
	}
	for _, c := range []struct {
		method, path string
		status       int
		body         string
	}{
		{"GET", "/", 200, "<p>"},
		{"HEAD", "/", 200, ""},
		{"POST", "/", 400, "use GET"},
		{"GET", "/readyz", 503, "no\n"},
		{"GET", "/broken", 503, "later"},
		{"GET", "/v1/services", 200, `{"services":["api","web"]}`},
		{"POST", "/v1/rollout", 404, "there is no"},
		{"POST", "/v1/status", 400, "use GET"},
		{"GET", "/v1/logs", 200, "listening"},
	} {
		res, body := ask(c.method, c.path)
		if res.StatusCode != c.status || !strings.Contains(body, c.body) || c.body == "" && body != "" {
			t.Errorf("%s %s: %d %q", c.method, c.path, res.StatusCode, body)
		}
	}
	res, _ := ask("GET", "/")
	if res.Header.Get("X-Frame-Options") != "DENY" || res.Header.Get("Content-Type") != "text/html" {
		t.Error(res.Header)
	}
	_, body := ask("GET", "/v1/status")
	var st Status
	if err := json.Unmarshal([]byte(body), &st); err != nil {
		t.Fatal(err)
	}
	if s := st.Services[0]; s.Command != nil || s.Current == nil || s.Current.Processes != nil || s.Draining[0].Processes != nil || s.Current.PID != 4711 {
		t.Errorf("%+v", s)
	}
}

// Names that are not of this machine do not reach a loopback address.
func TestWebForeignHost(t *testing.T) {
	addr := serveWeb(t, &fake{}, nil)
	for host, want := range map[string]string{
		"evil.example": "403", "evil.example:80": "403", "localhost": "200", "localhost:9": "200", "web.localhost": "200",
		"127.0.0.1:1": "200", "[::1]:2": "200", "[::1]": "200", "": "200", "localhost.evil.example": "403",
	} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, "GET /v1/services HTTP/1.1\r\nHost: "+host+"\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil || !strings.HasPrefix(line, "HTTP/1.1 "+want) {
			t.Errorf("%q: %q, %v", host, line, err)
		}
		c.Close()
	}
}
