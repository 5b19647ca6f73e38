package intercept

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// generation is a child under the filter, with the server of its calls.
type generation struct {
	t      testing.TB
	cmd    *exec.Cmd
	holder *genHolder
	srv    *Server
	out    *bufio.Reader
	in     io.WriteCloser
	stderr lockedBuilder
	marker string
	exited chan struct{} // the main process is gone
	empty  chan struct{} // nobody is left who has the filter
}

// lockedBuilder is read while the child still writes.
type lockedBuilder struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuilder) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuilder) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start starts a generation of h. What it leaves is killed with the test.
func start(t testing.TB, h *memHolder, number int, opts Options, sopts ServerOptions, cmd *exec.Cmd) *generation {
	t.Helper()
	return startWith(t, h, number, opts, sopts, cmd, func(g *genHolder) Holder { return g })
}

// startWith does it with another holder around the generation's.
func startWith(t testing.TB, h *memHolder, number int, opts Options, sopts ServerOptions, cmd *exec.Cmd, wrap func(*genHolder) Holder) *generation {
	t.Helper()
	g := &generation{t: t, cmd: cmd, exited: make(chan struct{}), empty: make(chan struct{})}
	g.marker = fmt.Sprintf("INTERCEPT_GEN=%s/%d/%d", t.Name(), number, time.Now().UnixNano())
	g.holder = h.generation(number, func(inode uint64) (bool, error) { return Holds(g.pids(), inode) })
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, g.marker)
	cmd.Stderr = &g.stderr
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.WaitDelay = 50 * time.Millisecond // a daemon keeps our pipes open
	out, w, err := os.Pipe()              // Wait would close a StdoutPipe before it is read
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	t.Cleanup(func() { _ = out.Close() })
	cmd.Stdout = w
	g.out = bufio.NewReader(out)
	in, keep, err := os.Pipe() // and a StdinPipe though a daemon still reads
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	t.Cleanup(func() { _ = keep.Close() })
	cmd.Stdin = in
	g.in = keep
	fd := -1
	err = Thread(func() (err error) {
		if fd, err = Install(opts); err != nil {
			return err
		}
		if err := cmd.Start(); err != nil { // forks from this thread
			_ = unix.Close(fd)
			return err
		}
		return nil
	})
	if errors.Is(err, ErrNested) || errors.Is(err, ErrNotPermitted) || errors.Is(err, ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if g.srv, err = NewServer(fd, sopts, wrap(g.holder)); err != nil {
		t.Fatal(err)
	}
	go func() {
		if err := g.srv.Run(); err != nil {
			t.Error(err)
		}
		g.holder.gone()
		close(g.empty)
	}()
	go func() {
		_ = cmd.Wait()
		close(g.exited)
	}()
	t.Cleanup(func() {
		g.kill()
		_ = g.srv.Close()
	})
	return g
}

func (g *generation) pids() []int { return family(g.cmd.Process.Pid, g.marker) }

// kill kills every process of the generation, and waits for the empty filter.
func (g *generation) kill() {
	g.t.Helper()
	end := time.After(deadline)
	for {
		for _, pid := range g.pids() {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		select {
		case <-g.empty:
			<-g.exited
			return
		case <-end:
			g.t.Errorf("cannot empty generation: %v", g.pids())
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// term sends sig to the main process and waits until nobody is left.
func (g *generation) term(sig syscall.Signal) {
	g.t.Helper()
	_ = g.cmd.Process.Signal(sig)
	select {
	case <-g.empty:
	case <-time.After(deadline):
		g.t.Errorf("still there after %v: %v\n%s", sig, g.pids(), g.stderr.String())
	}
	<-g.exited
}

// line reads what the child says next.
func (g *generation) line() string {
	g.t.Helper()
	type result struct {
		s   string
		err error
	}
	got := make(chan result, 1)
	go func() {
		s, err := g.out.ReadString('\n')
		got <- result{strings.TrimSpace(s), err}
	}()
	select {
	case r := <-got:
		if r.err != nil {
			g.t.Fatalf("child: %v, %q\n%s\n%s", r.err, r.s, g.stderr.String(), g.holder.log())
		}
		return r.s
	case <-time.After(deadline):
		g.t.Fatalf("the child says nothing\n%s\n%s", g.stderr.String(), g.holder.log())
	}
	return ""
}

// end lets the child go, which waits for the end of its input.
func (g *generation) end() {
	g.t.Helper()
	_ = g.in.Close()
	select {
	case <-g.empty:
	case <-time.After(deadline):
		g.t.Errorf("still there: %v\n%s", g.pids(), g.stderr.String())
	}
	<-g.exited
}

// actor is the test binary in a role.
func actor(role string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	// A race build sleeps for a second at its end otherwise.
	cmd.Env = append(os.Environ(), "INTERCEPT_ROLE="+role, "GORACE=atexit_sleep_ms=0")
	return cmd
}

// play is the child. It says "ok COOKIE..." or what went wrong, and stays
// until its input ends.
func play(role string) int {
	port64, _ := strconv.ParseUint(os.Args[1], 10, 16)
	port := uint16(port64)
	var say string
	f := map[string]func(uint16) (string, error){
		"serve":   playServe,
		"exec":    playExec,
		"threads": playThreads,
		"fork":    playFork,
		"daemon":  playDaemon,
		"uring":   playURing,
		"private": playPrivate,
		"port80":  playPort80,
		"netns":   playNetNS,
		"unix":    playUnix,
		"signals": playSignals,
		"sink":    playSink,
		"worker":  playWorker,
		"bench":   playBench,
		"http":    playHTTP,
	}[role]
	say, err := f(port)
	if err != nil {
		say = "error: " + err.Error()
	}
	fmt.Println(say)
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

func playServe(port uint16) (string, error) {
	s, err := serve(unix.AF_INET, "127.0.0.1", port, 5)
	if err != nil {
		return "", err
	}
	c, err := Cookie(s.fd)
	return fmt.Sprint("ok ", c), err
}

// playExec executes itself over a listener without close-on-exec.
func playExec(port uint16) (string, error) {
	s, err := newSock(unix.AF_INET, unix.SOCK_STREAM)
	if err != nil {
		return "", err
	}
	if err := errors.Join(s.bind("127.0.0.1", port), unix.Listen(s.fd, 5)); err != nil {
		return "", err
	}
	if err := os.Setenv("INTERCEPT_ROLE", "sink"); err != nil {
		return "", err
	}
	return "", unix.Exec("/proc/self/exe", []string{"sink", strconv.Itoa(s.fd)}, os.Environ())
}

// playSink finds a listener at the fd number that it is told.
func playSink(fd uint16) (string, error) {
	if !listening(int(fd)) {
		return "", errors.New("no listener")
	}
	c, err := Cookie(int(fd))
	return fmt.Sprint("ok ", c), err
}

// playThreads binds from threads that are not the main one, all at once.
func playThreads(port uint16) (string, error) {
	const n = 8
	cookies, errs := make([]uint64, n), make(chan error, n)
	for i := range n {
		go func() {
			errs <- Thread(func() error {
				s, err := serve(unix.AF_INET, fmt.Sprintf("127.0.0.%d", i+1), port, 5)
				if err == nil {
					cookies[i], err = Cookie(s.fd)
				}
				return err
			})
		}()
	}
	var failed error
	for range n {
		failed = errors.Join(failed, <-errs)
	}
	return fmt.Sprint("ok ", cookies), failed
}

// playFork binds in two workers with SO_REUSEPORT.
func playFork(port uint16) (string, error) {
	var words []string
	for range 2 {
		cmd := exec.Command("/proc/self/exe", strconv.Itoa(int(port)))
		cmd.Env = append(os.Environ(), "INTERCEPT_ROLE=worker")
		cmd.Stdin = os.Stdin
		out, err := cmd.StdoutPipe()
		if err != nil {
			return "", err
		}
		if err := cmd.Start(); err != nil {
			return "", err
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			return "", err
		}
		words = append(words, strings.TrimSpace(line))
	}
	return strings.Join(words, " "), nil
}

func playWorker(port uint16) (string, error) {
	s, err := newSock(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC)
	if err != nil {
		return "", err
	}
	if err := errors.Join(unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1),
		s.bind("127.0.0.1", port), unix.Listen(s.fd, 5)); err != nil {
		return "", err
	}
	c, err := Cookie(s.fd)
	return fmt.Sprint("ok ", c), err
}

// playDaemon leaves a grandchild in a session of its own that binds, and exits.
func playDaemon(port uint16) (string, error) {
	cmd := exec.Command("/proc/self/exe", strconv.Itoa(int(port)))
	cmd.Env = append(os.Environ(), "INTERCEPT_ROLE=serve")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	os.Exit(0)
	return "", nil
}

// playPrivate makes itself unreadable and binds.
func playPrivate(port uint16) (string, error) {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return "", err
	}
	return playServe(port)
}

func playPort80(port uint16) (string, error) {
	s, err := newSock(unix.AF_INET, unix.SOCK_STREAM)
	if err != nil {
		return "", err
	}
	return "ok", s.bind("127.0.0.77", port)
}

// playNetNS binds in a network namespace of its own.
func playNetNS(port uint16) (string, error) {
	say := make(chan string, 1)
	err := Thread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		s, err := newSock(unix.AF_INET, unix.SOCK_STREAM)
		if err != nil {
			return err
		}
		if err := s.bind("0.0.0.0", port); err != nil {
			return err
		}
		if err := unix.Listen(s.fd, 5); err != nil {
			return err
		}
		c, err := Cookie(s.fd)
		say <- fmt.Sprint("ok ", c)
		return err
	})
	if err != nil {
		return "", err
	}
	return <-say, nil
}

// playUnix listens on a relative path in its own directory.
func playUnix(uint16) (string, error) {
	_ = unix.Unlink("x.sock")
	s, err := serve(unix.AF_UNIX, "x.sock", 0, 5)
	if err != nil {
		return "", err
	}
	c, err := Cookie(s.fd)
	return fmt.Sprint("ok ", c), err
}

// playSignals binds while signals rain on it.
func playSignals(port uint16) (string, error) {
	stop := make(chan bool)
	go func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Kill(os.Getpid(), unix.SIGURG)
			}
		}
	}()
	defer close(stop)
	for range 30 {
		s, err := serve(unix.AF_INET, "127.0.0.1", port, 5)
		s.close()
		if err != nil {
			return "", err
		}
	}
	return "ok", nil
}

// again starts a role in two generations, one after the other, and returns
// what they said.
func again(t *testing.T, h *memHolder, opts Options, cmd func() *exec.Cmd) [2]string {
	t.Helper()
	var said [2]string
	for i := range said {
		g := start(t, h, i+1, opts, ServerOptions{}, cmd())
		said[i] = g.line()
		g.end()
		if !strings.HasPrefix(said[i], "ok") {
			t.Fatalf("generation %d: %s\n%s", i+1, said[i], h.log())
		}
	}
	return said
}

func TestChildren(t *testing.T) {
	for _, role := range []string{"serve", "exec", "threads", "daemon"} {
		t.Run(role, func(t *testing.T) {
			h, port := newHolder(t), freePort(t)
			said := again(t, h, Options{}, func() *exec.Cmd { return actor(role, strconv.Itoa(int(port))) })
			if said[0] != said[1] {
				t.Errorf("%q, then %q\n%s", said[0], said[1], h.log())
			}
		})
	}
}

// TestWorkers: two workers with SO_REUSEPORT get the two listeners of the
// generation before, in whatever order.
func TestWorkers(t *testing.T) {
	h, port := newHolder(t), freePort(t)
	said := again(t, h, Options{}, func() *exec.Cmd { return actor("fork", strconv.Itoa(int(port))) })
	if h.count("learn") != 2 || h.count("lend") != 2 {
		t.Errorf("%q\n%s", said, h.log())
	}
}

// TestChildUnix: a relative path; and SO_PEERCRED names the child that listens now.
func TestChildUnix(t *testing.T) {
	h, dir := newHolder(t), t.TempDir()
	for gen := 1; gen <= 2; gen++ {
		cmd := actor("unix", "0")
		cmd.Dir = dir
		g := start(t, h, gen, Options{Unlink: true}, ServerOptions{}, cmd)
		if said := g.line(); !strings.HasPrefix(said, "ok") {
			t.Fatalf("%s\n%s", said, h.log())
		}
		if err := h.wait("l", gen*2-1); err != nil {
			t.Fatal(err)
		}
		client, err := newSock(unix.AF_UNIX, unix.SOCK_STREAM)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Connect(client.fd, &unix.SockaddrUnix{Name: dir + "/x.sock"}); err != nil {
			t.Fatal(err)
		}
		cred, err := unix.GetsockoptUcred(client.fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		client.close()
		if err != nil || int(cred.Pid) != g.cmd.Process.Pid {
			t.Errorf("generation %d: SO_PEERCRED %+v, %v; the child is %d", gen, cred, err, g.cmd.Process.Pid)
		}
		g.end()
	}
	if h.count("lend") != 1 {
		t.Errorf("decisions:\n%s", h.log())
	}
}

// TestSignalsDuringBind: a rain of signals changes nothing.
func TestSignalsDuringBind(t *testing.T) {
	h, port := newHolder(t), freePort(t)
	said := again(t, h, Options{}, func() *exec.Cmd { return actor("signals", strconv.Itoa(int(port))) })
	if h.count("learn") != 1 {
		t.Errorf("%q\n%s", said, h.log())
	}
}

// TestForeignHolder: the child fails as it would, and the holder hears why.
func TestForeignHolder(t *testing.T) {
	foreign, err := serve(unix.AF_INET, "127.0.0.1", 0, 5)
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.close()
	h := newHolder(t)
	g := start(t, h, 1, Options{}, ServerOptions{}, actor("serve", strconv.Itoa(int(portOf(t, foreign.fd)))))
	if said := g.line(); !strings.Contains(said, unix.EADDRINUSE.Error()) {
		t.Errorf("child: %s", said)
	}
	if h.failed(BindFailed, unix.EADDRINUSE) != 1 {
		t.Errorf("nobody heard of it:\n%s", h.log())
	}
	g.end()
}

var nobody = &syscall.Credential{Uid: 65534, Gid: 65534}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
}

// asNobody is a role played by the user nobody.
func asNobody(t *testing.T, role string, port uint16) *exec.Cmd {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "intercept")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(dir+"/actor", self, 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd := actor(role, strconv.Itoa(int(port)))
	cmd.Path = dir + "/actor"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: nobody}
	cmd.Dir = "/"
	return cmd
}

// TestPrivilegedPort: a port that the child may not bind stays EACCES, also
// where we hold it.
func TestPrivilegedPort(t *testing.T) {
	needRoot(t)
	const port = 977
	h := newHolder(t)
	g := start(t, h, 1, Options{}, ServerOptions{}, actor("port80", strconv.Itoa(port)))
	if said := g.line(); said != "ok" {
		t.Skipf("root cannot bind port %d: %s", port, said)
	}
	g.end()
	g = start(t, h, 2, Options{}, ServerOptions{}, asNobody(t, "port80", port))
	if said := g.line(); !strings.Contains(said, unix.EACCES.Error()) {
		t.Errorf("child: %s\n%s", said, h.log())
	}
	g.end()
	if h.failed(BindFailed, unix.EACCES) != 1 {
		t.Errorf("nobody heard of it:\n%s", h.log())
	}
}

// TestNobody: a child of another user is served by root, dumpable or not.
func TestNobody(t *testing.T) {
	needRoot(t)
	for _, role := range []string{"serve", "private"} {
		t.Run(role, func(t *testing.T) {
			h, port := newHolder(t), freePort(t)
			said := again(t, h, Options{}, func() *exec.Cmd { return asNobody(t, role, port) })
			if said[0] != said[1] {
				t.Errorf("%q\n%s", said, h.log())
			}
		})
	}
}

// TestNetNS: another network namespace is another world.
func TestNetNS(t *testing.T) {
	needRoot(t)
	h, port := newHolder(t), freePort(t)
	said := again(t, h, Options{}, func() *exec.Cmd { return actor("netns", strconv.Itoa(int(port))) })
	if said[0] == said[1] || h.count("") != 0 {
		t.Errorf("%q\n%s", said, h.log())
	}
	if h.failed(Unheld, errOtherNetNS) != 2 {
		t.Errorf("nobody heard of it:\n%s", h.log())
	}
}

// TestIOUring: a bind by io_uring is not seen, so the socket is not held, and
// the next generation can bind.
func TestIOUring(t *testing.T) {
	h, port := newHolder(t), freePort(t)
	for gen := 1; gen <= 2; gen++ {
		g := start(t, h, gen, Options{}, ServerOptions{}, actor("uring", strconv.Itoa(int(port))))
		said := g.line()
		if strings.HasPrefix(said, "skip") {
			t.Skip(said)
		}
		if !strings.HasPrefix(said, "ok") {
			t.Fatalf("generation %d: %s\n%s", gen, said, h.log())
		}
		g.end()
	}
	if h.count("learn") != 0 || h.count("give") != 0 {
		t.Errorf("held:\n%s", h.log())
	}
}

// TestEmpty: the server's end is the end of the whole tree, not of its main
// process.
func TestEmpty(t *testing.T) {
	h, port := newHolder(t), freePort(t)
	g := start(t, h, 1, Options{}, ServerOptions{}, actor("daemon", strconv.Itoa(int(port))))
	if said := g.line(); !strings.HasPrefix(said, "ok") {
		t.Fatal(said)
	}
	<-g.exited
	select {
	case <-g.empty:
		t.Error("empty while the grandchild lives")
	default:
	}
	g.end()
}
