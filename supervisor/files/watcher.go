package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// DefaultDebounce is how long it must have been quiet.
const DefaultDebounce = 150 * time.Millisecond

// Options say what is watched.
type Options struct {
	Paths    []string // files and folders, which must exist
	Ignore   []string // rules beside Defaults and .gitignore
	Debounce time.Duration

	// Changed is called, from a goroutine of the watcher, with the paths that
	// changed, sorted: as the watched ones were written, and what is below.
	Changed func(paths []string)

	// Failed is called when something cannot be watched any more. The watcher
	// goes on with the rest.
	Failed func(error)
}

// Watcher watches until it is closed.
type Watcher struct {
	o     Options
	notes *fsnotify.Watcher
	roots []root
	done  chan struct{}
}

// root is one of the paths.
type root struct {
	path  string // cleaned
	file  bool   // watched through its folder
	rules rules
}

// New begins to watch. The caller closes it.
func New(o Options) (*Watcher, error) {
	if o.Debounce <= 0 {
		o.Debounce = DefaultDebounce
	}
	notes, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, watchError("files", err)
	}
	w := &Watcher{o: o, notes: notes, done: make(chan struct{})}
	for _, p := range o.Paths {
		if err := w.add(filepath.Clean(p)); err != nil {
			notes.Close()
			return nil, err
		}
	}
	go w.run()
	return w, nil
}

func (w *Watcher) add(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("cannot watch: %w", err)
	}
	r := root{path: path, file: !st.IsDir()}
	if r.file {
		w.roots = append(w.roots, r)
		if err := w.notes.Add(filepath.Dir(path)); err != nil {
			return watchError(path, err)
		}
		return nil
	}
	lines := Defaults()
	if text, err := os.ReadFile(filepath.Join(path, ".gitignore")); err == nil {
		lines = append(lines, strings.Split(string(text), "\n")...)
	}
	if r.rules, err = parseRules(append(lines, w.o.Ignore...)); err != nil {
		return err
	}
	w.roots = append(w.roots, r)
	_, err = w.descend(r, path)
	return err
}

// descend watches a folder and all below it, and gives the files that are there.
func (w *Watcher) descend(r root, folder string) (found []string, err error) {
	err = filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) { // gone already
				return nil
			}
			return fmt.Errorf("cannot watch: %w", err)
		}
		if r.rules.ignored(relative(r.path, path), d.IsDir()) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if !d.IsDir() {
			found = append(found, path)
			return nil
		}
		if err := w.notes.Add(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return watchError(path, err)
		}
		return nil
	})
	return found, err
}

func watchError(path string, err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC):
		err = fmt.Errorf("%w: there are more folders than fs.inotify.max_user_watches; ignore some, or raise it", err)
	case errors.Is(err, unix.EMFILE):
		err = fmt.Errorf("%w: fs.inotify.max_user_instances is reached", err)
	}
	return fmt.Errorf("cannot watch %s: %w", path, err)
}

func relative(root, path string) string {
	rel, err := filepath.Rel(root, path)
	if err != nil {
		return path
	}
	return filepath.ToSlash(rel)
}

// run is the goroutine.
func (w *Watcher) run() {
	defer close(w.done)
	var changed []string
	var first time.Time
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	note := func(paths ...string) {
		if len(paths) == 0 {
			return
		}
		now := time.Now()
		if len(changed) == 0 {
			first = now
		}
		changed = append(changed, paths...)
		timer.Reset(min(w.o.Debounce, time.Until(first.Add(10*w.o.Debounce))))
	}
	for {
		select {
		case ev, ok := <-w.notes.Events:
			if !ok {
				return
			}
			note(w.means(ev)...)
		case err, ok := <-w.notes.Errors:
			if !ok {
				return
			}
			if errors.Is(err, fsnotify.ErrEventOverflow) { // what changed is not known: something did
				note(w.o.Paths...)
				continue
			}
			w.o.Failed(watchError("files", err))
		case <-timer.C:
			slices.Sort(changed)
			w.o.Changed(slices.Compact(changed))
			changed = nil
		}
	}
}

// means is what an event means: paths that changed.
func (w *Watcher) means(ev fsnotify.Event) (paths []string) {
	if ev.Op == fsnotify.Chmod {
		return nil
	}
	path := filepath.Clean(ev.Name)
	for _, r := range w.roots {
		if r.file {
			if path == r.path {
				paths = append(paths, path)
			}
			continue
		}
		rel := relative(r.path, path)
		if rel == ".." || strings.HasPrefix(rel, "../") {
			continue
		}
		st, err := os.Lstat(path)
		folder := err == nil && st.IsDir()
		if r.rules.ignored(rel, folder) {
			continue
		}
		switch {
		case !folder:
			paths = append(paths, path)
		case ev.Has(fsnotify.Create):
			// What was put in before we watched it is news, too.
			found, err := w.descend(r, path)
			if err != nil {
				w.o.Failed(err)
			}
			paths = append(paths, found...)
		}
	}
	return paths
}

// Close ends it; nothing is called any more when it has returned.
func (w *Watcher) Close() error {
	err := w.notes.Close()
	<-w.done
	return err
}
