package portdiag

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/supervise/supervise/supervisor/config"
)

// Target is one address that somebody wants to bind.
type Target struct {
	Text    string         // as it was written
	Network string         // "tcp", "udp", "unix", "unixgram" or "unixpacket"
	Addr    netip.AddrPort // tcp and udp
	V6Only  bool           // an IPv6 wildcard without IPv4
	Port    bool           // only a port was named: every address is looked at
	Path    string         // unix; abstract names begin with '@'
}

// resolveTimeout bounds the look-up of a host name: the answer is about this
// machine, whose own names come from a file.
const resolveTimeout = 2 * time.Second

// ParseTargets reads what people have at hand: what config.ParseListen reads
// (ports, addresses, URLs, several separated by ';', unix paths), host names,
// URLs with a path, ss(8)'s "*:80", and error lines of known programs; these
// last give the Symptom too.
func ParseTargets(text string) ([]Target, *Symptom, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil, nil, errors.New("there is no address; write for example 5000, 127.0.0.1:80 or /run/x.sock")
	}
	targets, err := parseTargetList(text)
	if err == nil {
		return targets, nil, nil
	}
	s, ok := Recognise(text)
	if !ok {
		return nil, nil, err
	}
	if s.Address == "" {
		return nil, &s, nil
	}
	targets, err = parseTargetList(s.Address)
	return targets, &s, err
}

// TargetOf is the address of a configured socket.
func TargetOf(s config.Socket) Target {
	return Target{Text: s.Source, Network: s.Network, Addr: s.Addr, V6Only: s.V6Only, Path: s.Path}
}

func parseTargetList(text string) ([]Target, error) {
	if t, ok := unixTarget(text); ok {
		return []Target{t}, nil // a path may have a ';' in it
	}
	var all []Target
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == ';' }) {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		ts, err := parseTarget(part)
		if err != nil {
			return nil, err
		}
		all = append(all, ts...)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("cannot read %q as an address", text)
	}
	return all, nil
}

func parseTarget(part string) ([]Target, error) {
	if t, ok := unixTarget(part); ok {
		return []Target{t}, nil
	}
	written := part
	if u, err := url.Parse(part); err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" {
		part = u.Scheme + "://" + u.Host // the rest is not about the address
	}
	sockets, err := config.ParseListen(part)
	if err != nil {
		resolved, rerr := resolve(part)
		if rerr != nil {
			return nil, rerr
		}
		if resolved == nil {
			if inner := errors.Unwrap(err); inner != nil {
				err = inner
			}
			return nil, fmt.Errorf("cannot read %q as an address: %w", part, err)
		}
		sockets = nil
		for _, r := range resolved {
			more, err := config.ParseListen(r)
			if err != nil {
				return nil, err
			}
			sockets = append(sockets, more...)
		}
	}
	var ts []Target
	for _, s := range sockets {
		ts = append(ts, Target{
			Text: written, Network: s.Network, Addr: s.Addr, V6Only: s.V6Only,
			Port: strings.Trim(part, ":0123456789") == "",
			Path: s.Path,
		})
	}
	return ts, nil
}

// unixTarget reads what can only be a path. config.ParseListen would refuse
// the paths that cannot be bound, and those are what is asked about.
func unixTarget(s string) (Target, bool) {
	t := Target{Text: s, Network: "unix"}
	for _, scheme := range []string{"unixgram", "unixpacket", "unix"} {
		if rest, ok := strings.CutPrefix(s, scheme+":"); ok {
			t.Network = scheme
			t.Path = strings.TrimPrefix(rest, "//")
			return t, t.Path != ""
		}
	}
	for _, head := range []string{"http://unix:", "https://unix:"} {
		if rest, ok := strings.CutPrefix(s, head); ok {
			t.Path, _, _ = strings.Cut(rest, ":")
			return t, t.Path != ""
		}
	}
	if strings.HasPrefix(s, "/") || strings.HasPrefix(s, "@") || strings.HasPrefix(s, "./") || strings.HasPrefix(s, "../") {
		t.Path = s
		return t, !strings.Contains(s, "\n")
	}
	if !strings.ContainsAny(s, " :") && (strings.HasSuffix(s, ".sock") || strings.HasSuffix(s, ".socket") || isSocketFile(s)) {
		t.Path = s
		return t, true
	}
	return t, false
}

func isSocketFile(s string) bool {
	fi, err := os.Lstat(s)
	return err == nil && fi.Mode()&os.ModeSocket != 0
}

// resolve replaces a host name by the addresses that it has. nil and no error:
// there is no name in it.
func resolve(part string) ([]string, error) {
	head, rest := "", part
	if i := strings.Index(part, "://"); i >= 0 {
		head, rest = part[:i+3], part[i+3:]
	}
	host, port := rest, ""
	if i := strings.LastIndexByte(rest, ':'); i >= 0 {
		host, port = rest[:i], rest[i:]
	}
	if !hostName(host) || port == "" && !strings.HasPrefix(head, "http") {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), resolveTimeout)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("cannot find the address of the host %q: %w", host, err)
	}
	var all []string
	for _, ip := range ips {
		ip = ip.Unmap()
		if ip.Is6() {
			all = append(all, head+"["+ip.String()+"]"+port)
		} else {
			all = append(all, head+ip.String()+port)
		}
	}
	return all, nil
}

// hostName says that s can be the name of a host (RFC 1123), and is no number.
func hostName(s string) bool {
	if s == "" || len(s) > 253 || strings.Trim(s, "0123456789.") == "" {
		return false
	}
	for _, label := range strings.Split(strings.TrimSuffix(s, "."), ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for _, r := range label {
			if !(r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z') {
				return false
			}
		}
	}
	return true
}

// String is the address as a person writes it, with the network.
func (t Target) String() string {
	switch {
	case t.Path != "":
		return t.Network + " " + printable(t.Path, 0)
	case t.Port:
		return fmt.Sprintf("%s port %d", t.Network, t.Addr.Port())
	case t.V6Only:
		return fmt.Sprintf("%s %v (IPv6 only)", t.Network, t.Addr)
	}
	return t.Network + " " + t.Addr.String()
}

func (t Target) unix() bool { return strings.HasPrefix(t.Network, "unix") }

// span is what a bind of t would cover.
func (t Target) span() span { return spanOf(t.Addr.Addr(), t.V6Only) }

// abs is the path made absolute, for messages and commands.
func (t Target) abs() string {
	if strings.HasPrefix(t.Path, "@") {
		return t.Path
	}
	if p, err := filepath.Abs(t.Path); err == nil {
		return p
	}
	return t.Path
}
