package listen

import (
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Who comes to a muted socket gets in by its next try: once it is not muted any
// more, or once another listener has the port. Who was in is not touched.
func TestMute(t *testing.T) {
	for _, at := range addresses(t) {
		t.Run(at, func(t *testing.T) {
			checkFDs(t)
			s := open(t, ip("tcp", at))
			web := s.Sockets()[0]
			l := lend(t, s)
			dial(t, web) // in the queue before
			if err := web.Mute(); err != nil {
				t.Fatal(err)
			}
			d := net.Dialer{Timeout: 20 * time.Millisecond}
			if c, err := d.Dial("tcp", web.DialAddr()); err == nil {
				c.Close()
				t.Fatal("a muted socket lets clients in")
			} else if errors.Is(err, unix.ECONNREFUSED) {
				t.Fatal(err)
			}
			if n, _, err := l.Queue(); err != nil || n != 1 {
				t.Fatalf("%d in the queue: %v", n, err)
			}
			got := make(chan error, 1)
			go func() {
				c, err := net.Dial("tcp", web.DialAddr())
				if err == nil {
					c.Close()
				}
				got <- err
			}()
			if err := web.Unmute(); err != nil {
				t.Fatal(err)
			}
			if err := <-got; err != nil {
				t.Fatal(err)
			}
			if err := web.Unmute(); err != nil {
				t.Error("what is not muted:", err)
			}
		})
	}
	if err := open(t, unixAt("unix", t.TempDir()+"/s")).Sockets()[0].Mute(); !errors.Is(err, unix.ENOTSUP) {
		t.Error(err)
	}
}
