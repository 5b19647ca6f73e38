package logs

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// The ring agrees with the obvious way to do it, however the text is cut.
func TestRingAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keep := rapid.IntRange(0, 6).Draw(t, "keep")
		width := rapid.IntRange(1, 8).Draw(t, "width")
		r := newRing(keep, width)
		s := r.stream()
		var all string
		for _, piece := range rapid.SliceOf(rapid.StringMatching(`[ab\n]{0,40}`)).Draw(t, "pieces") {
			r.write(s, []byte(piece))
			all += piece
			want := strings.Split(all, "\n")
			open := want[len(want)-1]
			want = want[:len(want)-1]
			want = want[max(0, len(want)-keep):]
			if open != "" && keep > 0 {
				want = append(slices.Clone(want), open)
			}
			want = slices.Clone(want)
			for i := range want {
				want[i] = want[i][:min(len(want[i]), width)]
			}
			if got := r.last(keep + 1); !slices.Equal(got, want) {
				t.Fatalf("after %q: %q, not %q", all, got, want)
			}
		}
	})
}

func TestRingBound(t *testing.T) {
	r := newRing(1000, 1<<20)
	s := r.stream()
	line := []byte(strings.Repeat("x", 100<<10) + "\n")
	for range 50 {
		r.write(s, line)
		kept := 0
		for _, l := range r.lines {
			kept += cap(l.text)
		}
		if r.bytes > maxKept || kept > 2*maxKept {
			t.Fatalf("%d bytes in %d", r.bytes, kept)
		}
	}
	if got := r.last(1000); len(got) != 2 || len(got[1]) != 100<<10 {
		t.Errorf("%d lines", len(got))
	}
}
