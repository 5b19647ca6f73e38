// Package sockdiag asks the kernel which sockets exist: NETLINK_SOCK_DIAG, for
// TCP, MPTCP, UDP and Unix sockets. It is what ss(8) does, as plain values.
//
// Why not /proc/net/tcp: it is slow on large tables, shows no tcp_info, no
// accept queue by lane, and no cookie that tells a connection from a later one
// with the same addresses.
//
// Limits. Only the network namespace of the calling thread is seen. Dumps are
// not atomic: a socket that changes state while the kernel walks its tables may
// be seen once, twice (with one cookie) or, across tables (listening,
// established), not at all. Some attributes (mark, MPTCP of a subflow) are only
// told to callers with CAP_NET_ADMIN. The modules tcp_diag, udp_diag, unix_diag
// and mptcp_diag must exist; without them requests fail with ENOENT.
//
// Source: sock_diag(7), linux/inet_diag.h, linux/unix_diag.h.
package sockdiag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// Constants of linux/sock_diag.h and linux/netlink.h that x/sys lacks.
const (
	dumpTries    = 8         // dumps that the kernel marked as inconsistent are asked again this often
	receiveSize  = 64 * 1024 // the kernel fills at most 32 KiB of one datagram
	answerWithin = 5         // seconds; the kernel answers at once, so this only keeps a bug from hanging us
)

// ErrInterrupted says that the kernel's tables changed during each try of a
// dump, so that the answer may lack sockets.
var ErrInterrupted = errors.New("the dump was interrupted by changes each time")

// Conn is an open netlink socket. It is for one goroutine at a time. The
// package functions open and close one for each call.
type Conn struct {
	fd  int
	seq uint32
	buf []byte
}

// Dial opens a netlink socket (close-on-exec). The caller closes it with Close.
func Dial() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("cannot open a sock_diag socket: %w", err)
	}
	tv := unix.Timeval{Sec: answerWithin}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("cannot set a timeout on a sock_diag socket: %w", err)
	}
	return &Conn{fd: fd}, nil
}

// Close closes the netlink socket. A second Close does nothing.
func (c *Conn) Close() error {
	if c.fd < 0 {
		return nil
	}
	err := unix.Close(c.fd)
	c.fd = -1
	return err
}

// ask sends one request of type SOCK_DIAG_BY_FAMILY and gives each answer to
// each. A dump that was interrupted is asked again; begin is called before each
// try and forgets what an earlier one gave.
func (c *Conn) ask(body []byte, dump bool, begin func(), each func([]byte) error) error {
	for range dumpTries {
		begin()
		again, err := c.askOnce(body, dump, each)
		if err != nil || !again {
			return err
		}
	}
	return ErrInterrupted
}

func (c *Conn) askOnce(body []byte, dump bool, each func([]byte) error) (again bool, err error) {
	if c.fd < 0 {
		return false, unix.EBADF
	}
	if c.buf == nil {
		c.buf = make([]byte, receiveSize)
	}
	c.seq++
	flags := uint16(unix.NLM_F_REQUEST)
	if dump {
		flags |= unix.NLM_F_DUMP
	}
	msg := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(body))
	ne := binary.NativeEndian
	ne.PutUint32(msg[0:], uint32(unix.SizeofNlMsghdr+len(body)))
	ne.PutUint16(msg[4:], unix.SOCK_DIAG_BY_FAMILY)
	ne.PutUint16(msg[6:], flags)
	ne.PutUint32(msg[8:], c.seq)
	msg = append(msg, body...)
	if err := ignoringEINTR(func() error {
		return unix.Sendto(c.fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}); err != nil {
		return false, err
	}
	for {
		n, err := c.receive()
		if err != nil {
			return false, c.broken(err)
		}
		answered := false
		done, inter, err := walk(c.buf[:n], c.seq, func(b []byte) error {
			answered = true
			return each(b)
		})
		again = again || inter
		if err != nil {
			if !done {
				// Answers of this request may still come: a kept
				// connection would mix them with the next one's.
				err = c.broken(err)
			}
			return false, err
		}
		if done || !dump && answered {
			return again, nil
		}
	}
}

// broken closes the connection, for the state of the dialogue is unknown.
func (c *Conn) broken(err error) error {
	_ = c.Close()
	return err
}

func (c *Conn) receive() (int, error) {
	for {
		n, from, err := unix.Recvfrom(c.fd, c.buf, unix.MSG_TRUNC)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return 0, fmt.Errorf("the kernel did not answer in %d s: %w", answerWithin, unix.ETIMEDOUT)
		case err != nil:
			return 0, err
		case n > len(c.buf):
			return 0, fmt.Errorf("an answer of %d bytes was cut off: %w", n, unix.EMSGSIZE)
		}
		if sa, ok := from.(*unix.SockaddrNetlink); ok && sa.Pid != 0 {
			continue // not from the kernel: any process may write to a netlink port
		}
		return n, nil
	}
}

// walk goes over the netlink messages of one datagram. done: the answer is
// complete. again: the kernel says that the dump is inconsistent.
func walk(b []byte, seq uint32, each func([]byte) error) (done, again bool, err error) {
	ne := binary.NativeEndian
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(ne.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return false, again, fmt.Errorf("a netlink message of %d bytes in %d: %w", size, len(b), unix.EBADMSG)
		}
		typ, flags := ne.Uint16(b[4:]), ne.Uint16(b[6:])
		payload := b[unix.SizeofNlMsghdr:size]
		mine := ne.Uint32(b[8:]) == seq
		b = b[min(align4(size), len(b)):]
		if !mine {
			continue // left over from an earlier request
		}
		if flags&unix.NLM_F_DUMP_INTR != 0 {
			again = true
		}
		switch typ {
		case unix.NLMSG_NOOP:
		case unix.NLMSG_DONE, unix.NLMSG_ERROR:
			if len(payload) >= 4 {
				if e := int32(ne.Uint32(payload)); e < 0 {
					return true, again, unix.Errno(-e)
				}
			}
			return true, again, nil
		case unix.NLMSG_OVERRUN:
			return false, again, unix.ENOBUFS
		default:
			if err := each(payload); err != nil {
				return false, again, err
			}
		}
	}
	return false, again, nil
}

// attributes calls each for every netlink attribute in b. A malformed rest is
// an error: what was read before it may be incomplete.
func attributes(b []byte, each func(typ uint16, value []byte)) error {
	ne := binary.NativeEndian
	for len(b) >= unix.SizeofNlAttr {
		size := int(ne.Uint16(b))
		if size < unix.SizeofNlAttr || size > len(b) {
			return fmt.Errorf("a netlink attribute of %d bytes in %d: %w", size, len(b), unix.EBADMSG)
		}
		each(ne.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[unix.SizeofNlAttr:size])
		b = b[min(align4(size), len(b)):]
	}
	return nil
}

// putAttribute appends one attribute, padded to four bytes.
func putAttribute(b []byte, typ uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofNlAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func align4(n int) int { return (n + 3) &^ 3 }

func ignoringEINTR(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
		runtime.Gosched()
	}
}
