package portdiag

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// scene is a section of symptoms.md: a conflict that is made here, the words
// by which the program in question reports it, and what supervise why says.
type scene struct {
	title  string
	text   string            // what to know, before the command
	needs  []string          // programs; without them the section stays as it is
	files  map[string]string // in the directory that everything runs in
	holder string            // shell command that gets in the way
	stop   bool              // as Ctrl-Z does
	at     string            // the address that is in the way, as ParseTargets reads it
	fails  string            // shell command of the server that cannot bind
	user   string            // that runs it and asks, if not root
	quote  string            // regexp of the words to quote from its output, or the words of a stand-in
	source string            // where the words of a stand-in are from
	ask    string            // the command of the page; MESSAGE is the quoted words
}

const (
	nodeServer = "require('http').createServer((req, res) => res.end('ok\\n')).listen(process.argv[2] || 3000)\n"
	pyHolder   = "import socket, sys\ns = socket.socket()\ns.bind((sys.argv[1], int(sys.argv[2])))\ns.listen()\ns.accept()\n"
	// A server that closes first, and so has the TIME_WAIT on its side.
	pyClosing = "import socket\ns = socket.socket()\ns.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\ns.bind(('127.0.0.1', 8001))\ns.listen()\nc = socket.create_connection(('127.0.0.1', 8001))\ns.accept()[0].close()\nc.recv(1)\n"
	pyServer  = "import socketserver, sys\nsocketserver.TCPServer(('127.0.0.1', int(sys.argv[1])), socketserver.BaseRequestHandler).serve_forever()\n"
	// A connection that has got the port which a server wants.
	pyClient = "import socket\nl = socket.create_server(('127.0.0.1', 25432))\nc = socket.socket()\nc.bind(('127.0.0.1', 40080))\nc.connect(('127.0.0.1', 25432))\nl.accept()[0].recv(1)\n"
)

var scenes = []scene{
	{
		title: "ASP.NET Core (Kestrel): IOException: Failed to bind to address",
		text:  "Kestrel names the address as a URL; the holder may well listen on another one that covers it.",
		needs: []string{"node"}, files: map[string]string{"server.js": nodeServer},
		holder: "node server.js 5000", at: "127.0.0.1:5000",
		quote:  "System.IO.IOException: Failed to bind to address http://127.0.0.1:5000: address already in use.",
		source: "the message of Kestrel's AddressBinder",
		ask:    "supervise why MESSAGE",
	},
	{
		title: "Node: Error: listen EADDRINUSE",
		text:  "Node writes the address `::`, every address, before the last colon: `:::3000` is port 3000.",
		needs: []string{"node"}, files: map[string]string{"server.js": nodeServer},
		holder: "node server.js", at: "[::]:3000",
		fails: "node server.js", quote: `Error: listen EADDRINUSE.*`,
		ask: "supervise why MESSAGE",
	},
	{
		title: "Node: EADDRINUSE of a unix socket",
		text:  "A server that was killed leaves the file of its socket behind; no process has the address.",
		needs: []string{"node", "python3"}, files: map[string]string{"server.js": nodeServer},
		holder: `python3 -c "import socket; socket.socket(socket.AF_UNIX).bind('DIR/app.sock')"`, at: "unix:DIR/app.sock",
		fails: "node server.js DIR/app.sock", quote: `Error: listen EADDRINUSE.*`,
		ask: "supervise why MESSAGE",
	},
	{
		title:  "Python: OSError: [Errno 98] Address already in use",
		text:   "Python names no address. Let `why` run the command: it finds the address in the arguments. Here a server was stopped with Ctrl-Z and forgotten: it holds the port and answers nobody.",
		needs:  []string{"python3"},
		holder: "python3 -m http.server 8000", stop: true, at: "0.0.0.0:8000",
		fails: "python3 -m http.server 8000", quote: `OSError: \[Errno 98\].*`,
		ask: "supervise why -- python3 -m http.server 8000",
	},
	{
		title: "Python: OSError 98 right after the server ended",
		text:  "Nobody has the port: only the TIME_WAIT of closed connections is left, which blocks a bind without SO_REUSEADDR.",
		needs: []string{"python3"}, files: map[string]string{"before.py": pyClosing, "server.py": pyServer},
		holder: "python3 before.py", at: "127.0.0.1:8001",
		fails: "python3 server.py 8001", quote: `OSError: \[Errno 98\].*`,
		ask: "supervise why 127.0.0.1:8001",
	},
	{
		title: "Python: asyncio, uvicorn: error while attempting to bind on address",
		needs: []string{"python3"}, files: map[string]string{
			"app.py": "import asyncio\nasync def main():\n    await (await asyncio.start_server(lambda r, w: None, '127.0.0.1', 8000)).serve_forever()\nasyncio.run(main())\n",
		},
		holder: "python3 -m http.server 8000", at: "127.0.0.1:8000",
		fails: "python3 app.py", quote: `\[Errno 98\] error while.*`,
		ask: "supervise why MESSAGE",
	},
	{
		title: "Flask: Port 5000 is in use by another program",
		needs: []string{"node"}, files: map[string]string{"server.js": nodeServer},
		holder: "node server.js 5000", at: "[::]:5000",
		quote:  "Port 5000 is in use by another program. Either identify and stop that program, or start the server with a different port.",
		source: "Werkzeug's serving.py",
		ask:    "supervise why MESSAGE",
	},
	{
		title: "nginx: bind() to 0.0.0.0:80 failed (98: Address already in use)",
		text:  "The holder has a master and workers: `why` shows each.",
		needs: []string{"nginx"}, files: map[string]string{
			"nginx.conf": "pid nginx.pid; daemon off; error_log stderr emerg; worker_processes 1; events {}\nhttp { access_log off; server { listen 80; } }\n",
		},
		holder: "exec nginx -p DIR -e stderr -c nginx.conf", at: "0.0.0.0:80",
		fails: "nginx -p DIR -e stderr -c nginx.conf", quote: `bind\(\) to .*`,
		ask: "supervise why MESSAGE",
	},
	{
		title:  "Docker: Bind for 0.0.0.0:8080 failed: port is already allocated",
		text:   "Docker asks for every address of the host, so that a server on any one of them is in its way.",
		needs:  []string{"python3"},
		holder: "python3 -m http.server -b 127.0.0.1 8080", at: "0.0.0.0:8080",
		quote:  "Error response from daemon: driver failed programming external connectivity on endpoint web: Bind for 0.0.0.0:8080 failed: port is already allocated.",
		source: "the port allocator of moby",
		ask:    "supervise why MESSAGE",
	},
	{
		title: "Java: java.net.BindException: Address already in use",
		text:  "Java names no address either.",
		needs: []string{"java", "python3"}, files: map[string]string{
			"Server.java": "class Server { public static void main(String[] a) throws Exception { new java.net.ServerSocket(Integer.parseInt(a[1])); } }\n",
			"hold.py":     pyHolder,
		},
		holder: "python3 hold.py 0.0.0.0 8080", at: "0.0.0.0:8080",
		fails: "java Server.java --port 8080", quote: `java\.net\.BindException: [^(\n]*\b`,
		ask: "supervise why -- java Server.java --port 8080",
	},
	{
		title: "Spring Boot: Web server failed to start. Port 8080 was already in use.",
		needs: []string{"python3"}, files: map[string]string{"hold.py": pyHolder},
		holder: "python3 hold.py 127.0.0.1 8080", at: "0.0.0.0:8080",
		quote:  "Web server failed to start. Port 8080 was already in use.",
		source: "Spring Boot's PortInUseFailureAnalyzer",
		ask:    "supervise why MESSAGE",
	},
	{
		title: "Ruby (Puma, Rails, WEBrick): Errno::EADDRINUSE",
		needs: []string{"ruby", "node"}, files: map[string]string{"server.js": nodeServer, "server.rb": "require 'socket'\nTCPServer.new('127.0.0.1', 3000)\n"},
		holder: "node server.js", at: "127.0.0.1:3000",
		fails: "ruby server.rb", quote: `Address already in use - bind.*`,
		ask: "supervise why MESSAGE",
	},
	{
		title: "PHP: Failed to listen on 127.0.0.1:8000 (reason: Address already in use)",
		needs: []string{"php", "python3"}, files: map[string]string{"hold.py": pyHolder},
		holder: "python3 hold.py 127.0.0.1 8000", at: "127.0.0.1:8000",
		fails: "php -S 127.0.0.1:8000", quote: `Failed to listen on.*`,
		ask: "supervise why MESSAGE",
	},
	{
		title: "Rust: Os { code: 98, kind: AddrInUse }",
		text:  "No listener holds the port: an outgoing connection got it from the ephemeral range, which `ss -l` does not show.",
		needs: []string{"rustc", "python3"}, files: map[string]string{
			"client.py": pyClient,
			"server.rs": "fn main() { std::net::TcpListener::bind(std::env::args().nth(1).unwrap()).unwrap(); }\n",
		},
		holder: "python3 client.py", at: "127.0.0.1:40080",
		fails: "{ [ -e server ] || rustc -o server server.rs; } && ./server 127.0.0.1:40080", quote: `Os \{ code: 98.*\}`,
		ask: "supervise why -- ./server 127.0.0.1:40080",
	},
	{
		title: "Go: listen tcp :8080: bind: address already in use",
		needs: []string{"go", "node"}, files: map[string]string{
			"main.go":   "package main\n\nimport (\n\t\"log\"\n\t\"net/http\"\n)\n\nfunc main() { log.Fatal(http.ListenAndServe(\":8080\", nil)) }\n",
			"server.js": nodeServer,
		},
		holder: "node server.js 8080", at: "[::]:8080",
		fails: "go run main.go", quote: `listen tcp .*`,
		ask: "supervise why MESSAGE",
	},
	{
		title: "Redis: Could not create server TCP listening socket",
		needs: []string{"redis-server", "python3"}, files: map[string]string{"hold.py": pyHolder},
		holder: "python3 hold.py 0.0.0.0 6379", at: "0.0.0.0:6379",
		fails: "redis-server --save '' --port 6379", quote: `Could not create.*|Warning: Could not create.*`,
		ask: "supervise why MESSAGE",
	},
	{
		title: "Permission denied, EACCES: a port below 1024",
		needs: []string{"node", "setpriv"}, files: map[string]string{"server.js": nodeServer},
		at: "[::]:80", user: "nobody",
		fails: "node server.js 80", quote: `Error: listen EACCES.*`,
		ask: "supervise why MESSAGE",
	},
}

const symptomsHead = `# Which error, which command, which answer

Each section is one way of saying that an address cannot be bound, as people meet it: the words, what to type, and the
answer. All of it is run by a test (` + "`go test -run TestSymptoms ./supervisor/portdiag`" + `, with ` + "`-update`" + ` to write this page anew):
the conflict is real, the words are those of the program itself where it can be installed here, else quoted from its
source. Numbers of processes, times, the user and the directory are made even. What all the causes are, and how it
knows: [why.md](why.md).
`

// TestSymptoms makes each conflict, runs the command of the page, and wants
// the page to say what came out.
func TestSymptoms(t *testing.T) {
	if testing.Short() {
		t.Skip("starts compilers and virtual machines")
	}
	if os.Getenv(networkEnv) == "" {
		t.Skip("needs root: the page names ports that everybody uses, which takes a network namespace of its own")
	}
	b, err := os.ReadFile("symptoms.md")
	if err != nil && !*update {
		t.Fatal(err)
	}
	old := sections(string(b))
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", bin, "../../cmd/supervise")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	var page strings.Builder
	page.WriteString(symptomsHead)
	for _, s := range scenes {
		got := old[s.title]
		t.Run(s.title, func(t *testing.T) {
			made := s.play(t, bin)
			if made != got && !*update {
				t.Errorf("symptoms.md has not this section (go test -run TestSymptoms -update ./supervisor/portdiag):\n%s\nbut\n%s", made, got)
			}
			got = made
		})
		page.WriteString("\n## " + s.title + "\n\n" + got)
		delete(old, s.title)
	}
	if *update {
		if err := os.WriteFile("symptoms.md", []byte(page.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	for title := range old {
		t.Errorf("symptoms.md has a section that nothing makes: %q", title)
	}
	if !strings.HasPrefix(string(b), symptomsHead) {
		t.Error("symptoms.md does not begin as it should")
	}
}

// sections are the texts of a page by their headings of the second level.
func sections(page string) map[string]string {
	m := make(map[string]string)
	for i, part := range strings.Split(page, "\n## ") {
		if i > 0 {
			title, text, _ := strings.Cut(part, "\n\n")
			m[title] = strings.TrimRight(text, "\n") + "\n"
		}
	}
	return m
}

// play makes the conflict and gives the section that tells of it.
func (s scene) play(t *testing.T, bin string) string {
	// Debian's programs before others of the same name: their words are quoted.
	path := strings.Join([]string{bin, "/usr/sbin", "/usr/bin", "/bin", os.Getenv("PATH")}, ":")
	t.Setenv("PATH", path)
	for _, program := range s.needs {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
	// A directory that another user may enter, too.
	dir, err := os.MkdirTemp("/tmp", "symptoms")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range s.files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	here := func(text string) string { return strings.ReplaceAll(text, "DIR", dir) }
	shell := func(line string) *exec.Cmd {
		cmd := exec.Command("sh", "-c", here(line))
		if s.user != "" {
			if err := os.Chmod(bin, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(filepath.Dir(bin), 0o755); err != nil {
				t.Fatal(err)
			}
			cmd = exec.Command("setpriv", "--reuid", s.user, "--clear-groups", "sh", "-c", here(line))
		}
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "LC_ALL=C", "GO111MODULE=off", "PYTHONUNBUFFERED=1", "NO_COLOR=1")
		return cmd
	}

	if s.holder != "" {
		holder := shell("exec " + strings.TrimPrefix(s.holder, "exec "))
		holder.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := holder.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { _ = holder.Wait(); close(ended) }()
		t.Cleanup(func() {
			_ = unix.Kill(-holder.Process.Pid, unix.SIGKILL)
			<-ended
		})
		for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			r, err := explainText(here(s.at))
			if err != nil {
				t.Fatal(err)
			}
			if r.Verdict != Available && s.settled(r, ended) {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%q does not get in the way of %s", s.holder, s.at)
			}
		}
		if s.stop {
			if err := unix.Kill(holder.Process.Pid, unix.SIGSTOP); err != nil {
				t.Fatal(err)
			}
		}
	}

	quote := s.quote
	if s.fails != "" {
		var out bytes.Buffer
		cmd := shell(s.fails)
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err == nil {
			t.Fatalf("%s did not fail:\n%s", s.fails, &out)
		}
		quote = regexp.MustCompile(s.quote).FindString(out.String())
		if quote == "" {
			t.Fatalf("%s did not say %s:\n%s", s.fails, s.quote, &out)
		}
	}

	var out bytes.Buffer
	ask := strings.ReplaceAll(s.ask, "MESSAGE", shellQuote(quote))
	cmd := shell(ask)
	cmd.Stdout = &out
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	if err := cmd.Run(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 1 {
		t.Fatalf("%s: %v\n%s%s", ask, err, &out, &complaint)
	}

	var text strings.Builder
	if s.text != "" {
		text.WriteString(s.text + "\n\n")
	}
	text.WriteString("    " + quote + "\n\n")
	if s.source != "" {
		text.WriteString("(" + s.source + ")\n\n")
	}
	text.WriteString("What to type, and the answer:\n\n    $ " + ask + "\n")
	for line := range strings.Lines(even(out.String())) {
		text.WriteString(strings.TrimRight("    "+line, " \n") + "\n")
	}
	return strings.ReplaceAll(text.String(), dir, "/srv/shop")
}

// settled says whether the holder is as the page shows it: a server waits for
// connections; a scene of which nobody is left has ended.
func (s scene) settled(r Report, ended <-chan struct{}) bool {
	if len(r.Parties) == 0 {
		select {
		case <-ended:
			return true
		default:
			return false
		}
	}
	for _, p := range r.Parties {
		if p.Waits != "no" { // of some, as Python's http.server, it cannot be told
			return true
		}
	}
	return r.Cause == Outgoing
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// even replaces what differs from run to run.
func even(text string) string {
	pids := make(map[string]string)
	number := func(re, text string) string {
		return regexp.MustCompile(re).ReplaceAllStringFunc(text, func(m string) string {
			i := strings.LastIndexAny(m, " (=") + 1
			pid := m[i:]
			if pids[pid] == "" {
				pids[pid] = strconv.Itoa(4711 + len(pids))
			}
			return m[:i] + pids[pid]
		})
	}
	text = regexp.MustCompile(`(?m)^( +)started by .*`).ReplaceAllString(text, "${1}started by systemd(1) > login(811) > bash(1247)")
	text = number(`\bpid \d+|kill -(?:TERM|CONT) \d+|\bworker \d+`, text)
	for _, r := range []struct{ re, to string }{
		{`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d`, "2026-11-21 10:44:35"},
		{`\(\d+ (?:s|min) ago\)`, "(3 min ago)"},
		{`\d+ closed connections? (?:is|are) still in TIME_WAIT for \d+ s`, "1 closed connection is still in TIME_WAIT for 60 s"},
		{`\d+ connections? (of \S+) in TIME_WAIT for \d+ s`, "1 connection $1 in TIME_WAIT for 60 s"},
		{`\binode \d+`, "inode 113497"},
		{`\buser root\b`, "user anna"},
	} {
		text = regexp.MustCompile(r.re).ReplaceAllString(text, r.to)
	}
	return text
}
