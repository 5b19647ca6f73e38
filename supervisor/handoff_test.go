package supervisor

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/supervise/supervise/handoff/wire"
	"github.com/supervise/supervise/supervisor/config"
)

// TestHandoffWords: config knows every protocol of handoff/wire, and no other.
func TestHandoffWords(t *testing.T) {
	for _, name := range wire.Names() {
		s := config.Defaults()
		if err := s.Set("Handoff", name); err != nil {
			t.Error(err)
		}
	}
	s := config.Defaults()
	err := s.Set("Handoff", "nonsense")
	if err == nil {
		t.Fatal("nonsense is a protocol")
	}
	_, list, _ := strings.Cut(err.Error(), "write ")
	for _, word := range strings.Split(list, ", ") {
		if own := word == "auto" || word == "intercept" || word == "none"; !own && !slices.Contains(wire.Names(), word) {
			t.Errorf("config takes %q, and handoff/wire knows it not", word)
		}
	}
}

// TestStopSignal: a protocol's own signal, unless one was written.
func TestStopSignal(t *testing.T) {
	for _, c := range []struct {
		handoff, kill string
		want          syscall.Signal
	}{
		{"auto", "", syscall.SIGTERM},
		{"systemd", "", syscall.SIGTERM},
		{"nginx", "", syscall.SIGQUIT},
		{"nginx,intercept", "", syscall.SIGQUIT},
		{"einhorn", "", syscall.SIGUSR2},
		{"systemd,einhorn", "", syscall.SIGTERM}, // who knows which of them it speaks
		{"overseer", "", syscall.SIGUSR2},
		{"goagain", "", syscall.SIGQUIT},
		{"nginx", "TERM", syscall.SIGTERM},
		{"nginx", "WINCH", syscall.SIGWINCH},
		{"auto", "INT", syscall.SIGINT},
	} {
		s := config.Defaults()
		if err := s.Set("Handoff", c.handoff); err != nil {
			t.Fatal(err)
		}
		if c.kill != "" {
			if err := s.Set("KillSignal", c.kill); err != nil {
				t.Fatal(err)
			}
		}
		if got := stopSignal(&s); got != c.want {
			t.Errorf("%s with KillSignal=%s is stopped by %v, want %v", c.handoff, c.kill, got, c.want)
		}
	}
}

// TestFlip: names that fill a pipe and more are written before anybody reads.
func TestFlip(t *testing.T) {
	for _, size := range []int{0, 100, 1 << 16, 200_000} {
		f, err := newFlip()
		if err != nil {
			t.Fatal(err)
		}
		if err := f.tell(make([]byte, size)); err != nil {
			t.Errorf("%d bytes: %v", size, err)
		}
		if f.wasRead() {
			t.Errorf("%d bytes were read by nobody", size)
		}
		f.started()
		f.close()
		f.close()
		if !f.wasRead() {
			t.Error("a closed pipe has names in it")
		}
	}
}
