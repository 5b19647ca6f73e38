package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/cmd/storm/load"
)

// controlVerb is the hidden verb under which storm runs itself as a supervisor
// of the kinds that supervise is compared with:
//
//	shared   as Server::Starter: one listener for old and new generation; start
//	         the new one, wait until it answers, SIGTERM the old one
//	restart  SIGTERM, wait, start; the server binds for itself ($PORT)
//	respawn  start it again whenever it has ended, and nothing else
//
// They are honest but minimal: what is lost with them is what the method
// loses, not what a blunder in them does.
const controlVerb = "-control-supervisor"

type controller struct {
	mode, network, addr string
	path                string
	argv                []string
	listener            int // raw and non-blocking, see openListener; -1: none
	current             int // pid, 0: none
}

func control(args []string) int {
	c := controller{mode: args[0], network: args[1], addr: args[2], argv: args[3:], listener: -1}
	if err := c.run(); err != nil {
		fmt.Fprintln(os.Stderr, "storm control:", err)
		return 1
	}
	return 0
}

func (c *controller) run() error {
	signals := make(chan os.Signal, 100)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGCHLD)
	path, err := exec.LookPath(c.argv[0])
	if err != nil {
		return err
	}
	c.path = path
	if c.mode == "shared" {
		if c.listener, err = openListener(c.network, c.addr); err != nil {
			return err
		}
	}
	if c.current, err = c.spawn(); err != nil {
		return err
	}
	for s := range signals {
		switch s {
		case syscall.SIGHUP:
			if err := c.rollout(); err != nil {
				fmt.Fprintln(os.Stderr, "rollout failed:", err)
			} else {
				fmt.Fprintln(os.Stderr, "rollout done")
			}
		case syscall.SIGCHLD:
			if !c.ended(c.current) {
				continue
			}
			if c.current, err = c.spawn(); err != nil {
				return err
			}
		case syscall.SIGTERM:
			return c.stop(c.current)
		}
	}
	return nil
}

func (c *controller) rollout() error {
	old := c.current
	if c.mode == "restart" {
		if err := c.stop(old); err != nil {
			return err
		}
	}
	pid, err := c.spawn()
	if err != nil {
		return err
	}
	c.current = pid
	if err := c.awaitAnswer(pid); err != nil {
		return err
	}
	if c.mode == "shared" {
		return c.stop(old)
	}
	return nil
}

// awaitAnswer waits until pid itself has answered. With a shared listener that
// takes some tries, as the old one answers too.
func (c *controller) awaitAnswer(pid int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		a, err := load.Ask(ctx, load.Options{Network: c.network, Addrs: []string{c.addr}})
		if err == nil && a.Pid == pid {
			return nil
		}
		if c.ended(pid) {
			c.current, err = c.spawn()
			return errors.Join(fmt.Errorf("process %d has ended", pid), err)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("no answer of process %d: %w", pid, errors.Join(ctx.Err(), err))
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// stop ends a child and waits for that: 15 s after SIGTERM, then SIGKILL.
func (c *controller) stop(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("cannot stop process %d: %w", pid, err)
	}
	for end := time.Now().Add(15 * time.Second); !c.ended(pid); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			syscall.Kill(pid, syscall.SIGKILL)
			syscall.Wait4(pid, nil, 0, nil)
			return fmt.Errorf("process %d did not end in 15 s and was killed", pid)
		}
	}
	return nil
}

// ended reaps pid if it has ended.
func (c *controller) ended(pid int) bool {
	got, _ := syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
	return got == pid
}

// spawn starts the server. A shell says LISTEN_PID, which is the child's own
// pid, and becomes the server.
func (c *controller) spawn() (int, error) {
	path, argv, env := c.path, c.argv, os.Environ()
	files := []uintptr{0, 1, 2}
	if _, port, err := net.SplitHostPort(c.addr); err == nil {
		env = append(env, "PORT="+port)
	}
	if c.listener >= 0 {
		path = "/bin/sh"
		argv = append([]string{"sh", "-c", `export LISTEN_PID=$$; exec "$@"`, "sh", c.path}, c.argv[1:]...)
		env = append(env, "LISTEN_FDS=1")
		files = append(files, uintptr(c.listener))
	}
	pid, err := syscall.ForkExec(path, argv, &syscall.ProcAttr{
		Env:   env,
		Files: files,
		Sys:   &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return 0, fmt.Errorf("cannot start %s: %w", strconv.Quote(c.path), err)
	}
	return pid, nil
}

// openListener gives a non-blocking, close-on-exec listener as a descriptor:
// an *os.File would make it blocking, for the children as well.
func openListener(network, addr string) (int, error) {
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	l, err := config.Listen(context.Background(), network, addr)
	if err != nil {
		return -1, err
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	defer l.Close()
	raw, err := l.(syscall.Conn).SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	var failed error
	err = raw.Control(func(have uintptr) {
		fd, failed = unix.FcntlInt(have, unix.F_DUPFD_CLOEXEC, 3)
	})
	return fd, errors.Join(err, failed)
}
