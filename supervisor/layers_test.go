package supervisor

import (
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/supervise/supervise/"

// mayImport is who may import whom inside the module: DESIGN, "The shape".
// Leaves know config and the tools below them, never one another; handoff
// never imports supervisor; only supervisor and cmd hold a logger.
var mayImport = map[string][]string{
	"supervisor/config":   {},
	"supervisor/sockdiag": {},
	"supervisor/listen":   {"supervisor/config", "supervisor/sockdiag"},
	"supervisor/proc":     {"supervisor/config", "handoff/shim"},
	"supervisor/ready":    {"supervisor/sockdiag"},
	"supervisor/logs":     {},
	"supervisor/files":    {},
	"supervisor/control":  {},
	"supervisor/metrics":  {"supervisor/control"}, // writes its pictures
	"supervisor/page":     {},
	"supervisor/portdiag": {"supervisor/config", "supervisor/sockdiag"},
	"supervisor":          {"supervisor/", "handoff/"},
	"handoff":             {"handoff/"},
	"cmd/supervise":       {"supervisor", "handoff/"},
	"cmd/storm":           {"cmd/storm/", "supervisor/sockdiag"},
	"examples":            {"handoff"},
	"packaging":           {"supervisor/config"}, // the manual page is made from the table
}

// rule finds what pkg may import: its own entry or that of the folder it is in.
func rule(pkg string) ([]string, bool) {
	for p := pkg; p != ""; {
		if r, ok := mayImport[p]; ok {
			return r, true
		}
		i := strings.LastIndexByte(p, '/')
		if i < 0 {
			break
		}
		p = p[:i]
	}
	return nil, false
}

func TestLayers(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", "{{.ImportPath}} {{join .Imports \" \"}}", module+"...").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		pkg := strings.TrimPrefix(fields[0], module)
		allowed, ok := rule(pkg)
		if !ok {
			t.Errorf("%s has no place in the layers: add it to mayImport with a reason", pkg)
			continue
		}
		for _, imp := range fields[1:] {
			if strings.Contains(imp, "go-hclog") && pkg != "supervisor" && !strings.HasPrefix(pkg, "cmd/") {
				t.Errorf("%s logs: leaves return errors, the loop logs", pkg)
			}
			inner, ours := strings.CutPrefix(imp, module)
			if !ours || strings.HasPrefix(inner+"/", pkg+"/") {
				continue
			}
			if !permits(allowed, inner) {
				t.Errorf("%s imports %s: the layers do not allow it", pkg, inner)
			}
		}
	}
}

func permits(allowed []string, pkg string) bool {
	for _, a := range allowed {
		if a == pkg || strings.HasPrefix(pkg, strings.TrimSuffix(a, "/")+"/") {
			return true
		}
	}
	return false
}
