// Package servers holds servers that know nothing of any handoff, as people
// write and install them, and the tests that drive each of them with
//
//	supervise -- SERVER
//
// under a load of new connections, through rollouts and crashes; and, as a
// control, restarted the plain way: stop, then start.
//
//	go test ./examples/servers                                   a few of each
//	go test ./examples/servers -run Table -timeout 2h -table ../README.md
//	                                                             50 of each, and the table of README.md
//
// None may be refused, and no failure may be ours: see judge.
package servers

import (
	"cmp"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	rollouts = flag.Int("rollouts", 0, "rollouts of each server; 0: 5, or 50 with -table")
	crashes  = flag.Int("crashes", 0, "crashes of each server; 0: 5, or 50 with -table")
	plain    = flag.Int("plain", 0, "plain restarts of each server, as a control; 0: 1, or 5 with -table")
	rate     = flag.Int("rate", 400, "new connections a second; 0 is as many as possible")
	look     = flag.Duration("look", time.Second, "a stall of this length is worth to show supervise's log; it is no failure")
	table    = flag.String("table", "", "write the table of results into this file, between its two marks")
)

// patience bounds each single wait.
const patience = time.Minute

// built has what the tests need, made once by TestMain.
var built struct {
	supervise string
	starter   starter
}

func TestMain(m *testing.M) {
	flag.Parse()
	few, control := 5, 1
	if *table != "" {
		few, control = 50, 5
	}
	*rollouts, *crashes, *plain = cmp.Or(*rollouts, few), cmp.Or(*crashes, few), cmp.Or(*plain, control)
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "servers")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	built.supervise, built.starter = filepath.Join(dir, "supervise"), newStarter()
	if err := goBuild(built.supervise, "../../cmd/supervise", ""); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// goBuild builds a static program.
func goBuild(out, pkg, goarch string) error {
	cmd := exec.Command("go", "build", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if goarch != "" {
		cmd.Env = append(cmd.Env, "GOARCH="+goarch)
	}
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build %s: %w: %s", pkg, err, said)
	}
	return nil
}

// TestServers: a few rollouts and crashes of each.
func TestServers(t *testing.T) {
	if *table != "" {
		t.Skip("the table is being made")
	}
	for _, s := range servers {
		t.Run(s.name, func(t *testing.T) {
			measure(t, s)
		})
	}
}

// TestBusy: a server that blocks in accept(2) is found ready after a crash
// although its clients never leave it a moment to be seen waiting.
func TestBusy(t *testing.T) {
	if *table != "" {
		t.Skip("the table is being made")
	}
	for _, s := range servers {
		if s.name != "cblocking" {
			continue
		}
		p := place{t: t, dir: t.TempDir(), port: freePort(t)}
		sup := superviseIt(t, &p, s, s.command(&p))
		every := *rate
		defer func() { *rate = every }()
		*rate = 0
		o := crashIt(t, &p, s, sup, 5)
		t.Log(o)
		if o.refused > 0 || len(o.ours) > 0 {
			t.Errorf("%v\n%s", o, sup.words())
		}
	}
}

// TestTable makes the table of README.md.
func TestTable(t *testing.T) {
	if *table == "" {
		t.Skip("only with -table FILE")
	}
	var rows []row
	for _, s := range servers {
		t.Run(s.name, func(t *testing.T) {
			rows = append(rows, measure(t, s))
		})
	}
	// Also after a failure: the table then says it.
	if err := writeTable(*table, rows); err != nil {
		t.Fatal(err)
	}
}

// row is one line of the table.
type row struct {
	title, version string
	rollouts       outcome
	crashes        outcome
	plain          outcome
}

// measure drives one server through all of it.
func measure(t *testing.T, s server) row {
	for _, program := range s.needs {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
	p := place{t: t, dir: t.TempDir(), port: freePort(t)}
	r := row{title: s.title, version: s.version(t)}
	argv := s.command(&p)
	sup := superviseIt(t, &p, s, argv)
	r.rollouts = rollOut(t, &p, s, sup, *rollouts)
	r.crashes = crashIt(t, &p, s, sup, *crashes)
	sup.stop(t)
	r.plain = restartIt(t, &p, s, argv, *plain)
	t.Logf("rollouts: %v", r.rollouts)
	t.Logf("crashes:  %v", r.crashes)
	t.Logf("plain:    %v", r.plain)
	for _, line := range sup.complaints() {
		t.Errorf("supervise complained of a good server: %s", line)
	}
	for what, o := range map[string]outcome{"rollouts": r.rollouts, "crashes": r.crashes} {
		if o.refused > 0 {
			t.Errorf("%s: %d connections were refused", what, o.refused)
		}
		for _, f := range o.ours {
			t.Errorf("%s: a failure that is ours: %s, connection %v to %v, %s, from %s", what, f.Error(), f.Began.Format(stamp), f.Ended.Format(stamp), f.Phase, f.Local)
		}
	}
	if t.Failed() || max(r.rollouts.stall, r.crashes.stall) > *look {
		t.Logf("supervise wrote\n%s", strings.Join(sup.lines(), "\n"))
	}
	return r
}

// stamp is the time of day, to be compared with a log.
const stamp = "15:04:05.000000"

// place is where one server runs.
type place struct {
	t    *testing.T
	dir  string
	port int
}

func (p *place) addr() string { return fmt.Sprintf("127.0.0.1:%d", p.port) }

// fill copies a file of this folder into the place, with {port} and {dir} and
// what else is given replaced, and gives its new path.
func (p *place) fill(file string, more ...string) string {
	p.t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		p.t.Fatal(err)
	}
	words := strings.NewReplacer(append(more, "{port}", fmt.Sprint(p.port), "{dir}", p.dir)...)
	path := filepath.Join(p.dir, filepath.Base(file))
	if err := os.WriteFile(path, []byte(words.Replace(string(text))), 0o644); err != nil {
		p.t.Fatal(err)
	}
	return path
}

// nextPort is where freePort goes on looking.
var nextPort struct {
	sync.Mutex
	n int
}

// freePort gives a port below those that the kernel gives to clients, so that
// no client of the load has it between two starts of a server.
func freePort(t *testing.T) int {
	t.Helper()
	nextPort.Lock()
	defer nextPort.Unlock()
	if nextPort.n == 0 {
		nextPort.n = 20000 + os.Getpid()%10000
	}
	for range 1000 {
		nextPort.n++
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", nextPort.n))
		if err == nil {
			l.Close()
			return nextPort.n
		}
	}
	t.Fatal("no free port")
	return 0
}
