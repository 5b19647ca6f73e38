package listen

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor/config"
)

// ErrShared says that a lane is its socket's only listener, so that nothing can
// be sent to one generation and not to the other.
var ErrShared = errors.New("the listener is shared by all generations")

// ErrClosed says that the lane was closed.
var ErrClosed = errors.New("the lane is closed")

// ErrReplaced says that a listener could not be healed and another one was
// opened in its place. Clients wait in its queue until a new generation is lent it.
var ErrReplaced = errors.New("the listener was replaced: the generation must be restarted to serve it")

// OpenError is why a socket could not be opened or adopted.
type OpenError struct {
	Stage  string        // the step that failed: "socket", "bind", "listen", "path", "chown", "adopt", "set SO_..."
	Socket config.Socket // as configured; of an inherited one what was found out
	Errno  unix.Errno    // 0 when Err is no errno
	Err    error         // the cause; Errno, unless there is more to say
}

// Error gives one line with stage, subject and cause.
func (e *OpenError) Error() string {
	return fmt.Sprintf("cannot listen on %s: %s: %v", subject(e.Socket), e.Stage, e.Err)
}

// Unwrap gives the cause, so that errors.Is finds the errno.
func (e *OpenError) Unwrap() error { return e.Err }

// Hint is a further line with the next thing to do; "" where nothing is known
// that helps. Who holds an address in use is for the caller to add.
func (e *OpenError) Hint() string {
	inet := e.Socket.Addr.IsValid()
	switch e.Errno {
	case unix.EADDRINUSE:
		if inet {
			return "another socket has this address, or a wildcard that includes it; stop its owner or choose another port"
		}
		return "a living server has this path; stop it or choose another path"
	case unix.EACCES, unix.EPERM:
		if !inet {
			return "the user of supervise needs write permission on the directory"
		}
		start := unprivilegedStart()
		if p := int(e.Socket.Addr.Port()); p != 0 && p < start {
			return fmt.Sprintf("ports below %d (net.ipv4.ip_unprivileged_port_start) need CAP_NET_BIND_SERVICE", start)
		}
		return "the option needs a capability that supervise lacks"
	case unix.EADDRNOTAVAIL:
		if e.Socket.Addr.Addr().Is6() {
			return "no interface has this address, or IPv6 is off (net.ipv6.conf.all.disable_ipv6); FreeBind=yes allows an address that comes later"
		}
		return "no interface has this address; FreeBind=yes allows one that comes later"
	case unix.EAFNOSUPPORT:
		return "this kernel runs without IPv6; use an IPv4 address"
	case unix.ENAMETOOLONG:
		return "the kernel takes at most 107 bytes of a socket's path"
	case unix.ENOTSOCK:
		if e.Socket.Path != "" {
			return "there is something that is no socket; it was left alone: remove it or choose another path"
		}
	case unix.EROFS, unix.ENOENT, unix.ENOTDIR:
		if e.Socket.Path != "" {
			return "the directory must exist and be writable, or be one that supervise can make"
		}
	case unix.EMFILE, unix.ENFILE:
		return "too many open files; raise the limit (ulimit -n)"
	case unix.ENODEV:
		return "no interface has the name that BindToDevice= asks for"
	}
	return ""
}

func unprivilegedStart() int {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			return n
		}
	}
	return 1024
}

// Warning is something that was survived and that the user should know.
type Warning struct {
	Socket config.Socket
	Text   string // what is not as asked, and what it costs
	Err    error  // the cause, may be nil
}

// String gives one line.
func (w Warning) String() string {
	s := subject(w.Socket) + ": " + w.Text
	if w.Err != nil {
		s += ": " + w.Err.Error()
	}
	return s
}

// subject names a socket for people.
func subject(c config.Socket) string {
	where := c.Path
	if c.Addr.IsValid() {
		where = c.Addr.String()
	}
	if where == "" {
		where = c.Source
	}
	return strings.TrimSpace(c.Network + " " + where)
}

// failed makes an OpenError of a step.
func failed(stage string, c config.Socket, err error) *OpenError {
	e := &OpenError{Stage: stage, Socket: c, Err: err}
	errors.As(err, &e.Errno)
	return e
}
