package servers

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// server is one row of the table.
type server struct {
	run   string   // the script that runs it, as a user would
	title string   // in the table
	needs []string // programs and files beside supervise
	tells []string // the command that prints its version, on its first line

	module string // of Go that it is built from: see build
	unix   string // it listens on this unix socket, in its folder; empty: on the port
	talk   *talk  // nil: HTTP
	rate   int    // new connections a second, at most; 0: as -rate says
	note   string // below the table
	alone  bool   // two generations cannot overlap: "supervise restart" stops one and then starts the next
}

// name is that of the test: "nginx", "nginx.env".
func (s *server) name() string {
	folder, script, _ := strings.Cut(s.run, "/")
	return folder + strings.TrimPrefix(script, "run")
}

// python3 is the system's, to which Debian's packages belong.
const python3 = "/usr/bin/python3"

func version(words ...string) []string { return words }

// ofPython asks for the version of an installed package.
func ofPython(name string) []string {
	return version(python3, "-c", "from importlib.metadata import version; print(version('"+name+"'))")
}

var (
	goVersion  = version("go", "env", "GOVERSION")
	javaTells  = version("java", "--version")
	nodeTells  = version("node", "--version")
	nginxTells = version("nginx", "-v")
)

// dist is where Debian's packages put modules of Python.
const dist = "/usr/lib/python3/dist-packages/"

// Servers that Debian has not, or has too old.
const (
	caddy   = "github.com/caddyserver/caddy/v2@v2.11.9"
	traefik = "github.com/traefik/traefik/v3@v3.5.3"
	coredns = "github.com/coredns/coredns@v1.12.4"
)

// Notes below the table.
const (
	traefikNote = "It listens before it knows its routes, and answers 404 until then. A rollout waits for a page (`--ready /`); after a crash the clients in the queue are answered at once, and so."
	dovecotNote = "Two masters cannot share a base_dir: in place of rollouts the table has restarts (`supervise restart`), in which clients wait in the queue. Dovecot itself takes up to 6 s to stop."
	mariadbNote = "Two servers cannot share a data folder: in place of rollouts the table has restarts (`supervise restart`), in which clients wait in the queue."
	redisNote   = "Two generations overlap for a moment. That is measured here without any data on disk, which would not bear it."
	opensshNote = "At most 20 connections a second, since each is a process. Sessions live on when the listener is replaced or dies (`--kill-mode process`)."
	standinNote = "ASP.NET Core has no runtime here. This program decides exactly as `UseSystemd()` does (LISTEN_PID the exact text of its pid, LISTEN_FDS digits only, 1 to INT_MAX-3), listens once more on what it is given, and drains as Kestrel does. Program.cs beside it is measured in its place by whoever has `dotnet`."
	pumaNote    = "Puma binds no path at which somebody answers: on a unix socket it must be told."
	unlinkNote  = "It removes the path at its end, though it did not make it. With `intercept` beside `fd` its unlink(2) is answered; without, the path is gone for the moment until supervise has put it back."
)

var servers = []server{
	{run: "gohttp/run", title: "Go net/http, static", needs: []string{"go"}, tells: goVersion},
	{run: "gohttp/run.386", title: "Go net/http, GOARCH=386", needs: []string{"go", amd64}, tells: goVersion},
	{run: "tableflip/run", title: "Go net/http, tableflip", needs: []string{"go"}, tells: goVersion},
	{run: "tableflip/run.bind", title: "Go net/http, tableflip", needs: []string{"go"}, tells: goVersion},
	{run: "tableflip/run.intercept", title: "Go net/http, tableflip", needs: []string{"go"}, tells: goVersion},
	{run: "grace/run", title: "Go net/http, facebookgo/grace", needs: []string{"go"}, tells: goVersion},
	{run: "grace/run.bind", title: "Go net/http, facebookgo/grace", needs: []string{"go"}, tells: goVersion},
	{run: "endless/run", title: "Go net/http, endless", needs: []string{"go"}, tells: goVersion},
	{run: "overseer/run", title: "Go net/http, overseer", needs: []string{"go"}, tells: goVersion},
	{run: "goagain/run", title: "Go net/http, goagain", needs: []string{"go"}, tells: goVersion},
	{run: "node/run", title: "Node http", needs: []string{"node"}, tells: nodeTells},
	{run: "node/run.fd", title: "Node http, `listen({fd})`", needs: []string{"node"}, tells: nodeTells},
	{run: "node/run.unix", title: "Node http, unix socket", needs: []string{"node"}, tells: nodeTells, unix: "web.sock"},
	{run: "nodecluster/run", title: "Node cluster, 2 workers", needs: []string{"node"}, tells: nodeTells},
	{run: "nodecluster/run.fd", title: "Node cluster, `listen({fd})`", needs: []string{"node"}, tells: nodeTells},
	{run: "fastify/run", title: "Fastify, `listen({fd})`", needs: []string{"node", "npm"}, tells: version("node", "-p", `require("./fastify/package.json").dependencies.fastify`)},
	{run: "pythonhttp/run", title: "Python ThreadingHTTPServer, shutdown() on TERM", needs: []string{python3}, tells: version(python3, "--version")},
	{run: "pythonhttp/run.plain", title: "python -m http.server, killed by TERM", needs: []string{python3}, tells: version(python3, "--version")},
	{run: "asyncio/run", title: "Python asyncio", needs: []string{python3}, tells: version(python3, "--version")},
	{run: "uvicorn/run", title: "uvicorn", needs: []string{"uvicorn"}, tells: version("uvicorn", "--version")},
	{run: "uvicorn/run.fd", title: "uvicorn, `--fd`", needs: []string{"uvicorn"}, tells: version("uvicorn", "--version")},
	{run: "gunicorn/run", title: "gunicorn, 2 sync workers", needs: []string{"gunicorn"}, tells: version("gunicorn", "--version")},
	{run: "gunicorn/run.threads", title: "gunicorn, 2 workers of 4 threads", needs: []string{"gunicorn"}, tells: version("gunicorn", "--version")},
	{run: "gunicorn/run.uvicorn", title: "gunicorn, 2 uvicorn workers", needs: []string{"gunicorn", dist + "uvicorn"}, tells: version("gunicorn", "--version")},
	{run: "gunicorn/run.bind", title: "gunicorn, 2 sync workers", needs: []string{"gunicorn"}, tells: version("gunicorn", "--version")},
	{run: "gunicorn/run.inherited", title: "gunicorn, 2 sync workers", needs: []string{"gunicorn"}, tells: version("gunicorn", "--version")},
	{run: "gunicorn/run.unix", title: "gunicorn, 2 sync workers, unix socket", needs: []string{"gunicorn"}, tells: version("gunicorn", "--version"), unix: "web.sock", note: unlinkNote},
	{run: "hypercorn/run", title: "hypercorn", needs: []string{"hypercorn"}, tells: ofPython("hypercorn")},
	{run: "daphne/run", title: "daphne", needs: []string{python3, dist + "daphne"}, tells: ofPython("daphne")},
	{run: "twisted/run", title: "Twisted web", needs: []string{"twistd3"}, tells: version("twistd3", "--version")},
	{run: "twisted/run.bind", title: "Twisted web", needs: []string{"twistd3"}, tells: version("twistd3", "--version")},
	{run: "uwsgi/run", title: "uWSGI, master and 2 workers", needs: []string{"uwsgi", "/usr/lib/uwsgi/plugins/python3_plugin.so"}, tells: version("uwsgi", "--version")},
	{run: "uwsgi/run.bind", title: "uWSGI, master and 2 workers", needs: []string{"uwsgi", "/usr/lib/uwsgi/plugins/python3_plugin.so"}, tells: version("uwsgi", "--version")},
	{run: "webrick/run", title: "Ruby WEBrick", needs: []string{"ruby", "/var/lib/dpkg/info/ruby-webrick.list"}, tells: version("ruby", "--version")},
	{run: "puma/run", title: "Puma", needs: []string{"puma"}, tells: version("puma", "--version")},
	{run: "puma/run.cluster", title: "Puma, 2 workers", needs: []string{"puma"}, tells: version("puma", "--version")},
	{run: "puma/run.inherited", title: "Puma", needs: []string{"puma"}, tells: version("puma", "--version")},
	{run: "puma/run.bind", title: "Puma", needs: []string{"puma"}, tells: version("puma", "--version")},
	{run: "puma/run.unix", title: "Puma, unix socket", needs: []string{"puma"}, tells: version("puma", "--version"), unix: "web.sock", note: pumaNote},
	{run: "unicorn/run", title: "Unicorn", needs: []string{"unicorn"}, tells: version("unicorn", "--version")},
	{run: "unicorn/run.bind", title: "Unicorn", needs: []string{"unicorn"}, tells: version("unicorn", "--version")},
	{run: "unicorn/run.inherited", title: "Unicorn", needs: []string{"unicorn"}, tells: version("unicorn", "--version")},
	{run: "einhorn/run", title: "Einhorn worker, Ruby", needs: []string{"ruby"}, tells: version("ruby", "--version")},
	{run: "starman/run", title: "Starman, 2 workers", needs: []string{"starman", "/usr/share/perl5/Net/Server/SS/PreFork.pm"}, tells: version("starman", "--version")},
	{run: "starman/run.bind", title: "Starman, 2 workers", needs: []string{"starman", "/usr/share/perl5/Net/Server/SS/PreFork.pm"}, tells: version("starman", "--version")},
	{run: "starlet/run", title: "Starlet, 4 workers", needs: []string{"plackup", "/usr/share/perl5/Plack/Handler/Starlet.pm"}, tells: version("perl", "-MStarlet", "-e", "print Starlet->VERSION")},
	{run: "php/run", title: "PHP built-in server", needs: []string{"php"}, tells: version("php", "--version")},
	{run: "phpfpm/run", title: "PHP-FPM, FastCGI", needs: []string{"php-fpm8.2"}, tells: version("php-fpm8.2", "--version"), talk: &fastCGI},
	{run: "phpfpm/run.bind", title: "PHP-FPM, FastCGI", needs: []string{"php-fpm8.2"}, tells: version("php-fpm8.2", "--version"), talk: &fastCGI},
	{run: "phpfpm/run.unix", title: "PHP-FPM, FastCGI, unix socket", needs: []string{"php-fpm8.2"}, tells: version("php-fpm8.2", "--version"), talk: &fastCGI, unix: "php.sock", note: unlinkNote},
	{run: "phpfpm/run.daemon", title: "PHP-FPM, FastCGI, in the background", needs: []string{"php-fpm8.2"}, tells: version("php-fpm8.2", "--version"), talk: &fastCGI},
	{run: "nginx/run", title: "nginx, 2 workers", needs: []string{"nginx"}, tells: nginxTells},
	{run: "nginx/run.reuseport", title: "nginx, 2 workers, `reuseport`", needs: []string{"nginx"}, tells: nginxTells},
	{run: "nginx/run.env", title: "nginx, 2 workers", needs: []string{"nginx"}, tells: nginxTells},
	{run: "nginx/run.unix", title: "nginx, 2 workers, unix socket", needs: []string{"nginx"}, tells: nginxTells, unix: "web.sock"},
	{run: "nginx/run.daemon", title: "nginx, 2 workers, in the background", needs: []string{"nginx"}, tells: nginxTells},
	{run: "haproxy/run", title: "HAProxy, master and worker", needs: []string{"haproxy"}, tells: version("haproxy", "-v")},
	{run: "haproxy/run.bind", title: "HAProxy, master and worker", needs: []string{"haproxy"}, tells: version("haproxy", "-v")},
	{run: "haproxy/run.daemon", title: "HAProxy, in the background", needs: []string{"haproxy"}, tells: version("haproxy", "-v")},
	{run: "apache/run", title: "Apache httpd, event", needs: []string{"apache2"}, tells: version("apache2", "-v")},
	{run: "lighttpd/run", title: "lighttpd", needs: []string{"lighttpd"}, tells: version("lighttpd", "-v")},
	{run: "lighttpd/run.bind", title: "lighttpd", needs: []string{"lighttpd"}, tells: version("lighttpd", "-v")},
	{run: "lighttpd/run.daemon", title: "lighttpd, in the background", needs: []string{"lighttpd"}, tells: version("lighttpd", "-v")},
	{run: "caddy/run", title: "Caddy", module: caddy},
	{run: "caddy/run.bind", title: "Caddy", module: caddy},
	{run: "traefik/run", title: "Traefik", module: traefik, note: traefikNote},
	{run: "coredns/run", title: "CoreDNS, DNS over TCP", module: coredns, talk: &dns},
	{run: "javahttp/run", title: "Java com.sun.net.httpserver, stop hook", needs: []string{"java", "javac"}, tells: javaTells},
	{run: "javablocking/run", title: "Java ServerSocket, blocking", needs: []string{"java", "javac"}, tells: javaTells},
	{run: "javainherited/run", title: "Java System.inheritedChannel()", needs: []string{"java", "javac"}, tells: javaTells},
	{run: "kestrel/run", title: "Kestrel, `UseSystemd()`", needs: []string{"dotnet"}, tells: version("dotnet", "--version")},
	{run: "kestrel/run.urls", title: "Kestrel", needs: []string{"dotnet"}, tells: version("dotnet", "--version")},
	{run: "kestrel/run.standin", title: "stand-in for Kestrel, `UseSystemd()`: no .NET here", needs: []string{python3}, tells: version(python3, "--version"), note: standinNote},
	{run: "kestrel/run.standin-urls", title: "stand-in for Kestrel: no .NET here", needs: []string{python3}, tells: version(python3, "--version"), note: standinNote},
	{run: "redis/run", title: "redis-server, PING", needs: []string{"redis-server"}, tells: version("redis-server", "--version"), talk: &redis, note: redisNote},
	{run: "openssh/run", title: "OpenSSH, banner", needs: []string{"/usr/sbin/sshd", asRoot}, tells: version("ssh", "-V"), talk: &ssh, rate: 20, note: opensshNote},
	{run: "openssh/run.bind", title: "OpenSSH, banner", needs: []string{"/usr/sbin/sshd", asRoot}, tells: version("ssh", "-V"), talk: &ssh, rate: 20, note: opensshNote},
	{run: "dovecot/run", title: "Dovecot, IMAP greeting", needs: []string{"dovecot", asRoot}, tells: version("dovecot", "--version"), talk: &imap, rate: 100, alone: true, note: dovecotNote},
	{run: "mariadb/run", title: "MariaDB, greeting", needs: []string{"mariadbd", "mysql_install_db"}, tells: version("mariadbd", "--version"), talk: &mysql, rate: 100, alone: true, note: mariadbNote},
	{run: "cblocking/run", title: "C, blocking accept(2), killed by TERM", needs: []string{"cc"}, tells: version("cc", "--version")},
}

// version is what the program says of itself, or that of its module.
func (s *server) version(t *testing.T) string {
	if _, v, ok := strings.Cut(s.module, "@v"); ok {
		return v
	}
	said, err := exec.Command(s.tells[0], s.tells[1:]...).CombinedOutput()
	if number := versionNumber.FindString(string(said)); err == nil && number != "" {
		return number
	}
	t.Errorf("%q says no version: %v: %s", s.tells, err, said)
	return ""
}

// versionNumber is the first number with a dot in it.
var versionNumber = regexp.MustCompile(`[0-9]+(\.[0-9]+)+`)
