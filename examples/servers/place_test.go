package servers

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/handoff/wire"
)

// place is where one server runs: a copy of its folder.
type place struct {
	dir     string
	port    int
	unix    string // path, when it is that
	talk    *talk
	rate    int
	alone   bool
	command recorded
}

func (p *place) network() string {
	if p.unix != "" {
		return "unix"
	}
	return "tcp"
}

func (p *place) addr() string {
	if p.unix != "" {
		return p.unix
	}
	return fmt.Sprintf("127.0.0.1:%d", p.port)
}

// port8080 is the port that all examples name; here each has one of its own.
const port8080 = "8080"

// settle copies the folder of a server, and runs its script until that calls
// supervise, whose arguments and environment are kept.
func settle(t *testing.T, s *server) *place {
	t.Helper()
	p := &place{dir: shortTempDir(t), port: freePort(t), talk: s.talk, rate: *rate, alone: s.alone}
	if s.rate > 0 {
		p.rate = min(p.rate, s.rate)
	}
	if s.unix != "" {
		p.unix = filepath.Join(p.dir, s.unix)
	}
	folder, script := filepath.Split(s.run)
	files := 0
	err := filepath.WalkDir(folder, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		return p.copyFile(folder, path)
	})
	if err != nil || files == 0 {
		t.Fatalf("cannot copy %s: %d files, %v", folder, files, err)
	}
	record := filepath.Join(p.dir, ".record")
	cmd := exec.Command("./" + script)
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "PATH="+built.recorder+":"+os.Getenv("PATH"), "RECORD="+record)
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", s.run, err, said)
	}
	if p.command, err = readRecord(record); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *place) copyFile(folder, path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	to := filepath.Join(p.dir, strings.TrimPrefix(path, folder))
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, bytes.ReplaceAll(text, []byte(port8080), []byte(fmt.Sprint(p.port))), info.Mode().Perm())
}

// shortTempDir is a folder that a server's own user can enter, with a name that
// leaves room for unix sockets in it.
func shortTempDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "srv")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// needs that are no program or file.
const (
	amd64  = "a machine that runs amd64 programs"
	asRoot = "root"
)

// lack says what this machine does not have.
func (s *server) lack() error {
	if s.module != "" {
		if _, err := os.Stat(modules[s.module].program()); err != nil {
			return fmt.Errorf("%s is built only where %s asks for it, since that takes minutes", s.module, buildVariable)
		}
	}
	for _, need := range s.needs {
		var err error
		switch {
		case need == amd64:
			if runtime.GOARCH != "amd64" {
				err = fmt.Errorf("this machine does not run 386 programs")
			}
		case need == asRoot:
			if os.Getuid() != 0 {
				err = fmt.Errorf("only as root")
			}
		case filepath.IsAbs(need):
			_, err = os.Stat(need)
		default:
			_, err = exec.LookPath(need)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// recorder stands for supervise while the script of an example runs.
const recorder = `#!/bin/sh
printf '%s\0' "$@" >"$RECORD"
printf '\0' >>"$RECORD"
env -0 >>"$RECORD"
`

// recorded is how an example calls supervise.
type recorded struct {
	flags []string
	argv  []string // after --
	env   []string
}

func readRecord(file string) (recorded, error) {
	var r recorded
	text, err := os.ReadFile(file)
	if err != nil {
		return r, fmt.Errorf("the script did not call supervise: %w", err)
	}
	args, env, _ := strings.Cut(string(text), "\x00\x00")
	words := strings.Split(args, "\x00")
	i := slices.Index(words, "--")
	if i < 0 || i == len(words)-1 {
		return r, fmt.Errorf("the script calls supervise with no command: %q", words)
	}
	r.flags, r.argv = words[:i], words[i+1:]
	for _, kv := range strings.Split(strings.TrimRight(env, "\x00"), "\x00") {
		if !strings.HasPrefix(kv, "RECORD=") {
			r.env = append(r.env, kv)
		}
	}
	return r, nil
}

// flag is the value of the last flag of that name, as the examples write it:
// two words.
func (r *recorded) flag(name, otherwise string) string {
	for i, word := range r.flags {
		if word == name && i+1 < len(r.flags) {
			otherwise = r.flags[i+1]
		}
	}
	return otherwise
}

// told is how the command is told of its listeners.
func (p *place) told() string {
	r := &p.command
	handoff := r.flag("--handoff", "auto")
	if r.flag("--listen", "") == "" {
		return "bind(2)"
	}
	if !strings.HasPrefix(handoff, "fd") {
		return handoff
	}
	for _, word := range slices.Concat(r.flags, r.argv) {
		if strings.Contains(word, "{fd:") {
			handoff += ", `" + p.asWritten(word) + "`"
		}
	}
	return handoff
}

// asWritten has the port and folder of the examples in place of ours.
func (p *place) asWritten(text string) string {
	return strings.NewReplacer(fmt.Sprint(p.port), port8080, p.dir, "$PWD").Replace(text)
}

// drain is the signal that the command is stopped by: where nothing is said,
// that of the protocol by which it is told.
func (r *recorded) drain() string {
	otherwise := "TERM"
	plan, err := wire.For(wire.Request{
		Protocols: []string{r.flag("--handoff", "")}, Listeners: []wire.Listener{{Name: "web", Network: "tcp", Addr: "127.0.0.1:8080"}},
	})
	if err == nil && plan.Stop != 0 {
		otherwise = strings.TrimPrefix(unix.SignalName(plan.Stop), "SIG")
	}
	if r.argv[0] == "tableflip" && r.flag("--handoff", "auto") == "auto" {
		otherwise = "as after an upgrade"
	}
	return r.flag("--kill-signal", otherwise)
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
