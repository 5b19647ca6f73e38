package main

// The server that the stories supervise. Its arguments are steps, taken one
// after the other; @FILE stands for the lines of FILE, read when the process
// starts: so a story gives the next generation another behaviour.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// lifetime ends what a broken test has left behind.
const lifetime = 3 * time.Minute

type behaviour struct {
	term   chan os.Signal
	health atomic.Int32
	label  atomic.Pointer[string]
	http   *http.Server
	files  []*os.File
	socket []io.Closer
}

// server is the main of the program of that name.
func server() {
	time.AfterFunc(lifetime, func() { os.Exit(99) })
	b := &behaviour{term: make(chan os.Signal, 8)}
	b.health.Store(http.StatusOK)
	signal.Notify(b.term, syscall.SIGTERM, syscall.SIGINT)
	if err := b.steps(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "server:", err)
		os.Exit(2)
	}
	b.wait()
}

func (b *behaviour) steps(steps []string) error {
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
		if err := b.step(step); err != nil {
			return fmt.Errorf("%s: %w", step, err)
		}
	}
	return nil
}

func (b *behaviour) step(step string) error {
	word, value, _ := strings.Cut(step, ":")
	switch word {
	case "exit": // exit:STATUS
		n, _ := strconv.Atoi(value)
		os.Exit(n)
	case "die": // die:SIGNAL, as that signal ends a process
		sig := unix.SignalNum("SIG" + value)
		signal.Reset(sig)
		syscall.Kill(os.Getpid(), sig)
		time.Sleep(lifetime)
	case "sleep": // sleep:DURATION
		return b.sleep(value)
	case "print": // print:TEXT
		fmt.Println(value)
	case "complain": // complain:TEXT, on standard error
		fmt.Fprintln(os.Stderr, value)
	case "bytes": // every byte, and no newline
		all := make([]byte, 256)
		for i := range all {
			all[i] = byte(i)
		}
		os.Stdout.Write(all)
	case "lines": // lines:N
		n, _ := strconv.Atoi(value)
		for i := range n {
			fmt.Println("line", i+1)
		}
	case "ignore": // ignore:SIGNAL
		signal.Ignore(unix.SignalNum("SIG" + value))
	case "halt": // stops itself, as Ctrl-Z does
		syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	case "health": // health:STATUS of /healthz
		n, _ := strconv.Atoi(value)
		b.health.Store(int32(n))
	case "label": // label:WORD, in every answer
		b.label.Store(&value)
	case "notify": // notify:TEXT, \n is a newline
		return notify(value)
	case "ack": // as a worker of Einhorn; ack:PID of somebody else; ack:TEXT that is none
		text := fmt.Sprintf(`{"command":"worker:ack","pid":%d}`, os.Getpid())
		if _, err := strconv.Atoi(value); err == nil {
			text = `{"command":"worker:ack","pid":` + value + `}`
		} else if value != "" {
			text = value
		}
		c, err := net.Dial("unix", os.Getenv("EINHORN_SOCK_PATH"))
		if err != nil {
			return err
		}
		defer c.Close()
		for _, part := range []string{text[:len(text)/2], text[len(text)/2:], "\n"} { // in pieces, as a socket may give them
			if _, err := io.WriteString(c, part); err != nil {
				return err
			}
			time.Sleep(5 * time.Millisecond)
		}
	case "silent": // connects where a worker of Einhorn would, often, and says nothing
		for range 40 {
			if _, err := net.Dial("unix", os.Getenv("EINHORN_SOCK_PATH")); err != nil {
				return err
			}
		}
	case "ping": // ping:N times, or ping:on without end beside what follows
		if value == "on" {
			go ping(math.MaxInt32)
			return nil
		}
		n, _ := strconv.Atoi(value)
		return ping(n)
	case "lend": // lend:PATH: writes there where its notify socket is
		if err := os.WriteFile(value+".new", []byte(os.Getenv("NOTIFY_SOCKET")), 0o644); err != nil {
			return err
		}
		return os.Rename(value+".new", value)
	case "borrow": // borrow:PATH: its notify socket is the one that is written there
		text, err := os.ReadFile(value)
		if err != nil {
			return err
		}
		return os.Setenv("NOTIFY_SOCKET", string(text))
	case "barrier": // waits until all that was said before has been heard
		return barrier()
	case "child": // child:STEP,STEP: another process
		c, err := another(nil, strings.Split(value, ",")...)
		if err == nil {
			go c.Wait()
		}
		return err
	case "session": // session:STEP+STEP: in a session of its own
		_, err := another(&syscall.SysProcAttr{Setsid: true}, strings.Split(value, "+")...)
		return err
	case "daemon": // daemon:STEP+STEP: twice forked, in a session of its own
		c, err := another(nil, "session:"+value, "exit:0")
		if err != nil {
			return err
		}
		return c.Wait()
	case "serve":
		return b.serve()
	case "shutdown": // shutdown(2) on the first listener, which stops it for all who have it
		return unix.Shutdown(3, unix.SHUT_RD)
	case "unlink": // unlink:PATH
		return os.Remove(value)
	case "rebind": // rebind:PATH: as servers do that know nothing of sockets they were given
		os.Remove(value)
		l, err := net.Listen("unix", value)
		if err != nil {
			return err
		}
		b.serveHTTP(l)
	case "replace": // replace:PATH: puts a socket of its own there, which nobody serves
		l, err := net.Listen("unix", value+".own")
		if err != nil {
			return err
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		l.Close()
		return os.Rename(value+".own", value)
	case "touch": // touch:PATH
		return os.WriteFile(value, []byte(strconv.Itoa(os.Getpid())), 0o644)
	case "until": // until:PATH is there
		for {
			if _, err := os.Stat(value); err == nil {
				return nil
			}
			time.Sleep(5 * time.Millisecond)
		}
	case "mainpid": // mainpid:STEP,STEP: another process is the main one from now on
		c, err := another(nil, strings.Split(value, ",")...)
		if err != nil {
			return err
		}
		if err := notify("MAINPID=" + strconv.Itoa(c.Process.Pid)); err != nil {
			return err
		}
		return barrier()
	default:
		return errors.New("no such step")
	}
	return nil
}

// sleep ends early, and the process with it, when it is told to stop.
func (b *behaviour) sleep(span string) error {
	d, err := time.ParseDuration(span)
	if err != nil {
		return err
	}
	select {
	case <-time.After(d):
	case <-b.term:
		os.Exit(0)
	}
	return nil
}

// wait is what a good server does: on SIGTERM it finishes what it has begun.
func (b *behaviour) wait() {
	<-b.term
	for _, s := range b.socket {
		s.Close()
	}
	if b.http != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		b.http.Shutdown(ctx)
	}
	os.Exit(0)
}

// another starts a server beside this one.
func another(attr *syscall.SysProcAttr, steps ...string) (*exec.Cmd, error) {
	c := exec.Command("server", steps...)
	c.Stdout, c.Stderr, c.SysProcAttr = os.Stdout, os.Stderr, attr
	return c, c.Start()
}

func notify(text string) error {
	sent, err := daemon.SdNotify(false, strings.ReplaceAll(text, `\n`, "\n"))
	if err == nil && !sent {
		err = errors.New("no NOTIFY_SOCKET")
	}
	return err
}

// ping is early enough for the watchdog of a busy machine.
func ping(times int) error {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil || every == 0 {
		return fmt.Errorf("no watchdog asked for: %w", err)
	}
	for range times {
		if err := notify("WATCHDOG=1"); err != nil {
			return err
		}
		time.Sleep(every / 4)
	}
	return nil
}

// barrier is sd_notify_barrier(3): the receiver closes the descriptor when it
// has handled everything before it.
func barrier() error {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	to := &unix.SockaddrUnix{Name: os.Getenv("NOTIFY_SOCKET")}
	if err := unix.Sendmsg(fd, []byte("BARRIER=1"), unix.UnixRights(p[1]), to, 0); err != nil {
		return err
	}
	unix.Close(p[1])
	_, err = unix.Read(p[0], make([]byte, 1))
	return err
}

func (b *behaviour) serve() error {
	if b.files == nil {
		b.files = activation.Files(false)
	}
	if len(b.files) == 0 {
		return errors.New("no LISTEN_FDS for me")
	}
	for _, f := range b.files {
		if l, err := net.FileListener(f); err == nil {
			b.serveHTTP(l)
			continue
		}
		p, err := net.FilePacketConn(f)
		if err != nil {
			return err
		}
		b.socket = append(b.socket, p)
		go b.echo(p)
	}
	return nil
}

func (b *behaviour) serveHTTP(l net.Listener) {
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	if b.http == nil {
		b.http = &http.Server{Handler: b.handler()}
	}
	go b.http.Serve(l)
}

func (b *behaviour) word() string {
	words := []string{"pid", strconv.Itoa(os.Getpid())}
	if label := b.label.Load(); label != nil {
		words = append(words, *label)
	}
	return strings.Join(words, " ")
}

func (b *behaviour) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		fmt.Fprintln(w, b.word())
	})
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		w.WriteHeader(int(b.health.Load()))
		fmt.Fprintln(w, b.word(), b.health.Load())
	})
	return mux
}

func (b *behaviour) echo(p net.PacketConn) {
	buf := make([]byte, 1<<16)
	for {
		_, from, err := p.ReadFrom(buf)
		if err != nil {
			return
		}
		p.WriteTo([]byte(b.word()+"\n"), from)
	}
}

// blocked runs a command with almost every signal blocked, as some cron and
// CI runners do by mistake.
func blocked() {
	var all unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	path, err := exec.LookPath(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "blocked:", err)
		os.Exit(127)
	}
	unix.PthreadSigmask(unix.SIG_SETMASK, &all, nil)
	err = syscall.Exec(path, slices.Clone(os.Args[1:]), os.Environ())
	fmt.Fprintln(os.Stderr, "blocked:", err)
	os.Exit(126)
}
