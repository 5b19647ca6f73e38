package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// patience is the one deadline of every wait. It is met only by what hangs.
const patience = 60 * time.Second

type storyKey struct{}

// story is what one script has under way.
type story struct {
	mark     string
	programs map[string]*program
	managers map[string]*stream
	held     map[string]net.Conn
	reserved map[string]int // fds
}

func newStory(mark string) *story {
	return &story{mark: mark, programs: map[string]*program{}, managers: map[string]*stream{}, held: map[string]net.Conn{}, reserved: map[string]int{}}
}

func storyOf(ts *testscript.TestScript) *story { return ts.Value(storyKey{}).(*story) }

// close ends what the story left running, which only a failed one does.
func (s *story) close() {
	for _, h := range s.held {
		h.Close()
	}
	for _, fd := range s.reserved {
		unix.Close(fd)
	}
	for _, p := range s.programs {
		p.cmd.Process.Signal(syscall.SIGTERM)
		p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(5 * time.Second):
		}
	}
	for range 100 {
		left := s.processes()
		for _, pid := range left {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		if len(left) == 0 {
			return
		}
	}
}

// processes are the living processes of the story: those that inherited its
// mark. What has died has no environment any more.
func (s *story) processes() (pids []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, f := range files {
		env, err := os.ReadFile(f)
		if err != nil || !bytes.Contains(append([]byte{0}, env...), []byte("\x00STORY="+s.mark+"\x00")) {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		pids = append(pids, pid)
	}
	return pids
}

// program is one that runs beside the script: supervise, mostly.
type program struct {
	cmd      *exec.Cmd
	out, log *stream
	done     chan struct{} // closed when it has ended and its output is read
}

// stream is what a program writes, kept in a file too.
type stream struct {
	mu    sync.Mutex
	grown chan struct{} // closed and replaced when text grows, or ends
	text  []byte
	seen  int // up to here by await
	ended bool
}

func newStream(r io.ReadCloser, file string) (*stream, error) {
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	s := &stream{grown: make(chan struct{})}
	go func() {
		defer f.Close()
		defer r.Close()
		buf := make([]byte, 1<<16)
		for {
			n, err := r.Read(buf)
			f.Write(buf[:n])
			s.mu.Lock()
			s.text = append(s.text, buf[:n]...)
			s.ended = err != nil
			close(s.grown)
			s.grown = make(chan struct{})
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return s, nil
}

// await waits for re behind what was awaited before, and gives its groups.
func (s *stream) await(re *regexp.Regexp) ([][]byte, error) {
	deadline := time.After(patience)
	for {
		s.mu.Lock()
		at := re.FindSubmatchIndex(s.text[s.seen:])
		if at != nil {
			var groups [][]byte
			for i := 0; i < len(at); i += 2 {
				groups = append(groups, s.text[s.seen+at[i]:s.seen+at[i+1]])
			}
			s.seen += at[1]
			s.mu.Unlock()
			return groups, nil
		}
		text, ended, grown := string(s.text), s.ended, s.grown
		s.mu.Unlock()
		if ended {
			return nil, fmt.Errorf("ended without %q:\n%s", re, text)
		}
		select {
		case <-grown:
		case <-deadline:
			return nil, fmt.Errorf("no %q within %s:\n%s", re, patience, text)
		}
	}
}

func (s *stream) all() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.text)
}

// words are the commands of the stories beside those of testscript.
func words() map[string]func(*testscript.TestScript, bool, []string) {
	all := map[string]func(*testscript.TestScript, bool, []string){}
	add := func(word string, least int, usage string, f func(ts *testscript.TestScript, s *story, neg bool, args []string)) {
		all[word] = func(ts *testscript.TestScript, neg bool, args []string) {
			if len(args) < least {
				ts.Fatalf("usage: %s %s", word, usage)
			}
			f(ts, storyOf(ts), neg, args)
		}
	}
	add("start", 2, "NAME PROGRAM [ARG...]: runs it beside the script; NAME.log has its standard error, NAME.out its output", startProgram)
	add("await", 2, "NAME|NAME.out REGEXP: waits until it is written, behind what was awaited before", await)
	add("signal", 2, "NAME|PID SIGNAL...", sendSignal)
	add("ends", 2, "NAME STATUS: waits for its end; nothing of the story may be left", ends)
	add("status", 2, "STATUS PROGRAM [ARG...]: runs it; this is its exit status", status)
	add("address", 2, "VAR NAME [SOCKET [INDEX]]: reads it from the log", address)
	add("ask", 1, "ADDRESS[/PATH] [REGEXP]: what is served there matches; with !, the connection is refused", ask)
	add("pid", 2, "VAR ADDRESS: who answers there", pidOf)
	add("hold", 2, "NAME ADDRESS[/PATH]: sends a request and does not wait for the answer", hold)
	add("held", 2, "NAME REGEXP: waits for the answer", answered)
	add("behave", 1, "STEP...: what a server @behave does", behave)
	add("nothing", 1, "left: no process of the story lives", nothing)
	add("process", 2, "VAR NAME: the process of a program", func(ts *testscript.TestScript, s *story, _ bool, args []string) {
		ts.Setenv(args[0], strconv.Itoa(s.program(ts, args[1]).cmd.Process.Pid))
	})
	add("halted", 1, "N: waits until so many processes of the story are stopped", halted)
	add("same", 2, "A B: the two are equal; with !, they are not", same)
	add("reserve", 1, "VAR: a free TCP port, which nobody else is given until it is released", reserve)
	add("release", 1, "VAR", release)
	add("static", 1, "VAR: path of examples/plain, built without cgo", static)
	add("flip", 1, "VAR: path of examples/tableflip", flip)
	add("manager", 1, "NAME: a service manager above, at $WORK/NAME.sock; NAME.log has what it is told", manager)
	add("listening", 1, "ADDRESS: an unsupervised unix listener, until the end of the story", listening)
	interceptWords(add)
	return all
}

func startProgram(ts *testscript.TestScript, s *story, _ bool, args []string) {
	name := args[0]
	path := args[1]
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if full := filepath.Join(dir, path); !strings.Contains(path, "/") && unix.Access(full, unix.X_OK) == nil {
			path = full
			break
		}
	}
	p := &program{cmd: exec.Command(path, args[2:]...), done: make(chan struct{})}
	p.cmd.Args[0] = args[1]
	p.cmd.Dir = ts.MkAbs(".")
	p.cmd.Env = environ(ts)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	outR, outW, err := os.Pipe()
	ts.Check(err)
	errR, errW, err := os.Pipe()
	ts.Check(err)
	p.cmd.Stdout, p.cmd.Stderr = outW, errW
	p.out, err = newStream(outR, ts.MkAbs(name+".out"))
	ts.Check(err)
	p.log, err = newStream(errR, ts.MkAbs(name+".log"))
	ts.Check(err)
	ts.Check(p.cmd.Start())
	outW.Close()
	errW.Close()
	s.programs[name] = p
	go func() {
		p.cmd.Wait()
		close(p.done)
	}()
}

// environ is the script's environment.
func environ(ts *testscript.TestScript) []string {
	var names []string
	names = append(names, "PATH", "HOME", "TMPDIR", "STORY", "LC_ALL", "GORACE", "GOCOVERDIR", "NOBODYBIN", "SUPERVISE_RUNTIME_DIR")
	names = append(names, strings.Fields(ts.Getenv("pass"))...)
	var env []string
	for _, n := range names {
		if v := ts.Getenv(n); v != "" {
			env = append(env, n+"="+v)
		}
	}
	return append(env, "WORK="+ts.Getenv("WORK"))
}

func (s *story) program(ts *testscript.TestScript, name string) *program {
	p := s.programs[name]
	if p == nil {
		ts.Fatalf("nothing was started as %q", name)
	}
	return p
}

func (s *story) stream(ts *testscript.TestScript, name string) *stream {
	if base, ok := strings.CutSuffix(name, ".out"); ok {
		return s.program(ts, base).out
	}
	if m := s.managers[name]; m != nil {
		return m
	}
	return s.program(ts, name).log
}

func await(ts *testscript.TestScript, s *story, _ bool, args []string) {
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	if _, err := s.stream(ts, args[0]).await(re); err != nil {
		ts.Fatalf("%s: %v", args[0], err)
	}
}

func sendSignal(ts *testscript.TestScript, s *story, _ bool, args []string) {
	for _, name := range args[1:] {
		sig := unix.SignalNum("SIG" + name)
		if sig == 0 {
			ts.Fatalf("no signal %s", name)
		}
		if pid, err := strconv.Atoi(args[0]); err == nil {
			if !slices.Contains(s.processes(), pid) {
				ts.Fatalf("%d is not a living process of this story", pid)
			}
			ts.Check(syscall.Kill(pid, sig))
			continue
		}
		ts.Check(s.program(ts, args[0]).cmd.Process.Signal(sig))
	}
}

func ends(ts *testscript.TestScript, s *story, _ bool, args []string) {
	p := s.program(ts, args[0])
	select {
	case <-p.done:
	case <-time.After(patience):
		ts.Fatalf("%s does not end:\n%s", args[0], p.log.all())
	}
	delete(s.programs, args[0])
	if len(s.programs) == 0 {
		s.nothingLeft(ts, p.log.all)
	}
	log := p.log.all()
	if strings.Contains(log, "DATA RACE") || strings.Contains(log, "cannot happen") || strings.Contains(log, "panic:") {
		ts.Fatalf("a fault in the log:\n%s", log)
	}
	if got := shellStatus(p.cmd.ProcessState); strconv.Itoa(got) != args[1] {
		ts.Fatalf("%s ended with status %d, not %s:\n%s", args[0], got, args[1], log)
	}
}

func (s *story) nothingLeft(ts *testscript.TestScript, log func() string) {
	left := s.processes()
	if len(left) == 0 {
		return
	}
	var what []string
	for _, pid := range left {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		what = append(what, fmt.Sprintf("%d: %q %s", pid, line, stat))
	}
	ts.Fatalf("processes are left:\n%s\n%s", strings.Join(what, "\n"), log())
}

func shellStatus(st *os.ProcessState) int {
	ws := st.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

func status(ts *testscript.TestScript, s *story, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = shellStatus(exit.ProcessState)
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("status %d, not %s", got, args[0])
	}
	if len(s.programs) == 0 {
		s.nothingLeft(ts, func() string { return ts.ReadFile("stderr") })
	}
}

func nothing(ts *testscript.TestScript, s *story, _ bool, _ []string) {
	s.nothingLeft(ts, func() string { return "" })
}

// address finds the INDEXth address of a socket in the lines "listening".
func address(ts *testscript.TestScript, s *story, _ bool, args []string) {
	socket, index := `\S+`, 0
	if len(args) > 2 {
		socket = regexp.QuoteMeta(args[2])
	}
	if len(args) > 3 {
		index, _ = strconv.Atoi(args[3])
	}
	log := s.program(ts, args[1]).log
	re := regexp.MustCompile(`(?:listening: .*socket=` + socket + ` address=(\S+)[^\n]*\n(?s:.*?)){` + strconv.Itoa(index+1) + `}`)
	groups, err := log.peek(re)
	if err != nil {
		ts.Fatalf("%v", err)
	}
	ts.Setenv(args[0], string(groups[1]))
	if _, port, err := net.SplitHostPort(string(groups[1])); err == nil {
		ts.Setenv(args[0]+"_port", port)
	}
}

// peek is await from the beginning, and leaves no trace.
func (s *stream) peek(re *regexp.Regexp) ([][]byte, error) {
	s.mu.Lock()
	seen := s.seen
	s.seen = 0
	s.mu.Unlock()
	groups, err := s.await(re)
	s.mu.Lock()
	s.seen = seen
	s.mu.Unlock()
	return groups, err
}

// dial takes what the log says: HOST:PORT, udp:HOST:PORT, or a unix path.
func dial(ctx context.Context, addr string) (net.Conn, error) {
	var d net.Dialer
	network := "tcp"
	switch {
	case strings.HasPrefix(addr, "udp:"):
		network, addr = "udp", addr[len("udp:"):]
	case strings.HasPrefix(addr, "/") || strings.HasPrefix(addr, "@"):
		network = "unix"
	}
	return d.DialContext(ctx, network, addr)
}

// get asks for a path, where the address serves HTTP, or sends a datagram.
func get(addr string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	addr, path, _ := strings.Cut(addr, " ")
	if path == "" {
		path = "/"
	}
	if strings.HasPrefix(addr, "udp:") {
		return datagram(ctx, addr)
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, addr) },
	}}
	req, err := http.NewRequestWithContext(ctx, "GET", "http://story"+path, nil)
	if err != nil {
		return "", err
	}
	r, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	return string(body), err
}

func datagram(ctx context.Context, addr string) (string, error) {
	c, err := dial(ctx, addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	buf := make([]byte, 1<<16)
	c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write([]byte("?")); err != nil {
		return "", err
	}
	n, err := c.Read(buf)
	return string(buf[:n]), err
}

func ask(ts *testscript.TestScript, s *story, neg bool, args []string) {
	if neg {
		if body, err := get(args[0]); err == nil {
			ts.Fatalf("%s answers %q", args[0], body)
		} else if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.ENOENT) {
			ts.Fatalf("not refused, but: %v", err)
		}
		return
	}
	body, err := get(args[0])
	if err != nil {
		ts.Fatalf("%v%s", err, s.logs())
	}
	want := `^pid \d+`
	if len(args) > 1 {
		want = args[1]
	}
	if ok, err := regexp.MatchString(want, body); err != nil || !ok {
		ts.Fatalf("%s answers %q, not %q%s", args[0], body, want, s.logs())
	}
}

func (s *story) logs() string {
	var b strings.Builder
	for name, p := range s.programs {
		fmt.Fprintf(&b, "\n%s:\n%s", name, p.log.all())
	}
	return b.String()
}

func pidOf(ts *testscript.TestScript, s *story, _ bool, args []string) {
	body, err := get(args[1])
	if err != nil {
		ts.Fatalf("%v%s", err, s.logs())
	}
	fields := strings.Fields(body)
	if len(fields) < 2 {
		ts.Fatalf("%s answers %q", args[1], body)
	}
	ts.Setenv(args[0], fields[1])
}

func hold(ts *testscript.TestScript, s *story, _ bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	addr, path := args[1], ""
	if !strings.HasPrefix(addr, "/") {
		addr, path, _ = strings.Cut(addr, "/")
	}
	c, err := dial(ctx, addr)
	ts.Check(err)
	_, err = io.WriteString(c, "GET /"+path+" HTTP/1.0\r\n\r\n")
	ts.Check(err)
	s.held[args[0]] = c
}

func answered(ts *testscript.TestScript, s *story, _ bool, args []string) {
	h := s.held[args[0]]
	if h == nil {
		ts.Fatalf("nothing is held as %q", args[0])
	}
	h.SetDeadline(time.Now().Add(patience))
	body, err := io.ReadAll(h)
	if err != nil {
		ts.Fatalf("%v%s", err, s.logs())
	}
	if ok, err := regexp.Match(args[1], body); err != nil || !ok {
		ts.Fatalf("the answer is %q, not %q%s", body, args[1], s.logs())
	}
}

// behave replaces the file at once: a generation reads the old or the new one.
func behave(ts *testscript.TestScript, _ *story, _ bool, args []string) {
	file := ts.MkAbs("behave")
	ts.Check(os.WriteFile(file+".new", []byte(strings.Join(args, "\n")+"\n"), 0o644))
	ts.Check(os.Rename(file+".new", file))
}

func listening(ts *testscript.TestScript, _ *story, _ bool, args []string) {
	network, addr := "tcp", args[0]
	if strings.HasPrefix(addr, "/") {
		network = "unix"
	}
	l, err := net.Listen(network, addr)
	ts.Check(err)
	if len(args) > 1 {
		ts.Setenv(args[1], l.Addr().String())
	}
	ts.Defer(func() { l.Close() })
}

func same(ts *testscript.TestScript, _ *story, neg bool, args []string) {
	if (args[0] == args[1]) == neg {
		ts.Fatalf("%q and %q", args[0], args[1])
	}
}

// buildPlain and buildFlip build an example once for all stories and give its
// bytes, so that no file is left.
var (
	buildPlain = sync.OnceValues(func() ([]byte, error) { return buildExample("plain") })
	buildFlip  = sync.OnceValues(func() ([]byte, error) { return buildExample("tableflip") })
)

func buildExample(name string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "supervise-story-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, name)
	c := exec.Command("go", "build", "-o", file, "../../examples/"+name)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	return os.ReadFile(file)
}

func flip(ts *testscript.TestScript, _ *story, _ bool, args []string) {
	text, err := buildFlip()
	ts.Check(err)
	own := filepath.Join(ts.Getenv("WORK"), "flip")
	ts.Check(os.WriteFile(own, text, 0o755))
	ts.Setenv(args[0], own)
}

func static(ts *testscript.TestScript, _ *story, _ bool, args []string) {
	text, err := buildPlain()
	ts.Check(err)
	own := filepath.Join(ts.Getenv("WORK"), "plain")
	ts.Check(os.WriteFile(own, text, 0o755))
	ts.Setenv(args[0], own)
}

// manager plays systemd: it hears what supervise says of itself. One line for
// each message, its assignments separated by blanks.
func manager(ts *testscript.TestScript, s *story, _ bool, args []string) {
	file := filepath.Join(ts.Getenv("WORK"), args[0]+".sock")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: file})
	ts.Check(err)
	r, w, err := os.Pipe()
	ts.Check(err)
	log, err := newStream(r, ts.MkAbs(args[0]+".log"))
	ts.Check(err)
	s.managers[args[0]] = log
	ts.Defer(func() { c.Close() })
	go func() {
		defer w.Close()
		buf := make([]byte, 1<<16)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			fmt.Fprintln(w, strings.ReplaceAll(strings.TrimSpace(string(buf[:n])), "\n", " "))
		}
	}()
}

// reserve keeps a port by a socket that is bound and does not listen: who sets
// SO_REUSEADDR may bind it, and nobody is given it for port 0.
func reserve(ts *testscript.TestScript, s *story, _ bool, args []string) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	ts.Check(err)
	s.reserved[args[0]] = fd
	ts.Check(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	ts.Check(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	sa, err := unix.Getsockname(fd)
	ts.Check(err)
	ts.Setenv(args[0], strconv.Itoa(sa.(*unix.SockaddrInet4).Port))
}

func release(ts *testscript.TestScript, s *story, _ bool, args []string) {
	fd, ok := s.reserved[args[0]]
	if !ok {
		ts.Fatalf("no port is reserved as %s", args[0])
	}
	delete(s.reserved, args[0])
	ts.Check(unix.Close(fd))
}

func halted(ts *testscript.TestScript, s *story, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		n := 0
		for _, pid := range s.processes() {
			stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if i := bytes.LastIndexByte(stat, ')'); i >= 0 && bytes.HasPrefix(stat[i:], []byte(") T")) {
				n++
			}
		}
		if n == want {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%d processes are stopped, not %d%s", n, want, s.logs())
		}
	}
}
