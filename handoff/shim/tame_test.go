package shim

import (
	"bytes"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestIgnore(t *testing.T) {
	spec, out := script(t, `while read l; do echo "$l"; done </proc/$$/status`)
	spec.Ignore = []unix.Signal{unix.SIGHUP, unix.SIGINT, 64}
	if v := field(run(t, spec, newReader(out)), "SigIgn:"); v != "8000000000000003" {
		t.Errorf("ignored are %s, want HUP, INT and the last", v)
	}
}

// TestTame: a child that ends its parent, in every way that a handoff library
// knows, believes that it did; other signals go where they should.
func TestTame(t *testing.T) {
	heard := make(chan os.Signal, 8)
	signal.Notify(heard, syscall.SIGTERM, syscall.SIGUSR1)
	defer signal.Stop(heard)
	spec, out := playing(t, "tame")
	spec.Filter = TameFilter(os.Getpid())
	spec.NoNewPrivs = os.Geteuid() != 0
	if got := run(t, spec, newReader(out)); got != "kill <nil>\ntgkill <nil>\nprocess <nil>\nown killed\n" {
		t.Errorf("the child says\n%s", got)
	}
	select {
	case s := <-heard:
		t.Errorf("%v came through", s)
	case <-time.After(50 * time.Millisecond): // signals of a dead child have come by now
	}
	for _, i := range spec.Filter {
		if i.Code == unix.BPF_LD|unix.BPF_W|unix.BPF_ABS && i.K > 16 {
			t.Error("looks beyond the first argument")
		}
	}
}

// playTame plays the child of TestTame.
func playTame() string {
	var b bytes.Buffer
	say := func(what string, err error) {
		text := "<nil>"
		if err != nil {
			text = err.Error()
		}
		b.WriteString(what + " " + text + "\n")
	}
	parent := os.Getppid()
	say("kill", syscall.Kill(parent, syscall.SIGTERM))
	say("tgkill", unix.Tgkill(parent, parent, syscall.SIGUSR1))
	p, err := os.FindProcess(parent)
	if err == nil {
		err = p.Signal(syscall.SIGUSR1)
	}
	say("process", err)
	own := make(chan os.Signal, 1)
	signal.Notify(own, syscall.SIGUSR2)
	if err := syscall.Kill(os.Getpid(), syscall.SIGUSR2); err != nil {
		say("own", err)
		return b.String()
	}
	<-own
	return b.String() + "own killed\n"
}
