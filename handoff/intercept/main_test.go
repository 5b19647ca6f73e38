package intercept

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func TestMain(m *testing.M) {
	if role := os.Getenv("INTERCEPT_ROLE"); role != "" {
		os.Exit(play(role))
	}
	code := m.Run()
	builds.Range(func(_, f any) bool {
		if b := f.(func() built)(); b.path != "" {
			_ = os.RemoveAll(filepath.Dir(b.path))
		}
		return true
	})
	os.Exit(code)
}

// ports that freePort gave out, so that two tests do not get the same one.
var ports struct {
	sync.Mutex
	given map[uint16]bool
}

func claim(port uint16) bool {
	ports.Lock()
	defer ports.Unlock()
	if ports.given == nil {
		ports.given = map[uint16]bool{}
	}
	if ports.given[port] {
		return false
	}
	ports.given[port] = true
	return true
}
