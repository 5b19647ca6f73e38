package intercept

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// traffic makes one new connection after the other until it is stopped, and
// counts what became of them. Refused is our fault; what was accepted and then
// dropped is the server's.
type traffic struct {
	network, addr       string
	redis               bool
	ok, refused, failed atomic.Int64
	stop                chan struct{}
	wg                  sync.WaitGroup
	mu                  sync.Mutex
	errs                map[string]int
}

func startTraffic(network, addr string, redis bool) *traffic {
	l := &traffic{network: network, addr: addr, redis: redis, stop: make(chan struct{}), errs: map[string]int{}}
	for range 2 {
		l.wg.Go(func() {
			for {
				select {
				case <-l.stop:
					return
				default:
				}
				err := l.once()
				switch {
				case err == nil:
					l.ok.Add(1)
				case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ENOENT):
					l.refused.Add(1)
				default:
					l.failed.Add(1)
				}
				if err != nil {
					l.mu.Lock()
					l.errs[err.Error()]++
					l.mu.Unlock()
				}
			}
		})
	}
	return l
}

func (l *traffic) once() error {
	conn, err := net.DialTimeout(l.network, l.addr, deadline)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(deadline))
	ask, want := "GET / HTTP/1.0\r\n\r\n", "HTTP/1."
	if l.redis {
		ask, want = "PING\r\n", "+PONG"
	}
	if _, err := io.WriteString(conn, ask); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(line, want) {
		return fmt.Errorf("answer %q", line)
	}
	return nil
}

func (l *traffic) end() string {
	close(l.stop)
	l.wg.Wait()
	return fmt.Sprintf("%d ok, %d refused, %d failed %v", l.ok.Load(), l.refused.Load(), l.failed.Load(), l.errs)
}

// more waits until n more requests were answered.
func (l *traffic) more(t *testing.T, n int64) {
	t.Helper()
	want := l.ok.Load() + n
	for end := time.Now().Add(deadline); l.ok.Load() < want; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no answers: %d ok, %d refused, %d failed %v", l.ok.Load(), l.refused.Load(), l.failed.Load(), l.errs)
		}
	}
}

// server is an unmodified program.
type server struct {
	name  string
	needs []string // programs; the test is skipped without them
	cmd   func(t *testing.T, dir string, port uint16) *exec.Cmd
	stop  syscall.Signal // SIGTERM if 0
	redis bool
	socks int  // listeners of one generation; 1 if 0
	unix  bool // on DIR/x.sock
	both  bool // with one listener for all generations as well as with lanes
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

type built struct {
	path string
	err  error
}

// builds has what build built, by GOARCH.
var builds sync.Map

// build builds testdata/server once for goarch. TestMain removes it.
func build(t *testing.T, goarch string) string {
	t.Helper()
	f, _ := builds.LoadOrStore(goarch, sync.OnceValue(func() built {
		dir, err := os.MkdirTemp("", "intercept")
		if err != nil {
			return built{err: err}
		}
		path := filepath.Join(dir, "server-"+goarch)
		cmd := exec.Command("go", "build", "-o", path, "./testdata/server")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOARCH="+goarch)
		if out, err := cmd.CombinedOutput(); err != nil {
			return built{err: fmt.Errorf("%w: %s", err, out)}
		}
		return built{path: path}
	}))
	r := f.(func() built)()
	if r.err != nil {
		t.Skip(r.err)
	}
	return r.path
}

const pyASGI = `
import asyncio, signal, sys
async def handle(r, w):
    try:
        await r.readuntil(b"\r\n\r\n")
        w.write(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await w.drain()
    finally:
        w.close()
async def main():
    s = await asyncio.start_server(handle, "127.0.0.1", int(sys.argv[1]))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    s.close()
    await asyncio.sleep(0.05)
asyncio.run(main())
`

const pyThreading = `
import http.server, signal, sys, threading
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"ok")
    def log_message(self, *a): pass
s = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), H)
s.daemon_threads = False
signal.signal(signal.SIGTERM, lambda *a: threading.Thread(target=s.shutdown).start())
s.serve_forever()
s.server_close()
`

const pyUvicorn = `
import sys, uvicorn
async def app(scope, receive, send):
    if scope["type"] != "http": return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", lifespan="off")
`

const nodeHTTP = `
const s = require("http").createServer((q, r) => r.end("ok")).listen(+process.argv[2], "127.0.0.1");
process.on("SIGTERM", () => s.close());
`

const nodeCluster = `
const cluster = require("cluster"), http = require("http");
if (cluster.isPrimary) {
  cluster.fork(); cluster.fork();
  process.on("SIGTERM", () => cluster.disconnect());
} else {
  http.createServer((q, r) => r.end("ok")).listen(+process.argv[2], "127.0.0.1");
}
`

const rubyWEBrick = `
require "webrick"
s = WEBrick::HTTPServer.new(BindAddress: "127.0.0.1", Port: ARGV[0].to_i, AccessLog: [], Logger: WEBrick::Log.new(File::NULL))
s.mount_proc("/") { |q, r| r.body = "ok" }
trap("TERM") { s.shutdown }
s.start
`

const javaHTTP = `
import com.sun.net.httpserver.*; import java.net.*;
public class S { public static void main(String[] a) throws Exception {
  HttpServer s = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(a[0])), 0);
  s.createContext("/", x -> { x.sendResponseHeaders(200, 2); x.getResponseBody().write("ok".getBytes()); x.close(); });
  Runtime.getRuntime().addShutdownHook(new Thread(() -> s.stop(1)));
  s.start(); } }
`

const javaBlocking = `
import java.net.*;
public class B { public static void main(String[] a) throws Exception {
  ServerSocket s = new ServerSocket(Integer.parseInt(a[0]), 50, InetAddress.getByName("127.0.0.1"));
  for (;;) { Socket c = s.accept(); new Thread(() -> { try (c) {
    c.getInputStream().read(new byte[4096]);
    c.getOutputStream().write("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok".getBytes()); c.shutdownOutput();
    while (c.getInputStream().read() >= 0) {} } catch (Exception e) {} }).start(); } } }
`

func nginx(reuseport string) func(t *testing.T, dir string, port uint16) *exec.Cmd {
	return func(t *testing.T, dir string, port uint16) *exec.Cmd {
		// One pid file for each start: the old master removes its own at the end.
		pid, err := os.CreateTemp(dir, "pid")
		if err != nil {
			t.Fatal(err)
		}
		_ = pid.Close()
		conf := pid.Name() + ".conf"
		writeFile(t, conf, fmt.Sprintf(`daemon off; worker_processes 2; pid %s; error_log %s/error.log;
events { worker_connections 64; }
http { access_log off; client_body_temp_path %[2]s/a; proxy_temp_path %[2]s/b; fastcgi_temp_path %[2]s/c; uwsgi_temp_path %[2]s/d; scgi_temp_path %[2]s/e;
server { listen 127.0.0.1:%d %s; location / { return 200 ok; } } }
`, pid.Name(), dir, port, reuseport))
		return exec.Command("nginx", "-p", dir, "-e", dir+"/error.log", "-c", conf)
	}
}

func script(program, text string) func(t *testing.T, dir string, port uint16) *exec.Cmd {
	return func(t *testing.T, dir string, port uint16) *exec.Cmd {
		path := filepath.Join(dir, "script.js") // node goes by the ending
		writeFile(t, path, text)
		return exec.Command(program, path, fmt.Sprint(port))
	}
}

func java(class, text string) func(t *testing.T, dir string, port uint16) *exec.Cmd {
	return func(t *testing.T, dir string, port uint16) *exec.Cmd {
		if _, err := os.Stat(filepath.Join(dir, class+".class")); err != nil {
			writeFile(t, filepath.Join(dir, class+".java"), text)
			if out, err := exec.Command("javac", "-d", dir, filepath.Join(dir, class+".java")).CombinedOutput(); err != nil {
				t.Skipf("javac: %v: %s", err, out)
			}
		}
		return exec.Command("java", "-XX:TieredStopAtLevel=1", "-Xmx32m", "-cp", dir, class, fmt.Sprint(port))
	}
}

var servers = []server{
	{name: "go", needs: []string{"go"}, both: true, cmd: func(t *testing.T, _ string, port uint16) *exec.Cmd {
		return exec.Command(build(t, "amd64"), fmt.Sprintf("127.0.0.1:%d", port))
	}},
	{name: "go dual stack", needs: []string{"go"}, cmd: func(t *testing.T, _ string, port uint16) *exec.Cmd {
		return exec.Command(build(t, "amd64"), fmt.Sprintf(":%d", port))
	}},
	{name: "go 386", needs: []string{"go"}, cmd: func(t *testing.T, _ string, port uint16) *exec.Cmd {
		return exec.Command(build(t, "386"), fmt.Sprintf("127.0.0.1:%d", port))
	}},
	{name: "go unix", needs: []string{"go"}, unix: true, cmd: func(t *testing.T, dir string, _ uint16) *exec.Cmd {
		return exec.Command(build(t, "amd64"), "unix:"+dir+"/x.sock")
	}},
	{name: "C blocking", needs: []string{"cc"}, both: true, cmd: func(t *testing.T, dir string, port uint16) *exec.Cmd {
		bin := filepath.Join(dir, "blocking")
		if _, err := os.Stat(bin); err != nil {
			if out, err := exec.Command("cc", "-o", bin, "testdata/blocking.c").CombinedOutput(); err != nil {
				t.Skipf("cc: %v: %s", err, out)
			}
		}
		return exec.Command(bin, fmt.Sprint(port))
	}},
	{name: "python -m http.server", needs: []string{"/usr/bin/python3"}, cmd: func(_ *testing.T, dir string, port uint16) *exec.Cmd {
		cmd := exec.Command("/usr/bin/python3", "-m", "http.server", "--bind", "127.0.0.1", fmt.Sprint(port))
		cmd.Dir = dir
		return cmd
	}},
	{name: "python threading", needs: []string{"/usr/bin/python3"}, cmd: script("/usr/bin/python3", pyThreading)},
	{name: "python asyncio", needs: []string{"/usr/bin/python3"}, cmd: script("/usr/bin/python3", pyASGI)},
	{name: "uvicorn", needs: []string{"/usr/bin/python3"}, cmd: func(t *testing.T, dir string, port uint16) *exec.Cmd {
		if err := exec.Command("/usr/bin/python3", "-c", "import uvicorn").Run(); err != nil {
			t.Skip("no uvicorn")
		}
		return script("/usr/bin/python3", pyUvicorn)(t, dir, port)
	}},
	{name: "node", needs: []string{"node"}, cmd: script("node", nodeHTTP)},
	{name: "node cluster", needs: []string{"node"}, cmd: script("node", nodeCluster)},
	{name: "ruby webrick", needs: []string{"ruby"}, cmd: script("ruby", rubyWEBrick)},
	{name: "php -S", needs: []string{"php"}, stop: unix.SIGINT, cmd: func(t *testing.T, dir string, port uint16) *exec.Cmd {
		writeFile(t, filepath.Join(dir, "index.php"), "ok")
		return exec.Command("php", "-S", fmt.Sprintf("127.0.0.1:%d", port), "-t", dir)
	}},
	{name: "nginx", needs: []string{"nginx"}, both: true, stop: unix.SIGQUIT, cmd: nginx("")},
	{name: "nginx reuseport", needs: []string{"nginx"}, stop: unix.SIGQUIT, socks: 2, cmd: nginx("reuseport")},
	{name: "redis", needs: []string{"redis-server"}, redis: true, cmd: func(_ *testing.T, dir string, port uint16) *exec.Cmd {
		return exec.Command("redis-server", "--bind", "127.0.0.1", "--port", fmt.Sprint(port), "--save", "", "--dir", dir)
	}},
	{name: "java httpserver", needs: []string{"java", "javac"}, cmd: java("S", javaHTTP)},
	{name: "java blocking", needs: []string{"java", "javac"}, cmd: java("B", javaBlocking)},
}

// TestServers rolls unmodified servers over, and kills them, under a load of
// new connections: none may be refused. A connection that the old process had
// accepted and then dropped is that server's own doing, and is only counted:
// this holder has no gate.
func TestServers(t *testing.T) {
	for _, s := range servers {
		lanes := !s.unix && s.socks == 0
		if lanes {
			t.Run(s.name+"/lanes", func(t *testing.T) { rollServer(t, s, true) })
		}
		if !lanes || s.both {
			t.Run(s.name+"/shared", func(t *testing.T) { rollServer(t, s, false) })
		}
	}
}

// roll is a server in a test.
type roll struct {
	server
	t     *testing.T
	h     *memHolder
	dir   string
	port  uint16
	count int // generations so far
}

// launch starts the next generation and waits until it listens.
func (r *roll) launch() *generation {
	r.t.Helper()
	r.count++
	g := start(r.t, r.h, r.count, Options{Unlink: r.unix}, ServerOptions{}, r.cmd(r.t, r.dir, r.port))
	for end := time.Now().Add(deadline); r.h.listens(r.count) < max(r.socks, 1); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("generation %d does not listen\n%s\n%s", r.count, g.stderr.String(), r.h.log())
		}
	}
	return g
}

// listens counts the listeners that a generation uses.
func (h *memHolder) listens(number int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, c := range h.calls {
		if (strings.HasPrefix(c, "listen held") || strings.HasPrefix(c, "learn")) && strings.HasSuffix(c, fmt.Sprintf(" gen %d", number)) {
			n++
		}
	}
	return n
}

func rollServer(t *testing.T, s server, lanes bool) {
	for _, program := range s.needs {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
	dir, err := os.MkdirTemp("", "intercept")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // after the last process of it
	r := roll{server: s, t: t, h: newHolder(t), dir: dir, port: freePort(t)}
	r.h.lanes = lanes
	stop := s.stop
	if stop == 0 {
		stop = unix.SIGTERM
	}

	g := r.launch()
	network, addr := "tcp", fmt.Sprintf("127.0.0.1:%d", r.port)
	if s.unix {
		network, addr = "unix", dir+"/x.sock"
	}
	l := startTraffic(network, addr, s.redis)
	l.more(t, 10)
	const rollouts, crashes = 3, 2
	for range rollouts {
		next := r.launch()
		if lanes {
			next.holder.steer()
		}
		l.more(t, 10)
		g.term(stop)
		r.h.release()
		g = next
		l.more(t, 10)
	}
	dropped := l.failed.Load()
	for range crashes {
		g.kill()
		g = r.launch()
		l.more(t, 10)
	}
	said := l.end()
	t.Logf("%s; %d of the failed in %d rollouts, the others in %d crashes", said, dropped, rollouts, crashes)
	if l.refused.Load() != 0 {
		t.Errorf("%s\n%s", said, r.h.log())
	}
	// With lanes each rollout has a new listener, and each crash the old one.
	learned, lent := max(s.socks, 1), max(s.socks, 1)*(rollouts+crashes)
	if lanes {
		learned, lent = 1+rollouts, crashes
	}
	if n := r.h.count("learn"); n != learned {
		t.Errorf("%d listeners learned, want %d\n%s", n, learned, r.h.log())
	}
	if n := r.h.count("lend"); n != lent {
		t.Errorf("%d listeners lent, want %d\n%s", n, lent, r.h.log())
	}
	r.h.mu.Lock()
	events := len(r.h.events)
	r.h.mu.Unlock()
	if events != 0 {
		t.Errorf("events:\n%s", r.h.log())
	}
}
