package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// From SIGKILL of the server until the next one has answered somebody, with a
// standby and without, and the longest that a client waited meanwhile. Both in one
// run: what counts is how they compare.
func BenchmarkTakeover(b *testing.B) {
	for _, flag := range []string{"--standby=yes", "--standby=no"} {
		b.Run(flag, func(b *testing.B) {
			file := filepath.Join(b.TempDir(), "behave")
			if err := os.WriteFile(file, []byte("serve\n"), 0o600); err != nil {
				b.Fatal(err)
			}
			server := filepath.Join(b.TempDir(), "server")
			if err := os.Symlink(self(b), server); err != nil {
				b.Fatal(err)
			}
			r := startSupervise(b, nil, superviseLink(b), "--name", "web", "-l", "http=127.0.0.1:0", flag, "--", server, "@"+file)
			addr := r.await(`listening: .*address=(\S+)`)[1]
			r.await(` ready: `)
			var took []time.Duration
			var longestWait time.Duration
			for range b.N {
				if flag == "--standby=yes" {
					r.await(`standby ready`)
				}
				body, err := get(addr)
				if err != nil {
					b.Fatal(err)
				}
				pid, err := strconv.Atoi(strings.Fields(body)[1])
				if err != nil {
					b.Fatal(err)
				}
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					b.Fatal(err)
				}
				began := time.Now()
				// One client each half millisecond. Those that came before anybody knew
				// of the death wait in the dead one's queue.
				answers := make(chan time.Duration, 1000)
				clients, first := 0, time.Duration(0)
				for first == 0 {
					if clients++; clients == cap(answers) {
						b.Fatal("nobody answers")
					}
					go func() {
						start := time.Now()
						body, err := get(addr)
						if err != nil || strings.HasPrefix(body, fmt.Sprintf("pid %d\n", pid)) {
							answers <- 0
							return
						}
						answers <- time.Since(start)
					}()
					select {
					case waited := <-answers:
						clients--
						if waited > 0 {
							first = time.Since(began)
						}
					case <-time.After(500 * time.Microsecond):
					}
				}
				for range clients {
					longestWait = max(longestWait, <-answers)
				}
				took = append(took, first)
				if flag != "--standby=yes" {
					r.await(` ready: `)
				}
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-median")
			b.ReportMetric(float64(took[len(took)-1].Microseconds())/1000, "ms-max")
			b.ReportMetric(float64(longestWait.Microseconds())/1000, "ms-client-max")
			b.ReportMetric(0, "ns/op")
			r.signal(unix.SIGTERM)
			r.wait()
		})
	}
}
