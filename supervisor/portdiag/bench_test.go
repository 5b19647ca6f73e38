package portdiag

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// many is a machine with ten thousand sockets: listeners in ten processes.
func many(b *testing.B) *holder {
	b.Helper()
	spec := strings.TrimSuffix(strings.Repeat("tcp 127.0.0.1:0 idle listen;", 1000), ";")
	var last *holder
	for range 10 { // below RLIMIT_NOFILE of most machines
		last = hold(b, spec)
	}
	return last
}

// BenchmarkExplainHeld is the promise: 50 ms with 10,000 sockets.
func BenchmarkExplainHeld(b *testing.B) {
	h := many(b)
	for b.Loop() {
		r, err := Explain(Ask{Target: tcp(h.at[0])})
		if err != nil || r.Cause != SameAddress || r.Parties[0].PID != h.pid {
			b.Fatal(r, err)
		}
	}
}

func BenchmarkExplainFree(b *testing.B) {
	many(b)
	at := netip.MustParseAddrPort("127.0.0.1:897")
	for b.Loop() {
		r, err := Explain(Ask{Target: tcp(at)})
		if err != nil || r.Verdict != Available {
			b.Fatal(r, err)
		}
	}
}

// BenchmarkExplainBusy: ten thousand connections of one listener.
func BenchmarkExplainBusy(b *testing.B) {
	server := hold(b, "tcp 127.0.0.1:0 reuseaddr listen")
	for i := range 10 {
		hold(b, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("tcp 127.0.%d.1:0 connect=%v;", i, server.at[0]), 1000), ";"))
	}
	for b.Loop() {
		r, err := Explain(Ask{Target: tcp(server.at[0])})
		if err != nil || r.Cause != SameAddress || r.Holders[0].Connections < 10000 {
			b.Fatal(r.Text(Style{}), err)
		}
	}
}

func BenchmarkHolders(b *testing.B) {
	h := many(b)
	for b.Loop() {
		if hs, err := Holders("tcp", h.at[0]); err != nil || len(hs) != 1 {
			b.Fatal(hs, err)
		}
	}
}
