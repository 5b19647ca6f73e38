package config

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Condition is one of ConditionPathExists= and its family (systemd.unit(5)).
type Condition struct {
	Name    string // of the directive: "ConditionPathExists", "AssertPathExists"
	Value   string // without "|" and "!"
	Trigger bool   // "|": one of these has to hold, not all
	Negate  bool   // "!"
	At      Position
}

// Assert says that a start fails where the condition does not hold; else it is
// skipped, which is no failure.
func (c Condition) Assert() bool { return strings.HasPrefix(c.Name, "Assert") }

// String is the condition as it was written.
func (c Condition) String() string {
	text := c.Name + "="
	if c.Trigger {
		text += "|"
	}
	if c.Negate {
		text += "!"
	}
	return text + c.Value
}

// Unmet looks now whether conditions hold, and gives the one to name where they
// do not: of Assert...= first. Nil is that the unit may start.
func Unmet(conditions []Condition) *Condition {
	for _, assert := range []bool{true, false} {
		var trigger *Condition
		met := false
		for i, c := range conditions {
			switch {
			case c.Assert() != assert:
			case c.Trigger:
				trigger = &conditions[i]
				met = met || c.Holds()
			case !c.Holds():
				return &conditions[i]
			}
		}
		if trigger != nil && !met {
			return trigger
		}
	}
	return nil
}

// Holds looks whether the condition holds now. What cannot be looked at does
// not hold, and its negation does, as in systemd.
func (c Condition) Holds() bool {
	kind := strings.TrimPrefix(strings.TrimPrefix(c.Name, "Condition"), "Assert")
	return conditionKinds()[kind](c.Value) != c.Negate
}

// conditionKinds are the conditions that can be looked at.
func conditionKinds() map[string]func(string) bool {
	stat := func(name string) os.FileMode {
		info, err := os.Stat(name)
		if err != nil {
			return os.ModeIrregular
		}
		return info.Mode()
	}
	return map[string]func(string) bool{
		"PathExists":      func(v string) bool { return unix.Access(v, unix.F_OK) == nil },
		"PathExistsGlob":  func(v string) bool { found, err := filepath.Glob(v); return err == nil && len(found) > 0 },
		"PathIsDirectory": func(v string) bool { return stat(v).IsDir() },
		"PathIsSymbolicLink": func(v string) bool {
			info, err := os.Lstat(v)
			return err == nil && info.Mode()&os.ModeSymlink != 0
		},
		"PathIsReadWrite": func(v string) bool {
			var fs unix.Statfs_t
			return unix.Statfs(v, &fs) == nil && fs.Flags&unix.ST_RDONLY == 0
		},
		"DirectoryNotEmpty": func(v string) bool {
			entries, err := os.ReadDir(v)
			return err == nil && len(entries) > 0
		},
		"FileNotEmpty": func(v string) bool {
			info, err := os.Stat(v)
			return err == nil && info.Mode().IsRegular() && info.Size() > 0
		},
		"FileIsExecutable": func(v string) bool { return stat(v).IsRegular() && stat(v)&0o111 != 0 },
		"Environment": func(v string) bool {
			name, value, exact := strings.Cut(v, "=")
			have, ok := os.LookupEnv(name)
			return ok && (!exact || have == value)
		},
		"Host": func(v string) bool {
			name, err := os.Hostname()
			if id, idErr := firstLine("/etc/machine-id"); idErr == nil && v == id {
				return true
			}
			match, _ := path.Match(strings.ToLower(v), strings.ToLower(name))
			return err == nil && match
		},
		"Architecture": func(v string) bool { return v == architecture() || v == "native" },
		"User": func(v string) bool {
			u, err := user.Current()
			if v == "@system" {
				return os.Getuid() < 1000
			}
			return v == strconv.Itoa(os.Getuid()) || err == nil && u.Username == v
		},
		"Group": func(v string) bool {
			ids, _ := os.Getgroups()
			ids = append(ids, os.Getgid())
			if g, err := user.LookupGroup(v); err == nil {
				v = g.Gid
			}
			return slices.ContainsFunc(ids, func(id int) bool { return strconv.Itoa(id) == v })
		},
	}
}

// parseCondition reads the value of one of the conditions.
func parseCondition(r *reading, name, value string) (Condition, error) {
	c := Condition{Name: name, At: r.at}
	value, c.Trigger = strings.CutPrefix(value, "|")
	value, c.Negate = strings.CutPrefix(strings.TrimLeft(value, blanks), "!")
	text, err := r.expand(strings.TrimLeft(value, blanks))
	if err != nil {
		return c, err
	}
	c.Value = text
	switch {
	case text == "":
		return c, errors.New("it is empty behind its '|' or '!'")
	case strings.Contains(name, "Path") || strings.Contains(name, "File") || strings.Contains(name, "Directory"):
		if !path.IsAbs(text) {
			return c, fmt.Errorf("the path %q is not absolute", text)
		}
	}
	return c, nil
}
