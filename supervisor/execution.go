package supervisor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/handoff/shim"
	"github.com/supervise/supervise/supervisor/config"
	"github.com/supervise/supervise/supervisor/listen"
)

// Execution: what systemd.exec(5) has to say about a process, for the main
// process and for the commands around it.

// execute puts it into the spec of one command line.
func (r *runner) execute(spec *shim.Spec, line config.ExecLine) {
	spec.Dir, spec.Umask, spec.Nice = r.dir, r.cfg.Umask, r.cfg.Nice
	spec.OOMScore = r.cfg.OOMScore
	if r.nohup.is && !slices.Contains(spec.Ignore, unix.SIGHUP) {
		spec.Ignore = append(spec.Ignore, unix.SIGHUP)
	}
	if r.cfg.IgnorePipe {
		spec.Ignore = append(spec.Ignore, unix.SIGPIPE)
	}
	spec.Limits = r.limits()
	if line.Privilege == config.PrivilegeFull {
		return
	}
	spec.NoNewPrivs = spec.NoNewPrivs || r.cfg.NoNewPrivs // a filter of ours may want it, too
	if r.cfg.Bounding != nil {
		set := uint64(*r.cfg.Bounding)
		spec.Bounding = &set
	}
	if line.Privilege != config.PrivilegeUser {
		spec.Credential, spec.Ambient = r.credential, uint64(r.cfg.Ambient)
	}
}

// resolveDir finds the working directory. Relative to it the command is looked for.
func (r *runner) resolveDir() error {
	r.dir = r.cfg.Dir
	switch {
	case r.cfg.DirHome:
		r.dir = "/"
		for _, kv := range r.userEnv {
			if home, ok := strings.CutPrefix(kv, "HOME="); ok {
				r.dir = home
			}
		}
		if home := os.Getenv("HOME"); len(r.userEnv) == 0 && home != "" {
			r.dir = home
		}
	case r.dir == "":
		return nil
	}
	st, err := os.Stat(r.dir)
	switch {
	case err == nil && !st.IsDir():
		err = fmt.Errorf("%s is none", r.dir)
	case err == nil:
		return nil
	}
	if r.cfg.DirOptional {
		r.dir = "/"
		return nil
	}
	if slices.ContainsFunc(r.cfg.Directories, func(d config.Directory) bool {
		return slices.ContainsFunc(d.Names, func(n string) bool { return filepath.Join(d.Root, n) == r.dir })
	}) {
		return nil // it is made before the start
	}
	return fmt.Errorf("cannot run in another directory: %w", err)
}

// baseEnv is what the environment of the service is laid upon: ours without
// what was meant for us, or what systemd.exec(5) promises.
func (r *runner) baseEnv() []string {
	ours := config.CleanEnv(r.environ)
	if r.cfg.InheritEnv {
		return append(ours, r.userEnv...)
	}
	env := append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, r.userEnv...)
	for _, kv := range ours {
		name, _, _ := strings.Cut(kv, "=")
		if name == "LANG" || slices.Contains(r.cfg.PassEnv, name) {
			env = append(env, kv)
		}
	}
	return env
}

// withoutUnset takes away what UnsetEnvironment= says.
func (r *runner) withoutUnset(env []string) []string {
	if len(r.cfg.UnsetEnv) == 0 {
		return env
	}
	return slices.DeleteFunc(env, func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.Contains(r.cfg.UnsetEnv, kv) || slices.Contains(r.cfg.UnsetEnv, name)
	})
}

// input opens what the command reads from. The caller closes it if own is true.
func (r *runner) input(in *instance) (fd int, own bool, err error) {
	path := r.cfg.Input
	switch path {
	case "", "inherit":
		return r.stdin, false, nil
	case "socket":
		if r.conn >= 0 {
			return r.conn, false, nil
		}
		if len(in.lanes) == 1 {
			return in.lanes[0].FD(), false, nil
		}
		return -1, false, fmt.Errorf("cannot give StandardInput=socket: there are %d listeners", len(in.lanes))
	case "null":
		path = "/dev/null"
	}
	fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return -1, false, fmt.Errorf("cannot open StandardInput= %s: %w", path, err)
	}
	return fd, true, nil
}

// makeDirectories makes RuntimeDirectory= and its family, as systemd.exec(5)
// documents them, and gives the variables that name them. What is there already
// gets the owner and the mode that it should have.
func (r *runner) makeDirectories() (env []string, err error) {
	for _, d := range r.cfg.Directories {
		var paths []string
		for _, name := range d.Names {
			path := filepath.Join(d.Root, name)
			if err := r.makeDirectory(d, path); err != nil {
				return nil, fmt.Errorf("cannot make %s= %s: %w", d.Kind, path, err)
			}
			paths = append(paths, path)
		}
		for _, link := range d.Links {
			name, to, _ := strings.Cut(link, ":")
			at := filepath.Join(d.Root, to)
			if err := os.Symlink(filepath.Join(d.Root, name), at); err != nil && !errors.Is(err, os.ErrExist) {
				return nil, fmt.Errorf("cannot make %s= %s: %w", d.Kind, at, err)
			}
		}
		if d.Env != "" && len(paths) > 0 {
			env = append(env, d.Env+"="+strings.Join(paths, ":"))
		}
	}
	return env, nil
}

func (r *runner) makeDirectory(d config.Directory, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := unix.Mkdir(path, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	if c := r.credential; c != nil && d.Kind != "ConfigurationDirectory" {
		if err := os.Lchown(path, int(c.UID), int(c.GID)); err != nil {
			return err
		}
	}
	return unix.Chmod(path, uint32(d.Mode)) // after the owner, whose change clears setgid
}

// removeDirectories removes the runtime directories of a service that ended.
func (r *runner) removeDirectories() {
	if r.cfg.DirPreserve == config.PreserveYes {
		return
	}
	for _, d := range r.cfg.Directories {
		if d.Kind != "RuntimeDirectory" {
			continue
		}
		for _, name := range d.Names {
			if r.listensIn(filepath.Join(d.Root, name)) {
				continue
			}
			if err := os.RemoveAll(filepath.Join(d.Root, name)); err != nil {
				r.warn(nil, "cannot remove a runtime directory", err)
			}
		}
	}
}

// listensIn reports whether a unix socket that is still held has its path below
// dir: it outlives the service.
func (r *runner) listensIn(dir string) bool {
	if r.set == nil {
		return false
	}
	return slices.ContainsFunc(r.set.Sockets(), func(s *listen.Socket) bool {
		return strings.HasPrefix(s.Config().Path, dir+"/")
	})
}
