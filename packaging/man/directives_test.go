package man

import (
	"flag"
	"os"
	"os/exec"
	"strings"
	"testing"
)

const page = "supervise.directives.7"

func TestDirectives(t *testing.T) {
	update := flag.Lookup("update").Value.String() == "true"
	text := Directives()
	if update {
		if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(page)
	if err != nil || string(have) != text {
		t.Errorf("%s is not what the table says: run go test ./packaging/man -update (%v)", page, err)
	}
	// The formatter has nothing to complain of.
	man, err := exec.LookPath("man")
	if err != nil {
		t.Skip("no man: ", err)
	}
	cmd := exec.Command(man, "--warnings", "-l", page)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "MANPAGER=cat", "MANWIDTH=100")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || stderr.Len() > 0 || !strings.Contains(string(out), "TimeoutStopSec=DURATION: supported") {
		t.Errorf("man: %v %s", err, stderr.String())
	}
}

var _ = flag.Bool("update", false, "write the page anew")
