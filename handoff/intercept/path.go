package intercept

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// errElsewhere means that a path of the child does not mean the same to us:
// another mount namespace or another root.
var errElsewhere = errors.New("another root or mount namespace")

// file is what a path of a child leads to. The last component is never
// followed if it is a symbolic link, as bind(2) and unlink(2) do not.
type file struct {
	path   string      // absolute, without symbolic links
	stat   unix.Stat_t // of the last component
	exists bool
}

// lookup finds what the path means that the thread gave to bind, unlink or
// unlinkat (dirfd: AT_FDCWD for the first two).
func (t thread) lookup(dirfd int, path string) (file, error) {
	dir, base := ".", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		dir, base = path[:i+1], path[i+1:]
	}
	if base == "" || base == "." || base == ".." {
		return file{}, fmt.Errorf("cannot look up %s: %w", printable(path), unix.EINVAL)
	}
	same, err := t.sameRoot()
	if err != nil {
		return file{}, err
	}
	if !same {
		return file{}, errElsewhere
	}
	switch {
	case path[0] == '/':
	case dirfd == unix.AT_FDCWD:
		dir = t.proc("cwd/") + dir
	default:
		dir = t.proc("fd/"+strconv.Itoa(dirfd)) + "/" + dir
	}

	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return file{}, fmt.Errorf("cannot open the directory of %s: %w", printable(path), err)
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return file{}, fmt.Errorf("cannot stat the directory of %s: %w", printable(path), err)
	}
	if st.Nlink == 0 { // its name would end in " (deleted)"
		return file{}, fmt.Errorf("cannot look up %s: %w", printable(path), unix.ENOENT)
	}
	abs, err := readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return file{}, err
	}
	f := file{path: strings.TrimSuffix(abs, "/") + "/" + base}
	switch err := unix.Fstatat(fd, base, &f.stat, unix.AT_SYMLINK_NOFOLLOW); err {
	case nil:
		f.exists = true
	case unix.ENOENT:
	default:
		return file{}, fmt.Errorf("cannot stat %s: %w", printable(f.path), err)
	}
	return f, nil
}

func (f file) socket() bool { return f.exists && f.stat.Mode&unix.S_IFMT == unix.S_IFSOCK }
