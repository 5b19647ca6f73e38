package config

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// specifiers replaces "%" specifiers in the text of one unit (systemd.unit(5),
// "specifiers").
type specifiers struct {
	unit unitName
	file string // of the unit itself, also for its drop-ins
	host host
}

// host is what specifiers ask of the machine and of who runs the supervisor.
type host struct {
	getenv func(string) string
	user   bool // not root: the directories of a user's service manager
}

// expand replaces the specifiers in s. A '%' before what can be none stays, as
// in systemd: "100% sure".
func (p *specifiers) expand(s string) (string, error) {
	if strings.IndexByte(s, '%') < 0 {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] != '%':
			b.WriteByte(s[i])
			continue
		case i+1 == len(s):
			b.WriteByte('%')
			continue
		}
		i++
		c := s[i]
		switch {
		case c == '%':
			b.WriteByte('%')
		case strings.IndexByte(specifierLetters, c) >= 0:
			value, err := p.lookup(c)
			if err != nil {
				return "", fmt.Errorf("cannot replace %%%c in %q: %w; write %%%%%c for a plain %%%c", c, shorten(s), err, c, c)
			}
			b.WriteString(value)
		default:
			b.WriteByte('%')
			b.WriteByte(c)
		}
	}
	if b.Len() > maxUnitLine {
		return "", fmt.Errorf("what %q stands for is longer than %d bytes", shorten(s), maxUnitLine)
	}
	return b.String(), nil
}

// specifierLetters are those after which systemd takes '%' for a specifier.
const specifierLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

// lookup gives the value of one specifier.
func (p *specifiers) lookup(c byte) (string, error) {
	u := p.unit
	lastPart := u.prefix[strings.LastIndexByte(u.prefix, '-')+1:]
	switch c {
	case 'n':
		return u.String(), nil
	case 'N':
		return u.bare(), nil
	case 'p':
		return u.prefix, nil
	case 'P':
		return unescapeName(u.prefix), nil
	case 'i':
		return u.instance, nil
	case 'I':
		return unescapeName(u.instance), nil
	case 'j':
		return lastPart, nil
	case 'J':
		return unescapeName(lastPart), nil
	case 'f':
		name := u.prefix
		if u.at {
			name = u.instance
		}
		return "/" + strings.TrimLeft(unescapeName(name), "/"), nil
	case 'y', 'Y':
		file, err := filepath.Abs(p.file)
		if c == 'Y' {
			file = path.Dir(file)
		}
		return file, err
	}
	return p.host.lookup(c)
}

func (h host) lookup(c byte) (string, error) {
	switch c {
	case 'a':
		return architecture(), nil
	case 'b':
		id, err := firstLine("/proc/sys/kernel/random/boot_id")
		return strings.ReplaceAll(id, "-", ""), err
	case 'm':
		return firstLine("/etc/machine-id")
	case 'H':
		return os.Hostname()
	case 'l':
		name, err := os.Hostname()
		short, _, _ := strings.Cut(name, ".")
		return short, err
	case 'q':
		if pretty := fieldOf("/etc/machine-info", "PRETTY_HOSTNAME"); pretty != "" {
			return pretty, nil
		}
		return h.lookup('l')
	case 'v':
		var uts unix.Utsname
		err := unix.Uname(&uts)
		return unix.ByteSliceToString(uts.Release[:]), err
	case 'o', 'w', 'W', 'B', 'M', 'A':
		field := map[byte]string{'o': "ID", 'w': "VERSION_ID", 'W': "VARIANT_ID", 'B': "BUILD_ID", 'M': "IMAGE_ID", 'A': "IMAGE_VERSION"}[c]
		if value := fieldOf("/etc/os-release", field); value != "" {
			return value, nil
		}
		return fieldOf("/usr/lib/os-release", field), nil
	case 't', 'S', 'C', 'L', 'E':
		return h.root(c)
	case 'T', 'V':
		for _, name := range []string{"TMPDIR", "TEMP", "TMP"} {
			if dir := h.getenv(name); path.IsAbs(dir) {
				return dir, nil
			}
		}
		if c == 'V' {
			return "/var/tmp", nil
		}
		return "/tmp", nil
	case 'u', 'U', 'g', 'G', 'h', 's':
		return h.self(c)
	case 'd':
		return "", errors.New("credentials are not supported")
	}
	return "", errors.New("there is no such specifier")
}

// root is the directory below which those of the unit are: runtime, state,
// cache, logs, configuration.
func (h host) root(c byte) (string, error) {
	if !h.user {
		return map[byte]string{'t': "/run", 'S': "/var/lib", 'C': "/var/cache", 'L': "/var/log", 'E': "/etc"}[c], nil
	}
	variable := map[byte]string{'t': "XDG_RUNTIME_DIR", 'S': "XDG_STATE_HOME", 'C': "XDG_CACHE_HOME", 'L': "XDG_STATE_HOME", 'E': "XDG_CONFIG_HOME"}[c]
	dir := h.getenv(variable)
	if !path.IsAbs(dir) {
		if c == 't' {
			return "", errors.New("XDG_RUNTIME_DIR is not set")
		}
		home, err := h.self('h')
		if err != nil {
			return "", err
		}
		dir = path.Join(home, map[byte]string{'S': ".local/state", 'C': ".cache", 'L': ".local/state", 'E': ".config"}[c])
	}
	if c == 'L' {
		dir = path.Join(dir, "log")
	}
	return dir, nil
}

// self is the user that the supervisor runs as, whatever User= says.
func (h host) self(c byte) (string, error) {
	switch c {
	case 'U':
		return strconv.Itoa(os.Getuid()), nil
	case 'G':
		return strconv.Itoa(os.Getgid()), nil
	case 'g':
		if os.Getgid() == 0 {
			return "root", nil
		}
		g, err := user.LookupGroupId(strconv.Itoa(os.Getgid()))
		if err != nil {
			return "", err
		}
		return g.Name, nil
	case 'u':
		if os.Getuid() == 0 {
			return "root", nil
		}
		u, err := user.LookupId(strconv.Itoa(os.Getuid()))
		if err != nil {
			return "", err
		}
		return u.Username, nil
	}
	if c == 's' {
		return loginShell(), nil
	}
	if os.Getuid() == 0 {
		return "/root", nil
	}
	if home := h.getenv("HOME"); path.IsAbs(home) {
		return home, nil
	}
	u, err := user.LookupId(strconv.Itoa(os.Getuid()))
	if err != nil {
		return "", err
	}
	return u.HomeDir, nil
}

// loginShell is that of passwd(5).
func loginShell() string {
	data, err := os.ReadFile("/etc/passwd")
	if err == nil {
		for line := range strings.Lines(string(data)) {
			f := strings.Split(strings.TrimSpace(line), ":")
			if len(f) == 7 && f[2] == strconv.Itoa(os.Getuid()) && path.IsAbs(f[6]) {
				return f[6]
			}
		}
	}
	return "/bin/sh"
}

// architecture is the word of ConditionArchitecture=.
func architecture() string {
	switch runtime.GOARCH {
	case "amd64":
		return "x86-64"
	case "386":
		return "x86"
	}
	return runtime.GOARCH
}

func firstLine(file string) (string, error) {
	data, err := os.ReadFile(file)
	line, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimSpace(line), err
}

// fieldOf reads a file such as os-release(5); what is not there is empty.
func fieldOf(file, field string) string {
	env, err := ReadEnvFile("-" + file)
	if err != nil {
		return ""
	}
	value := ""
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, field+"="); ok {
			value = v
		}
	}
	return value
}
