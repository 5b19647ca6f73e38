package portdiag

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Watched is a command whose output is watched for a failed bind.
type Watched struct {
	Argv                  []string
	Stdin, Stdout, Stderr *os.File // given to it as they are, but for what is watched

	// Found is called once, with what the output says of a failed bind; at
	// the latest when the command has ended. It may run while the command does.
	Found func(Symptom)
}

// settle is how long after the first sign the whole message is waited for: an
// exception's second line may have the address that its first has not.
const settle = time.Second

// keep is how much of the output is searched: a stack trace is a few
// kilobytes.
const keep = 64 * 1024

// Run starts the command, passes its output on and waits for it. Status is its
// exit status as a shell gives it. The error is for a command that could not
// be started.
func (w Watched) Run() (status int, err error) {
	if len(w.Argv) == 0 {
		return 0, errors.New("cannot run a command: there is none")
	}
	seen := &collector{}
	cmd := exec.Command(w.Argv[0], w.Argv[1:]...)
	cmd.Stdin = w.Stdin
	cmd.Stdout = io.MultiWriter(w.Stdout, seen) // loggers write their errors there as well
	cmd.Stderr = io.MultiWriter(w.Stderr, seen)
	cmd.WaitDelay = settle // grandchildren may keep the pipes open
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("cannot run %s: %w", w.Argv[0], err)
	}
	var once sync.Once
	tell := func() {
		if s, ok := Recognise(seen.text()); ok {
			once.Do(func() { w.Found(s) })
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(settle)
	defer tick.Stop()
	for {
		select {
		case err = <-ended:
			tell()
			return exitStatus(cmd, err)
		case <-tick.C:
			if seen.quiet(settle) {
				tell()
			}
		}
	}
}

func exitStatus(cmd *exec.Cmd, err error) (int, error) {
	var exit *exec.ExitError
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		return cmd.ProcessState.ExitCode(), nil
	case errors.As(err, &exit):
		if ws, ok := exit.Sys().(interface {
			Signaled() bool
			Signal() unix.Signal
		}); ok && ws.Signaled() {
			return 128 + int(ws.Signal()), nil
		}
		return exit.ExitCode(), nil
	}
	return 0, fmt.Errorf("cannot wait for %s: %w", cmd.Path, err)
}

// collector keeps the end of what is written to it.
type collector struct {
	mu   sync.Mutex
	buf  []byte
	last time.Time
}

func (c *collector) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = time.Now()
	c.buf = append(c.buf, p...)
	if len(c.buf) > 2*keep {
		c.buf = append(c.buf[:0], c.buf[len(c.buf)-keep:]...)
	}
	return len(p), nil
}

func (c *collector) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.buf)
}

// quiet says that something was written, and nothing since d.
func (c *collector) quiet(d time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.buf) > 0 && time.Since(c.last) >= d
}

// Guess is an address that a command probably wants, and where it was read.
type Guess struct {
	Address string
	From    string
}

// Guesses reads addresses from a command line and its environment, for
// messages that name none ("OSError: [Errno 98] Address already in use").
// Explicit ones come first; well-known defaults are given only if there are none.
func Guesses(argv, environ []string) []Guess {
	var all []Guess
	add := func(address, from string) {
		for _, g := range all {
			if g.Address == address {
				return
			}
		}
		if ts, err := parseTargetList(address); err == nil && len(ts) > 0 {
			all = append(all, Guess{address, from})
		}
	}
	host := ""
	flagValue := func(i int, names ...string) (string, bool) {
		for _, n := range names {
			if argv[i] == n && i+1 < len(argv) {
				return argv[i+1], true
			}
			if v, ok := strings.CutPrefix(argv[i], n+"="); ok {
				return v, true
			}
			if len(n) == 2 && len(argv[i]) > 2 && strings.HasPrefix(argv[i], n) && digits(argv[i][2:]) {
				return argv[i][2:], true
			}
		}
		return "", false
	}
	for i := range argv {
		if v, ok := flagValue(i, "--host", "-H", "--bind-address"); ok && !strings.Contains(v, ":") {
			host = v
		}
		if v, ok := flagValue(i, "-b", "--bind"); ok && !strings.ContainsAny(v, ":/") {
			host = v // http.server: --bind ADDRESS, the port by itself
		}
	}
	withHost := func(port string) string {
		if host == "" {
			return port
		}
		return join(host, port)
	}
	for i, a := range argv {
		if i == 0 {
			continue
		}
		if v, ok := flagValue(i, "-p", "-P", "--port", "-port", "--http-port", "--server.port", "--http.port", "-Dserver.port", "-Dquarkus.http.port"); ok && digits(v) {
			add(withHost(v), "the argument "+a)
		}
		if v, ok := flagValue(i, "-l", "--listen", "-listen", "-b", "--bind", "-bind", "--address", "-addr", "--addr", "-S", "--urls", "-a", "--unix-socket", "--socket", "-s"); ok && strings.ContainsAny(v, ":/") {
			add(v, "the argument "+a)
		}
	}
	for i, a := range argv {
		if i > 0 && !strings.HasPrefix(a, "-") && strings.Contains(a, ":") {
			if _, port, _ := strings.Cut(a, ":"); digits(port) {
				add(a, "the argument "+a)
			}
		}
		// runserver 8000, http.server 8000
		if i > 1 && digits(a) && !strings.HasPrefix(argv[i-1], "-") {
			add(withHost(a), "the argument "+a)
		}
	}
	if len(all) > 0 {
		return all
	}
	for _, name := range []string{"ASPNETCORE_URLS", "DOTNET_URLS", "URLS", "ASPNETCORE_HTTP_PORTS", "PORT", "HTTP_PORT", "SERVER_PORT", "LISTEN_ADDR", "FLASK_RUN_PORT", "UVICORN_PORT", "QUARKUS_HTTP_PORT"} {
		for _, kv := range environ {
			if v, ok := strings.CutPrefix(kv, name+"="); ok && v != "" {
				add(v, "the variable "+name)
			}
		}
	}
	if len(all) > 0 {
		return all
	}
	line := " " + strings.Join(argv, " ") + " "
	for _, d := range []struct{ words, port string }{
		{"http.server", "8000"},
		{"runserver", "8000"},
		{"uvicorn", "8000"},
		{"gunicorn", "8000"},
		{"hypercorn", "8000"},
		{"flask", "5000"},
		{"rails", "3000"},
		{"puma", "9292"},
		{"next ", "3000"},
		{"vite", "5173"},
		{"dotnet", "5000"},
		{"redis-server", "6379"},
		{"postgres", "5432"},
		{"mysqld", "3306"},
		{"caddy", "80"},
		{"nginx", "80"},
	} {
		if strings.Contains(line, d.words) {
			add(withHost(d.port), "the usual port of "+strings.TrimSpace(d.words))
		}
	}
	if len(all) == 0 && len(argv) > 0 && filepath.Ext(argv[len(argv)-1]) == ".jar" {
		add("8080", "the usual port of Java servers")
	}
	return all
}

// Asks turns what a program said of a failed bind into questions: about the
// address that its message names, or else about those that its command line
// and environment lead to guess. None: there is nothing to go by.
func Asks(s Symptom, argv, environ []string) ([]Ask, error) {
	var asks []Ask
	if s.Address != "" {
		ts, err := parseTargetList(s.Address)
		for _, t := range ts {
			asks = append(asks, Ask{Target: t, Symptom: &s, Command: argv})
		}
		return asks, err
	}
	for _, g := range Guesses(argv, environ) {
		ts, err := parseTargetList(g.Address)
		if err != nil {
			continue
		}
		for _, t := range ts {
			asks = append(asks, Ask{Target: t, Symptom: &s, Command: argv, Guessed: g.From})
		}
	}
	return asks, nil
}

func digits(s string) bool {
	return s != "" && len(s) <= 5 && strings.Trim(s, "0123456789") == ""
}
