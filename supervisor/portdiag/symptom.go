package portdiag

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Symptom is what a program's error line says of a bind that failed.
type Symptom struct {
	Program string     `json:"program"`           // whose words they are: Node, Kestrel, nginx, ...
	Errno   unix.Errno `json:"-"`                 // 0 when the line names a port but no reason
	Address string     `json:"address,omitempty"` // as ParseTargets reads it; "" when the message names none
	Line    string     `json:"line"`              // the line that says it
}

// Recognise looks in the output of a program for the line by which servers
// and runtimes report a failed bind. The first line that names an address
// wins over one that does not. False: nothing of the kind.
//
// The words are those of the table in symptoms; a message that is not among
// them but says "address already in use" and has an address in it is
// recognised as well.
func Recognise(output string) (Symptom, bool) {
	var vague *Symptom
	table := symptoms()
	lines := strings.Split(output, "\n")
	for _, line := range lines {
		if len(line) > 4096 {
			line = line[:4096] // no runtime's message is longer; regexps need not see more
		}
		if !suspicious(line) {
			continue
		}
		s, ok := recogniseLine(table, line)
		if !ok {
			continue
		}
		if s.Address != "" {
			// A port without a reason ("Port 3000 is in use") needs none; but a
			// reason seen earlier belongs to it.
			if s.Errno == 0 && vague != nil {
				s.Errno = vague.Errno
			}
			return s, true
		}
		if vague == nil {
			vague = &s
		}
	}
	if vague == nil {
		return Symptom{}, false
	}
	return *vague, true
}

// suspicious keeps the expressions away from the lines of a log that cannot
// match any: each row of the table has one of these words.
func suspicious(line string) bool {
	for _, word := range []string{
		"use", "bind", "Bind", "port", "listen", "errno", "Errno", "error", "EADDR", "EACCES", "denied", "assign",
		"Os {", "eaddrinuse", "Connector", "Connection", "Address", "address",
	} {
		if strings.Contains(line, word) {
			return true
		}
	}
	return false
}

// symptom is one way of saying it. The groups of the expression: addr is an
// address as a whole, or host and port, or path; net the network.
type symptom struct {
	program string
	re      *regexp.Regexp
	sample  string // a real line, for the tests and the documentation
	errno   unix.Errno
}

// symptoms is the table of known messages, the special before the general.
// It is built when asked for: only `why` needs it, and a supervisor starts
// without compiling forty expressions.
func symptoms() []symptom {
	const (
		hostPort = `(?P<addr>\[[0-9a-fA-F:.%\w]*\]:\d+|[^\s:,;'"()]*:\d+|[0-9a-fA-F:]*:\d+)`
		tuple    = `\('(?P<host>[^']*)', (?P<port>\d+)(?:, \d+, \d+)?\)`
	)
	of := func(program, expr, sample string, errno ...unix.Errno) symptom {
		s := symptom{program: program, re: regexp.MustCompile(expr), sample: sample}
		if len(errno) > 0 {
			s.errno = errno[0]
		}
		return s
	}
	return []symptom{
		of("Kestrel", `Failed to bind to address (?P<addr>https?://\S+?)[:.]? *(?:address already in use|$)`,
			"System.IO.IOException: Failed to bind to address http://127.0.0.1:5000: address already in use.", unix.EADDRINUSE),
		of("Kestrel", `Unable to bind to (?P<addr>https?://\S+) on the (?:IPv[46] )?(?:loopback )?interface: '(?P<why>[^']*)'`,
			"warn: Microsoft.AspNetCore.Server.Kestrel[0] Unable to bind to http://localhost:5000 on the IPv6 loopback interface: 'Cannot assign requested address'."),
		of("Kestrel", `System\.Net\.Sockets\.SocketException(?: \(0x80004005\))?(?: \((?P<num>\d+)\))?: (?P<why>Address already in use|Permission denied|Cannot assign requested address)(?: (?P<addr>\S+:\d+))?`,
			"Unhandled exception. System.Net.Sockets.SocketException (98): Address already in use"),

		of("Node", `(?:listen|bind) (?P<why>E[A-Z]+)(?:: [a-z ]+)?(?:[: ]) ?(?P<path>/\S+|\\0\S+)$`,
			"Error: listen EADDRINUSE: address already in use /tmp/x.sock"),
		of("Node", `listen (?P<why>EADDRINUSE|EACCES|EADDRNOTAVAIL|EAFNOSUPPORT|EPERM)(?:: [a-z ]+)?:? (?P<v6any>::):(?P<port>\d+)`,
			"Error: listen EADDRINUSE: address already in use :::3000"),
		of("Node", `listen (?P<why>EADDRINUSE|EACCES|EADDRNOTAVAIL|EAFNOSUPPORT|EPERM)(?:: [a-z ]+)?:? (?P<host>\S*):(?P<port>\d+)\b`,
			"Error: listen EADDRINUSE: address already in use 127.0.0.1:3000"),
		of("Node", `bind (?P<why>EADDRINUSE|EACCES|EADDRNOTAVAIL|EAFNOSUPPORT|EPERM)(?:: [a-z ]+)?:? (?P<udphost>\S*):(?P<port>\d+)\b`,
			"Error: bind EADDRINUSE 0.0.0.0:53"),

		of("Docker", `Bind for `+hostPort+` failed: port is already allocated`,
			"docker: Error response from daemon: driver failed programming external connectivity on endpoint web (8a3f): Bind for 0.0.0.0:8080 failed: port is already allocated.", unix.EADDRINUSE),
		of("Docker", `failed to bind host port(?: for)? (?P<addr>\[[0-9a-fA-F:]*\]:\d+|[0-9.]*:\d+)(?::[^ /]*)?(?:/(?P<net>tcp|udp))?: (?P<why>.*)`,
			"Error response from daemon: failed to set up container networking: driver failed programming external connectivity on endpoint web: failed to bind host port for 0.0.0.0:8080:172.17.0.2:80/tcp: address already in use"),
		of("Docker", `exposing port (?P<net>TCP|UDP) `+hostPort+` -> `,
			"Error response from daemon: Ports are not available: exposing port TCP 0.0.0.0:5000 -> 127.0.0.1:0: listen tcp 0.0.0.0:5000: bind: address already in use", unix.EADDRINUSE),
		of("Podman", `cannot expose privileged port (?P<port>\d+)`,
			"Error: rootlessport cannot expose privileged port 80, you can add 'net.ipv4.ip_unprivileged_port_start=80' to /etc/sysctl.conf (currently 1024)", unix.EACCES),

		of("nginx", `bind\(\) to (?:unix:(?P<path>.+?)|(?P<addr>\S+)) failed \((?P<num>\d+): [^)]*\)`,
			"nginx: [emerg] bind() to 0.0.0.0:80 failed (98: Address already in use)"),
		of("Apache", `\((?P<num>\d+)\)[^:]*: AH\d+: make_sock: could not bind to address `+hostPort,
			"(98)Address already in use: AH00072: make_sock: could not bind to address [::]:80"),
		of("HAProxy", `cannot bind (?:UNIX )?socket \((?P<why>[^)]*)\)(?: for)? \[(?P<addr>[^\]]*(?:\][^\]]*)?)\]$`,
			"[ALERT]    (1) : Starting frontend web: cannot bind socket (Address already in use) [0.0.0.0:80]"),
		of("lighttpd", `\(network\.c\.\d+\) (?:can't )?bind(?:\(\)| to socket:?) `+hostPort+`:? (?P<why>.*)`,
			"(network.c.537) bind() 0.0.0.0:80: Address already in use"),
		of("Redis", `(?:Creating Server TCP listening socket|Could not create server TCP listening socket) (?P<addr>\S+:\d+): bind: (?P<why>.*)`,
			"# Could not create server TCP listening socket *:6379: bind: Address already in use"),
		of("PostgreSQL", `could not bind IPv[46] address "(?P<pghost>[^"]*)": (?P<why>.*)`,
			`LOG:  could not bind IPv4 address "127.0.0.1": Address already in use`),
		of("PostgreSQL", `postmaster already running on port (?P<port>\d+)`,
			`HINT:  Is another postmaster already running on port 5432? If not, wait a few seconds and retry.`, unix.EADDRINUSE),
		of("MySQL", `another (?:mysqld|mariadbd) server running on port: ?(?P<port>\d+)`,
			"[ERROR] Do you already have another mysqld server running on port: 3306 ?", unix.EADDRINUSE),
		of("sshd", `Bind to port (?P<port>\d+) on (?P<host>\S+) failed: (?P<why>.*)`,
			"error: Bind to port 22 on 0.0.0.0 failed: Address already in use."),
		of("ssh", `^bind \[(?P<host>[^\]]*)\]:(?P<port>\d+): (?P<why>.*)`,
			"bind [127.0.0.1]:8080: Address already in use"),
		of("systemd", `Failed to (?:create listening socket|listen on) ?\(?(?P<addr>[^\s()]*)\)?: (?P<why>.*)`,
			"web.socket: Failed to create listening socket ([::]:80): Address already in use"),

		of("Python", `error while attempting to bind on address `+tuple+`: (?P<why>.*)`,
			"OSError: [Errno 98] error while attempting to bind on address ('127.0.0.1', 8000): address already in use"),
		of("gunicorn", `Connection in use: `+tuple,
			"[2026-11-20 10:00:00 +0000] [7] [ERROR] Connection in use: ('127.0.0.1', 8000)", unix.EADDRINUSE),
		of("gunicorn", `Connection in use: (?P<path>/\S+)`,
			"[ERROR] Connection in use: /run/app.sock", unix.EADDRINUSE),

		of("PHP", `unable to bind listening socket for address '(?P<addr>[^']*)': (?P<why>.*)`,
			"ERROR: unable to bind listening socket for address '127.0.0.1:9000': Address already in use (98)"),
		of("PHP", `An(?:other)? (?:another )?FPM instance seems to already listen on (?P<addr>\S+)`,
			"ERROR: An another FPM instance seems to already listen on /run/php/php-fpm.sock", unix.EADDRINUSE),
		of("PHP", `Failed to listen on (?P<addr>\S+:\d+) \(reason: (?P<why>[^)]*)\)`,
			"[Sat Nov 21 10:00:00 2026] Failed to listen on localhost:8000 (reason: Address already in use)"),
		of("PHP", `stream_socket_server\(\): Unable to connect to (?P<addr>\S+) \((?P<why>[^)]*)\)`,
			"PHP Warning:  stream_socket_server(): Unable to connect to tcp://127.0.0.1:8000 (Address already in use) in /srv/s.php on line 3"),

		of("Ruby", `(?P<why>[A-Z][a-z ]+) - bind\(2\) for "?(?P<host>[^"\s]*)"? port (?P<port>\d+)`,
			"server.rb:3:in `initialize': Address already in use - bind(2) for \"127.0.0.1\" port 3000 (Errno::EADDRINUSE)"),
		of("Ruby", `(?P<why>[A-Z][a-z ]+) - bind\(2\) for (?P<addr>\S+:\d+)`,
			"Address already in use - bind(2) for 127.0.0.1:3000 (Errno::EADDRINUSE)"),
		of("Ruby", `(?P<why>[A-Z][a-z ]+) - (?:connect|bind)\(2\) for (?P<path>/\S+)`,
			"Address already in use - bind(2) for /tmp/puma.sock (Errno::EADDRINUSE)"),

		of("Go", `(?:listen|ListenPacket) (?P<net>unix(?:gram|packet)?) (?P<path>.+?): bind: (?P<why>[a-z ]+)`,
			"listen unix /run/x.sock: bind: address already in use"),
		of("Go", `listen (?P<net>(?:tcp|udp)[46]?) (?P<addr>\S*:\d+): (?:bind|socket|listen): (?P<why>[a-z ]+)`,
			"2026/11/21 10:00:00 listen tcp :8080: bind: address already in use"),

		of("Deno", `AddrInUse: Address already in use \(os error 98\)`,
			"error: Uncaught (in promise) AddrInUse: Address already in use (os error 98)", unix.EADDRINUSE),
		of("Rust", `error binding to (?P<addr>\S+:\d+): .*?(?P<why>[A-Z][a-z ]+) \(os error \d+\)`,
			"thread 'main' panicked: error binding to 0.0.0.0:3000: error creating server listener: Address already in use (os error 98)"),
		of("Rust", `Os \{ code: (?P<num>\d+), kind: \w+, message: "[^"]*" \}`,
			`Error: Os { code: 98, kind: AddrInUse, message: "Address already in use" }`),
		of("Rust", `(?P<why>Address already in use|Permission denied|Cannot assign requested address) \(os error (?P<num>\d+)\)`,
			"Error: Address already in use (os error 98)"),

		of("Spring Boot", `(?:[Pp]ort )(?P<port>\d+) was already in use`,
			"Web server failed to start. Port 8080 was already in use.", unix.EADDRINUSE),
		of("Quarkus", `Port (?P<port>\d+) seems to be in use by another process`,
			"Port 8080 seems to be in use by another process. Quarkus may already be running or the port is used by another application.", unix.EADDRINUSE),
		of("Jetty", `Failed to bind to [^/\s]*/(?P<addr>\S+:\d+)`,
			"java.io.IOException: Failed to bind to 0.0.0.0/0.0.0.0:8080", unix.EADDRINUSE),
		of("Tomcat", `Failed to initialize component \[Connector\["https?-\w+-(?P<port>\d+)"\]\]`,
			`Failed to initialize component [Connector["http-nio-8080"]]`, unix.EADDRINUSE),
		of("Java", `java\.net\.BindException: (?P<why>Address already in use|Permission denied|Cannot assign requested address)(?:[^:]*?: (?P<addr>\S+:\d+))?`,
			`Exception in thread "main" java.net.BindException: Address already in use (Bind failed)`),
		of("Java", `(?:NativeIoException|ChannelException).*bind\(\.\.\)[^:]*(?:: | with error\(s\): )(?P<why>Address already in use|Permission denied|Cannot assign requested address)`,
			"io.netty.channel.unix.Errors$NativeIoException: bind(..) failed: Address already in use"),

		of("Bun", `Is port (?P<port>\d+) in use\?`,
			"error: Failed to start server. Is port 3000 in use?", unix.EADDRINUSE),
		of("Erlang", `:eaddrinuse`,
			"[error] Failed to start Ranch listener MyApp.Endpoint.HTTP in :ranch_tcp:listen([port: 4000]) for reason :eaddrinuse (address already in use)", unix.EADDRINUSE),

		of("Python", `\[Errno (?P<num>98|13|99|97)\] (?:Address already in use|Permission denied|Cannot assign requested address|Address family not supported by protocol)`,
			"OSError: [Errno 98] Address already in use"),
		of("Django", `That port is already in use`,
			"Error: That port is already in use.", unix.EADDRINUSE),
		of("Flask", `Port (?P<port>\d+) is in use by another program`,
			"Port 5000 is in use by another program. Either identify and stop that program, or start the server with a different port.", unix.EADDRINUSE),

		// What everybody else says, with the address anywhere in the line.
		of("", `(?i)port (?P<port>\d+) (?:is |was )?(?:already )?(?:in use|being used|occupied|allocated|bound|taken)`,
			"Error: Port 5173 is already in use", unix.EADDRINUSE),
		of("", `(?i)(?:address|port)(?: is)? (?:already )?in use[^\[\d/]*`+hostPort,
			"server: Address already in use: 0.0.0.0:8080", unix.EADDRINUSE),
		of("", `(?i)`+hostPort+`.*(?:address|port)(?: is)? (?:already )?in use`,
			"cannot listen on 127.0.0.1:8080: Address already in use", unix.EADDRINUSE),
		of("", `(?i)on (?:TCP |UDP )?port (?P<port>\d+)\b.*(?:address|port)(?: is)? (?:already )?in use`,
			"failed to listen on TCP port 11211: Address already in use", unix.EADDRINUSE),
		of("", `(?i)for port (?P<port>\d+): (?P<why>Address already in use|Permission denied)`,
			"dnsmasq: failed to create listening socket for port 53: Address already in use"),
		of("", `(?i)\baddress (?:is )?already in use\b|\bEADDRINUSE\b`,
			"bind: Address already in use", unix.EADDRINUSE),
	}
}

func recogniseLine(table []symptom, line string) (Symptom, bool) {
	line = strings.TrimRight(line, " \t\r")
	for _, t := range table {
		m := t.re.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		s := Symptom{Program: t.program, Errno: t.errno, Line: strings.TrimSpace(line)}
		group := func(name string) string {
			if i := t.re.SubexpIndex(name); i >= 0 {
				return m[i]
			}
			return ""
		}
		if n, err := strconv.Atoi(group("num")); err == nil {
			s.Errno = unix.Errno(n)
		}
		if e := errnoOf(group("why")); e != 0 {
			s.Errno = e
		}
		s.Address = symptomAddress(t.program, group)
		return s, true
	}
	return Symptom{}, false
}

// symptomAddress puts the pieces of a message together in the grammar of
// ParseTargets. A piece that is no address after all gives "".
func symptomAddress(program string, group func(string) string) string {
	network := strings.ToLower(group("net"))
	if path := group("path"); path != "" {
		path = strings.Replace(path, `\0`, "@", 1)
		if network == "" || network == "unix" {
			return "unix:" + path
		}
		return network + ":" + path
	}
	var s string
	port := group("port")
	switch {
	case group("v6any") != "":
		s = "[::]:" + port
	case group("udphost") != "":
		s, network = join(group("udphost"), port), "udp"
	case port != "":
		s = join(group("host"), port)
	case group("addr") != "":
		s = strings.TrimRight(group("addr"), ".,")
		if strings.HasPrefix(s, "/") || strings.HasPrefix(s, "unix:") || strings.Contains(s, "://") {
			return s
		}
	}
	if s == "" {
		return ""
	}
	// "::1:8080" and ":::8080" are how some print IPv6 without brackets.
	if i := strings.LastIndexByte(s, ':'); i > 0 && !strings.HasPrefix(s, "[") && strings.Contains(s[:i], ":") {
		if _, err := netip.ParseAddr(s[:i]); err != nil {
			return ""
		}
		s = "[" + s[:i] + "]" + s[i:]
	}
	if network != "" {
		return network + "://" + s
	}
	return s
}

func join(host, port string) string {
	if strings.Contains(host, ":") && !strings.HasPrefix(host, "[") {
		host = "[" + host + "]"
	}
	return host + ":" + port
}

// errnoOf reads the words of strerror(3) and the names that runtimes use.
func errnoOf(words string) unix.Errno {
	w := strings.ToLower(strings.TrimSpace(words))
	for _, e := range []struct {
		text  string
		errno unix.Errno
	}{
		{"address already in use", unix.EADDRINUSE},
		{"address in use", unix.EADDRINUSE},
		{"eaddrinuse", unix.EADDRINUSE},
		{"permission denied", unix.EACCES},
		{"eacces", unix.EACCES},
		{"operation not permitted", unix.EPERM},
		{"eperm", unix.EPERM},
		{"cannot assign requested address", unix.EADDRNOTAVAIL},
		{"address not available", unix.EADDRNOTAVAIL},
		{"eaddrnotavail", unix.EADDRNOTAVAIL},
		{"address family not supported", unix.EAFNOSUPPORT},
		{"eafnosupport", unix.EAFNOSUPPORT},
		{"no such file or directory", unix.ENOENT},
		{"enoent", unix.ENOENT},
		{"file name too long", unix.ENAMETOOLONG},
		{"invalid argument", unix.EINVAL},
		{"einval", unix.EINVAL},
		{"not a directory", unix.ENOTDIR},
		{"read-only file system", unix.EROFS},
		{"no such device", unix.ENODEV},
	} {
		if strings.Contains(w, e.text) {
			return e.errno
		}
	}
	return 0
}
