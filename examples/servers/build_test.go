package servers

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// buildVariable asks for the servers that are built from Go modules: "all", or
// some of "caddy,coredns,traefik". They are large, so it is done once for a
// machine, into the user's cache; what is there is used always.
const buildVariable = "SUPERVISE_BUILD_SERVERS"

// module is a Go program of its own, with the folder of its main package.
type module struct{ version, main string }

var modules = map[string]module{
	caddy:   {caddy, "./cmd/caddy"},
	traefik: {traefik, "./cmd/traefik"},
	coredns: {coredns, "."},
}

// asked reports whether the variable asks for it.
func (m module) asked() bool {
	words := strings.Split(os.Getenv(buildVariable), ",")
	return slices.Contains(words, "all") || slices.Contains(words, filepath.Base(m.program()))
}

// program is where it is built to.
func (m module) program() string {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	path, _, _ := strings.Cut(m.version, "@")
	name := filepath.Base(m.main)
	if name == "." {
		name = filepath.Base(path)
	}
	return filepath.Join(cache, "supervise-examples", filepath.Base(filepath.Dir(path))+"@"+m.version[len(path)+1:], name)
}

// buildModules builds what is missing, in the module's own folder: go install
// refuses a module that replaces others.
func buildModules() error {
	for _, m := range modules {
		path := os.Getenv("PATH")
		os.Setenv("PATH", filepath.Dir(m.program())+":"+path)
		if _, err := os.Stat(m.program()); err == nil || !m.asked() {
			continue
		}
		began := time.Now()
		said, err := exec.Command("go", "mod", "download", "-json", m.version).Output()
		if err != nil {
			return fmt.Errorf("cannot download %s: %w: %s", m.version, err, said)
		}
		var at struct{ Dir string }
		if err := json.Unmarshal(said, &at); err != nil || at.Dir == "" {
			return errors.Join(fmt.Errorf("cannot read what go mod download says of %s: %s", m.version, said), err)
		}
		build := exec.Command("go", "build", "-o", m.program(), m.main)
		build.Dir = at.Dir
		build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
		if said, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("cannot build %s: %w: %s", m.version, err, said)
		}
		fmt.Printf("built %s in %v\n", m.version, time.Since(began).Round(time.Second))
	}
	return nil
}
