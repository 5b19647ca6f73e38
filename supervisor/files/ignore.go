package files

import (
	"path"
	"slices"
	"strings"
)

// Defaults are ignored everywhere: version control, what package managers and
// interpreters keep, what editors write beside a file, and what servers write
// while they run.
func Defaults() []string {
	return []string{
		".git/", ".hg/", ".svn/", ".jj/", "node_modules/", "__pycache__/", "*.pyc", ".venv/", ".tox/", ".idea/", ".vscode/",
		"*.swp", "*.swx", "*~", ".#*", "#*#", "4913", ".DS_Store", "*.tmp", "*.log", "*.log.[0-9]*", "*.pid", "*.sock", "*.db-wal", "*.db-shm", "*-journal",
	}
}

// rule is one line of gitignore(5).
type rule struct {
	keep   bool // "!": not ignored after all
	folder bool // "x/": folders only
	parts  []string
}

// rules decide by the last that matches.
type rules []rule

// parseRules reads lines; empty ones and comments say nothing.
func parseRules(lines []string) (rules, error) {
	var rs rules
	for _, line := range lines {
		line = strings.TrimRight(line, " \t\r")
		if line == "" || line[0] == '#' && !strings.HasSuffix(line, "#") {
			continue
		}
		var r rule
		if rest, ok := strings.CutPrefix(line, "!"); ok {
			r.keep, line = true, rest
		}
		line = strings.TrimPrefix(line, `\`)
		if rest, ok := strings.CutSuffix(line, "/"); ok {
			r.folder, line = true, rest
		}
		if strings.Contains(line, "/") {
			line = strings.TrimPrefix(line, "/")
		} else {
			line = "**/" + line // a name, at any depth
		}
		r.parts = strings.Split(line, "/")
		for _, p := range r.parts {
			if _, err := path.Match(p, ""); err != nil {
				return nil, &PatternError{Pattern: line, Err: err}
			}
		}
		rs = append(rs, r)
	}
	return rs, nil
}

// PatternError is a rule that cannot be read.
type PatternError struct {
	Pattern string
	Err     error
}

func (e *PatternError) Error() string {
	return "cannot read the pattern " + e.Pattern + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *PatternError) Unwrap() error { return e.Err }

// ignored reports whether a path, relative to the watched folder, is ignored, by
// itself or because a folder that it is in is.
func (rs rules) ignored(rel string, folder bool) bool {
	if rel == "." || rel == "" {
		return false
	}
	parts := strings.Split(rel, "/")
	for i := range parts {
		last := i == len(parts)-1
		if rs.one(parts[:i+1], folder || !last) {
			return true
		}
	}
	return false
}

func (rs rules) one(parts []string, folder bool) bool {
	for _, r := range slices.Backward(rs) {
		if (folder || !r.folder) && matches(r.parts, parts) {
			return !r.keep
		}
	}
	return false
}

// matches holds a pattern against a path, part by part; "**" is any number of
// parts, and at the end at least one.
func matches(pattern, parts []string) bool {
	for len(pattern) > 0 {
		if pattern[0] == "**" && len(pattern) == 1 {
			return len(parts) > 0 // what is inside
		}
		if pattern[0] == "**" {
			for i := range len(parts) + 1 {
				if matches(pattern[1:], parts[i:]) {
					return true
				}
			}
			return false
		}
		if len(parts) == 0 {
			return false
		}
		if ok, _ := path.Match(pattern[0], parts[0]); !ok {
			return false
		}
		pattern, parts = pattern[1:], parts[1:]
	}
	return len(parts) == 0
}
