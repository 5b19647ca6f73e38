package servers

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"testing"
)

// python is the system's, to which Debian's packages belong.
const python = "/usr/bin/python3"

// server is one that binds for itself.
type server struct {
	name  string // of the test
	title string // in the table
	needs []string
	tells []string // the command that prints its version, on its first line

	command    func(p *place) []string
	killSignal string // TERM when empty
	ping       bool   // speaks no HTTP but redis
}

var servers = []server{
	{name: "go", title: "Go net/http, static", needs: []string{"go"}, tells: []string{"go", "env", "GOVERSION"}, command: goServer("")},
	{name: "go386", title: "Go net/http, GOARCH=386", needs: []string{"go"}, tells: []string{"go", "env", "GOVERSION"}, command: goServer("386")},
	{name: "node", title: "Node http", needs: []string{"node"}, tells: []string{"node", "--version"}, command: script("node", "node/server.js")},
	{name: "nodecluster", title: "Node cluster, 2 workers", needs: []string{"node"}, tells: []string{"node", "--version"}, command: script("node", "nodecluster/server.js")},
	{name: "pythonhttp", title: "Python ThreadingHTTPServer, shutdown() on TERM", needs: []string{python}, tells: []string{python, "--version"}, command: script(python, "pythonhttp/server.py")},
	{name: "pythonplain", title: "python -m http.server, killed by TERM", needs: []string{python}, tells: []string{python, "--version"}, command: func(p *place) []string {
		return []string{python, "-m", "http.server", "--bind", "127.0.0.1", "--directory", p.empty(), strconv.Itoa(p.port)}
	}},
	{name: "asyncio", title: "Python asyncio", needs: []string{python}, tells: []string{python, "--version"}, command: script(python, "asyncio/server.py")},
	{name: "uvicorn", title: "uvicorn", needs: []string{python}, tells: []string{python, "-m", "uvicorn", "--version"}, command: func(p *place) []string {
		if said, err := exec.Command(python, "-m", "uvicorn", "--version").CombinedOutput(); err != nil {
			p.t.Skipf("uvicorn: %v: %s", err, said)
		}
		return []string{python, "-m", "uvicorn", "--host", "127.0.0.1", "--port", strconv.Itoa(p.port), "--log-level", "warning", "--app-dir", abs(p, "uvicorn"), "app:app"}
	}},
	{name: "webrick", title: "Ruby WEBrick", needs: []string{"ruby"}, tells: []string{"ruby", "--version"}, command: func(p *place) []string {
		if said, err := exec.Command("ruby", "-e", `require "webrick"`).CombinedOutput(); err != nil {
			p.t.Skipf("webrick: %v: %s", err, said)
		}
		return script("ruby", "webrick/server.rb")(p)
	}},
	{name: "php", title: "PHP built-in server", needs: []string{"php"}, tells: []string{"php", "--version"}, command: func(p *place) []string {
		return []string{"php", "-S", p.addr(), "-t", abs(p, "php")}
	}},
	{name: "nginx", title: "nginx, 2 workers", needs: []string{"nginx"}, tells: []string{"nginx", "-v"}, killSignal: "QUIT", command: nginx("")},
	{name: "nginxreuseport", title: "nginx, 2 workers, `reuseport`", needs: []string{"nginx"}, tells: []string{"nginx", "-v"}, killSignal: "QUIT", command: nginx("reuseport")},
	{name: "javahttp", title: "Java com.sun.net.httpserver, stop hook", needs: []string{"java", "javac"}, tells: []string{"java", "--version"}, command: java("javahttp")},
	{name: "javablocking", title: "Java ServerSocket, blocking", needs: []string{"java", "javac"}, tells: []string{"java", "--version"}, command: java("javablocking")},
	{name: "redis", title: "redis-server, PING", needs: []string{"redis-server"}, tells: []string{"redis-server", "--version"}, ping: true, command: func(p *place) []string {
		return []string{"redis-server", p.fill("redis/redis.conf")}
	}},
	{name: "cblocking", title: "C, blocking accept(2), killed by TERM", needs: []string{"cc"}, tells: []string{"cc", "--version"}, command: func(p *place) []string {
		bin := filepath.Join(p.dir, "cblocking")
		if said, err := exec.Command("cc", "-O1", "-o", bin, "cblocking/server.c").CombinedOutput(); err != nil {
			p.t.Fatalf("cc: %v: %s", err, said)
		}
		return []string{bin, strconv.Itoa(p.port)}
	}},
}

func goServer(goarch string) func(p *place) []string {
	return func(p *place) []string {
		if goarch == "386" && runtime.GOARCH != "amd64" {
			p.t.Skip("this machine does not run 386 programs")
		}
		bin := filepath.Join(p.dir, "gohttp")
		if err := goBuild(bin, "./gohttp", goarch); err != nil {
			p.t.Fatal(err)
		}
		return []string{bin, p.addr()}
	}
}

// script is a program that runs a file of this folder on a port.
func script(program, file string) func(p *place) []string {
	return func(p *place) []string { return []string{program, abs(p, file), strconv.Itoa(p.port)} }
}

func nginx(options string) func(p *place) []string {
	return func(p *place) []string {
		return []string{"nginx", "-p", p.dir, "-e", filepath.Join(p.dir, "error.log"), "-c", p.fill("nginx/nginx.conf", "{options}", options)}
	}
}

func java(folder string) func(p *place) []string {
	return func(p *place) []string {
		if said, err := exec.Command("javac", "-d", p.dir, filepath.Join(folder, "Server.java")).CombinedOutput(); err != nil {
			p.t.Fatalf("javac: %v: %s", err, said)
		}
		// As few threads and as little memory as a test needs, beside another of its kind.
		return []string{"java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx32m", "-cp", p.dir, "Server", strconv.Itoa(p.port)}
	}
}

func abs(p *place, path string) string {
	a, err := filepath.Abs(path)
	if err != nil {
		p.t.Fatal(err)
	}
	return a
}

// empty is a folder with nothing in it.
func (p *place) empty() string {
	dir := filepath.Join(p.dir, "empty")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		p.t.Fatal(err)
	}
	return dir
}

// version is what the program says of itself.
func (s *server) version(t *testing.T) string {
	said, err := exec.Command(s.tells[0], s.tells[1:]...).CombinedOutput()
	if err != nil {
		t.Skipf("%s: %v", s.tells[0], err)
	}
	return versionNumber.FindString(string(said))
}

// versionNumber is the first number with a dot in it.
var versionNumber = regexp.MustCompile(`[0-9]+(\.[0-9]+)+`)
