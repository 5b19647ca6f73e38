package wire

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

// dump is the exact environment and fd map of a plan, one fact a line.
func dump(p Plan) string {
	var b strings.Builder
	for i, fd := range p.Files {
		fmt.Fprintf(&b, "fd %d = supervisor's %d\n", FirstFD+i, fd)
	}
	for _, kv := range p.Env {
		fmt.Fprintf(&b, "env %s\n", kv)
	}
	for _, k := range p.PIDEnv {
		fmt.Fprintf(&b, "env %s=<pid>\n", k)
	}
	return b.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\n%s\nwant:\n%s", name, got, want)
	}
}

func TestSystemd(t *testing.T) {
	web := Listener{FD: 9, Name: "web", Network: "tcp", Addr: "127.0.0.1:8080"}
	api := Listener{FD: 12, Name: "api", Network: "unix", Addr: "/run/api.sock"}
	for name, listeners := range map[string][]Listener{
		"systemd-none": nil,
		"systemd-one":  {web},
		"systemd-two":  {web, api},
	} {
		p, err := Systemd(listeners)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name, dump(p))
	}
}

func TestFDs(t *testing.T) {
	golden(t, "fds", dump(FDs([]Listener{{FD: 9, Name: "web"}, {FD: 12, Name: "api"}})))
}

func TestSystemdNames(t *testing.T) {
	for _, bad := range []string{"", "a:b", "a\nb", "\x7f", "é", strings.Repeat("x", 256)} {
		if _, err := Systemd([]Listener{{Name: bad}}); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if _, err := Systemd([]Listener{{Name: strings.Repeat("x", 255)}}); err != nil {
		t.Error(err)
	}
}
