package guest

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table of packaging/docs/systemd.md anew")

const (
	systemdPage = "../../docs/systemd.md"
	tableMark   = "<!-- made from the table in packaging/vmtest/guest/sandbox_test.go -->\n"
)

// The documentation says what TestSandbox wants.
func TestSandboxDocs(t *testing.T) {
	if os.Getenv("SUPERVISE_VM") != "" {
		t.Skip("the documentation is not here")
	}
	text, err := os.ReadFile(systemdPage)
	if err != nil {
		t.Fatal(err)
	}
	before, _, ok := strings.Cut(string(text), tableMark)
	if !ok {
		t.Fatalf("%s has no %q", systemdPage, tableMark)
	}
	var b strings.Builder
	b.WriteString(before + tableMark + "\n| directives | knows LISTEN_FDS | binds | |\n| --- | --- | --- | --- |\n")
	for _, s := range sandboxes {
		what := "none, as root"
		if len(s.lines) > 0 {
			what = "`" + strings.Join(s.lines, "` `") + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", what, s.known, s.binds, s.note)
	}
	if *update {
		if err := os.WriteFile(systemdPage, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if b.String() != string(text) {
		t.Errorf("%s does not have the table of the code: go test ./packaging/vmtest/guest -update", systemdPage)
	}
}
