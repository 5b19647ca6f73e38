package portdiag

import "testing"

func BenchmarkHolders(b *testing.B) {
	h := hold(b, "tcp 127.0.0.1:0 listen")
	for b.Loop() {
		if hs, err := Holders("tcp", h.at[0]); err != nil || len(hs) != 1 {
			b.Fatal(hs, err)
		}
	}
}
