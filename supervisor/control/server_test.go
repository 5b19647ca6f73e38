package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if path := os.Getenv("CONTROL_TEST_DIAL"); path != "" { // another user
		c, err := Dial(path)
		if err == nil {
			_, err = c.Names(context.Background())
		}
		fmt.Println(err)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func background(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// What goes in on one side comes out on the other, in every field.
func TestStatusRoundTrip(t *testing.T) {
	c := serve(t, &fake{})
	got, err := c.Status(background(t))
	if err != nil {
		t.Fatal(err)
	}
	want := sample()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if missing := zeroes("", reflect.ValueOf(want.Supervisor), reflect.ValueOf(want.Services[0])); len(missing) > 0 {
		t.Errorf("the sample has no value for %v", missing)
	}
	one, err := c.Status(background(t), "api")
	if err != nil || len(one.Services) != 1 || one.Services[0].Name != "api" {
		t.Errorf("%+v, %v", one, err)
	}
	names, err := c.Names(background(t))
	if err != nil || strings.Join(names, " ") != "api web" {
		t.Error(names, err)
	}
	if c.PID() != os.Getpid() {
		t.Errorf("the supervisor's pid is %d, not %d", c.PID(), os.Getpid())
	}
}

// zeroes lists fields without a value.
func zeroes(at string, values ...reflect.Value) (all []string) {
	for _, v := range values {
		switch v.Kind() {
		case reflect.Pointer:
			if !v.IsNil() {
				all = append(all, zeroes(at, v.Elem())...)
				continue
			}
		case reflect.Slice:
			for i := range v.Len() {
				all = append(all, zeroes(fmt.Sprint(at, i), v.Index(i))...)
			}
		case reflect.Struct:
			if v.Type() != reflect.TypeFor[time.Time]() {
				for i := range v.NumField() {
					name := at + "." + v.Type().Field(i).Name
					if name == ".Processes0.Parent" || strings.HasSuffix(name, "0.Parent") {
						continue
					}
					all = append(all, zeroes(name, v.Field(i))...)
				}
			}
		default:
		}
		if v.IsZero() {
			all = append(all, at)
		}
	}
	return all
}

func TestVerbs(t *testing.T) {
	f := &fake{}
	c := serve(t, f)
	web := []string{"web"}
	var steps []string
	each := func(e Event) { steps = append(steps, e.String()) }
	if err := c.Rollout(background(t), web, each); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(`rollout started: service=web generation=2 cause="supervise rollout, uid %d pid %d" from=1`, os.Getuid(), os.Getpid())
	if len(steps) != 2 || steps[0] != want || steps[1] != "rollout done" {
		t.Errorf("%q, want %q", steps, want)
	}
	var e *Error
	if err := c.Restart(background(t), web, nil); !errors.As(err, &e) || e.Code != Failed || e.Service != "web" || e.Message != "exit status 3 before it was ready" {
		t.Errorf("restart: %v", err)
	}
	if err := c.Rollout(background(t), []string{"nope"}, nil); !errors.As(err, &e) || e.Code != NoSuchService || e.Hint != "services: api, web" {
		t.Errorf("no such service: %v", err)
	}
	if err := c.Upgrade(background(t), "/x", nil); !errors.As(err, &e) || e.Code != Unsupported {
		t.Errorf("upgrade: %v", err)
	}
	if err := c.Pause(background(t), web, nil); err == nil || err.Error() != "one\ntwo" || !errors.As(err, &e) {
		t.Errorf("two errors: %v", err)
	}
	if err := c.Stop(background(t), nil, nil); !errors.As(err, &e) || e.Code != BadRequest {
		t.Errorf("stop of nobody: %v", err)
	}
	for _, do := range []func(context.Context, []string, func(Event)) error{c.Reload, c.Stop, c.Start, c.Resume} {
		if err := do(background(t), web, nil); err != nil {
			t.Error(err)
		}
	}
	if err := c.Kill(background(t), web, "HUP"); err != nil {
		t.Error(err)
	}
	last := f.commands[len(f.commands)-1]
	if last.Verb != VerbKill || last.Signal != "HUP" || last.Peer.PID != os.Getpid() {
		t.Errorf("%+v", last)
	}
}

// A command goes on when who asked for it has left, and its words come as they happen.
func TestLeavingEndsNothing(t *testing.T) {
	f := &fake{release: make(chan struct{})}
	c := serve(t, f)
	ctx, cancel := context.WithCancel(background(t))
	err := c.Rollout(ctx, nil, func(e Event) {
		if e.Message == "rollout started" {
			cancel() // seen before it is done
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(f.release)
	if err := c.Rollout(background(t), nil, nil); err != nil {
		t.Error(err)
	}
}

func TestFollow(t *testing.T) {
	f := &fake{left: make(chan string, 2)}
	c := serve(t, f)
	ctx, cancel := context.WithCancel(background(t))
	n := 0
	err := c.Events(ctx, EventQuery{Follow: true, Last: -1}, func(Event) error {
		if n++; n == 3 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || n != 3 {
		t.Error(n, err)
	}
	if what := <-f.left; what != "events" { // the server saw that we left
		t.Error(what)
	}
	var lines []Line
	if err := c.Logs(background(t), LogQuery{}, func(l Line) error { lines = append(lines, l); return nil }); err != nil || len(lines) != 1 || lines[0].Text != "listening \ufffd" {
		t.Error(lines, err)
	}
}

// Somebody who follows and does not read is left behind.
func TestFollowerWhoDoesNotRead(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 10 s")
	}
	t.Parallel()
	f := &fake{left: make(chan string, 2), flood: 1 << 20}
	c := serve(t, f)
	conn := raw(t, c)
	io.WriteString(conn, "GET /v1/events?follow=1 HTTP/1.1\r\n\r\n")
	select {
	case what := <-f.left:
		if what != "flood" {
			t.Error(what)
		}
	case <-time.After(patience):
		t.Error("still writing")
	}
}

// Whatever is said, the answer is an answer or nothing, and the next one is served.
func TestHostileClients(t *testing.T) {
	c := serve(t, &fake{})
	for name, said := range map[string]struct{ say, hear string }{
		"garbage":          {strings.Repeat("\x00\xff\n", 100) + "\n\n", "HTTP/1.1 400 "},
		"nothing":          {"", ""},
		"half a request":   {"GET /v1/sta", ""},
		"half a body":      {"POST /v1/rollout HTTP/1.1\r\nContent-Length: 100\r\n\r\n{", ""},
		"TLS":              {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("x", 600) + "\n\n", "HTTP/1.1 400 "},
		"endless head":     {"GET / HTTP/1.1\r\n" + strings.Repeat("A: b\r\n", 5000), "HTTP/1.1 400 "},
		"endless line":     {"GET /" + strings.Repeat("x", 1<<20), "HTTP/1.1 400 "},
		"huge body":        {"POST /v1/rollout HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n" + strings.Repeat("x", 1<<16), "HTTP/1.1 400 "},
		"negative body":    {"POST /v1/rollout HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 400 "},
		"two lengths":      {"POST /v1/rollout HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", "HTTP/1.1 400 "},
		"chunks":           {"POST /v1/rollout HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 501 "},
		"not JSON":         {"POST /v1/rollout HTTP/1.1\r\nContent-Length: 3\r\n\r\n{{{", "HTTP/1.1 400 "},
		"wrong type":       {"POST /v1/rollout HTTP/1.1\r\nContent-Length: 15\r\n\r\n{\"services\":17}", "HTTP/1.1 400 "},
		"wrong method":     {"DELETE /v1/status HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "},
		"no such path":     {"GET /etc/passwd HTTP/1.1\r\n\r\n", "HTTP/1.1 404 "},
		"HTTP/2":           {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/1.1 400 "},
		"no protocol":      {"GET /v1/status\r\n\r\n", "HTTP/1.1 400 "},
		"bad query":        {"GET /v1/events?last=x HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "},
		"bad escape":       {"GET /v1/status?service=%zz HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "},
		"no such service":  {"GET /v1/status?service=%00 HTTP/1.1\r\n\r\n", "HTTP/1.1 404 "},
		"LF alone":         {"GET /v1/services HTTP/1.1\n\n", "HTTP/1.1 200 "},
		"HTTP/1.0":         {"GET /v1/events HTTP/1.0\r\n\r\n", "HTTP/1.1 200 "},
		"two at once":      {"GET /v1/services HTTP/1.1\r\n\r\nGET /v1/services HTTP/1.1\r\n\r\n", "HTTP/1.1 200 "},
		"body after a GET": {"GET /v1/services HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", "HTTP/1.1 200 "},
	} {
		conn := raw(t, c)
		io.WriteString(conn, said.say) // may be cut short
		conn.CloseWrite()
		answer, err := io.ReadAll(conn)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if said.hear == "" && len(answer) > 0 || !strings.HasPrefix(string(answer), said.hear) {
			t.Errorf("%s: answered %.200q, not %q", name, answer, said.hear)
		}
		if strings.Contains(said.say, "1.0") && strings.Contains(string(answer), "chunked") {
			t.Errorf("%s: chunks for HTTP/1.0", name)
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		conn := raw(t, c)
		b := make([]byte, rng.IntN(300))
		for i := range b {
			b[i] = "GET /v1:\r\n \x00\xff"[rng.IntN(13)]
		}
		conn.Write(b)
		conn.Close()
	}
	if _, err := c.Names(background(t)); err != nil {
		t.Error("after all that:", err)
	}
}

// A thousand connections that say nothing take no more than their share, and a
// client with a question is answered meanwhile.
func TestIdleConnections(t *testing.T) {
	c := serve(t, &fake{})
	before := runtime.NumGoroutine()
	var conns []net.Conn
	defer func() {
		for _, conn := range conns {
			conn.Close()
		}
	}()
	for i := range 1000 {
		conn, err := c.connect(background(t))
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
		if i%3 == 0 {
			io.WriteString(conn, "GET /v1/sta")
		}
	}
	for range 20 {
		if _, err := c.Status(background(t)); err != nil {
			t.Fatal(err)
		}
	}
	if n := runtime.NumGoroutine() - before; n > 2*maxConns+10 {
		t.Errorf("%d goroutines more", n)
	}
}

// When all connections are in use by somebody who follows, the next one is told.
func TestAllInUse(t *testing.T) {
	f := &fake{left: make(chan string, maxConns)}
	c := serve(t, f)
	for range maxConns {
		conn := raw(t, c)
		io.WriteString(conn, "GET /v1/logs?follow=1 HTTP/1.1\r\n\r\n")
		if _, err := bufio.NewReader(conn).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	var e *Error
	if _, err := c.Names(background(t)); !errors.As(err, &e) || e.Code != Unavailable {
		t.Error("one too many:", err)
	}
}

// Commands and questions from many at once.
func TestManyClients(t *testing.T) {
	c := serve(t, &fake{})
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for range 20 {
				if err := c.Rollout(background(t), nil, nil); err != nil {
					t.Error(err)
				}
				if _, err := c.Status(background(t), "web"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// curl speaks to it.
func TestCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("no curl(1) here:", err)
	}
	c := serve(t, &fake{})
	for _, one := range []struct {
		want string
		args []string
	}{
		{`"name":"web"`, []string{"http://x/v1/status?service=web"}},
		{`{"result":{"ok":true}}` + "\n", []string{"-X", "POST", "http://x/v1/rollout?service=web"}},
		{`"message":"rollout started"`, []string{"-0", "-X", "POST", "http://x/v1/rollout"}},
		{`{"error":{"code":"no-such-service"`, []string{"-d", `{"services":["x"]}`, "http://x/v1/rollout"}},
		{`{"result":{"ok":true}}`, []string{"-H", "Expect: 100-continue", "-d", `{"signal":"` + strings.Repeat(" ", 5000) + `","services":["web"]}`, "http://x/v1/kill"}},
		{`"message":"was 2"`, []string{"-N", "http://x/v1/events"}},
	} {
		out, err := exec.Command(curl, append([]string{"-sS", "--max-time", "20", "--unix-socket", c.Path()}, one.args...)...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), one.want) {
			t.Errorf("%q: %v\n%s", one.args, err, out)
		}
	}
}

// Who is not allowed is told so, and has no way round the mode of the file.
func TestOtherUsers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to be somebody else")
	}
	const somebody, group = 54321, 54322
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "control-*") // t.TempDir is for its owner alone
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	os.Chmod(dir, 0o755)
	copied := dir + "/test"
	text, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(copied, text, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, one := range map[string]struct {
		group uint32 // of the server
		gid   uint32
		extra []uint32
		mode  os.FileMode // set behind the server's back, 0: not
		want  string
	}{
		"nobody":              {0, somebody, nil, 0, "permission denied"},
		"mode was changed":    {0, somebody, nil, 0o666, "may not talk to this supervisor"},
		"of the group":        {group, group, nil, 0, "<nil>"},
		"supplementary group": {group, somebody, []uint32{1, group}, 0, "<nil>"},
		"another group":       {group, somebody, []uint32{1}, 0, "permission denied"},
	} {
		path := dir + "/" + strings.ReplaceAll(name, " ", "") + ".sock"
		end, err := Listen(path, one.group)
		if err != nil {
			t.Fatal(err)
		}
		s := NewServer(end, &fake{}, Options{Group: one.group})
		if one.mode != 0 {
			os.Chmod(path, one.mode)
		}
		cmd := exec.Command(copied)
		cmd.Env = append(os.Environ(), "CONTROL_TEST_DIAL="+path)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: somebody, Gid: one.gid, Groups: one.extra}}
		var out []byte
		done := make(chan struct{})
		go func() { defer close(done); out, err = cmd.CombinedOutput() }()
		for over := false; !over; {
			select {
			case <-done:
				over = true
			default:
				unix.Poll([]unix.PollFd{{Fd: int32(s.FD()), Events: unix.POLLIN}}, 10)
				s.Accept()
			}
		}
		if err != nil || !strings.Contains(string(out), one.want) {
			t.Errorf("%s: %v %s, want %s", name, err, out, one.want)
		}
		if err := s.Close(patience); err != nil {
			t.Error(err)
		}
	}
}

// A server leaves nothing behind, and its commands hear how they ended.
func TestClose(t *testing.T) {
	path := t.TempDir() + "/x.sock"
	fds := openFDs(t)
	end, err := Listen(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{release: make(chan struct{}), left: make(chan string, 1)}
	s := NewServer(end, f, Options{})
	c := &Client{path: path}
	results := make(chan error, 2)
	begun := make(chan struct{})
	go func() {
		results <- c.Rollout(background(t), nil, func(e Event) {
			if e.Seq == 1 {
				close(begun)
			}
		})
	}() //nolint:gofumpt // one line
	pollOnce(t, s)
	<-begun
	go func() { results <- c.Events(background(t), EventQuery{Follow: true}, func(Event) error { return nil }) }()
	pollOnce(t, s)
	go func() { time.Sleep(10 * time.Millisecond); close(f.release) }()
	if err := s.Close(patience); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := <-results; err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Error("the path is still there:", err)
	}
	if now := openFDs(t); now != fds {
		t.Errorf("%d descriptors, there were %d", now, fds)
	}
}

func pollOnce(t *testing.T, s *Server) {
	t.Helper()
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(s.FD()), Events: unix.POLLIN}}, int(patience.Milliseconds())); err != nil {
		t.Fatal(err)
	}
	if err := s.Accept(); err != nil {
		t.Fatal(err)
	}
}

func openFDs(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte("GET /v1/status?service=a HTTP/1.1\r\nHost: x\r\n\r\n"))
	f.Add([]byte("POST /v1/rollout HTTP/1.0\nContent-Length: 2\nExpect: 100-continue\n\n{}"))
	f.Add([]byte("\x16\x03\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		req, err := readRequest(strings.NewReader(string(b)), func() error { return nil })
		if err == nil && (req.method == "" || !strings.HasPrefix(req.path, "/") && req.path != "*" && req.path != "" && !strings.Contains(string(b), "://")) {
			t.Errorf("%q became %+v", b, req)
		}
		// In pieces it is the same.
		again, err2 := readRequest(&drip{b}, func() error { return nil })
		if (err == nil) != (err2 == nil) || err == nil && !reflect.DeepEqual(req, again) {
			t.Errorf("%+v %v, in pieces %+v %v", req, err, again, err2)
		}
	})
}

// drip gives one byte at a time.
type drip struct{ b []byte }

func (d *drip) Read(p []byte) (int, error) {
	if len(d.b) == 0 {
		return 0, io.EOF
	}
	p[0] = d.b[0]
	d.b = d.b[1:]
	return 1, nil
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 404 No\r\nContent-Length: 3\r\n\r\n{}\n"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, body, err := readAnswer(bufio.NewReader(strings.NewReader(string(b))))
		if err == nil {
			io.Copy(io.Discard, body)
		}
	})
}

// Chunks of every size come back as they were, and one cut short is an error.
func TestChunks(t *testing.T) {
	var sent strings.Builder
	s := &stream{w: &sent}
	want := ""
	for n := range 300 {
		text := strings.Repeat("x", n)
		if err := s.line(text); err != nil {
			t.Fatal(err)
		}
		want += strconv.Quote(text) + "\n"
	}
	if err := s.end(); err != nil {
		t.Fatal(err)
	}
	for _, cut := range []int{0, 1, 5, 700, 5000} {
		text := sent.String()
		text = text[:len(text)-cut]
		_, body, err := readAnswer(bufio.NewReader(strings.NewReader(text)))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(body)
		// The last LF and the trailer's CR of a complete answer may be missing: nothing of it is needed.
		if complete := cut <= 2; complete != (err == nil) || complete && string(got) != want {
			t.Errorf("cut by %d: %v", cut, err)
		}
	}
}
