package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor/control"
)

// Under load, with new connections all the time: no restart, pause, resume or
// rollout by a verb refuses or loses one. The verbs come from several clients.
func TestVerbsLoseNoConnection(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "behave")
	if err := os.WriteFile(file, []byte("serve\nnotify:READY=1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(t.TempDir(), "c.sock")
	server := filepath.Join(t.TempDir(), "server")
	if err := os.Symlink(self(t), server); err != nil {
		t.Fatal(err)
	}
	r := startSupervise(t, nil, superviseLink(t), "--name", "web", "-l", "http=127.0.0.1:0", "--ready", "notify", "--control", at, "--", server, "@"+file)
	address := r.await(`listening: .*address=(\S+)`)[1]
	r.await(` ready: `)
	c, err := control.Dial(at)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), longest)
	defer cancel()
	var stop atomic.Bool
	var asked atomic.Int64
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for !stop.Load() {
				if err := oneRequest(address); err != nil {
					t.Errorf("after %d: %v", asked.Load(), err)
					return
				}
				asked.Add(1)
				time.Sleep(time.Millisecond)
			}
		})
	}
	web := []string{"web"}
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for i := range 4 {
		must("restart", c.Restart(ctx, web, nil))
		must("pause", c.Pause(ctx, web, nil))
		for waiting := 0; waiting == 0; { // until somebody waits
			st, err := c.Status(ctx)
			must("status", err)
			if err != nil {
				break
			}
			for _, l := range st.Services[0].Sockets[0].Lanes {
				waiting += l.Queue
			}
		}
		if i%2 == 0 {
			must("resume", c.Resume(ctx, web, nil))
		}
		must("rollout", c.Rollout(ctx, web, nil))
	}
	before := asked.Load()
	for asked.Load() < before+10 && ctx.Err() == nil && !t.Failed() {
		time.Sleep(time.Millisecond)
	}
	stop.Store(true)
	clients.Wait()
	t.Logf("%d requests, each on a connection of its own", asked.Load())
	r.signal(unix.SIGTERM)
	if status := r.wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// oneRequest makes a connection and wants an answer on it.
func oneRequest(address string) error {
	c, err := net.DialTimeout("tcp", address, longest)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(longest)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		return err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil || !strings.Contains(line, "200") {
		return fmt.Errorf("answer %q: %w", line, err)
	}
	return nil
}
