//go:build unix

package handoff

import (
	"errors"
	"net"
	"os"
	"syscall"
)

// drainOfEinhorn is what an Einhorn master sends to a worker that shall drain.
var drainOfEinhorn = []os.Signal{syscall.SIGUSR2}

// systemFDs are the descriptors of this process.
type systemFDs struct{}

// open leaves O_NONBLOCK as it is on what others share, save that a
// blocking socket becomes non-blocking: package net needs it so. (os.NewFile
// keeps a non-blocking descriptor as it is, and Fd, which net.FileListener
// calls, does so for descriptors that it got that way.)
func (systemFDs) open(fd int, name string) (net.Listener, net.PacketConn, error) {
	kind, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_TYPE)
	if err != nil {
		return nil, nil, os.NewSyscallError("getsockopt", err) // EBADF, ENOTSOCK
	}
	syscall.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	if kind == syscall.SOCK_DGRAM {
		c, err := net.FilePacketConn(f)
		return nil, c, err
	}
	if listening, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN); err == nil && listening == 0 {
		return nil, nil, errors.New("the socket does not listen")
	}
	l, err := net.FileListener(f)
	return l, nil, err
}

func (systemFDs) message(fd int, text string) error {
	syscall.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "")
	_, err := f.WriteString(text)
	return errors.Join(err, f.Close())
}

func addressInUse(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }

// terminal is the controlling terminal that this process began with, if any.
type terminal bool

func openTerminal() terminal { return terminal(haveTerminal()) }

func haveTerminal() bool {
	fd, err := syscall.Open("/dev/tty", syscall.O_RDWR|syscall.O_NOCTTY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	syscall.Close(fd)
	return true
}

// gone reports whether the terminal has hung up: then SIGHUP is the news of that
// and no wish for an upgrade, which would leave a server that nobody knows of.
func (t terminal) gone() bool { return bool(t) && !haveTerminal() }
