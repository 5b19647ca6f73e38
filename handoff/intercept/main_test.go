package intercept

import (
	"os"
	"sync"
	"testing"
)

func TestMain(m *testing.M) {
	if role := os.Getenv("INTERCEPT_ROLE"); role != "" {
		os.Exit(play(role))
	}
	os.Exit(m.Run())
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
