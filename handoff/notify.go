package handoff

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// notifier speaks to NOTIFY_SOCKET, sd_notify(3). The zero value speaks to nobody.
type notifier struct{ addr string }

// notifyPatience bounds how long a manager that does not read keeps us.
const notifyPatience = 2 * time.Second

// send sends one datagram of lines.
func (n notifier) send(state string) error {
	if n.addr == "" {
		return nil
	}
	what, _, _ := strings.Cut(state, "\n")
	if !strings.HasPrefix(n.addr, "/") && !strings.HasPrefix(n.addr, "@") {
		return fmt.Errorf("cannot say %s: NOTIFY_SOCKET=%.100q is neither a path nor an abstract socket", what, n.addr)
	}
	// '@' is the NUL byte of an abstract name to package net, too.
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Net: "unixgram", Name: n.addr})
	if err != nil {
		return fmt.Errorf("cannot say %s to the service manager: %w", what, err)
	}
	err = c.SetWriteDeadline(time.Now().Add(notifyPatience))
	if err == nil {
		_, err = c.Write([]byte(state))
	}
	if err = errors.Join(err, c.Close()); err != nil {
		return fmt.Errorf("cannot say %s to the service manager: %w", what, err)
	}
	return nil
}

// microseconds reads a positive number of microseconds; 0 is none, or no
// number, which sd_watchdog_enabled(3) takes for an error and we for none.
func microseconds(s string) time.Duration {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n <= 0 || n > int64(1<<63-1)/1000 {
		return 0
	}
	return time.Duration(n) * time.Microsecond
}

// watchdogInterval is how often to ping: twice in each WATCHDOG_USEC, unless
// WATCHDOG_PID means another process.
func watchdogInterval(usec, wanted string, pid int) time.Duration {
	if wanted != "" && wanted != strconv.Itoa(pid) {
		return 0
	}
	return microseconds(usec) / 2
}

func (p *process) setWatchdog(check func() error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.check = check
}

// pingForever pings until the process ends, also while it drains: the watchdog
// does not rest meanwhile.
func (p *process) pingForever() {
	for ; ; time.Sleep(p.pings) {
		p.mu.Lock()
		check := p.check
		p.mu.Unlock()
		if check != nil && check() != nil {
			continue
		}
		// A ping that fails is a ping that is missing: the watchdog tells.
		_ = p.notifier.send("WATCHDOG=1")
	}
}
