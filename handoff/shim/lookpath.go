package shim

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// LookError is a command that cannot be found or executed. Code is what a
// shell would exit with: 127 not found, 126 found but not executable.
type LookError struct {
	Name string // as it was asked for
	Path string // what was found, when Code is 126
	Code int
	Err  error // the errno behind it
}

func (e *LookError) Error() string {
	if e.Code == 126 {
		return "cannot execute " + strconv.Quote(e.Path) + ": " + e.Err.Error()
	}
	return "cannot find " + strconv.Quote(e.Name) + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *LookError) Unwrap() error { return e.Err }

// errNotInPath is the cause when no directory of PATH has the name.
var errNotInPath = errors.New("not in PATH")

// LookPath finds the file that name means for a child with working directory
// dir ("" is ours) and environment env, by the rules of execvp(3): a name
// with a slash is a path; others are searched in PATH, an empty element of
// which is the working directory. A relative result is relative to dir. The
// error is a *LookError.
//
// The answer is for who we are now: another user may see another result, and
// execve(2) has the last word.
func LookPath(name, dir string, env []string) (path string, err error) {
	if name == "" {
		return "", &LookError{Name: name, Code: 127, Err: unix.ENOENT}
	}
	if strings.Contains(name, "/") {
		if err := executable(dir, name); err != nil {
			return "", lookError(name, name, err)
		}
		return name, nil
	}
	found := ""
	var cause error
	for _, element := range filepath.SplitList(searchPath(env)) {
		if element == "" {
			element = "."
		}
		// Not filepath.Join, which turns "./name" into "name".
		candidate := strings.TrimSuffix(element, "/") + "/" + name
		switch err := executable(dir, candidate); {
		case err == nil:
			return candidate, nil
		case found == "" && !missing(err):
			found, cause = candidate, err
		}
	}
	if found != "" {
		return "", lookError(name, found, cause)
	}
	return "", &LookError{Name: name, Code: 127, Err: errNotInPath}
}

// searchPath returns PATH of env, the last one as os/exec and systemd have it;
// without one, the default of systemd.
func searchPath(env []string) string {
	for i := len(env) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(env[i], "PATH="); ok {
			return v
		}
	}
	return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}

func executable(dir, path string) error {
	if !filepath.IsAbs(path) && dir != "" {
		path = dir + "/" + path
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS)
	case unix.S_IFDIR:
		return unix.EISDIR
	}
	return unix.EACCES
}

func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) || err == unix.ENOTDIR }

func lookError(name, path string, err error) error {
	code := 126
	if missing(err) {
		code = 127
	}
	return &LookError{Name: name, Path: path, Code: code, Err: err}
}
