package ready

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Upward is our own word to the service manager above: the sending side of
// sd_notify(3). All methods do nothing when there is none above.
//
// The sending is ours and not that of go-systemd's daemon package, because its
// SdNotify waits without limit when the manager's queue is full; a supervisor
// must go on reaping then. Nothing here ever waits: what the kernel does not
// take at once is kept, in order, and sent before the next word or by Flush.
//
// It belongs to one goroutine.
type Upward struct {
	addr     string
	watchdog time.Duration
	fd       int
	unsent   []string
}

// maxUnsent is how many words are kept for a manager that does not read: more
// than a rollout sends.
const maxUnsent = 16

// NewUpward reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID once, through
// getenv (os.Getenv), and unsets nothing. A manager's address that cannot be
// used is an error; the Upward that comes with it is silent but usable. The
// caller closes it.
func NewUpward(getenv func(string) string) (*Upward, error) {
	u := &Upward{fd: -1, watchdog: watchdogInterval(getenv)}
	addr := getenv("NOTIFY_SOCKET")
	if addr == "" {
		return u, nil
	}
	if addr[0] != '/' && addr[0] != '@' || len(addr) == 1 {
		return u, fmt.Errorf("cannot notify the service manager: NOTIFY_SOCKET=%s: not a path or abstract unix socket", excerpt(addr))
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return u, fmt.Errorf("cannot notify the service manager: socket: %w", err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, notifyBuffer) // as libsystemd; smaller does as well
	u.fd, u.addr = fd, addr
	return u, nil
}

// watchdogInterval is sd_watchdog_enabled(3).
func watchdogInterval(getenv func(string) string) time.Duration {
	n, err := strconv.ParseUint(getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || n == 0 {
		return 0
	}
	if p := getenv("WATCHDOG_PID"); p != "" && p != strconv.Itoa(unix.Getpid()) {
		return 0 // meant for another process, usually our parent
	}
	return usec(n)
}

// Enabled says that there is a manager above that wants to hear of us.
func (u *Upward) Enabled() bool { return u.fd >= 0 }

// WatchdogInterval is the longest silence that the manager allows between two
// calls of Watchdog, 0 if it keeps no watch. Half of it is a good rhythm.
func (u *Upward) WatchdogInterval() time.Duration { return u.watchdog }

// Ready says READY=1; status may be "".
func (u *Upward) Ready(status string) error { return u.Send(withStatus("READY=1", status)) }

// Reloading says RELOADING=1 with the time of now, which Type=notify-reload
// needs to tell it from an older one. Ready must follow.
func (u *Upward) Reloading(status string) error {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return fmt.Errorf("cannot notify the service manager: clock: %w", err)
	}
	return u.Send(withStatus("RELOADING=1\nMONOTONIC_USEC="+strconv.FormatInt(ts.Nano()/1000, 10), status))
}

// Stopping says STOPPING=1, which is final.
func (u *Upward) Stopping(status string) error { return u.Send(withStatus("STOPPING=1", status)) }

// Status sets the line that systemctl status shows.
func (u *Upward) Status(status string) error { return u.Send(withStatus("", status)) }

// Watchdog is a sign of life. It is never kept: a late one would be a lie.
func (u *Upward) Watchdog() error {
	if u.fd < 0 {
		return nil
	}
	if err := u.Flush(); err != nil {
		return err
	}
	if len(u.unsent) > 0 {
		return fmt.Errorf("cannot notify the service manager: %w", unix.EAGAIN)
	}
	if err := u.write("WATCHDOG=1"); err != nil {
		return fmt.Errorf("cannot notify the service manager: %w", err)
	}
	return nil
}

// ExtendTimeout promises another word within d, and asks not to run into
// the start, run or stop timeout until then.
func (u *Upward) ExtendTimeout(d time.Duration) error {
	return u.Send("EXTEND_TIMEOUT_USEC=" + strconv.FormatInt(d.Microseconds(), 10))
}

// MainPID tells of another main process, after a re-exec that changed it.
func (u *Upward) MainPID(pid int) error { return u.Send("MAINPID=" + strconv.Itoa(pid)) }

// Send sends assignments as they are, one per line. nil also when they could
// not be sent yet: Pending says so.
func (u *Upward) Send(state string) error {
	if u.fd < 0 || state == "" {
		return nil
	}
	u.unsent = append(u.unsent, state)
	err := u.Flush()
	if over := len(u.unsent) - maxUnsent; over > 0 {
		u.unsent = u.unsent[over:] // the newest say what is
	}
	return err
}

// Pending says that something is still to be sent: call Flush a little later.
func (u *Upward) Pending() bool { return len(u.unsent) > 0 }

// Flush sends what is kept, as far as the manager's queue takes it. An error
// other than a full queue drops the word that it concerns.
func (u *Upward) Flush() error {
	for len(u.unsent) > 0 {
		err := u.write(u.unsent[0])
		if err == unix.EAGAIN || err == unix.ENOBUFS {
			return nil
		}
		u.unsent = u.unsent[1:]
		if err != nil {
			return fmt.Errorf("cannot notify the service manager at %s: %w", u.addr, err)
		}
	}
	u.unsent = nil
	return nil
}

func (u *Upward) write(state string) error {
	for {
		err := unix.Sendto(u.fd, []byte(state), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, &unix.SockaddrUnix{Name: u.addr})
		if err != unix.EINTR {
			return err
		}
	}
}

// Close closes the socket; later calls do nothing.
func (u *Upward) Close() error {
	if u.fd < 0 {
		return nil
	}
	err := unix.Close(u.fd)
	u.fd, u.unsent = -1, nil
	return err
}

// withStatus adds STATUS=, on one line whatever the text: a line feed would end
// the assignment and begin another.
func withStatus(state, status string) string {
	if status == "" && state != "" {
		return state
	}
	status = "STATUS=" + strings.Join(strings.FieldsFunc(status, func(r rune) bool { return r == '\n' || r == '\r' || r == 0 }), " ")
	if state == "" {
		return status
	}
	return state + "\n" + status
}
