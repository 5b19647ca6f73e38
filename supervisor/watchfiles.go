package supervisor

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/handoff/shim"
	"github.com/supervise/supervise/supervisor/config"
	"github.com/supervise/supervise/supervisor/files"
	"github.com/supervise/supervise/supervisor/proc"
)

// Dev is the dev mode: what changes among files is built, and what was built is
// rolled out.
type Dev struct {
	Watch  []string // files and folders
	Ignore []string // rules of gitignore(5) beside files.Defaults
	Build  string   // for sh -c, "" where nothing needs to be built
}

// dev is the dev mode of the only service. One build runs at a time. A build that
// fails changes nothing; neither does a candidate that fails, which is a rollout
// like any other.
//
// What the build itself writes, in a watched folder, must not make it run again,
// without end. The file that is executed is known; what else changes while a build
// runs is taken for an edit once, and for the build's own from the second time in
// a row on.
type dev struct {
	r       *runner
	o       Dev
	watcher *files.Watcher
	build   *helper
	began   time.Time // of the last build
	ended   time.Time // zero while it runs
	more    []string  // changed while it ran
	own     map[string]int
	told    map[string]bool // of own, as logged
}

// ownAfter is how many builds in a row must have changed a file to be its maker.
const ownAfter = 2

// watchFiles begins the dev mode.
func (l *loop) watchFiles(o Dev) error {
	r := l.only()
	if len(o.Watch) == 0 || r == nil {
		return nil
	}
	d := &dev{r: r, o: o, own: map[string]int{}, told: map[string]bool{}}
	var err error
	d.watcher, err = files.New(files.Options{
		Paths: o.Watch, Ignore: o.Ignore,
		Changed: func(paths []string) { l.poll.post(func() { d.changed(paths) }) },
		Failed:  func(err error) { l.poll.post(func() { r.warn(nil, "some changes will not be seen", err) }) },
	})
	if err != nil {
		return &StartError{Status: ExitUsage, Err: err}
	}
	l.dev = d
	return nil
}

func (l *loop) closeDev() {
	if l.dev == nil {
		return
	}
	if err := l.dev.watcher.Close(); err != nil {
		l.log.Debug("cannot end the watch of files", "error", err)
	}
	if h := l.dev.build; h != nil {
		_ = unix.Kill(-h.pid, unix.SIGTERM) // a group that we made; its leader is not reaped yet
	}
}

// changed is called when it has been quiet for a moment.
func (d *dev) changed(paths []string) {
	if d.r.finished || d.r.s.stop != nil {
		return
	}
	if d.build != nil {
		d.more = append(d.more, paths...)
		return
	}
	paths = d.edits(paths)
	if len(paths) == 0 {
		return
	}
	d.turn(paths)
}

// turn takes changes into use.
func (d *dev) turn(paths []string) {
	r := d.r
	what := few(paths)
	if d.o.Build == "" {
		r.log.Info("files changed", "service", r.cfg.Name, "files", what)
		r.reload(evReload{cause: "files changed: " + what, rollout: true})
		return
	}
	r.log.Info("files changed, building", "service", r.cfg.Name, "files", what, "command", d.o.Build)
	d.began, d.ended = time.Now(), time.Time{}
	h, err := r.startBuild(d.o.Build, func(e proc.Exit) { d.built(e, what) })
	if err != nil {
		d.failed(err.Error())
		return
	}
	d.build = h
}

func (d *dev) built(e proc.Exit, what string) {
	r := d.r
	d.build, d.ended = nil, time.Now()
	if status := e.ShellStatus(); status != 0 {
		d.failed(fmt.Sprintf("exit status %d", status))
	} else {
		r.log.Info("built", "service", r.cfg.Name, "took", d.ended.Sub(d.began).Round(time.Millisecond))
		r.reload(evReload{cause: "files changed: " + what, rollout: true})
	}
	if more := d.more; len(more) > 0 {
		d.more = nil
		d.changed(more)
	}
}

func (d *dev) failed(why string) {
	r := d.r
	fields := []any{"service", r.cfg.Name, "reason", why}
	if g := r.s.current; g != nil {
		r.log.Error(fmt.Sprintf("build failed, keeping generation %d", g.n), fields...)
		return
	}
	r.log.Error("build failed", fields...)
}

// edits leaves out what the build changed.
func (d *dev) edits(paths []string) []string {
	if d.o.Build == "" || d.began.IsZero() {
		return d.without(paths)
	}
	var edits []string
	for _, p := range d.without(paths) {
		if !d.duringBuild(p) {
			delete(d.own, p)
			edits = append(edits, p)
			continue
		}
		if d.own[p]++; d.own[p] < ownAfter {
			edits = append(edits, p)
		} else if !d.told[p] {
			d.told[p] = true
			d.r.log.Info("changed by the build itself, which is no reason for another", "file", p)
		}
	}
	return edits
}

// without leaves out the file that the build is there to make.
func (d *dev) without(paths []string) []string {
	if d.o.Build == "" {
		return paths
	}
	made := d.r.cfg.ExecStart()
	return slices.DeleteFunc(slices.Clone(paths), func(p string) bool {
		return slices.ContainsFunc(made, func(line config.ExecLine) bool {
			return strings.Contains(line.Path, "/") && same(p, filepath.Join(d.r.dirFor(line.Path), line.Path))
		})
	})
}

// dirFor is what a path of a command is relative to.
func (r *runner) dirFor(path string) string {
	if filepath.IsAbs(path) {
		return ""
	}
	return r.dir
}

func same(a, b string) bool {
	x, errA := filepath.Abs(a)
	y, errB := filepath.Abs(b)
	return errA == nil && errB == nil && x == y
}

// clockStep is by how much the time of a file may be behind the clock's.
const clockStep = 20 * time.Millisecond

// duringBuild reports whether a file was changed while the last build ran. Of one
// that is gone only the moment of the news is known.
func (d *dev) duringBuild(path string) bool {
	st, err := os.Lstat(path)
	if err != nil {
		return time.Since(d.ended) < time.Second
	}
	at := st.ModTime()
	return !at.Before(d.began.Add(-clockStep)) && !at.After(d.ended)
}

// few names some of the paths.
func few(paths []string) string {
	const some = 3
	if len(paths) > some {
		return fmt.Sprintf("%s and %d more", strings.Join(paths[:some], ", "), len(paths)-some)
	}
	return strings.Join(paths, ", ")
}

// startBuild runs a command of the user's with our own output, as the user that
// we are and where we are: it is what he would type.
func (r *runner) startBuild(command string, done func(proc.Exit)) (*helper, error) {
	env := config.CleanEnv(r.environ)
	path, err := shim.LookPath("sh", "", env)
	if err != nil {
		return nil, err
	}
	spec := shim.New(path, []string{"sh", "-c", command}, env)
	spec.Setpgid = true
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open /dev/null: %w", err)
	}
	defer unix.Close(null)
	spec.Files = []int{null, 1, 2}
	c, err := shim.Start(spec)
	if err != nil {
		return nil, err
	}
	_ = unix.Close(c.Report) // a failed exec ends with a status that says so
	return r.watchHelper(c.PID, c.PIDFD, done), nil
}
