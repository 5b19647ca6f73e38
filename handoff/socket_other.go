//go:build !unix

package handoff

import (
	"errors"
	"net"
	"os"
	"syscall"
)

var drainOfEinhorn []os.Signal

// systemFDs inherits nothing: there is no agreement on how.
type systemFDs struct{}

var errNoInheritance = errors.New("this system cannot inherit listeners")

func (systemFDs) open(int, string) (net.Listener, net.PacketConn, error) {
	return nil, nil, errNoInheritance
}

func (systemFDs) message(int, string) error { return errNoInheritance }

func addressInUse(err error) bool {
	const wsaEADDRINUSE = syscall.Errno(10048)
	return errors.Is(err, wsaEADDRINUSE) || errors.Is(err, syscall.EADDRINUSE)
}

type terminal struct{}

func openTerminal() terminal { return terminal{} }

func (terminal) gone() bool { return false }
