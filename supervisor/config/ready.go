package config

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// What a probe does when nothing is said.
const (
	defaultProbeInterval = 100 * time.Millisecond
	defaultProbeTimeout  = time.Second
)

// ParseReady reads --ready and Ready=:
//
//	auto  notify  listening  exec
//	http://HOST[:PORT][/PATH]  http://unix:/run/x.sock:/path
//	/healthz             HTTP on the service's first tcp socket
//	:8080/healthz        HTTP on this port of localhost
//	tcp:ADDRESS          of the --listen grammar
//	tcp:NAME             of a socket
//	exec:COMMAND ARG...  split as systemd splits a command line
//	delay:2s
//
// Before it may stand interval=SPAN, between two tries of a probe, and
// timeout=SPAN, of one try, separated by blanks; after it too, except for exec:,
// where all that follows belongs to the command. So a URL keeps its own query:
//
//	http://127.0.0.1:8080/ready?full=1 interval=200ms timeout=2s
//	timeout=5s exec:/usr/bin/check --deep
//
// For /healthz URL is that path alone: the caller puts its socket before it.
func ParseReady(s string) (Ready, error) {
	r, err := parseReady(s)
	if err != nil {
		return Ready{}, fmt.Errorf("cannot read %q as readiness: %w", s, err)
	}
	return r, nil
}

func parseReady(s string) (Ready, error) {
	r := Ready{Interval: defaultProbeInterval, Timeout: defaultProbeTimeout}
	seen := map[string]bool{}
	when, rest := "", strings.TrimLeft(s, blanks)
	for rest != "" {
		word := rest
		if i := strings.IndexAny(rest, blanks); i >= 0 {
			word = rest[:i]
		}
		if command, ok := strings.CutPrefix(rest, "exec:"); ok && when == "" {
			return r, r.setCommand(command)
		}
		rest = strings.TrimLeft(rest[len(word):], blanks)
		key, value, ok := strings.Cut(word, "=")
		switch {
		case ok && (key == "interval" || key == "timeout"):
			if seen[key] {
				return r, fmt.Errorf("%s= is given twice", key)
			}
			seen[key] = true
			if err := r.setPace(key, value); err != nil {
				return r, err
			}
		case when != "":
			return r, fmt.Errorf("%q follows it; only interval=SPAN and timeout=SPAN may", word)
		default:
			when = word
		}
	}
	return r, r.setWhen(when)
}

func (r *Ready) setPace(key, value string) error {
	d, err := ParseDelay(value)
	switch {
	case err != nil:
		return err
	case d == 0:
		return fmt.Errorf("%s= cannot be 0; write for example %s=100ms", key, key)
	case key == "interval":
		r.Interval = d
	default:
		r.Timeout = d
	}
	return nil
}

func (r *Ready) setCommand(command string) error {
	words, err := SplitWords(command)
	if err != nil {
		return err
	}
	if len(words) == 0 || words[0] == "" {
		return errors.New("the command is missing; write exec:/usr/bin/check")
	}
	r.Kind, r.Command = ReadyCommand, words
	return nil
}

func (r *Ready) setWhen(when string) error {
	for kind, word := range plainReady() {
		if when == word {
			r.Kind = kind
			return nil
		}
	}
	scheme, rest, _ := strings.Cut(when, ":")
	switch {
	case when == "":
		return errors.New("it is empty; write for example auto, notify or /healthz")
	case scheme == "https":
		// TLS is a quarter of the program, in memory too, for everybody.
		return errors.New("https is not probed; write tcp:NAME, or a command that asks, as exec:curl -fksS URL")
	case scheme == "http":
		r.Kind, r.URL = ReadyHTTP, when
		return checkProbeURL(when)
	case scheme == "tcp":
		r.Kind, r.Address = ReadyTCP, rest
		return checkProbeAddress(rest)
	case scheme == "delay":
		d, err := ParseDelay(rest)
		r.Kind, r.Delay = ReadyDelay, d
		return err
	case when[0] == '/':
		r.Kind, r.URL = ReadyHTTP, when
		return checkProbeURL("http://localhost" + when)
	case when[0] == ':' && strings.Contains(when, "/"):
		r.Kind, r.URL = ReadyHTTP, "http://localhost"+when
		return checkProbeURL(r.URL)
	case when[0] == ':':
		return fmt.Errorf("%q alone says not how to ask; write tcp:%s or %s/path", when, when, when)
	}
	return errors.New("write auto, notify, listening, exec, http://..., /path, :PORT/path, tcp:ADDRESS, tcp:NAME, exec:COMMAND or delay:SPAN")
}

// plainReady are the kinds that are said by a word alone.
func plainReady() map[ReadyKind]string {
	return map[ReadyKind]string{
		ReadyAuto:      "auto",
		ReadyNotify:    "notify",
		ReadyListening: "listening",
		ReadyExec:      "exec",
	}
}

func checkProbeURL(s string) error {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return fmt.Errorf("%q is no URL; write %s://127.0.0.1:8080/path", s, strings.TrimSuffix(scheme, ":"))
	}
	if path, ok := strings.CutPrefix(rest, "unix:"); ok {
		path, _, _ = strings.Cut(path, ":")
		return checkUnixPath(path)
	}
	u, err := url.Parse(s)
	if err != nil {
		return err
	}
	if port := u.Port(); port != "" {
		if _, err := parsePort(port); err != nil {
			return err
		}
	}
	switch {
	case u.Hostname() == "":
		return fmt.Errorf("%q has no host; write %s://127.0.0.1:8080/path", s, scheme)
	case u.User != nil:
		return fmt.Errorf("%q has a user in it, which a probe does not send", s)
	}
	return nil
}

// checkProbeAddress takes an address of the --listen grammar, of a stream
// socket, or what can be a socket's name; Validate looks whether there is one.
func checkProbeAddress(s string) error {
	if CheckName(s) == nil && !allDigits(s) {
		return nil
	}
	sockets, err := ParseListen(s)
	if err != nil {
		return err
	}
	for _, socket := range sockets {
		switch {
		case socket.Network != "tcp" && socket.Network != "unix":
			return fmt.Errorf("a %s socket accepts no connections; write tcp:127.0.0.1:8080", socket.Network)
		case !socket.IsUnix() && socket.Addr.Port() == 0:
			return errors.New("port 0 is no port to connect to")
		}
	}
	return nil
}

// String writes r so that ParseReady reads it back.
func (r Ready) String() string {
	var words []string
	if r.Interval != 0 && r.Interval != defaultProbeInterval {
		words = append(words, "interval="+compact(r.Interval))
	}
	if r.Timeout != 0 && r.Timeout != defaultProbeTimeout {
		words = append(words, "timeout="+compact(r.Timeout))
	}
	switch r.Kind {
	case ReadyHTTP:
		words = append(words, r.URL)
	case ReadyTCP:
		words = append(words, "tcp:"+r.Address)
	case ReadyCommand:
		words = append(words, "exec:"+JoinWords(r.Command))
	case ReadyDelay:
		words = append(words, "delay:"+compact(r.Delay))
	case ReadyAuto, ReadyNotify, ReadyListening, ReadyExec:
		words = append(words, plainReady()[r.Kind])
	default:
		words = append(words, strconv.Itoa(int(r.Kind)))
	}
	return strings.Join(words, " ")
}

// compact is FormatDuration as one word.
func compact(d time.Duration) string {
	return strings.ReplaceAll(FormatDuration(d), " ", "")
}
