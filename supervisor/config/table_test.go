package config

import (
	"bufio"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// documented reads a list of testdata: a name, and what stands behind it.
func documented(t *testing.T, file string) map[string][]string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	names := map[string][]string{}
	for s := bufio.NewScanner(f); s.Scan(); {
		if words := strings.Fields(s.Text()); len(words) > 1 && words[0] != "#" {
			names[words[0]] = words[1:]
		}
	}
	if len(names) < 50 {
		t.Fatalf("%s has %d names", file, len(names))
	}
	return names
}

// TestTable holds the table against what systemd documents: each directive is
// there, in a section where it may stand, and says what becomes of it.
func TestTable(t *testing.T) {
	sections := map[string]string{"unit": "Unit Install", "service": "Service", "socket": "Socket", "exec": "Service", "kill": "Service", "resource-control": "Service"}
	table := map[string]Directive{}
	for _, d := range Table() {
		key := d.Section + "." + d.Name
		if _, twice := table[key]; twice {
			t.Errorf("%s is there twice", key)
		}
		table[key] = d
		switch {
		case d.Help == "" && d.Means == "":
			t.Errorf("%s is not described", key)
		case d.Support != Supported && d.Support != Pending && d.Means == "":
			t.Errorf("%s does not say what it means that it is %s", key, d.Support)
		case d.Sandbox && d.Support != Refused:
			t.Errorf("%s shuts a service in and is %s", key, d.Support)
		}
	}
	has := func(name string, in []string) bool {
		return slices.ContainsFunc(in, func(s string) bool { _, ok := table[s+"."+name]; return ok })
	}
	for name, pages := range documented(t, "testdata/directives-252.txt") {
		// What was dropped from systemd since, or is another name of one.
		if old, ok := oldNames()[name]; ok {
			name = old
		}
		for _, page := range pages {
			if in := strings.Fields(sections[page]); in == nil || !has(name, in) {
				t.Errorf("%s= of systemd.%s(5) is not in the table", name, page)
			}
		}
	}
	newer := documented(t, "testdata/directives-newer.txt")
	for name, in := range newer {
		if !has(name, in) {
			t.Errorf("%s= of [%s] is not in the table", name, in[0])
		}
	}
	// And nothing that systemd does not have.
	old := documented(t, "testdata/directives-252.txt")
	for key, d := range table {
		if d.Section == "X-Supervise" || old[d.Name] != nil || newer[d.Name] != nil {
			continue
		}
		if !slices.Contains(strings.Fields(undocumented), d.Name) {
			t.Errorf("%s is no directive of systemd", key)
		}
	}
}

// undocumented are those that systemd takes and does not document: of old
// versions, mostly.
const undocumented = `Capabilities BusPolicy SysVStartPriority NetClass IgnoreOnSnapshot IOAccounting PermissionsStartOnly
	ConditionPathIsSocket AssertPathIsSocket AssertFirmware DefaultMemoryLow DefaultMemoryMin MemoryZSwapMax`

// TestTableInstalled is TestTable with the manual pages that are installed here.
func TestTableInstalled(t *testing.T) {
	if _, err := exec.LookPath("man"); err != nil {
		t.Skip("no man: ", err)
	}
	cmd := exec.Command("man", "systemd.directives")
	cmd.Env = append(os.Environ(), "LC_ALL=C", "MANWIDTH=500", "MANPAGER=cat")
	text, err := cmd.Output()
	_, units, ok := strings.Cut(string(text), "UNIT DIRECTIVES")
	if err != nil || !ok {
		t.Skip("the manual pages of systemd are not installed")
	}
	units, _, _ = strings.Cut(units, "OPTIONS ON THE KERNEL")
	known := map[string]bool{}
	for _, d := range Table() {
		known[d.Name] = true
	}
	for old := range oldNames() {
		known[old] = true
	}
	name := ""
	for line := range strings.Lines(units) {
		switch text := strings.TrimSpace(line); {
		case strings.HasSuffix(text, "="):
			name = strings.TrimSuffix(text, "=")
		case !known[name] && (strings.Contains(text, "systemd.unit(5)") || strings.Contains(text, "systemd.service(5)") || strings.Contains(text, "systemd.socket(5)") ||
			strings.Contains(text, "systemd.exec(5)") || strings.Contains(text, "systemd.kill(5)") || strings.Contains(text, "systemd.resource-control(5)")):
			t.Errorf("%s= is not in the table: %s", name, text)
		}
	}
}
