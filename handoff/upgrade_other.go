//go:build !unix

package handoff

import (
	"errors"
	"net"
)

const canUpgrade = false

// flip does nothing where tableflip cannot.
type flip struct{}

func (*flip) load(*process) error                        { return nil }
func (*flip) heir() bool                                 { return false }
func (*flip) foreign() bool                              { return false }
func (*flip) inherit(*ask) (net.Listener, error)         { return nil, nil }
func (*flip) inheritPacket(*ask) (net.PacketConn, error) { return nil, nil }
func (*flip) keep(*ask, any)                             {}
func (*flip) ready(*process) error                       { return nil }
func (*flip) stop()                                      {}
func (*process) upgrade() error                          { return errors.New("this system cannot") }
