package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The real journald, in a mount namespace with a /run of its own, and as an
// instance of a namespace of journald's, which leaves the kernel's log alone.
const journaldScript = `
set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/log /run/systemd/journal '/run/systemd/journald@supervisetest.conf.d'
printf '[Journal]\nStorage=volatile\n' >'/run/systemd/journald@supervisetest.conf.d/test.conf'
ln -s ../journal.supervisetest/socket /run/systemd/journal/socket
"$1" supervisetest &
journald=$!
trap 'kill $journald; wait $journald || true' EXIT
i=0
until [ -S /run/systemd/journal.supervisetest/socket ]; do i=$((i + 1)); [ $i -lt 600 ]; sleep 0.05; done
"$2" --name web --log-level off --output journal -- sh -c "$3"
# It works them off in order: when the mark is there, all is.
i=0
until journalctl --namespace=supervisetest -o json --all >"$4" && grep -q LAST "$4"; do i=$((i + 1)); [ $i -lt 100 ]; sleep 0.1; done
`

func TestJournald(t *testing.T) {
	journald := "/usr/lib/systemd/systemd-journald"
	if _, err := os.Stat(journald); err != nil {
		t.Skip("no journald here:", err)
	}
	if os.Getuid() != 0 {
		t.Skip("needs root: a mount namespace")
	}
	if id, err := os.ReadFile("/etc/machine-id"); err != nil || len(strings.TrimSpace(string(id))) != 32 {
		t.Skip("this machine has no /etc/machine-id, without which journald keeps nothing")
	}
	if out, err := exec.Command("unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/run").CombinedOutput(); err != nil {
		t.Skipf("no mount namespace here: %v: %s", err, out)
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "supervise")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	entries := filepath.Join(dir, "entries")
	child := `echo "<3>bad"; echo plain >&2; printf '\001\377\n'; head -c 60000 /dev/zero | tr '\0' z; echo; printf LAST`
	c := exec.Command("unshare", "--mount", "sh", "-c", journaldScript, "sh", journald, bin, child, entries)
	c.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGTERM}
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(entries)
	if err != nil {
		t.Fatal(err)
	}
	var messages []any
	for line := range strings.Lines(string(text)) {
		var e map[string]any
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		if e["SUPERVISE_SERVICE"] != "web" {
			continue // journald's own
		}
		if e["SYSLOG_IDENTIFIER"] != "web" || e["SUPERVISE_GENERATION"] != "1" || e["OBJECT_PID"] == nil { // OBJECT_UID and its like are journald's, of a process that may be gone by then
			t.Errorf("fields are missing: %v", e)
		}
		want := "6"
		if e["MESSAGE"] == "bad" {
			want = "3"
		}
		if e["PRIORITY"] != want {
			t.Errorf("%v has priority %v", e["MESSAGE"], e["PRIORITY"])
		}
		if bytes, ok := e["MESSAGE"].([]any); ok { // what is no text
			messages = append(messages, len(bytes))
		} else {
			messages = append(messages, e["MESSAGE"])
		}
	}
	want := []any{"bad", "plain", 2, strings.Repeat("z", 48<<10), strings.Repeat("z", 60000-48<<10), "LAST"}
	if !slices.Equal(messages, want) {
		t.Errorf("%.300v", messages)
	}
}
