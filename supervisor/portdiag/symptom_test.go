package portdiag

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSamples: each real line of the table is recognised by its own row, and
// what address it names can be read.
func TestSamples(t *testing.T) {
	table := symptoms()
	for i, row := range table {
		if row.sample == "" {
			t.Errorf("row %d (%s) has no sample", i, row.program)
			continue
		}
		m := row.re.FindStringSubmatch(row.sample)
		if m == nil {
			t.Errorf("%s: %q does not match its own sample %q", row.program, row.re, row.sample)
			continue
		}
		s, ok := Recognise("noise\n" + row.sample + "\nat more noise")
		if !ok || s.Program != row.program {
			t.Errorf("%q is taken for %q, not %q", row.sample, s.Program, row.program)
			continue
		}
		if s.Address == "" {
			continue
		}
		if _, err := parseTargetList(s.Address); err != nil {
			t.Errorf("%q: address %q: %v", row.sample, s.Address, err)
		}
	}
}

func TestRecognise(t *testing.T) {
	inuse, acces, notavail := unix.EADDRINUSE, unix.EACCES, unix.EADDRNOTAVAIL
	for _, c := range []struct {
		text, program, address string
		errno                  unix.Errno
	}{
		{"System.IO.IOException: Failed to bind to address http://127.0.0.1:5000: address already in use.", "Kestrel", "http://127.0.0.1:5000", inuse},
		{"      Unhandled exception. System.IO.IOException: Failed to bind to address http://[::]:5000: address already in use.", "Kestrel", "http://[::]:5000", inuse},
		{"warn: Unable to bind to http://localhost:5000 on the IPv6 loopback interface: 'Cannot assign requested address'.", "Kestrel", "http://localhost:5000", notavail},
		{"System.Net.Sockets.SocketException (13): Permission denied", "Kestrel", "", acces},
		{"Error: listen EADDRINUSE: address already in use :::3000", "Node", "[::]:3000", inuse},
		{"Error: listen EADDRINUSE :::3000", "Node", "[::]:3000", inuse},
		{"Error: listen EADDRINUSE: address already in use ::1:3000", "Node", "[::1]:3000", inuse},
		{"Error: listen EACCES: permission denied 0.0.0.0:80", "Node", "0.0.0.0:80", acces},
		{"Error: listen EADDRNOTAVAIL: address not available 10.9.9.9:3000", "Node", "10.9.9.9:3000", notavail},
		{"Error: listen EADDRINUSE: address already in use /tmp/x.sock", "Node", "unix:/tmp/x.sock", inuse},
		{"Error: bind EADDRINUSE 0.0.0.0:53", "Node", "udp://0.0.0.0:53", inuse},
		{"OSError: [Errno 98] Address already in use", "Python", "", inuse},
		{"OSError: [Errno 98] error while attempting to bind on address ('::1', 8000, 0, 0): address already in use", "Python", "[::1]:8000", inuse},
		{"ERROR:    [Errno 99] error while attempting to bind on address ('10.9.9.9', 8000): cannot assign requested address", "Python", "10.9.9.9:8000", notavail},
		{"PermissionError: [Errno 13] Permission denied", "Python", "", acces},
		{"[ERROR] Connection in use: ('0.0.0.0', 8000)", "gunicorn", "0.0.0.0:8000", inuse},
		{"2026/11/21 15:48:53 listen tcp :80: bind: permission denied", "Go", "tcp://:80", acces},
		{"panic: listen tcp4 10.9.9.9:80: bind: cannot assign requested address", "Go", "tcp4://10.9.9.9:80", notavail},
		{"listen udp [::1]:53: bind: address already in use", "Go", "udp://[::1]:53", inuse},
		{"listen unix /run/x.sock: bind: address already in use", "Go", "unix:/run/x.sock", inuse},
		{"listen unixgram /run/log: bind: no such file or directory", "Go", "unixgram:/run/log", unix.ENOENT},
		{"java.net.BindException: Address already in use", "Java", "", inuse},
		{"Web server failed to start. Port 8080 was already in use.", "Spring Boot", ":8080", inuse},
		{"java.io.IOException: Failed to bind to /0.0.0.0:8080", "Jetty", "0.0.0.0:8080", inuse},
		{"nginx: [emerg] bind() to [::]:80 failed (98: Address already in use)", "nginx", "[::]:80", inuse},
		{"2026/11/21 nginx: [emerg] bind() to unix:/run/x.sock failed (98: Address already in use)", "nginx", "unix:/run/x.sock", inuse},
		{"nginx: [emerg] bind() to 0.0.0.0:80 failed (13: Permission denied)", "nginx", "0.0.0.0:80", acces},
		{"`bind': Address already in use - bind(2) for \"0.0.0.0\" port 3000 (Errno::EADDRINUSE)", "Ruby", "0.0.0.0:3000", inuse},
		{"Permission denied - bind(2) for \"::\" port 80 (Errno::EACCES)", "Ruby", "[::]:80", acces},
		{"Failed to listen on localhost:8000 (reason: Address already in use)", "PHP", "localhost:8000", inuse},
		{"ERROR: unable to bind listening socket for address '/run/php.sock': No such file or directory (2)", "PHP", "/run/php.sock", unix.ENOENT},
		{`Error: Os { code: 98, kind: AddrInUse, message: "Address already in use" }`, "Rust", "", inuse},
		{`called Result::unwrap() on an Err value: Os { code: 13, kind: PermissionDenied, message: "Permission denied" }`, "Rust", "", acces},
		{"Bind for 0.0.0.0:8080 failed: port is already allocated", "Docker", "0.0.0.0:8080", inuse},
		{"Error starting userland proxy: listen tcp4 0.0.0.0:8080: bind: address already in use", "Go", "tcp4://0.0.0.0:8080", inuse},
		{"Bind for :::8080 failed: port is already allocated", "Docker", "[::]:8080", inuse},
		// An address in a later line than the reason.
		{"OSError: [Errno 98] Address already in use\nPort 5000 is in use by another program.", "Flask", ":5000", inuse},
	} {
		s, ok := Recognise(c.text)
		if !ok || s.Program != c.program || s.Address != c.address || s.Errno != c.errno {
			t.Errorf("%s\n  got %v, %s, %q, %v\n want %s, %q, %v", c.text, ok, s.Program, s.Address, s.Errno, c.program, c.address, c.errno)
		}
	}
	for _, text := range []string{
		"", "listening on :8080", "Server started on port 3000", "GET / 200", "address book in use",
		"{\"level\":\"info\",\"msg\":\"listen tcp :8080\"}",
		"bind-address = 127.0.0.1:3306",
	} {
		if s, ok := Recognise(text); ok {
			t.Errorf("%q is taken for %+v", text, s)
		}
	}
}

// TestRealPrograms runs what is installed here into a held address, and wants
// its message recognised.
func TestRealPrograms(t *testing.T) {
	if testing.Short() {
		t.Skip("starts compilers and virtual machines")
	}
	h := hold(t, "tcp 127.0.0.1:0 reuseaddr listen")
	at := h.at[0].String()
	port := at[strings.LastIndexByte(at, ':')+1:]
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	for _, c := range []struct {
		program string
		argv    []string
		address string // "" where the message names none
	}{
		{"Node", []string{"node", "-e", "require('http').createServer().listen(" + port + ", '127.0.0.1')"}, at},
		{"Python", []string{"python3", "-m", "http.server", "-b", "127.0.0.1", port}, ""},
		{"Python", []string{"python3", "-c", "import asyncio\nasync def m(): await asyncio.start_server(lambda r,w: 0, '127.0.0.1', " + port + ")\nasyncio.run(m())"}, at},
		{"Java", []string{"java", write("M.java", `class M { public static void main(String[] a) throws Exception { new java.net.ServerSocket(`+port+`, 5, java.net.InetAddress.getByName("127.0.0.1")); } }`)}, ""},
		{"Go", []string{"go", "run", write("m.go", "package main\nimport (\"log\"; \"net/http\")\nfunc main() { log.Fatal(http.ListenAndServe(\""+at+"\", nil)) }\n")}, "tcp://" + at},
		{"PHP", []string{"php", "-S", at}, at},
		{"Ruby", []string{"ruby", "-rsocket", "-e", "TCPServer.new('127.0.0.1', " + port + ")"}, at},
		{"nginx", []string{"nginx", "-p", dir, "-e", "stderr", "-g", "daemon off; pid " + dir + "/pid;", "-c", write("n.conf", "events {} http { access_log off; server { listen "+at+"; } }")}, at},
		{"Rust", []string{"sh", "-c", "rustc -o " + dir + "/r " + write("r.rs", `fn main() { std::net::TcpListener::bind("`+at+`").unwrap(); }`) + " 2>/dev/null && exec " + dir + "/r"}, ""},
	} {
		t.Run(c.program, func(t *testing.T) {
			tool := c.argv[0]
			if c.program == "Rust" {
				tool = "rustc"
			}
			if _, err := exec.LookPath(tool); err != nil {
				t.Skipf("no %s here", tool)
			}
			cmd := exec.Command(c.argv[0], c.argv[1:]...)
			cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GO111MODULE=off", "GORACE=")
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			if cmd.Run() == nil {
				t.Fatalf("did not fail:\n%s", &out)
			}
			s, ok := Recognise(out.String())
			if !ok || s.Program != c.program || s.Errno != unix.EADDRINUSE || s.Address != c.address {
				t.Errorf("got %v %+v (%v) from\n%s", ok, s, s.Errno, &out)
			}
		})
	}
}

func TestGuesses(t *testing.T) {
	for _, c := range []struct {
		line, env, address string
	}{
		{"python3 -m http.server", "", "8000"},
		{"python3 -m http.server 9001", "", "9001"},
		{"python3 -m http.server -b 127.0.0.1 9001", "", "127.0.0.1:9001"},
		{"python manage.py runserver 0.0.0.0:9000", "", "0.0.0.0:9000"},
		{"python manage.py runserver", "", "8000"},
		{"uvicorn app:app --host 127.0.0.1 --port 9000", "", "127.0.0.1:9000"},
		{"gunicorn -b 127.0.0.1:9000 app", "", "127.0.0.1:9000"},
		{"gunicorn --bind unix:/run/g.sock app", "", "unix:/run/g.sock"},
		{"./server -listen=:7000", "", ":7000"},
		{"./server -p7000", "", "7000"},
		{"java -jar app.jar", "", "8080"},
		{"java -jar app.jar --server.port=7001", "", "7001"},
		{"./server", "PORT=7002", "7002"},
		{"dotnet run", "ASPNETCORE_URLS=http://localhost:7003", "http://localhost:7003"},
		{"dotnet run --urls http://*:7004", "", "http://*:7004"},
		{"./server --verbose", "", ""},
	} {
		var env []string
		if c.env != "" {
			env = []string{c.env}
		}
		gs := Guesses(strings.Fields(c.line), env)
		got := ""
		if len(gs) > 0 {
			got = gs[0].Address
		}
		if got != c.address {
			t.Errorf("%s (%s): got %v, want %s", c.line, c.env, gs, c.address)
		}
	}
}

func FuzzRecognise(f *testing.F) {
	for _, row := range symptoms() {
		f.Add(row.sample)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, ok := Recognise(text)
		if ok && s.Address != "" && !strings.Contains(s.Address, "://") {
			_, _ = parseTargetList(s.Address)
		}
	})
}
