package intercept

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// option is one socket option that a server may have set before bind, with the
// largest size of its value.
type option struct {
	level, opt, size int
	name             string
}

// maxOption is the largest size of a value below.
const maxOption = 16

// Options that a listener hands to what it accepts, or that change how it
// listens, from socket(7), ip(7), ipv6(7), tcp(7), udp(7), unix(7). Left out:
// SO_REUSEADDR and SO_REUSEPORT, which belong to whoever holds the listener;
// SO_BINDTODEVICE, which is part of the key; SO_INCOMING_CPU, which steers.
func optionsOf(domain, typ int) []option {
	const (
		udpSegment = 103 // UDP_SEGMENT and UDP_GRO of linux/udp.h
		udpGRO     = 104
		passPIDFD  = 76 // SO_PASSPIDFD of asm-generic/socket.h
	)
	opts := []option{
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 4, "SO_KEEPALIVE"},
		{unix.SOL_SOCKET, unix.SO_LINGER, 8, "SO_LINGER"},
		{unix.SOL_SOCKET, unix.SO_PRIORITY, 4, "SO_PRIORITY"},
		{unix.SOL_SOCKET, unix.SO_RCVLOWAT, 4, "SO_RCVLOWAT"},
		{unix.SOL_SOCKET, unix.SO_RCVTIMEO, 16, "SO_RCVTIMEO"},
		{unix.SOL_SOCKET, unix.SO_SNDTIMEO, 16, "SO_SNDTIMEO"},
		{unix.SOL_SOCKET, unix.SO_TIMESTAMP, 4, "SO_TIMESTAMP"},
		{unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 4, "SO_TIMESTAMPNS"},
	}
	if domain == unix.AF_UNIX {
		return append(opts,
			option{unix.SOL_SOCKET, unix.SO_PASSCRED, 4, "SO_PASSCRED"},
			option{unix.SOL_SOCKET, unix.SO_PASSSEC, 4, "SO_PASSSEC"},
			option{unix.SOL_SOCKET, passPIDFD, 4, "SO_PASSPIDFD"})
	}
	opts = append(opts,
		option{unix.SOL_SOCKET, unix.SO_BUSY_POLL, 4, "SO_BUSY_POLL"},
		option{unix.SOL_SOCKET, unix.SO_DONTROUTE, 4, "SO_DONTROUTE"},
		option{unix.SOL_SOCKET, unix.SO_MARK, 4, "SO_MARK"},
		option{unix.SOL_SOCKET, unix.SO_OOBINLINE, 4, "SO_OOBINLINE"},
		option{unix.SOL_SOCKET, unix.SO_ZEROCOPY, 4, "SO_ZEROCOPY"},
		// A dual-stack socket uses those of IPv4 as well.
		option{unix.IPPROTO_IP, unix.IP_FREEBIND, 4, "IP_FREEBIND"},
		option{unix.IPPROTO_IP, unix.IP_MINTTL, 4, "IP_MINTTL"},
		option{unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, 4, "IP_MTU_DISCOVER"},
		option{unix.IPPROTO_IP, unix.IP_RECVTOS, 4, "IP_RECVTOS"},
		option{unix.IPPROTO_IP, unix.IP_TOS, 4, "IP_TOS"},
		option{unix.IPPROTO_IP, unix.IP_TRANSPARENT, 4, "IP_TRANSPARENT"},
		option{unix.IPPROTO_IP, unix.IP_TTL, 4, "IP_TTL"})
	if domain == unix.AF_INET6 {
		opts = append(opts,
			option{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 4, "IPV6_V6ONLY"},
			option{unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, 4, "IPV6_MTU_DISCOVER"},
			option{unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 4, "IPV6_RECVTCLASS"},
			option{unix.IPPROTO_IPV6, unix.IPV6_TCLASS, 4, "IPV6_TCLASS"},
			option{unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT, 4, "IPV6_TRANSPARENT"},
			option{unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, 4, "IPV6_UNICAST_HOPS"})
	}
	switch typ {
	case unix.SOCK_STREAM:
		opts = append(opts,
			option{unix.IPPROTO_TCP, unix.TCP_CONGESTION, 16, "TCP_CONGESTION"},
			option{unix.IPPROTO_TCP, unix.TCP_CORK, 4, "TCP_CORK"},
			option{unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 4, "TCP_DEFER_ACCEPT"},
			option{unix.IPPROTO_TCP, unix.TCP_FASTOPEN, 4, "TCP_FASTOPEN"},
			option{unix.IPPROTO_TCP, unix.TCP_FASTOPEN_NO_COOKIE, 4, "TCP_FASTOPEN_NO_COOKIE"},
			option{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 4, "TCP_KEEPCNT"},
			option{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 4, "TCP_KEEPIDLE"},
			option{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 4, "TCP_KEEPINTVL"},
			option{unix.IPPROTO_TCP, unix.TCP_LINGER2, 4, "TCP_LINGER2"},
			option{unix.IPPROTO_TCP, unix.TCP_MAXSEG, 4, "TCP_MAXSEG"},
			option{unix.IPPROTO_TCP, unix.TCP_NODELAY, 4, "TCP_NODELAY"},
			option{unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, 4, "TCP_NOTSENT_LOWAT"},
			option{unix.IPPROTO_TCP, unix.TCP_SAVE_SYN, 4, "TCP_SAVE_SYN"},
			option{unix.IPPROTO_TCP, unix.TCP_SYNCNT, 4, "TCP_SYNCNT"},
			option{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 4, "TCP_USER_TIMEOUT"},
			option{unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP, 4, "TCP_WINDOW_CLAMP"})
	case unix.SOCK_DGRAM:
		opts = append(opts,
			option{unix.SOL_SOCKET, unix.SO_BROADCAST, 4, "SO_BROADCAST"},
			option{unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 4, "SO_RXQ_OVFL"},
			option{unix.IPPROTO_IP, unix.IP_PKTINFO, 4, "IP_PKTINFO"},
			option{unix.IPPROTO_IP, unix.IP_RECVERR, 4, "IP_RECVERR"},
			option{unix.IPPROTO_IP, unix.IP_RECVTTL, 4, "IP_RECVTTL"},
			option{unix.IPPROTO_IP, unix.IP_RECVORIGDSTADDR, 4, "IP_RECVORIGDSTADDR"},
			option{unix.IPPROTO_UDP, udpSegment, 4, "UDP_SEGMENT"},
			option{unix.IPPROTO_UDP, udpGRO, 4, "UDP_GRO"})
		if domain == unix.AF_INET6 {
			opts = append(opts,
				option{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 4, "IPV6_RECVPKTINFO"},
				option{unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 4, "IPV6_RECVERR"},
				option{unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 4, "IPV6_RECVHOPLIMIT"})
		}
	}
	return opts
}

// CopyOptions makes the socket options of dst those of src, a socket of the
// same family and type (TCP may follow MPTCP). What src cannot tell is left
// alone; what dst refuses is named in the error, and the rest is copied all
// the same.
func CopyOptions(dst, src int) error {
	domain, err := unix.GetsockoptInt(src, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return fmt.Errorf("cannot inspect a socket: %w", err)
	}
	typ, err := unix.GetsockoptInt(src, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return fmt.Errorf("cannot inspect a socket: %w", err)
	}
	var failed error
	var wantBuf, haveBuf [maxOption]byte
	for _, o := range optionsOf(domain, typ) {
		want, err := getsockoptInto(src, o.level, o.opt, wantBuf[:o.size])
		if err != nil || len(want) == 0 {
			continue
		}
		have, err := getsockoptInto(dst, o.level, o.opt, haveBuf[:o.size])
		if err != nil || bytes.Equal(have, want) {
			continue
		}
		err = setsockoptBytes(dst, o.level, o.opt, want)
		if err == unix.EINVAL && o.level == unix.IPPROTO_IPV6 && o.opt == unix.IPV6_V6ONLY {
			continue // it is bound, and its key says that it fits: the kernel itself sets this for all but the wildcard
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("cannot copy %s: %w", o.name, err))
		}
	}
	return errors.Join(failed, copyBuffers(dst, src))
}

// Bits of SO_BUF_LOCK (5.14), from linux/socket.h.
const (
	sndbufLocked = 1
	rcvbufLocked = 2
)

// copyBuffers copies the buffer sizes that were set by hand: to set one ends
// the kernel's own tuning.
func copyBuffers(dst, src int) error {
	locked, err := unix.GetsockoptInt(src, unix.SOL_SOCKET, unix.SO_BUF_LOCK)
	if err != nil {
		locked = sndbufLocked | rcvbufLocked
	}
	return errors.Join(
		copyBuffer(dst, src, locked&sndbufLocked != 0, unix.SO_SNDBUF, unix.SO_SNDBUFFORCE, "SO_SNDBUF"),
		copyBuffer(dst, src, locked&rcvbufLocked != 0, unix.SO_RCVBUF, unix.SO_RCVBUFFORCE, "SO_RCVBUF"))
}

func copyBuffer(dst, src int, locked bool, opt, force int, name string) error {
	if !locked {
		return nil
	}
	want, err := unix.GetsockoptInt(src, unix.SOL_SOCKET, opt)
	if err != nil {
		return nil
	}
	if have, err := unix.GetsockoptInt(dst, unix.SOL_SOCKET, opt); err != nil || have == want {
		return nil
	}
	// The kernel doubles what is set. FORCE, for those who may, because the child
	// may have been allowed more than the limit for all.
	if unix.SetsockoptInt(dst, unix.SOL_SOCKET, force, want/2) == nil {
		return nil
	}
	if err := unix.SetsockoptInt(dst, unix.SOL_SOCKET, opt, want/2); err != nil {
		return fmt.Errorf("cannot copy %s: %w", name, err)
	}
	return nil
}
