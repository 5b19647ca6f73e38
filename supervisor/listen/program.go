package listen

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Offsets of linux/filter.h: negative loads reach the network header and values
// that are in no packet.
const (
	skfNetOff   = 0xfff00000 // SKF_NET_OFF
	skfAdOff    = 0xfffff000 // SKF_AD_OFF
	skfAdRandom = 56         // SKF_AD_RANDOM
)

// pinned sends the packets from one source address to one index.
type pinned struct {
	from  netip.AddrPort
	index uint32
}

// maxPins bounds the program: 15 instructions for a pin, of 4096 that the
// kernel allows.
const maxPins = 200

// program gives the classic BPF that a reuseport group runs for each new
// connection (or datagram): pins first, then one of steer, evenly at random. An
// index that does not exist makes the kernel choose by hash, see
// reuseport_select_sock in the kernel: never the intention here.
func program(steer []uint32, pins []pinned) []unix.SockFilter {
	var p []unix.SockFilter
	ret := func(index uint32) { p = append(p, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: index}) }
	load := func(size uint16, off uint32) {
		p = append(p, unix.SockFilter{Code: unix.BPF_LD | unix.BPF_ABS | size, K: off})
	}
	for _, pin := range pins {
		// The pieces to compare; all jumps that fail lead behind this pin.
		type piece struct {
			size  uint16
			off   uint32
			mask  uint32
			value uint32
		}
		var pieces []piece
		if a := pin.from.Addr().Unmap(); a.Is4() {
			src := a.As4()
			pieces = []piece{
				{unix.BPF_B, skfNetOff, 0, 0x45}, // version 4, no options: the probe is ours
				{unix.BPF_W, skfNetOff + 12, 0, binary.BigEndian.Uint32(src[:])},
				{unix.BPF_H, skfNetOff + 20, 0, uint32(pin.from.Port())},
			}
		} else {
			src := a.As16()
			pieces = []piece{{unix.BPF_B, skfNetOff, 0xf0, 0x60}}
			for i := range uint32(4) {
				pieces = append(pieces, piece{unix.BPF_W, skfNetOff + 8 + 4*i, 0, binary.BigEndian.Uint32(src[4*i:])})
			}
			pieces = append(pieces, piece{unix.BPF_H, skfNetOff + 40, 0, uint32(pin.from.Port())})
		}
		var jumps []int
		for _, c := range pieces {
			load(c.size, c.off)
			if c.mask != 0 {
				p = append(p, unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: c.mask})
			}
			jumps = append(jumps, len(p))
			p = append(p, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: c.value})
		}
		ret(pin.index)
		for _, at := range jumps {
			p[at].Jf = uint8(len(p) - at - 1)
		}
	}
	if len(steer) > 1 {
		load(unix.BPF_W, skfAdOff+skfAdRandom)
		p = append(p, unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_MOD | unix.BPF_K, K: uint32(len(steer))})
		for i, index := range steer[1:] {
			p = append(p, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(i + 1), Jf: 1})
			ret(index)
		}
	}
	if len(steer) == 0 {
		steer = []uint32{0}
	}
	ret(steer[0])
	return p
}

// attach makes p the program of the group that fd is a member of.
func attach(fd int, p []unix.SockFilter) error {
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF,
		&unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]})
}

// dropAll makes a socket discard every packet (SO_ATTACH_FILTER).
func dropAll(fd int) error {
	p := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: 1, Filter: &p[0]})
}
