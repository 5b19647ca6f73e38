package config

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParseReady(t *testing.T) {
	const (
		interval = defaultProbeInterval
		timeout  = defaultProbeTimeout
	)
	for in, want := range map[string]Ready{
		"auto":                             {Kind: ReadyAuto, Interval: interval, Timeout: timeout},
		"notify":                           {Kind: ReadyNotify, Interval: interval, Timeout: timeout},
		" listening ":                      {Kind: ReadyListening, Interval: interval, Timeout: timeout},
		"exec":                             {Kind: ReadyExec, Interval: interval, Timeout: timeout},
		"http://127.0.0.1:80/x?interval=3": {Kind: ReadyHTTP, URL: "http://127.0.0.1:80/x?interval=3", Interval: interval, Timeout: timeout},
		"http://[::1]:8080":                {Kind: ReadyHTTP, URL: "http://[::1]:8080", Interval: interval, Timeout: timeout},
		"http://unix:/run/x.sock:/healthz": {Kind: ReadyHTTP, URL: "http://unix:/run/x.sock:/healthz", Interval: interval, Timeout: timeout},
		"/healthz?full=1":                  {Kind: ReadyHTTP, URL: "/healthz?full=1", Interval: interval, Timeout: timeout},
		":8080/healthz":                    {Kind: ReadyHTTP, URL: "http://localhost:8080/healthz", Interval: interval, Timeout: timeout},
		"tcp:web":                          {Kind: ReadyTCP, Address: "web", Interval: interval, Timeout: timeout},
		"tcp:8080":                         {Kind: ReadyTCP, Address: "8080", Interval: interval, Timeout: timeout},
		"tcp::8080":                        {Kind: ReadyTCP, Address: ":8080", Interval: interval, Timeout: timeout},
		"tcp:127.0.0.1:80":                 {Kind: ReadyTCP, Address: "127.0.0.1:80", Interval: interval, Timeout: timeout},
		"tcp:/run/x.sock":                  {Kind: ReadyTCP, Address: "/run/x.sock", Interval: interval, Timeout: timeout},
		`exec:/bin/check "a b" timeout=3s`: {Kind: ReadyCommand, Command: []string{"/bin/check", "a b", "timeout=3s"}, Interval: interval, Timeout: timeout},
		"timeout=5s interval=1s exec:c":    {Kind: ReadyCommand, Command: []string{"c"}, Interval: time.Second, Timeout: 5 * time.Second},
		"delay:1min20s":                    {Kind: ReadyDelay, Delay: 80 * time.Second, Interval: interval, Timeout: timeout},
		"/h interval=10ms  timeout=1":      {Kind: ReadyHTTP, URL: "/h", Interval: 10 * time.Millisecond, Timeout: time.Second},
	} {
		got, err := ParseReady(in)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("ParseReady(%q) = %+v, %v; want %+v", in, got, err, want)
		}
		if back, err := ParseReady(got.String()); err != nil || !reflect.DeepEqual(back, got) {
			t.Errorf("%q reads back as %+v, %v; want %+v", got.String(), back, err, got)
		}
	}
	for in, want := range map[string]string{
		"":                         "empty",
		"interval=1s":              "empty",
		"soon":                     "write auto",
		"auto notify":              `"notify" follows`,
		"auto interval=0":          "cannot be 0",
		"auto interval=x":          `"x"`,
		"auto timeout=1 timeout=2": "twice",
		"http:":                    "no URL",
		"http://":                  "no host",
		"http://:8080/":            "no host",
		"http://h:99999/":          "65535",
		"http://u:p@h/":            "user",
		"http://unix::/x":          "path is missing",
		"https://unix:/x:/y":       "https",
		"http://a b":               `"b" follows`,
		":8080":                    "tcp::8080",
		":x/h":                     "invalid port",
		"tcp:":                     "empty",
		"tcp:example.com:80":       "is a name",
		"tcp:udp://:80":            "accepts no connections",
		"tcp::0":                   "port 0",
		"exec:":                    "command is missing",
		"exec:'x":                  "closing '",
		"delay:":                   "time span",
		"delay:infinity":           "infinity",
	} {
		if got, err := ParseReady(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseReady(%q) = %+v, %v; want %q in the error", in, got, err, want)
		}
	}
}

func FuzzParseReady(f *testing.F) {
	for _, s := range []string{"auto", "timeout=1s http://h/?a=b", "exec:a 'b c'", ":80/x", "tcp:web", "delay:1h"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseReady(s)
		if err != nil {
			return
		}
		if back, err := ParseReady(r.String()); err != nil || !reflect.DeepEqual(back, r) {
			t.Fatalf("%q is %+v, as text %q, reads back as %+v, %v", s, r, r.String(), back, err)
		}
	})
}
