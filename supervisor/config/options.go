package config

import (
	"fmt"
	"io/fs"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// DefaultSocketOptions are the options of a socket of which nothing is said.
func DefaultSocketOptions() SocketOptions {
	return SocketOptions{
		Mode:          0o666,
		DirectoryMode: 0o755,
		Mark:          -1,
		Priority:      -1,
		IPTOS:         -1,
		IPTTL:         -1,
		RemoveOnStop:  true,
	}
}

// SocketDirective describes an option of a socket, for help and man pages.
type SocketDirective struct {
	Section string // "Socket" or "X-Supervise"
	Name    string // of the directive: KeepAliveTimeSec
	Option  string // in the query of --listen: keep-alive-time
	Arg     string // what the value is
	For     string // the networks that have it
	Help    string
}

// SocketDirectives lists every option of a socket.
func SocketDirectives() []SocketDirective {
	var all []SocketDirective
	for _, o := range socketOptions() {
		all = append(all, SocketDirective{
			Section: o.section,
			Name:    o.directive,
			Option:  o.key,
			Arg:     o.arg,
			For:     strings.Join(o.networks, ", "),
			Help:    o.help,
		})
	}
	return all
}

// SetOption sets an option by the name of its directive or in any spelling of
// --listen: KeepAliveTimeSec, keep-alive-time, keepalivetime. An empty value
// gives the default back. An option that has no meaning for the network of s is
// kept and does nothing, as in a .socket unit; Unused tells of it.
func (s *Socket) SetOption(name, value string) error {
	o, err := findSocketOption(name)
	if err != nil {
		return err
	}
	return o.apply(s, value)
}

// Unused lists the options of s that are set and have no meaning for its
// network, such as mode for tcp: worth a warning, and no error in systemd.
func (s Socket) Unused() []string {
	var unused []string
	for _, o := range socketOptions() {
		if o.get(&s) != "" && !slices.Contains(o.networks, s.Network) {
			unused = append(unused, o.key)
		}
	}
	return unused
}

// parseOptions reads the query of a --listen address.
func (s *Socket) parseOptions(query string) error {
	seen := map[string]bool{}
	for _, pair := range strings.Split(query, "&") {
		key, value, hasValue := strings.Cut(pair, "=")
		if key == "" {
			return fmt.Errorf("the option before %q has no name; write ?backlog=128&nodelay=yes", "="+value)
		}
		o, err := findSocketOption(key)
		if err != nil {
			return err
		}
		if seen[o.key] {
			return fmt.Errorf("option %s is given twice", o.key)
		}
		seen[o.key] = true
		switch {
		case !hasValue && o.arg == argBool:
			value = "yes"
		case value == "":
			return fmt.Errorf("option %s has no value; write %s=%s", o.key, o.key, o.arg)
		}
		if err := o.apply(s, value); err != nil {
			return err
		}
	}
	return nil
}

// findSocketOption finds an option by directive or key, in any spelling.
func findSocketOption(name string) (socketOption, error) {
	var known []string
	wanted := foldOption(name)
	for _, o := range socketOptions() {
		if foldOption(o.key) == wanted || foldOption(o.directive) == wanted {
			return o, nil
		}
		known = append(known, o.key)
	}
	return socketOption{}, fmt.Errorf("option %q is unknown; known are %s", name, strings.Join(known, ", "))
}

// foldOption makes the spellings of an option equal: case, '-', '_' and the
// unit suffix Sec do not count.
func foldOption(name string) string {
	name = strings.ReplaceAll(strings.ReplaceAll(name, "-", ""), "_", "")
	return strings.TrimSuffix(strings.ToLower(name), "sec")
}

// socketOption is one row of the table of options.
type socketOption struct {
	key       string // canonical, as String writes it
	directive string
	section   string
	arg       string
	networks  []string // that it has a meaning for
	help      string
	set       func(*Socket, string) error
	get       func(*Socket) string // "" when it is the default
	reset     func(*Socket)
}

func (o socketOption) apply(s *Socket, value string) error {
	if value == "" {
		o.reset(s)
		return nil
	}
	if err := o.set(s, value); err != nil {
		return fmt.Errorf("option %s: %w", o.key, err)
	}
	return nil
}

// What values are, as help shows them.
const (
	argBool    = "BOOLEAN"
	argSpan    = "DURATION"
	argNumber  = "NUMBER"
	argSize    = "BYTES"
	argMode    = "MODE"
	argSignal  = "SIGNAL"
	argPath    = "PATH"
	argUser    = "USER"
	argGroup   = "GROUP"
	argDevice  = "INTERFACE"
	argExitSet = "STATUS..."
	argLimit   = "SOFT[:HARD]"
)

// socketOptions is the table. String writes the options in this order.
func socketOptions() []socketOption {
	tcp := []string{"tcp"}
	udp := []string{"udp"}
	ip := []string{"tcp", "udp"}
	unix := []string{"unix", "unixgram", "unixpacket"}
	queue := []string{"tcp", "unix", "unixpacket"}
	every := []string{"tcp", "udp", "unix", "unixgram", "unixpacket"}

	return []socketOption{
		option("backlog", "Backlog", argNumber, queue, "length of the accept queue; 0 is the largest the kernel gives",
			func(s *Socket) *int { return &s.Options.Backlog }, parseBacklog, strconv.Itoa),
		option("mode", "SocketMode", argMode, unix, "access mode of the path, in octal",
			func(s *Socket) *fs.FileMode { return &s.Options.Mode }, parseMode, formatMode),
		option("directory-mode", "DirectoryMode", argMode, unix, "access mode of directories made for the path, in octal",
			func(s *Socket) *fs.FileMode { return &s.Options.DirectoryMode }, parseMode, formatMode),
		option("user", "SocketUser", argUser, unix, "owner of the path, name or number",
			func(s *Socket) *string { return &s.Options.User }, parseOwner, plainText),
		option("group", "SocketGroup", argGroup, unix, "group of the path, name or number",
			func(s *Socket) *string { return &s.Options.Group }, parseOwner, plainText),
		option("no-delay", "NoDelay", argBool, tcp, "send small segments at once (TCP_NODELAY)",
			func(s *Socket) *bool { return &s.Options.NoDelay }, ParseBool, FormatBool),
		option("keep-alive", "KeepAlive", argBool, tcp, "probe idle connections (SO_KEEPALIVE)",
			func(s *Socket) *bool { return &s.Options.KeepAlive }, ParseBool, FormatBool),
		option("keep-alive-time", "KeepAliveTimeSec", argSpan, tcp, "idle time before the first probe",
			func(s *Socket) *time.Duration { return &s.Options.KeepAliveTime }, parseSeconds, FormatDuration),
		option("keep-alive-interval", "KeepAliveIntervalSec", argSpan, tcp, "time between two probes",
			func(s *Socket) *time.Duration { return &s.Options.KeepAliveIntv }, parseSeconds, FormatDuration),
		option("keep-alive-probes", "KeepAliveProbes", argNumber, tcp, "unanswered probes before the connection is dead",
			func(s *Socket) *int { return &s.Options.KeepAliveProb }, numberIn(1, 127), strconv.Itoa),
		option("defer-accept", "DeferAcceptSec", argSpan, tcp, "wake the server only when data is there, or after this time",
			func(s *Socket) *time.Duration { return &s.Options.DeferAccept }, parseSeconds, FormatDuration),
		option("free-bind", "FreeBind", argBool, ip, "bind an address that the machine does not have yet",
			func(s *Socket) *bool { return &s.Options.FreeBind }, ParseBool, FormatBool),
		option("transparent", "Transparent", argBool, ip, "accept for foreign addresses (IP_TRANSPARENT)",
			func(s *Socket) *bool { return &s.Options.Transparent }, ParseBool, FormatBool),
		option("bind-to-device", "BindToDevice", argDevice, ip, "listen on this interface only",
			func(s *Socket) *string { return &s.Options.BindToDevice }, parseDevice, plainText),
		option("mark", "Mark", argNumber, ip, "firewall mark of what is sent",
			func(s *Socket) *int { return &s.Options.Mark }, numberIn(0, math.MaxUint32), strconv.Itoa),
		option("priority", "Priority", argNumber, every, "priority of what is sent (SO_PRIORITY)",
			func(s *Socket) *int { return &s.Options.Priority }, numberIn(0, math.MaxInt32), strconv.Itoa),
		option("ip-tos", "IPTOS", argNumber, ip, "type of service: a number, low-delay, throughput, reliability or low-cost",
			func(s *Socket) *int { return &s.Options.IPTOS }, parseTOS, strconv.Itoa),
		option("ip-ttl", "IPTTL", argNumber, ip, "time to live, or hop limit, of what is sent",
			func(s *Socket) *int { return &s.Options.IPTTL }, numberIn(1, 255), strconv.Itoa),
		option("receive-buffer", "ReceiveBuffer", argSize, every, "size of the receive buffer; K, M and G are understood",
			func(s *Socket) *int { return &s.Options.ReceiveBuffer }, parseBuffer, strconv.Itoa),
		option("send-buffer", "SendBuffer", argSize, every, "size of the send buffer; K, M and G are understood",
			func(s *Socket) *int { return &s.Options.SendBuffer }, parseBuffer, strconv.Itoa),
		ours(option("fast-open", "FastOpen", argNumber, tcp, "length of the TCP Fast Open queue; 0 is off",
			func(s *Socket) *int { return &s.Options.FastOpen }, numberIn(0, math.MaxInt32), strconv.Itoa)),
		option("broadcast", "Broadcast", argBool, udp, "allow datagrams to broadcast addresses",
			func(s *Socket) *bool { return &s.Options.Broadcast }, ParseBool, FormatBool),
		option("pass-credentials", "PassCredentials", argBool, unix, "attach the sender's pid, user and group (SO_PASSCRED)",
			func(s *Socket) *bool { return &s.Options.PassCred }, ParseBool, FormatBool),
		option("reuse-port", "ReusePort", argBool, ip, "let other programs of the same user join the port",
			func(s *Socket) *bool { return &s.Options.ReusePort }, ParseBool, FormatBool),
		option("remove-on-stop", "RemoveOnStop", argBool, unix, "remove the path at the end",
			func(s *Socket) *bool { return &s.Options.RemoveOnStop }, ParseBool, FormatBool),
		ours(option("blocking", "Blocking", argBool, every, "lend the listener without O_NONBLOCK",
			func(s *Socket) *bool { return &s.Options.Blocking }, ParseBool, FormatBool)),
		ours(option("shared", "Shared", argBool, every, "one listener for all generations instead of lanes",
			func(s *Socket) *bool { return &s.Options.Shared }, ParseBool, FormatBool)),
		ours(option("optional", "Optional", argBool, every, "an address that cannot be used is a warning",
			func(s *Socket) *bool { return &s.Optional }, ParseBool, FormatBool)),
		bindIPv6Only(ip),
	}
}

// option makes a row for a value that lies at one place of a Socket.
func option[T comparable](key, directive, arg string, networks []string, help string,
	at func(*Socket) *T, parse func(string) (T, error), format func(T) string,
) socketOption {
	fresh := func() T { return *at(&Socket{Options: DefaultSocketOptions()}) }
	return socketOption{
		key: key, directive: directive, section: "Socket", arg: arg, networks: networks, help: help,
		set: func(s *Socket, value string) error {
			v, err := parse(value)
			if err == nil {
				*at(s) = v
			}
			return err
		},
		get: func(s *Socket) string {
			if v := *at(s); v != fresh() {
				return format(v)
			}
			return ""
		},
		reset: func(s *Socket) { *at(s) = fresh() },
	}
}

// ours moves a row to the section that systemd ignores.
func ours(o socketOption) socketOption {
	o.section = "X-Supervise"
	return o
}

// bindIPv6Only is BindIPv6Only=. It has a meaning for an IPv6 wildcard only, and
// is never written by String: the scheme tcp6 says the same.
func bindIPv6Only(networks []string) socketOption {
	wildcard := func(s *Socket) bool { return s.Addr.Addr() == netip.IPv6Unspecified() }
	return socketOption{
		key: "bind-ipv6-only", directive: "BindIPv6Only", section: "Socket",
		arg: "default|both|ipv6-only", networks: networks,
		help: "whether an IPv6 wildcard serves IPv4 too; default is both",
		set: func(s *Socket, value string) error {
			switch value {
			case "default", "both", "ipv6-only":
			default:
				return fmt.Errorf("cannot read %q: write default, both or ipv6-only", value)
			}
			if wildcard(s) {
				s.V6Only = value == "ipv6-only"
				s.DualStack = s.DualStack && !s.V6Only
			}
			return nil
		},
		get:   func(*Socket) string { return "" },
		reset: func(s *Socket) { s.V6Only = false },
	}
}

// ParseBool reads a boolean as systemd.syntax(7) has it: 1, yes, true, on and
// 0, no, false, off, and their first letters, in any case.
func ParseBool(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "1", "yes", "y", "true", "t", "on":
		return true, nil
	case "0", "no", "n", "false", "f", "off":
		return false, nil
	}
	return false, fmt.Errorf("cannot read %q as a boolean: write yes or no", s)
}

// FormatBool writes b as systemd does: yes or no.
func FormatBool(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// numberIn makes a parser for decimal numbers from low to high.
func numberIn(low, high int) func(string) (int, error) {
	return func(s string) (int, error) {
		n, err := strconv.Atoi(s)
		if err != nil || n < low || n > high {
			return 0, fmt.Errorf("cannot read %q: write a number from %d to %d", s, low, high)
		}
		return n, nil
	}
}

// parseBacklog takes also 4294967295, which systemd documents as its default and
// which means the most the kernel gives.
func parseBacklog(s string) (int, error) {
	if s == "4294967295" {
		return 0, nil
	}
	return numberIn(0, math.MaxInt32)(s)
}

func parseMode(s string) (fs.FileMode, error) {
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n > 0o777 {
		return 0, fmt.Errorf("cannot read %q as an access mode: write octal digits from 0000 to 0777", s)
	}
	return fs.FileMode(n), nil
}

func formatMode(m fs.FileMode) string { return fmt.Sprintf("%04o", uint32(m)) }

// parseOwner checks no more than that s can be written anywhere a user name can:
// whether there is such a user shows when the socket is made.
func parseOwner(s string) (string, error) {
	for _, r := range s {
		if r <= ' ' || r == 0x7f || strings.ContainsRune(":/;&?=", r) {
			return "", fmt.Errorf("cannot read %q as a user or group: %q is in it", s, r)
		}
	}
	return s, nil
}

func parseDevice(s string) (string, error) {
	if !validZone(s) || strings.ContainsAny(s, "&=") {
		return "", fmt.Errorf("cannot read %q as the name of a network interface", s)
	}
	return s, nil
}

func plainText(s string) string { return s }

// parseSeconds reads a span for a socket option that counts whole seconds up to
// 32767, the most that TCP_KEEPIDLE takes (tcp(7)). 0 is "not set".
func parseSeconds(s string) (time.Duration, error) {
	d, err := ParseDelay(s)
	switch {
	case err != nil:
		return 0, err
	case d%time.Second != 0 || d > 32767*time.Second:
		return 0, fmt.Errorf("cannot use %q: the kernel takes whole seconds up to 32767", s)
	}
	return d, nil
}

// parseTOS reads IPTOS=; the names are those of ip(7).
func parseTOS(s string) (int, error) {
	switch s {
	case "low-delay":
		return 0x10, nil
	case "throughput":
		return 0x08, nil
	case "reliability":
		return 0x04, nil
	case "low-cost":
		return 0x02, nil
	}
	n, err := numberIn(0, 255)(s)
	if err != nil {
		return 0, fmt.Errorf("cannot read %q: write a number from 0 to 255, low-delay, throughput, reliability or low-cost", s)
	}
	return n, nil
}

func parseBuffer(s string) (int, error) {
	n, err := parseSize(s)
	if err == nil && n > math.MaxInt32 {
		return 0, fmt.Errorf("cannot use %q: the kernel takes at most 2147483647 bytes", s)
	}
	return int(n), err
}
