package config

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestParseDuration(t *testing.T) {
	// The microseconds are those of systemd-analyze timespan (systemd 252).
	for in, usec := range map[string]int64{
		"30": 30000000, "1y 12month": 63115200000000, "55s500ms": 55500000, "300ms20s 5day": 432020300000,
		"1.5s": 1500000, "1 2": 3000000, "5m 1M": 2630100000000, "2 h": 7200000000, ".5s": 500000, " 5 ": 5000000,
		"5min20": 320000000, "5s 20": 25000000, "5µs": 5, "5μs": 5, "0": 0, "00s": 0, "1 .5s": 1500000, "1s.5": 1500000,
		"1min 20s": 80000000, "500ms": 500000, "2hours": 7200000000, "48hr": 172800000000, "1w": 604800000000,
	} {
		d, err := ParseDuration(in)
		if want := time.Duration(usec) * time.Microsecond; err != nil || d != want {
			t.Errorf("ParseDuration(%q) = %v, %v; want %v", in, d, err, want)
		}
	}
	for _, in := range []string{
		"", " ", "1.", "1.s", "-1", "1e3", "0x10", "1,5s", "30x", "µs", "1infinity", "1..2s", "1.5.5s", "s",
		"9999999999999", "300y", "99999999999999999999", "infinity 1s", "1s infinity", "+5", ".", "30S",
	} {
		if d, err := ParseDuration(in); err == nil {
			t.Errorf("ParseDuration(%q) = %v, want an error", in, d)
		}
	}
	if d, err := ParseDuration("infinity"); d != 0 || err != nil {
		t.Errorf("infinity = %v, %v", d, err)
	}
	if _, err := ParseDelay("infinity"); err == nil {
		t.Error("ParseDelay(infinity) is no error")
	}
	if d, err := ParseDuration("0.0000000001s"); d != 1 || err != nil {
		t.Errorf("a tenth of a nanosecond = %d, %v; want 1, since 0 would be no limit", d, err)
	}
}

// TestFormatDuration compares with the installed systemd what it reads.
func TestFormatDuration(t *testing.T) {
	analyze, lookErr := exec.LookPath("systemd-analyze")
	for d, want := range map[time.Duration]string{
		0: "0", 30 * time.Second: "30s", 90 * time.Second: "1min 30s", 1500 * time.Millisecond: "1s 500ms",
		49 * time.Hour: "2d 1h", time.Microsecond: "1us", 1001: "1us 1ns",
	} {
		got := FormatDuration(d)
		if got != want {
			t.Errorf("FormatDuration(%d) = %q, want %q", d, got, want)
		}
		if back, err := ParseDuration(got); back != d || err != nil {
			t.Errorf("%q read back = %v, %v", got, back, err)
		}
		if lookErr != nil || d%time.Microsecond != 0 {
			continue
		}
		out, err := exec.Command(analyze, "timespan", got).Output()
		if err != nil || !strings.Contains(string(out), "s: "+strconv.FormatInt(d.Microseconds(), 10)+"\n") {
			t.Errorf("systemd-analyze timespan %q: %s, %v", got, out, err)
		}
	}
}

func FuzzParseDuration(f *testing.F) {
	for _, s := range []string{"30s", "1min 20s", "1.5h", "infinity", "5µs", "1y12month", ".5", "9223372036.854775807s"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDuration(s)
		if err != nil {
			return
		}
		if d < 0 {
			t.Fatalf("%q = %d", s, d)
		}
		if back, err := ParseDuration(FormatDuration(d)); err != nil || back != d {
			t.Fatalf("%q = %d, as text %q, reads back as %d, %v", s, d, FormatDuration(d), back, err)
		}
	})
}

func TestParseSignal(t *testing.T) {
	for in, want := range map[string]syscall.Signal{
		"TERM": 15, "SIGTERM": 15, "15": 15, "term": 15, "sigusr1": 10, " HUP ": 1, "RTMIN": 34, "SIGRTMIN+3": 37,
		"rtmin+30": 64, "RTMAX": 64, "RTMAX-1": 63, "RTMAX-30": 34, "64": 64, "IOT": 6, "CLD": 17, "POLL": 29, "ABRT": 6,
	} {
		if got, err := ParseSignal(in); err != nil || got != want {
			t.Errorf("ParseSignal(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "0", "65", "-1", "+9", "SIG", "FOO", "RTMIN-1", "RTMIN+31", "RTMAX+1", "RTMAX-31", "SIGSIGTERM", "1.5", "RTMIN+"} {
		if got, err := ParseSignal(in); err == nil {
			t.Errorf("ParseSignal(%q) = %d, want an error", in, got)
		}
	}
	for n := syscall.Signal(1); n <= 64; n++ {
		if back, err := ParseSignal(SignalName(n)); err != nil || back != n {
			t.Errorf("signal %d is %q and reads back as %d, %v", n, SignalName(n), back, err)
		}
	}
}

func TestExitSet(t *testing.T) {
	set, err := ParseExitSet("TEMPFAIL 250\tSIGKILL  USR1 0 9 RTMIN+1")
	if err != nil {
		t.Fatal(err)
	}
	for n := range 256 {
		if want := n == 75 || n == 250 || n == 0 || n == 9; set.Contains(n, 0) != want {
			t.Errorf("status %d: %v", n, !want)
		}
	}
	for n := syscall.Signal(1); n <= 64; n++ {
		if want := n == 9 || n == 10 || n == 35; set.Contains(0, n) != want {
			t.Errorf("signal %d: %v", n, !want)
		}
	}
	if set.Contains(-1, 0) || set.Contains(256, 0) || set.Contains(0, 65) || set.Contains(0, -1) {
		t.Error("contains what cannot be")
	}
	if got := set.String(); got != "0 9 75 250 SIGKILL SIGUSR1 SIGRTMIN+1" {
		t.Errorf("String = %q", got)
	}
	for _, n := range exitNames() {
		s, err := ParseExitSet(n.name)
		if err != nil || !s.Status[n.status] {
			t.Errorf("%s: %v", n.name, err)
		}
	}
	for _, in := range []string{"256", "-1", "x", "EX_TEMPFAIL", "EXIT_CHDIR", "1,2", "SIGFOO", "1.5"} {
		if _, err := ParseExitSet(in); err == nil || !strings.Contains(err.Error(), in) {
			t.Errorf("ParseExitSet(%q): %v, want an error that quotes it", in, err)
		}
	}
	// Every status and nameable signal, there and back.
	var all ExitSet
	for i := range all.Status {
		all.Status[i] = true
	}
	for i := 1; i < len(all.Signals); i++ {
		all.Signals[i] = i != 32 && i != 33
	}
	if back, err := ParseExitSet(all.String()); err != nil || back != all {
		t.Errorf("all read back: %v", err)
	}
}

func TestParseLimit(t *testing.T) {
	for _, c := range []struct {
		name, in   string
		soft, hard uint64
		text       string
	}{
		{"LimitNOFILE", "1024", 1024, 1024, "1024"},
		{"LimitNOFILE", "1024:4096", 1024, 4096, "1024:4096"},
		{"LimitNOFILE", "1024:infinity", 1024, Infinity, "1024:infinity"},
		{"LimitCORE", "infinity", Infinity, Infinity, "infinity"},
		{"LimitAS", "4G:16G", 4 << 30, 16 << 30, "4294967296:17179869184"},
		{"LimitFSIZE", "1.5K", 1536, 1536, "1536"},
		{"LimitSTACK", "8MB", 8 << 20, 8 << 20, "8388608"},
		{"LimitCPU", "1min", 60, 60, "60"},
		{"LimitCPU", "30", 30, 30, "30"},
		{"LimitCPU", "1500ms", 2, 2, "2"},
		{"LimitRTTIME", "5", 5, 5, "5"},
		{"LimitRTTIME", "1s", 1000000, 1000000, "1000000"},
		{"LimitNICE", "+5", 15, 15, "15"},
		{"LimitNICE", "-20", 40, 40, "40"},
		{"LimitNICE", "0", 1, 1, "1"},
		{"LimitNICE", "40", 40, 40, "40"},
	} {
		l, err := ParseLimit(c.name, c.in)
		if err != nil || l.Soft != c.soft || l.Hard != c.hard || l.Name != c.name || l.String() != c.text {
			t.Errorf("ParseLimit(%s, %q) = %+v %s, %v", c.name, c.in, l, l, err)
		}
		back, err := ParseLimit(c.name, l.String())
		if err != nil || back != l {
			t.Errorf("%s=%s reads back as %+v, %v", c.name, l, back, err)
		}
	}
	for _, c := range []struct{ name, in string }{
		{"LimitNOFILE", ""},
		{"LimitNOFILE", "4096:1024"},
		{"LimitNOFILE", "infinity:1"},
		{"LimitNOFILE", "1K"},
		{"LimitNOFILE", "-1"},
		{"LimitNOFILE", "1:"},
		{"LimitNOFILE", "1:2:3"},
		{"LimitNOFILE", "18446744073709551615"},
		{"LimitAS", "1X"},
		{"LimitAS", "1KK"},
		{"LimitAS", "16E"},
		{"LimitAS", "K"},
		{"LimitNICE", "+20"},
		{"LimitNICE", "41"},
		{"LimitFOO", "1"},
	} {
		if l, err := ParseLimit(c.name, c.in); err == nil {
			t.Errorf("ParseLimit(%s, %q) = %+v, want an error", c.name, c.in, l)
		}
	}
}

func TestParseBool(t *testing.T) {
	for _, s := range []string{"1", "yes", "Y", "true", "T", "ON"} {
		if b, err := ParseBool(s); !b || err != nil {
			t.Errorf("%s: %v %v", s, b, err)
		}
	}
	for _, s := range []string{"0", "no", "n", "False", "f", "off"} {
		if b, err := ParseBool(s); b || err != nil {
			t.Errorf("%s: %v %v", s, b, err)
		}
	}
	for _, s := range []string{"", "2", "maybe", " yes"} {
		if _, err := ParseBool(s); err == nil {
			t.Errorf("%q is no error", s)
		}
	}
}
