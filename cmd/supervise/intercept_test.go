package main

// The servers of the stories about interception: they know nothing of sockets
// that they could be given, and only bind(2). Their steps are those of server,
// and the ways to bind that are found in the field.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// binder is the main of the program of that name.
func binder() {
	time.AfterFunc(lifetime, func() { os.Exit(99) })
	b := &binding{behaviour: behaviour{term: make(chan os.Signal, 8)}}
	b.health.Store(http.StatusOK)
	signal.Notify(b.term, syscall.SIGTERM, syscall.SIGINT)
	if err := b.steps(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "binder:", err)
		os.Exit(2)
	}
	b.wait()
}

type binding struct {
	behaviour
	first int // fd of the last socket that was bound by hand
}

func (b *binding) steps(steps []string) error {
	for _, step := range steps {
		if file, ok := strings.CutPrefix(step, "@"); ok {
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			if err := b.steps(strings.Split(strings.TrimSpace(string(text)), "\n")); err != nil {
				return err
			}
			continue
		}
		if err := b.bindStep(step); err != nil {
			return fmt.Errorf("%s: %w", step, err)
		}
	}
	return nil
}

func (b *binding) bindStep(step string) error {
	word, value, _ := strings.Cut(step, ":")
	network, addr, _ := strings.Cut(value, ":")
	switch word {
	case "listen": // listen:NETWORK:ADDRESS, as Go does: MPTCP, and a unix path is removed at the end
		l, err := net.Listen(network, addr)
		if err == nil {
			b.serveKeeping(l)
		}
		return err
	case "workers": // workers:N:ADDRESS, as nginx with reuseport
		n, _ := strconv.Atoi(network)
		for range n {
			cfg := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
				return c.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
			}}
			l, err := cfg.Listen(context.Background(), "tcp4", addr)
			if err != nil {
				return err
			}
			b.serveKeeping(l)
		}
	case "thread": // thread:NETWORK:ADDRESS, in a thread that is not the main one and then ends
		done := make(chan error)
		go func() {
			runtime.LockOSThread()
			done <- b.bindStep("listen:" + value)
		}()
		return <-done
	case "v6only": // v6only:[ADDRESS]:PORT
		return b.byHand(unix.AF_INET6, value, true)
	case "plain": // plain:ADDRESS:PORT, neither MPTCP nor more than it takes
		return b.byHand(unix.AF_INET, value, false)
	case "rebind": // rebind:PATH, which it removes first and not at the end
		os.Remove(value)
		l, err := net.Listen("unix", value)
		if err == nil {
			b.serveHTTP(l)
		}
		return err
	case "rename": // rename:PATH: bound beside it and put in its place, as HAProxy does
		tmp := fmt.Sprintf("%s.%d.tmp", value, os.Getpid())
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrUnix{Name: tmp})
		}
		if err == nil {
			err = os.Rename(tmp, value)
		}
		if err != nil {
			return err
		}
		return b.listenOn(fd)
	case "udp": // udp:ADDRESS
		p, err := net.ListenPacket("udp", value)
		if err == nil {
			b.socket = append(b.socket, p)
			go b.echo(p)
		}
		return err
	case "file": // file:NETWORK:FILE: the addresses, a line each
		text, err := os.ReadFile(addr)
		if err != nil {
			return err
		}
		for _, a := range strings.Fields(string(text)) {
			if err := b.bindStep("listen:" + network + ":" + a); err != nil {
				return err
			}
		}
	case "uring": // uring:ADDRESS
		fd, err := uringBind(value)
		if err != nil {
			return err
		}
		return b.listenOn(fd)
	case "fork": // fork:STEP+STEP: another process binds
		c, err := otherBinder(nil, strings.Split(value, "+")...)
		if err == nil {
			go c.Wait()
		}
		return err
	case "session":
		_, err := otherBinder(&syscall.SysProcAttr{Setsid: true}, strings.Split(value, "+")...)
		return err
	case "daemon": // daemon:STEP+STEP: twice forked, in a session of its own
		c, err := otherBinder(nil, "session:"+value, "exit:0")
		if err != nil {
			return err
		}
		return c.Wait()
	case "undumpable":
		return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	case "harm": // harm:HOW, to the description that all generations share
		return b.harm(value)
	default:
		return b.step(step)
	}
	return nil
}

// serveKeeping is serveHTTP for a listener that cleans up as Go's do.
func (b *binding) serveKeeping(l net.Listener) {
	u, ok := l.(*net.UnixListener)
	b.serveHTTP(l)
	if ok {
		u.SetUnlinkOnClose(true)
	}
}

func (b *binding) byHand(family int, addr string, only bool) error {
	at, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: at.Port, Addr: [4]byte(append(at.IP.To4(), 0, 0, 0, 0)[:4])}
	if family == unix.AF_INET6 {
		if only {
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
		}
		sa = &unix.SockaddrInet6{Port: at.Port, Addr: [16]byte(at.IP.To16())}
	}
	if err := unix.Bind(fd, sa); err != nil {
		return err
	}
	return b.listenOn(fd)
}

// listenOn serves a socket, and keeps its number for harm.
func (b *binding) listenOn(fd int) error {
	if err := unix.Listen(fd, 128); err != nil {
		return err
	}
	b.first = fd
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(dup), "listener")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return err
	}
	b.serveHTTP(l)
	return nil
}

// harm does to the listener what some server does to it somewhere.
func (b *binding) harm(how string) error {
	switch how {
	case "shutdown":
		return unix.Shutdown(b.first, unix.SHUT_RD)
	case "disconnect": // connect(AF_UNSPEC): .NET, when it disposes of a listener
		raw := [16]byte{}
		_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(b.first), uintptr(unsafe.Pointer(&raw)), 16)
		if errno != 0 {
			return errno
		}
		return nil
	case "block":
		return unix.SetNonblock(b.first, false)
	case "nonblock":
		return unix.SetNonblock(b.first, true)
	case "options":
		return errors.Join(
			unix.SetsockoptInt(b.first, unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<16),
			unix.SetsockoptInt(b.first, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1),
			unix.SetsockoptInt(b.first, unix.SOL_SOCKET, unix.SO_REUSEPORT, 0),
			unix.SetsockoptInt(b.first, unix.SOL_SOCKET, unix.SO_REUSEADDR, 0),
			unix.Listen(b.first, 1))
	case "cloexec?": // says whether the listener would survive an exec
		flags, err := unix.FcntlInt(uintptr(b.first), unix.F_GETFD, 0)
		fmt.Println("cloexec", flags&unix.FD_CLOEXEC != 0)
		return err
	}
	return errors.New("no such harm")
}

func otherBinder(attr *syscall.SysProcAttr, steps ...string) (*exec.Cmd, error) {
	c := exec.Command("binder", steps...)
	c.Stdout, c.Stderr, c.SysProcAttr = os.Stdout, os.Stderr, attr
	return c, c.Start()
}

// uringBind binds by io_uring (IORING_OP_BIND, Linux 6.11), which no seccomp
// filter sees.
func uringBind(addr string) (int, error) {
	at, err := net.ResolveTCPAddr("tcp4", addr)
	if err != nil {
		return -1, err
	}
	const opBind, enterGetEvents = 56, 1
	var params [120]byte // struct io_uring_params
	ring, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		return -1, fmt.Errorf("io_uring_setup: %w", errno)
	}
	u32 := func(off int) uint32 { return *(*uint32)(unsafe.Pointer(&params[off])) }
	prot, flags := unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE
	sq, err1 := unix.Mmap(int(ring), 0, 4096, prot, flags)
	cq, err2 := unix.Mmap(int(ring), 0x8000000, 4096, prot, flags)
	sqes, err3 := unix.Mmap(int(ring), 0x10000000, 64, prot, flags)
	fd, err4 := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return -1, err
	}
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	raw := [16]byte{0: unix.AF_INET, 2: byte(at.Port >> 8), 3: byte(at.Port)}
	copy(raw[4:8], at.IP.To4())
	sqes[0] = opBind
	*(*int32)(unsafe.Pointer(&sqes[4])) = int32(fd)
	*(*uint64)(unsafe.Pointer(&sqes[8])) = uint64(len(raw))
	*(*uint64)(unsafe.Pointer(&sqes[16])) = uint64(uintptr(unsafe.Pointer(&raw[0])))
	*(*uint32)(unsafe.Pointer(&sq[u32(40+24)])) = 0
	*(*uint32)(unsafe.Pointer(&sq[u32(40+4)]))++
	if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, ring, 1, 1, enterGetEvents, 0, 0); errno != 0 {
		return -1, errno
	}
	runtime.KeepAlive(&raw)
	if res := *(*int32)(unsafe.Pointer(&cq[u32(80+20)+8])); res < 0 {
		return -1, fmt.Errorf("bind by io_uring: %w", unix.Errno(-res))
	}
	return fd, nil
}

// hasURingBind tries it.
func hasURingBind() bool {
	fd, err := uringBind("127.0.0.1:0")
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

// denied runs a command under a filter of the kind that containers have: denied
// pidfd_getfd COMMAND... fails that call with EPERM; denied seccomp COMMAND...
// fails seccomp(2).
func denied() {
	nr := map[string]uint32{"pidfd_getfd": unix.SYS_PIDFD_GETFD, "seccomp": unix.SYS_SECCOMP}[os.Args[1]]
	prog := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nr, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	runtime.LockOSThread()
	unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&fprog))); errno != 0 {
		fmt.Fprintln(os.Stderr, "denied: seccomp:", errno)
		os.Exit(125)
	}
	path, err := exec.LookPath(os.Args[2])
	if err == nil {
		err = syscall.Exec(path, os.Args[2:], os.Environ())
	}
	fmt.Fprintln(os.Stderr, "denied:", err)
	os.Exit(126)
}

// asNobody runs a program of the stories as the user nobody: asnobody COMMAND...
// What it executes is a copy in a directory that nobody may enter.
func asNobody() {
	fatal := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "asnobody:", err)
			os.Exit(126)
		}
	}
	dir := os.Getenv("NOBODYBIN")
	fatal(os.Setenv("PATH", dir+":"+os.Getenv("PATH")))
	fatal(os.Setenv("TMPDIR", dir))
	fatal(os.Chdir("/"))
	fatal(syscall.Setgroups(nil))
	fatal(syscall.Setgid(65534))
	fatal(syscall.Setuid(65534))
	fatal(syscall.Exec(filepath.Join(dir, os.Args[1]), os.Args[1:], os.Environ()))
}

// interceptPrograms are the programs of this file.
func interceptPrograms() map[string]func() {
	return map[string]func(){"binder": binder, "denied": denied, "asnobody": asNobody, "dotnet": binder}
}

// interceptWords are the words of this file.
func interceptWords(add func(word string, least int, usage string, f func(ts *testscript.TestScript, s *story, neg bool, args []string))) {
	add("load", 2, "NAME ADDRESS...: new connections in the background, until unharmed NAME", load)
	add("unharmed", 1, "NAME [REFUSED]: ends the load; every connection was answered, or at most so many were refused", unharmed)
	add("build", 3, "VAR GOARCH PACKAGE", build)
	add("nobodybin", 1, "VAR: a directory with the programs, for the user nobody", nobodyBin)
	add("addresses", 1, "ADDRESS|STEP...: what the file addresses says; NETWORK:ADDRESS is a step listen", addresses)
	add("untilserved", 1, "ADDRESS: waits until somebody answers there", untilServed)
	add("gone", 2, "NAME STATUS: it ends, and others may go on", gone)
	add("elsewhere", 2, "VAR ADDRESS: what holds it for another story: a process that is not supervised", elsewhere)
}

// loads are the loads that stories have under way, by story and name.
var loads sync.Map

type loadRun struct {
	stop             chan struct{}
	done             sync.WaitGroup
	ok, refused, bad atomic.Int64
	last             atomic.Pointer[string]
}

func load(ts *testscript.TestScript, s *story, _ bool, args []string) {
	r := &loadRun{stop: make(chan struct{})}
	loads.Store(s.mark+args[0], r)
	ts.Defer(r.end)
	for i := range 4 {
		addr := args[1+i%(len(args)-1)]
		r.done.Go(func() {
			for {
				select {
				case <-r.stop:
					return
				default:
				}
				switch _, err := get(addr); {
				case err == nil:
					r.ok.Add(1)
				case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOENT):
					r.refused.Add(1)
					time.Sleep(time.Millisecond)
				default:
					r.bad.Add(1)
					text := err.Error()
					r.last.Store(&text)
				}
			}
		})
	}
}

func (r *loadRun) end() {
	select {
	case <-r.stop:
	default:
		close(r.stop)
	}
	r.done.Wait()
}

func unharmed(ts *testscript.TestScript, s *story, _ bool, args []string) {
	v, ok := loads.LoadAndDelete(s.mark + args[0])
	if !ok {
		ts.Fatalf("no load %q", args[0])
	}
	r := v.(*loadRun)
	for r.ok.Load() == 0 && r.bad.Load() == 0 { // on a busy machine the first answer may be late
		time.Sleep(time.Millisecond)
	}
	r.end()
	allowed := int64(0)
	if len(args) > 1 {
		allowed, _ = strconv.ParseInt(args[1], 10, 64)
	}
	ts.Logf("%d answered, %d refused, %d failed", r.ok.Load(), r.refused.Load(), r.bad.Load())
	if r.bad.Load() > 0 {
		ts.Fatalf("%d failed, the last: %s%s", r.bad.Load(), *r.last.Load(), s.logs())
	}
	if r.refused.Load() > allowed {
		ts.Fatalf("%d refused%s", r.refused.Load(), s.logs())
	}
}

func build(ts *testscript.TestScript, _ *story, _ bool, args []string) {
	file := filepath.Join(ts.Getenv("WORK"), "built-"+args[1])
	c := exec.Command("go", "build", "-o", file, args[2])
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+args[1])
	if out, err := c.CombinedOutput(); err != nil {
		ts.Fatalf("%v: %s", err, out)
	}
	ts.Setenv(args[0], file)
}

func nobodyBin(ts *testscript.TestScript, _ *story, _ bool, args []string) {
	dir, err := os.MkdirTemp("/tmp", "supervise-nobody-*")
	ts.Check(err)
	ts.Defer(func() { os.RemoveAll(dir) })
	ts.Check(os.Chmod(dir, 0o777))
	self, err := os.Open("/proc/self/exe")
	ts.Check(err)
	defer self.Close()
	f, err := os.OpenFile(filepath.Join(dir, "binder"), os.O_CREATE|os.O_WRONLY, 0o755)
	ts.Check(err)
	_, err = io.Copy(f, self)
	ts.Check(errors.Join(err, f.Chmod(0o755), f.Close()))
	for _, name := range []string{"supervise", "server", "dotnet"} {
		ts.Check(os.Link(filepath.Join(dir, "binder"), filepath.Join(dir, name)))
	}
	ts.Setenv(args[0], dir)
}

func addresses(ts *testscript.TestScript, _ *story, _ bool, args []string) {
	for i, a := range args {
		if strings.HasPrefix(a, "tcp") {
			args[i] = "listen:" + a
		}
	}
	file := ts.MkAbs("addresses")
	ts.Check(os.WriteFile(file+".new", []byte(strings.Join(args, "\n")+"\n"), 0o644))
	ts.Check(os.Rename(file+".new", file))
}

func untilServed(ts *testscript.TestScript, s *story, _ bool, args []string) {
	for until := time.Now().Add(patience); ; {
		_, err := get(args[0])
		if err == nil {
			return
		}
		if time.Now().After(until) {
			ts.Fatalf("%v%s", err, s.logs())
		}
		time.Sleep(time.Millisecond)
	}
}

func gone(ts *testscript.TestScript, s *story, _ bool, args []string) {
	p := s.program(ts, args[0])
	select {
	case <-p.done:
	case <-time.After(patience):
		ts.Fatalf("%s does not end:\n%s%s", args[0], p.log.all(), s.logs())
	}
	delete(s.programs, args[0])
	if got := shellStatus(p.cmd.ProcessState); strconv.Itoa(got) != args[1] {
		ts.Fatalf("%s ended with status %d, not %s:\n%s", args[0], got, args[1], p.log.all())
	}
}

// elsewhere binds an address and says who it is.
func elsewhere(ts *testscript.TestScript, _ *story, _ bool, args []string) {
	l, err := net.Listen("tcp", args[1])
	ts.Check(err)
	ts.Setenv(args[0], strconv.Itoa(os.Getpid()))
	ts.Defer(func() { l.Close() })
}
