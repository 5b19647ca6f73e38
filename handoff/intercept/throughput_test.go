package intercept

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// playHTTP is a server of small answers, for BenchmarkThroughput.
func playHTTP(port uint16) (string, error) {
	failed := make(chan error, 1)
	go func() {
		failed <- http.ListenAndServe(fmt.Sprintf("127.0.0.1:%d", port), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "hello")
		}))
	}()
	select {
	case err := <-failed:
		return "", err
	case <-time.After(100 * time.Millisecond): // the client tries again until it listens
		return "ok", nil
	}
}

// BenchmarkThroughput compares a server under the filter with the same one
// without, in pairs that take turns, as the machine's load drifts:
//
//	go test -run '^$' -bench Throughput -benchtime 15x ./handoff/intercept
//
// Each iteration is one pair of half a second each. It reports the median of the
// ratios, filtered by plain, and its quartiles; and the ratio of the processor
// time that each server spent for a request, plain by filtered, which is what
// bounds throughput and does not depend on what else the machine does.
func BenchmarkThroughput(b *testing.B) {
	for _, keepAlive := range []bool{true, false} {
		name := "new connections"
		if keepAlive {
			name = "keep-alive"
		}
		b.Run(name, func(b *testing.B) {
			plainPort, filteredPort := freePort(b), freePort(b)
			cmd := actor("http", fmt.Sprint(plainPort))
			plain := startPlain(b, cmd)
			defer plain()
			g := startWith(b, newHolder(b), 1, Options{Unlink: true}, ServerOptions{}, actor("http", fmt.Sprint(filteredPort)),
				func(h *genHolder) Holder { return h })
			defer g.end()
			if said := g.line(); said != "ok" {
				b.Fatal(said)
			}
			var ratios, costs []float64
			var rate float64
			measure(b, plainPort, keepAlive, 200*time.Millisecond) // both warm
			measure(b, filteredPort, keepAlive, 200*time.Millisecond)
			for i := 0; b.Loop(); i++ {
				const span = 500 * time.Millisecond
				var with, without, costWith, costWithout float64
				one := func() { without, costWithout = costOf(b, cmd, plainPort, keepAlive, span) }
				other := func() { with, costWith = costOf(b, g.cmd, filteredPort, keepAlive, span) }
				if i%2 == 1 {
					one, other = other, one
				}
				one()
				other()
				rate = without
				ratios = append(ratios, with/without)
				costs = append(costs, costWithout/costWith)
			}
			slices.Sort(costs)
			slices.Sort(ratios)
			n := len(ratios)
			b.ReportMetric(ratios[n/2], "ratio")
			b.ReportMetric(ratios[n/4], "ratio-q1")
			b.ReportMetric(ratios[n*3/4], "ratio-q3")
			b.ReportMetric(costs[n/2], "cpu-ratio")
			b.ReportMetric(rate, "plain-req/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// costOf is measure, and the processor time of the server for each request.
func costOf(b *testing.B, server *exec.Cmd, port uint16, keepAlive bool, span time.Duration) (rate, cost float64) {
	before := cpuTime(b, server.Process.Pid)
	begin := time.Now()
	rate = measure(b, port, keepAlive, span)
	return rate, float64(cpuTime(b, server.Process.Pid)-before) / (rate * time.Since(begin).Seconds())
}

// cpuTime is the processor time of a process, by its clock (clock_getcpuclockid(3)).
func cpuTime(b *testing.B, pid int) int64 {
	const perProcessSched = 2 // CPUCLOCK_SCHED of linux/posix-timers.h
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|perProcessSched), &ts); err != nil {
		b.Fatal(err)
	}
	return ts.Nano()
}

// startPlain starts a child without a filter and returns how it is ended.
func startPlain(b *testing.B, cmd *exec.Cmd) (end func()) {
	in, err := cmd.StdinPipe()
	if err := errors.Join(err, cmd.Start()); err != nil {
		b.Fatal(err)
	}
	return func() {
		_ = in.Close()
		_ = cmd.Wait()
	}
}

// measure makes requests from four clients and returns how many were answered
// in a second.
func measure(b *testing.B, port uint16, keepAlive bool, span time.Duration) float64 {
	tr := &http.Transport{DisableKeepAlives: !keepAlive, MaxIdleConnsPerHost: 8}
	defer tr.CloseIdleConnections()
	client := &http.Client{Transport: tr, Timeout: 10 * time.Second}
	url := fmt.Sprintf("http://127.0.0.1:%d/", port)
	get := func() error {
		r, err := client.Get(url)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, r.Body)
		return errors.Join(err, r.Body.Close())
	}
	for try := 0; ; try++ {
		err := get()
		if err == nil {
			break
		}
		if try == 1000 {
			b.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	var done atomic.Int64
	var clients sync.WaitGroup
	begin := time.Now()
	for range 4 {
		clients.Go(func() {
			for time.Since(begin) < span {
				if err := get(); err != nil {
					b.Error(err)
					return
				}
				done.Add(1)
			}
		})
	}
	clients.Wait()
	return float64(done.Load()) / time.Since(begin).Seconds()
}
