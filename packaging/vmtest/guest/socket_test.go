package guest

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/cmd/storm/load"
)

// A .socket unit holds the address above us: nothing is refused even while
// supervise itself is stopped and started, or killed.
func TestSocketUnit(t *testing.T) {
	for _, c := range []struct{ name, network, addr, socket string }{
		{"tcp", "tcp", "127.0.0.1:8082", "ListenStream=127.0.0.1:8082"},
		{"tcp with ReusePort", "tcp", "127.0.0.1:8082", "ListenStream=127.0.0.1:8082\nReusePort=yes"},
		{"unix", "unix", "/run/web.sock", "ListenStream=/run/web.sock"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newUnit(t, "web.socket", "[Socket]\n"+c.socket+"\nBacklog=4096\n")
			u := newUnit(t, "web.service", notifying(t, "/vm/bin/supervise -- /vm/bin/plain", "Restart=always", "RestartSec=100ms"))
			s.do("start")
			pid := ask(t, c.network, c.addr) // starts the service
			w := newStorm(t, c.network, c.addr)
			w.more(20)
			for range 3 {
				w.Mark("reload")
				u.do("reload")
				pid = w.other(pid)
				w.more(50)
			}
			u.await(`rollout done`, 3)
			w.Mark("restart")
			u.do("restart")
			pid = w.other(pid)
			w.more(20)
			w.Mark("kill")
			if err := unix.Kill(u.number("MainPID"), unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			w.other(pid)
			w.more(20)
			// What a process had accepted, or had waiting in a lane of ours, when
			// it was told to stop or was killed, may be lost; nobody is refused.
			w.allows(func(f load.Failure) bool {
				return f.Phase != "reload" && f.Phase != "" && (f.Kind == load.EOF || f.Kind == load.Reset)
			})
			s.do("stop")
		})
	}
}
