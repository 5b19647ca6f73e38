package intercept

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// benchBind times socket+bind+close with bind alone on the clock, and reports
// the median, which is what the promise is about.
func benchBind(b *testing.B, port uint16, filtered bool, holder Holder) {
	loop := func() error {
		times := make([]time.Duration, 0, b.N)
		for b.Loop() {
			s, err := newSock(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC)
			if err != nil {
				return err
			}
			begin := time.Now()
			err = s.bind("127.0.0.1", port)
			times = append(times, time.Since(begin))
			s.close()
			if err != nil {
				return err
			}
		}
		slices.Sort(times)
		b.ReportMetric(float64(times[len(times)/2].Nanoseconds())/1e3, "p50-µs")
		b.ReportMetric(float64(times[len(times)*99/100].Nanoseconds())/1e3, "p99-µs")
		return nil
	}
	if !filtered {
		if err := loop(); err != nil {
			b.Fatal(err)
		}
		return
	}
	underFilter(b, holder, Options{}, ServerOptions{}, func(*Server) error { return loop() })
}

// lending answers every bind alike.
type lending Decision

func (l lending) Bind(*Call) Decision { return Decision(l) }
func (lending) Listen(*Call) bool     { return false }
func (lending) Unlink(*Removal) bool  { return false }
func (lending) Event(Event)           {}

// BenchmarkBind has what does not depend on the fd table of a child. Run it by
//
//	go test -run '^$' -bench Bind ./handoff/intercept
func BenchmarkBind(b *testing.B) {
	b.Run("plain", func(b *testing.B) { benchBind(b, freePort(b), false, nil) })
	b.Run("port 0", func(b *testing.B) { benchBind(b, 0, true, passing{self(newHolder(b), 1)}) })
	b.Run("passed", func(b *testing.B) { benchBind(b, freePort(b), true, passing{self(newHolder(b), 1)}) })
}

// BenchmarkChildBind is what a server sees: the median of 1000 binds in a
// process of its own.
func BenchmarkChildBind(b *testing.B) {
	held, err := serve(unix.AF_INET, "127.0.0.1", 0, 5)
	if err != nil {
		b.Fatal(err)
	}
	defer held.close()
	report := func(b *testing.B, say string) {
		var p50, p99 float64
		if _, err := fmt.Sscanf(say, "ok %f %f", &p50, &p99); err != nil {
			b.Fatal(say)
		}
		b.ReportMetric(p50, "p50-µs")
		b.ReportMetric(p99, "p99-µs")
	}
	b.Run("plain", func(b *testing.B) {
		for b.Loop() {
			cmd := actor("bench", fmt.Sprint(freePort(b)))
			out, err := cmd.Output()
			if err != nil {
				b.Fatal(err)
			}
			report(b, string(out))
		}
	})
	for name, d := range map[string]Decision{"swapped": Lend(held.fd), "swapped with options": {kind: decideSwap, fd: held.fd, Own: true}} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				g := startWith(b, newHolder(b), 1, Options{}, ServerOptions{}, actor("bench", fmt.Sprint(freePort(b))),
					func(*genHolder) Holder { return lending(d) })
				report(b, g.line())
				g.end()
			}
		})
	}
}

// playBench prints the median and the 99th percentile of its binds in µs.
func playBench(port uint16) (string, error) {
	var times []time.Duration
	for range 1000 {
		s, err := newSock(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC)
		if err != nil {
			return "", err
		}
		begin := time.Now()
		err = s.bind("127.0.0.1", port)
		times = append(times, time.Since(begin))
		s.close()
		if err != nil {
			return "", err
		}
	}
	slices.Sort(times)
	return fmt.Sprintf("ok %.1f %.1f", float64(times[500].Nanoseconds())/1e3, float64(times[990].Nanoseconds())/1e3), nil
}

func BenchmarkListen(b *testing.B) {
	port := freePort(b)
	holder := passing{self(newHolder(b), 1)}
	underFilter(b, holder, Options{}, ServerOptions{}, func(*Server) error {
		s, err := serve(unix.AF_INET, "127.0.0.1", port, 5)
		defer s.close()
		for b.Loop() && err == nil {
			err = unix.Listen(s.fd, 5)
		}
		return err
	})
}

// BenchmarkSpawn starts /bin/true and waits for it, with and without a filter.
func BenchmarkSpawn(b *testing.B) {
	attr := &os.ProcAttr{Files: []*os.File{nil, nil, nil}}
	start := func() error {
		p, err := os.StartProcess("/bin/true", []string{"true"}, attr)
		if err != nil {
			return err
		}
		_, err = p.Wait()
		return err
	}
	b.Run("plain", func(b *testing.B) {
		for b.Loop() {
			if err := start(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("thread", func(b *testing.B) {
		for b.Loop() {
			if err := Thread(start); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("filtered", func(b *testing.B) {
		for b.Loop() {
			err := Thread(func() error {
				fd, err := Install(Options{})
				if err != nil {
					return err
				}
				return errors.Join(start(), unix.Close(fd))
			})
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}
