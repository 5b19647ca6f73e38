package config

import (
	"strings"
	"testing"
)

func TestExpand(t *testing.T) {
	lookup := func(kind, name string) (string, bool) {
		switch kind + " " + name {
		case "fd web", "fd web:0":
			return "3", true
		case "fd web:1":
			return "4", true
		case "addr web":
			return "{fd:web}", true // what is put in is not looked at again
		case "port my web@1":
			return "80", true
		case "names ":
			return "web, my web@1", true
		}
		return "", false
	}
	for in, want := range map[string]string{
		"":                         "",
		"{fd:web}":                 "3",
		"--fd={fd:web},{fd:web:1}": "--fd=3,4",
		"{{fd:web}}":               "{3}",
		"{addr:web}":               "{fd:web}",
		"{port:my web@1}":          "80",
		"{}{x}{fd}{fd:}{fd:":       "{}{x}{fd}{fd:}{fd:",
		"{port: 80}":               "{port: 80}",
		`{"port":80}`:              `{"port":80}`,
		"{FD:web}":                 "{FD:web}",
		"{fd:web:}":                "{fd:web:}",
		"{fd:web:x}":               "{fd:web:x}",
		"{a{fd:web}":               "{a3",
		"fd:web}":                  "fd:web}",
	} {
		if got, err := Expand(in, lookup); err != nil || got != want {
			t.Errorf("Expand(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for in, want := range map[string]string{
		"{fd:wbe}":   "{fd:wbe}: no socket of that name; there are web, my web@1",
		"{fd:web:2}": "{fd:web:2}",
	} {
		if got, err := Expand(in, lookup); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Expand(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for in, want := range map[string]int{"web": 0, "web:0": 0, "web:12": 12, "web:99999999999999999999": -1} {
		if base, n := SplitIndex(in); base != "web" || n != want {
			t.Errorf("SplitIndex(%q) = %q, %d", in, base, n)
		}
	}
}

func FuzzExpand(f *testing.F) {
	for _, s := range []string{"{fd:web}", "{{addr:a:1}}", "{port: 1}", "{fd:{fd:x}}", "{fd:", "}{"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		asked := 0
		got, err := Expand(s, func(kind, name string) (string, bool) {
			if base, index := SplitIndex(name); kind != "names" && (CheckName(base) != nil || index < -1) {
				t.Fatalf("%q asks for %q", s, name)
			}
			asked++
			return "", true
		})
		if err != nil {
			t.Fatal(err)
		}
		if asked == 0 && got != s {
			t.Fatalf("%q became %q", s, got)
		}
	})
}

func TestValidate(t *testing.T) {
	for _, c := range []struct{ set, want string }{
		{"", ""},
		{"--listen web=:80", ""},
		{"--listen web=:80 --handoff fd --env A={fd:web}", ""},
		{"--listen a=localhost:80 --env A={fd:a:1}", ""},
		{"--handoff auto,fd", "stands alone"},
		{"--handoff tableflip,systemd", "exclude"},
		{"--handoff tableflip,einhorn", ""},
		{"--listen a=:80 --handoff none", "never hear"},
		{"--listen a=:80 --ready tcp:a", ""},
		{"--listen a=:80 --ready tcp:b", "there are a"},
		{"--ready tcp:b", "there are none"},
		{"--ready tcp::80", ""},
		{"--listen a=udp://:80 --ready tcp:a", "udp"},
		{"--listen a=/x --ready /healthz", "http://unix:"},
		{"--listen a=:80 --ready /healthz", ""},
		{"--ready /healthz", ""},
		{"--ready delay:90s", "shorten"},
		{"--ready delay:90s --timeout-start infinity", ""},
		{"--type notify --ready exec", "READY=1"},
		{"--type notify --ready /healthz", ""},
		{"--type exec --ready notify", "Type=notify"},
		{"--restart on-watchdog", "WatchdogSec="},
		{"--restart on-watchdog --watchdog 5s", ""},
		{"--timeout-abort 5s", "WatchdogSec="},
		{"--start-limit-burst 5", "give both"},
		{"--start-limit-interval 5", "give both"},
		{"--start-limit-interval 5 --start-limit-burst 5", ""},
		{"--restart-sec 60", ""},
		{"--restart-sec 10 --restart-max-delay 5", "raise"},
		{"--restart-prevent-exit-status 3 --restart-force-exit-status 3", "exit status 3"},
		{"--restart-prevent-exit-status TERM --restart-force-exit-status TERM", "signal 15"},
		{"--env A={fd:web}", "there are no sockets"},
		{"--listen a=:80 --env A={port:a:1}", "{port:a:1}"},
		{"--kill-mode none", "SendSIGKILL=no"},
		{"--kill-mode none --send-sigkill no", ""},
	} {
		s := Defaults()
		s.Command = []string{"/bin/x"}
		words := strings.Fields(c.set)
		for i := 0; i+1 < len(words); i += 2 {
			if err := s.SetFlag(strings.TrimPrefix(words[i], "--"), words[i+1]); err != nil {
				t.Fatal(err)
			}
		}
		if err := NameSockets("x", s.Sockets); err != nil {
			t.Fatal(err)
		}
		err := s.Validate()
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.set, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v; want %q in it", c.set, err, c.want)
		}
	}
}

// TestValidateAll looks that one call tells everything.
func TestValidateAll(t *testing.T) {
	s := Defaults()
	s.Type = "forkin"
	s.Handoff = []string{"magic", "tableflip", "systemd"}
	s.Ready = Ready{Kind: ReadyTCP, Address: "web"}
	err := s.Validate()
	for _, want := range []string{"no command", "forkin", "magic", "exclude", "names no socket", "interval"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q in it", err, want)
		}
	}
	if err := (&Service{}).Validate(); err == nil {
		t.Error("the zero service is valid")
	}
}
