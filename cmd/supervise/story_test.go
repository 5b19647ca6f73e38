package main

// The stories of testdata: each is a page that starts real processes and says
// what a user would see. The test binary plays supervise, and the servers
// (server_test.go); the words that the scripts use are in words_test.go.

import (
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/supervise/supervise/handoff/wire/standin"
	"github.com/supervise/supervise/supervisor/proc"
)

func TestMain(m *testing.M) {
	standin.Play() // before anybody looks at our name
	programs := map[string]func(){
		"supervise": main,
		"server":    server,
		"blocked":   blocked,
	}
	maps.Copy(programs, interceptPrograms())
	testscript.Main(m, programs)
}

// The stories, with a control group for each generation where that can be had.
func TestStories(t *testing.T) {
	runStories(t, "yes", testscript.Params{Dir: "testdata"})
}

// The stories in which a whole tree has to end, found without a control group.
func TestStoriesWithoutCgroup(t *testing.T) {
	files, err := filepath.Glob("testdata/stop*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no stories:", err)
	}
	runStories(t, "no", testscript.Params{Files: files})
}

// Each story has a mark, which its processes inherit: so it can tell what is
// left of them from everything else that runs here.
func runStories(t *testing.T, cgroup string, p testscript.Params) {
	var count atomic.Int32
	p.RequireExplicitExec = true
	p.Setup = func(env *testscript.Env) error {
		s := newStory(fmt.Sprintf("%d-%s-%d", os.Getpid(), cgroup, count.Add(1)))
		env.Setenv("STORY", s.mark)
		env.Setenv("SUPERVISE_RUNTIME_DIR", env.WorkDir+"/run")
		env.Setenv("cgroup", cgroup)
		env.Setenv("LC_ALL", "C")
		env.Setenv("GORACE", "atexit_sleep_ms=0") // else each process ends a second late
		env.Values[storyKey{}] = s
		env.Defer(s.close)
		return nil
	}
	p.Cmds = words()
	p.Condition = condition
	testscript.Run(t, p)
}

// condition tells what this machine gives.
func condition(name string) (bool, error) {
	switch name {
	case "root":
		return os.Getuid() == 0, nil
	case "ipv6":
		l, err := net.Listen("tcp6", "[::1]:0")
		if err == nil {
			l.Close()
		}
		return err == nil, nil
	case "cgroup":
		for _, f := range proc.Facts() {
			if f.Name == "cgroup writable" {
				return f.OK, nil
			}
		}
		return false, nil
	case "uringbind":
		return hasURingBind(), nil
	case "nobody":
		out, err := exec.Command("id", "-u", "nobody").Output()
		return err == nil && strings.TrimSpace(string(out)) != "", nil
	}
	return false, fmt.Errorf("unknown condition %q", name)
}
