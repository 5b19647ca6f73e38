package servers

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// upgrade is how a server is made to replace itself, by those who know it: a
// signal to its main process; then, when its log has had a word so often, another one.
type upgrade struct {
	run    string
	signal syscall.Signal
	word   string // in the server's log, once for each of its masters
	end    syscall.Signal
	same   bool // it executes itself anew, or it refuses: the process is the same
}

var upgrades = []upgrade{
	{run: "tableflip/run", signal: syscall.SIGHUP},
	{run: "tableflip/run.bind", signal: syscall.SIGHUP},
	{run: "gunicorn/run.bind", signal: syscall.SIGUSR2, word: "Listening at:", end: syscall.SIGTERM},
	{run: "unicorn/run.inherited", signal: syscall.SIGUSR2, word: "master process ready", end: syscall.SIGQUIT},
	{run: "grace/run.bind", signal: syscall.SIGUSR2},
	{run: "endless/run", signal: syscall.SIGHUP},
	{run: "puma/run.bind", signal: syscall.SIGUSR2, word: "Puma starting in", same: true},
	{run: "haproxy/run", signal: syscall.SIGUSR2, word: "Loading success", same: true},
	{run: "nginx/run", signal: syscall.SIGUSR2, word: "the changing binary signal is ignored", same: true},
}

// TestUpgrades: a server that upgrades itself under supervise stays supervised.
// Its successor is the main process, no second copy is started, no connection is
// refused meanwhile, and it is rolled out and stopped like any other.
func TestUpgrades(t *testing.T) {
	if *table != "" {
		t.Skip("the table is being made")
	}
	for _, u := range upgrades {
		var s *server
		for i := range servers {
			if servers[i].run == u.run {
				s = &servers[i]
			}
		}
		t.Run(s.name(), func(t *testing.T) {
			t.Parallel()
			p := settle(t, s)
			sup := superviseIt(t, p)
			w := startTraffic(t, p)
			w.more(t, sup)
			for i := 1; i <= 2; i++ {
				first := sup.main()
				from := sup.now()
				w.mark("upgrade", i)
				masters := sup.has(u.word)
				if err := syscall.Kill(first, u.signal); err != nil {
					t.Fatal(err)
				}
				if u.word != "" {
					await(t, fmt.Sprintf("%q in the log of the server", u.word), func() error {
						if sup.has(u.word) == masters {
							return fmt.Errorf("%s", sup.words())
						}
						return sup.alive()
					})
				}
				w.more(t, sup) // the new master has its workers by then
				if u.end != 0 {
					if err := syscall.Kill(first, u.end); err != nil {
						t.Fatal(err)
					}
				}
				if !u.same {
					if e := sup.await(t, from, "main process changed"); e.PID == first || e.Generation != 1 {
						t.Errorf("%+v", e)
					}
				}
				w.more(t, sup)
			}
			if sup.said("candidate started") || sup.said("ended") {
				t.Errorf("supervise started another one\n%s", sup.words())
			}
			sup.rollOut(t, false)
			w.more(t, sup)
			if o := w.end(nil); o.refused > 0 {
				t.Errorf("%v\n%s", o, sup.words())
			} else {
				t.Log(o)
			}
			sup.stop(t)
		})
	}
}

// main is the main process, as last told.
func (sup *supervised) main() (pid int) {
	sup.mu.Lock()
	defer sup.mu.Unlock()
	for _, e := range sup.news {
		if e.PID != 0 && e.Generation > 0 {
			pid = e.PID
		}
	}
	return pid
}

// has counts a word in the server's log.
func (sup *supervised) has(word string) int {
	if word == "" {
		return 0
	}
	text, _ := os.ReadFile(filepath.Join(sup.dir, "server.log"))
	return bytes.Count(text, []byte(word))
}
