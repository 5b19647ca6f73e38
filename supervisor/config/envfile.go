package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

// maxEnvFile bounds what is read: the kernel takes 128 KiB for one variable and
// a quarter of the stack limit, 2 MiB, for all (execve(2)).
const maxEnvFile = 4 << 20

// ReadEnvFile reads an EnvironmentFile= of systemd.exec(5): path may be a
// wildcard of glob(7), and a '-' in front says that it may be missing.
// The result is K=V in the order of the file; a name may come twice.
func ReadEnvFile(path string) ([]string, error) {
	name, optional := strings.CutPrefix(path, "-")
	files := []string{name}
	if strings.ContainsAny(name, "*?[") {
		var err error
		if files, err = filepath.Glob(name); err != nil {
			return nil, fmt.Errorf("cannot read environment files %s: %w", name, err)
		}
		if len(files) == 0 && !optional {
			return nil, fmt.Errorf("cannot read environment files %s: none is there; write -%s if that is no fault", name, name)
		}
	}
	var env []string
	for _, file := range files {
		data, err := readRegular(file)
		if optional && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read environment file: %w", err)
		}
		more, err := ParseEnvFile(string(data))
		if err != nil {
			return nil, fmt.Errorf("cannot read environment file %s: %w", file, err)
		}
		env = append(env, more...)
	}
	return env, nil
}

// readRegular reads a file that is one: a fifo would hang the supervisor.
func readRegular(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	if info.Size() > maxEnvFile {
		return nil, fmt.Errorf("%s has %d bytes; %d is the most", path, info.Size(), maxEnvFile)
	}
	return os.ReadFile(path)
}

// ParseEnvFile reads the text of an EnvironmentFile= by the rules of
// systemd.exec(5): empty lines, lines without '=' and lines that begin with '#'
// or ';' do not count; values may be plain, 'quoted' or "quoted", over several
// lines too; a backslash at the end of a line continues it.
//
// Here a name that is none (as in "export A=1") is an error with its line;
// systemd logs it and goes on without.
func ParseEnvFile(text string) ([]string, error) {
	if !utf8.ValidString(text) {
		return nil, errors.New("it is not UTF-8")
	}
	if i := strings.IndexByte(text, 0); i >= 0 {
		return nil, fmt.Errorf("line %d has a NUL byte", 1+strings.Count(text[:i], "\n"))
	}
	var env []string
	for r := (envReader{text: text}); !r.end(); {
		start := r.pos
		key, value, ok := r.assignment()
		if !ok {
			continue
		}
		if !validEnvName(key) {
			begin := start + len(text[start:]) - len(strings.TrimLeft(text[start:], blanks))
			line := 1 + strings.Count(text[:begin], "\n")
			return nil, fmt.Errorf("line %d: %q is no name of a variable; names have letters, digits and '_'", line, key)
		}
		env = append(env, key+"="+value)
	}
	return env, nil
}

// validEnvName is the rule of systemd.exec(5) and POSIX: letters, digits and
// '_', no digit first.
func validEnvName(s string) bool {
	for i, r := range s {
		if r != '_' && (r|0x20 < 'a' || r|0x20 > 'z') && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return s != ""
}

// envReader walks through the text of an environment file.
type envReader struct {
	text string
	pos  int
}

func (r *envReader) end() bool { return r.pos >= len(r.text) }

func (r *envReader) next() byte {
	c := r.text[r.pos]
	r.pos++
	return c
}

// assignment reads one line, or more if its value goes on. ok is false for a
// line that says nothing.
func (r *envReader) assignment() (key, value string, ok bool) {
	for !r.end() && strings.IndexByte(blanks, r.text[r.pos]) >= 0 {
		r.pos++
	}
	rest := r.text[r.pos:]
	stop := strings.IndexAny(rest, "\n\r")
	if stop < 0 {
		stop = len(rest)
	}
	equal := strings.IndexByte(rest[:stop], '=')
	if equal < 0 || rest[0] == '#' || rest[0] == ';' {
		r.pos += stop
		return "", "", false
	}
	r.pos += equal + 1
	return strings.TrimRight(rest[:equal], blanks), r.value(), true
}

// value reads what follows the '=', to the end of the line that it ends on.
// Quoted pieces may follow one another; after the first plain character the rest
// of the line is plain.
func (r *envReader) value() string {
	var b strings.Builder
	for !r.end() {
		switch c := r.next(); c {
		case '\n', '\r':
			return b.String()
		case ' ', '\t':
		case '\'':
			r.single(&b)
		case '"':
			r.double(&b)
		default:
			r.pos--
			r.plain(&b)
			return b.String()
		}
	}
	return b.String()
}

func (r *envReader) single(b *strings.Builder) {
	for !r.end() {
		c := r.next()
		if c == '\'' {
			return
		}
		b.WriteByte(c)
	}
}

func (r *envReader) double(b *strings.Builder) {
	for !r.end() {
		c := r.next()
		if c == '"' {
			return
		}
		if c != '\\' || r.end() {
			b.WriteByte(c)
			continue
		}
		switch c := r.next(); {
		case c == '\n':
		case strings.IndexByte("\"\\`$", c) >= 0:
			b.WriteByte(c)
		default:
			b.WriteByte('\\')
			b.WriteByte(c)
		}
	}
}

// plain reads an unquoted value and drops blanks at its end, but not escaped
// ones.
func (r *envReader) plain(b *strings.Builder) {
	keep := b.Len()
	text := []byte(b.String())
	for !r.end() {
		c := r.next()
		if c == '\n' || c == '\r' {
			break
		}
		if c != '\\' {
			text = append(text, c)
			if c != ' ' && c != '\t' {
				keep = len(text)
			}
			continue
		}
		if r.end() {
			break
		}
		if c := r.next(); c != '\n' && c != '\r' {
			text = append(text, c)
		}
		keep = len(text)
	}
	b.Reset()
	b.Write(text[:keep])
}
