package shim

import (
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPrivileges looks at what a child is left with: /proc/PID/status and
// capabilities(7).
func TestPrivileges(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: other users have no privileges to give up")
	}
	const bind = 1 << unix.CAP_NET_BIND_SERVICE
	score := 321
	nobody := &Credential{UID: 65534, GID: 65534}
	none, some := uint64(0), uint64(bind)
	tests := []struct {
		name string
		set  func(*Spec)
		want map[string]string
	}{
		{"bounding set", func(s *Spec) { s.Bounding = &some }, map[string]string{"CapBnd:": "0000000000000400", "CapEff:": "0000000000000400"}},
		{"empty bounding set", func(s *Spec) { s.Bounding = &none }, map[string]string{"CapBnd:": "0000000000000000", "CapPrm:": "0000000000000000"}},
		{"another user", func(s *Spec) { s.Credential = nobody }, map[string]string{"CapEff:": "0000000000000000", "CapAmb:": "0000000000000000"}},
		{"ambient of another user", func(s *Spec) { s.Credential, s.Ambient = nobody, bind }, map[string]string{
			"CapEff:": "0000000000000400", "CapPrm:": "0000000000000400", "CapAmb:": "0000000000000400", "CapInh:": "0000000000000400",
		}},
		{"ambient of root", func(s *Spec) { s.Ambient = bind }, map[string]string{"CapAmb:": "0000000000000400", "CapInh:": "0000000000000400"}},
		{"ambient and bounding", func(s *Spec) { s.Credential, s.Ambient, s.Bounding = nobody, bind, &some }, map[string]string{
			"CapBnd:": "0000000000000400", "CapEff:": "0000000000000400", "CapAmb:": "0000000000000400",
		}},
		{"out of memory score", func(s *Spec) { s.OOMScore = &score }, map[string]string{"score": "321"}},
		{"broken pipes", func(s *Spec) { s.Ignore = []unix.Signal{unix.SIGPIPE} }, map[string]string{"SigIgn:": "0000000000001000"}},
		{"no new privileges", func(s *Spec) { s.NoNewPrivs = true }, map[string]string{"NoNewPrivs:": "1"}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			spec, out := script(t, `cat /proc/self/status; echo score "$(cat /proc/self/oom_score_adj)"`)
			tc.set(spec)
			c, err := Start(spec)
			if err != nil {
				t.Fatal(err)
			}
			closeOutput(spec)
			text, _ := io.ReadAll(out)
			if ws, err := finish(t, c); err != nil || ws != 0 {
				t.Fatalf("ended with %#x, %v", ws, err)
			}
			for line := range strings.Lines(string(text)) {
				f := strings.Fields(line)
				if len(f) == 2 && tc.want[f[0]] != "" {
					if f[1] != tc.want[f[0]] {
						t.Errorf("%s %s, want %s", f[0], f[1], tc.want[f[0]])
					}
					delete(tc.want, f[0])
				}
			}
			for name := range tc.want {
				t.Errorf("no %s", name)
			}
		})
	}
}

// TestScoreIsTheChilds: the kernel gives a score to all processes that share a
// memory, and ours must not change.
func TestScoreIsTheChilds(t *testing.T) {
	const file = "/proc/self/oom_score_adj"
	before, err := os.ReadFile(file)
	if err != nil {
		t.Skip("no OOM score here: ", err)
	}
	score := 456
	spec, out := script(t, "cat "+file)
	spec.OOMScore = &score
	if got := run(t, spec, newReader(out)); got != "456\n" {
		t.Errorf("the child has %q", got)
	}
	if after, err := os.ReadFile(file); err != nil || string(after) != string(before) {
		t.Errorf("ours became %q, was %q: %v", after, before, err)
	}
}
