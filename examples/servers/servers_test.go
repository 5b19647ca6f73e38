// Package servers holds servers of many kinds as people write and install them,
// each in a folder with the configuration and the script "run" that a user would
// have, and the tests that take each through rollouts and crashes under a load of
// new connections; and, as a control, restart it the plain way: stop, then start.
// "run" is one way of being told of listeners, "run.NAME" another.
//
//	go test ./examples/servers                                   20 of each "run", 5 of each "run.NAME"
//	go test ./examples/servers -run Table -timeout 1h -table ../README.md
//	                                                             20 of each, and the table of README.md
//
// None may be refused, and no failure may be ours: see judge.
package servers

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	rollouts = flag.Int("rollouts", 20, "rollouts of each server")
	crashes  = flag.Int("crashes", 20, "crashes of each server")
	plain    = flag.Int("plain", 0, "plain restarts of each server, as a control; 0: 1, or 5 with -table")
	rate     = flag.Int("rate", 400, "new connections a second; 0 is as many as possible")
	look     = flag.Duration("look", 3*time.Second, "a stall of this length is worth to show supervise's log; it is no failure")
	table    = flag.String("table", "", "write the table of results into this file, between its two marks")
)

// patience bounds each single wait.
const patience = time.Minute

// built has what the tests need, made once by TestMain.
var built struct {
	supervise string
	recorder  string // folder of the program that stands for it in scripts
	starter   starter
}

func TestMain(m *testing.M) {
	flag.Parse()
	control := 1
	if *table != "" {
		control = 5
	}
	*plain = cmp.Or(*plain, control)
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "servers")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := prepare(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func prepare(dir string) error {
	path := "/usr/sbin:/usr/bin:" + os.Getenv("PATH")
	if goroot, err := exec.Command("go", "env", "GOROOT").Output(); err == nil {
		path = filepath.Join(strings.TrimSpace(string(goroot)), "bin") + ":" + path
	}
	// Debian's own programs come first, since its packages belong to them; but for Go's.
	os.Setenv("PATH", path)
	built.supervise, built.recorder, built.starter = filepath.Join(dir, "supervise"), filepath.Join(dir, "recorder"), newStarter()
	if err := os.Mkdir(built.recorder, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(built.recorder, "supervise"), []byte(recorder), 0o755); err != nil {
		return err
	}
	own := filepath.Join(dir, "own") // examples that are part of this module, to be found by their names
	os.Setenv("PATH", path+":"+own)
	for program, pkg := range map[string]string{built.supervise: "../../cmd/supervise", filepath.Join(own, "tableflip"): "../tableflip"} {
		cmd := exec.Command("go", "build", "-o", program, pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
		if said, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("cannot build %s: %w: %s", pkg, err, said)
		}
	}
	return buildModules()
}

// TestServers: rollouts and crashes of each.
func TestServers(t *testing.T) {
	if *table != "" {
		t.Skip("the table is being made")
	}
	for _, s := range servers {
		t.Run(s.name(), func(t *testing.T) {
			t.Parallel()
			measure(t, &row{server: s})
		})
	}
}

// TestBusy: a server that blocks in accept(2) is found ready after a crash
// although its clients never leave it a moment to be seen waiting.
func TestBusy(t *testing.T) {
	if *table != "" {
		t.Skip("the table is being made")
	}
	i := slices.IndexFunc(servers, func(s server) bool { return s.name() == "cblocking" })
	if err := servers[i].lack(); err != nil {
		t.Skip(err)
	}
	p := settle(t, &servers[i])
	p.rate = 0
	sup := superviseIt(t, p)
	o := crashIt(t, p, sup, 5)
	t.Log(o)
	if o.refused > 0 || len(o.ours) > 0 {
		t.Errorf("%v\n%s", o, sup.words())
	}
}

// TestTable makes the table of README.md.
func TestTable(t *testing.T) {
	if *table == "" {
		t.Skip("only with -table FILE")
	}
	rows := make([]row, len(servers))
	t.Run("each", func(t *testing.T) {
		for i, s := range servers {
			t.Run(s.name(), func(t *testing.T) {
				t.Parallel()
				rows[i].server = s
				measure(t, &rows[i])
			})
		}
	})
	// Also after a failure: the table then says it.
	if err := writeTable(*table, rows); err != nil {
		t.Fatal(err)
	}
}

// row is one line of the table.
type row struct {
	server   server
	version  string
	told     string // how it was told of its listeners
	drain    string // the signal
	ready    string // how it was found ready
	kept     string // what becomes of kept connections
	skipped  error  // why it was not measured
	measured bool

	rollouts, crashes, plain outcome
}

// measure drives one server through all of it.
func measure(t *testing.T, r *row) {
	s := &r.server
	if r.skipped = s.lack(); r.skipped != nil {
		t.Skip(r.skipped)
	}
	p := settle(t, s)
	r.version = s.version(t)
	r.told, r.drain = p.told(), p.command.drain()
	if mode := p.command.flag("--kill-mode", ""); mode != "" {
		r.drain += ", " + mode
	}
	sup := superviseIt(t, p)
	r.measured = true
	parts := map[string]outcome{}
	r.rollouts = rollOut(t, p, sup, s.times(*rollouts))
	parts["rollouts"] = r.rollouts
	t.Logf("rollouts: %v", r.rollouts)
	r.crashes = crashIt(t, p, sup, s.times(*crashes))
	parts["crashes"] = r.crashes
	t.Logf("crashes:  %v", r.crashes)
	if s.whole() {
		k := keepOn(t, p, sup)
		r.kept = k.String()
		parts["kept connections"] = k.outcome
		if k.requests > 0 {
			t.Logf("kept:     %s: %v", r.kept, k.outcome)
		}
	}
	r.ready = p.asWritten(sup.how())
	if r.told == "auto" {
		r.told += ": " + sup.offered()
	}
	sup.stop(t)
	// What goes into the background by itself, nobody stops without its pid file.
	if s.whole() && r.told == "bind(2)" && !strings.HasSuffix(s.run, ".daemon") {
		r.plain = restartIt(t, p, *plain)
		t.Logf("plain:    %v", r.plain)
	}
	if r.told == "bind(2)" && !sup.said("learned a listener") {
		t.Error("the command was told of no listener, and none was learned")
	}
	for _, line := range sup.complaints(s.alone) {
		t.Errorf("supervise complained of a good server: %s", line)
	}
	for _, what := range slices.Sorted(maps.Keys(parts)) {
		o := parts[what]
		if o.refused > 0 {
			t.Errorf("%s: %d connections were refused", what, o.refused)
		}
		for _, f := range o.ours {
			t.Errorf("%s: a failure that is ours: %s, connection %v to %v, %s, from %s", what, f.Error(), f.Began.Format(stamp), f.Ended.Format(stamp), f.Phase, f.Local)
		}
		for _, f := range o.server[:min(len(o.server), 5)] {
			t.Logf("%s: a failure of the server: %s, connection %v to %v, %s, from %s", what, f.Error(), f.Began.Format(stamp), f.Ended.Format(stamp), f.Phase, f.Local)
		}
	}
	if t.Failed() || max(r.rollouts.stall, r.crashes.stall) > *look {
		t.Logf("supervise wrote\n%s", strings.Join(sup.lines(), "\n"))
	}
}

// fewer is how often a further way of running a server is tried, without -table.
const fewer = 5

// whole reports whether this server is taken through everything.
func (s *server) whole() bool { return strings.HasSuffix(s.run, "/run") || *table != "" }

// times is how many of n there are for this server.
func (s *server) times(n int) int {
	if s.whole() {
		return n
	}
	return min(n, fewer)
}

// stamp is the time of day, to be compared with a log.
const stamp = "15:04:05.000000"
