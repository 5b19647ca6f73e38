package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ExecLine is one command of ExecStart= and its family (systemd.service(5),
// "command lines"), with its specifiers replaced.
type ExecLine struct {
	Path string   // what is executed; without '/' it is looked for in PATH
	Argv []string // argv[0] is Path but for the prefix '@'; Args replaces the variables

	IgnoreFailure bool      // '-': whatever it ends with is success
	NoExpand      bool      // ':': "$" has no meaning in Argv
	Privilege     Privilege // '+', '!' and '!!'

	At Position // zero of the flags
}

// Privilege says what of the service's credentials and sandboxing a command
// line is spared.
type Privilege string

const (
	PrivilegeNone    Privilege = ""   // all of it holds
	PrivilegeFull    Privilege = "+"  // none of it holds: runs as the supervisor does
	PrivilegeUser    Privilege = "!"  // User=, Group=, SupplementaryGroups= and AmbientCapabilities= do not hold
	PrivilegeAmbient Privilege = "!!" // as none where the kernel has ambient capabilities: since Linux 4.3
)

// ExecStart gives the commands that are the service: Start, or else Command as
// one line in which "$" has no meaning. None is there for a unit that has only
// ExecStop=.
func (s *Service) ExecStart() []ExecLine {
	if len(s.Command) == 0 {
		return s.Start
	}
	return []ExecLine{{Path: s.Command[0], Argv: slices.Clone(s.Command), NoExpand: true, At: s.At}}
}

// plain says that the line is no more than its words.
func (c *ExecLine) plain() bool {
	if c.IgnoreFailure || c.Privilege != PrivilegeNone || c.Path != c.Argv[0] {
		return false
	}
	return c.NoExpand || !slices.ContainsFunc(c.Argv, func(a string) bool {
		return strings.IndexByte(strings.ReplaceAll(a, "$$", ""), '$') >= 0
	})
}

// words are the words of a plain line.
func (c *ExecLine) words() []string {
	if c.NoExpand {
		return c.Argv
	}
	return c.Args(nil)
}

// parseExec reads the value of an Exec directive: one command line, or several
// separated by ';'. Words are taken apart first and their specifiers replaced
// then, so that what a specifier stands for is never taken apart.
func (r *reading) parseExec(value string) ([]ExecLine, error) {
	var lines []ExecLine
	rest := strings.TrimLeft(value, blanks)
	for rest != "" {
		line := ExecLine{At: r.at}
		word, after, err := r.cutWord(rest)
		if err != nil {
			return nil, err
		}
		rest = strings.TrimLeft(after, blanks)
		separateArgv0 := false
		if word, separateArgv0, err = line.prefixes(word); err != nil {
			return nil, err
		}
		if line.Path, err = r.path(word); err != nil {
			return nil, err
		}
		if !separateArgv0 {
			line.Argv = append(line.Argv, line.Path)
		}
		for rest != "" {
			raw := rest
			if i := strings.IndexAny(rest, blanks); i >= 0 {
				raw = rest[:i]
			}
			if raw == ";" || raw == `\;` {
				rest = strings.TrimLeft(rest[len(raw):], blanks)
				if raw == ";" {
					break
				}
				line.Argv = append(line.Argv, ";")
				continue
			}
			if word, after, err = r.cutWord(rest); err != nil {
				return nil, err
			}
			if word, err = r.expand(word); err != nil {
				return nil, err
			}
			line.Argv = append(line.Argv, word)
			rest = strings.TrimLeft(after, blanks)
		}
		if len(line.Argv) == 0 || line.Argv[0] == "" {
			return nil, errors.New("the prefix '@' wants the command's name for itself behind its path: write @/bin/x name argument")
		}
		lines = append(lines, line)
	}
	if len(lines) == 0 {
		return nil, errors.New("the command is empty")
	}
	return lines, nil
}

// prefixes takes the prefixes off the first word of a line: each at most once,
// and one of '+', '!' and '!!'.
func (c *ExecLine) prefixes(word string) (path string, separateArgv0 bool, err error) {
	for i := 0; i < len(word); i++ {
		again := false
		switch word[i] {
		case '-':
			again, c.IgnoreFailure = c.IgnoreFailure, true
		case '@':
			again, separateArgv0 = separateArgv0, true
		case ':':
			again, c.NoExpand = c.NoExpand, true
		case '+':
			again, c.Privilege = c.Privilege != PrivilegeNone, PrivilegeFull
		case '!':
			switch c.Privilege {
			case PrivilegeNone:
				c.Privilege = PrivilegeUser
			case PrivilegeUser:
				c.Privilege = PrivilegeAmbient
			default:
				again = true
			}
		case '|':
			return "", false, &UnsupportedError{Name: `the prefix "|" of a command`}
		default:
			return word[i:], separateArgv0, nil
		}
		if again {
			return "", false, fmt.Errorf("the prefixes of %q do not go together: each may stand once, and '+' or '!' alone", shorten(word))
		}
	}
	return "", false, errors.New("the command is empty")
}

// path reads the path of a command.
func (r *reading) path(word string) (string, error) {
	path, err := r.expand(word)
	if err != nil {
		return "", err
	}
	switch {
	case path == "":
		return "", errors.New("the command is empty")
	case strings.ContainsFunc(path, func(c rune) bool { return c < ' ' || c == 0x7f }):
		return "", fmt.Errorf("the path %q has a control character in it", shorten(path))
	case strings.HasSuffix(path, "/"):
		return "", fmt.Errorf("the path %q is a directory: write the command's file", shorten(path))
	case path[0] == '$':
		return "", fmt.Errorf("the command cannot be the variable %q: write its path, or sh -c", shorten(path))
	case path[0] != '/' && strings.Contains(path, "/"):
		return "", fmt.Errorf("the path %q is relative: write it from the root on, or the bare name of a command in PATH", shorten(path))
	}
	return simplifyPath(path), nil
}

// simplifyPath takes out "//" and "/./", as systemd does; ".." stays.
func simplifyPath(p string) string {
	if p == "" || p[0] != '/' {
		return p
	}
	var parts []string
	for _, part := range strings.Split(p, "/") {
		if part != "" && part != "." {
			parts = append(parts, part)
		}
	}
	return "/" + strings.Join(parts, "/")
}

// Args gives the argv of a start: Argv with $NAME and ${NAME} replaced by env,
// which is K=V, the last of a name holding. A word that is $NAME and nothing
// else becomes as many words as the value has; ${NAME}, also within a word, is
// the value as it is; an unknown name is empty; $$ is $.
func (c *ExecLine) Args(env []string) []string {
	if c.NoExpand {
		return slices.Clone(c.Argv)
	}
	values := make(map[string]string, len(env))
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		values[name] = value
	}
	var argv []string
	for _, word := range c.Argv {
		if len(word) > 1 && word[0] == '$' && word[1] != '{' && word[1] != '$' {
			argv = append(argv, splitRelaxed(values[word[1:]])...)
			continue
		}
		argv = append(argv, replaceVariables(word, values))
	}
	return argv
}

// replaceVariables replaces ${NAME} and $$. Other '$' stay as they are.
func replaceVariables(word string, values map[string]string) string {
	var b strings.Builder
	for {
		before, after, ok := strings.Cut(word, "$")
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		if strings.HasPrefix(after, "$") {
			b.WriteByte('$')
			word = after[1:]
			continue
		}
		if name, rest, closed := strings.Cut(after, "}"); closed && strings.HasPrefix(name, "{") {
			b.WriteString(values[name[1:]])
			word = rest
			continue
		}
		b.WriteByte('$')
		word = after
	}
}

// splitRelaxed splits the value of a variable into words: quotes hold blanks
// together and go away, a backslash takes the next character as it is, and what
// is not closed ends where the value ends.
func splitRelaxed(s string) []string {
	var words []string
	var b strings.Builder
	in, quote := false, byte(0)
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
			in = true
		case quote != 0:
			if c == quote {
				quote = 0
			} else {
				b.WriteByte(c)
			}
		case c == '\'' || c == '"':
			quote, in = c, true
		case strings.IndexByte(blanks, c) >= 0:
			if in {
				words = append(words, b.String())
				b.Reset()
				in = false
			}
		default:
			b.WriteByte(c)
			in = true
		}
	}
	if in {
		words = append(words, b.String())
	}
	return words
}

// formatExec writes a line so that parseExec reads it back.
func formatExec(c ExecLine) string {
	prefix := ""
	if c.IgnoreFailure {
		prefix += "-"
	}
	if c.NoExpand {
		prefix += ":"
	}
	prefix += string(c.Privilege)
	words := slices.Clone(c.Argv)
	if c.Path != c.Argv[0] {
		prefix += "@"
		words = slices.Insert(words, 0, c.Path)
	}
	// A quote may not come before a prefix, so it is around both.
	words[0] = prefix + words[0]
	return strings.ReplaceAll(JoinWords(words), "%", "%%")
}

// String is the line as a unit file has it.
func (c ExecLine) String() string { return formatExec(c) }
