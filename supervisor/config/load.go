package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Load reads the unit files that paths name, and of a directory among them all
// .service and .socket files, with their drop-ins, and gives what they say as
// plain values. A path may name an instance whose template lies there
// (web@8080.service); a bare name that is no file here is looked for where
// systemd keeps its units. A socket brings its service with it, and a service
// the sockets of its Sockets=, Requires= and BindsTo=, if they lie beside it.
//
// The error is a *LoadError with everything that is wrong in all the files,
// each with its position; warnings are given in any case. Nothing is started or
// opened but these files.
func Load(paths []string, opts LoadOptions) (*Units, []Warning, error) {
	l := newLoader(opts)
	for _, p := range paths {
		l.add(p)
	}
	l.pull()
	units := l.units()
	l.checkRuns(units)
	slices.SortStableFunc(l.warnings, func(a, b Warning) int { return strings.Compare(a.At.File, b.At.File) })
	l.warnings = slices.Compact(l.warnings)
	if len(l.errs) > 0 {
		return nil, l.warnings, l.failure()
	}
	return units, l.warnings, nil
}

// checkRuns refuses what is nothing to run: templates alone, say.
func (l *loader) checkRuns(u *Units) {
	for _, w := range l.opts.Without {
		if !l.mayLack(w) {
			l.fail(Position{File: "--without"}, "%q is no directive that is refused", w)
		}
	}
	if len(l.errs) > 0 || len(u.Services) > 0 || slices.ContainsFunc(u.Sockets, func(s *SocketUnit) bool { return s.Accept }) {
		return
	}
	if len(l.files) == 0 {
		l.fail(Position{}, "no unit is given")
		return
	}
	f := l.files[0]
	l.fail(Position{File: f.file}, "it is a template, and no instance of it is given: write %s@NAME%s", f.name.prefix, f.name.suffix)
}

// LoadError is everything that is wrong with the units that were to be loaded.
type LoadError struct {
	Errs []error // mostly *UnitError
	Hint string  // what to do about several of them at once; ""
}

func (e *LoadError) Error() string {
	var lines []string
	for _, err := range e.Errs {
		lines = append(lines, err.Error())
	}
	if e.Hint != "" {
		lines = append(lines, e.Hint)
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the errors.
func (e *LoadError) Unwrap() []error { return e.Errs }

// loader is one Load.
type loader struct {
	opts     LoadOptions
	host     host
	table    map[string]Directive // by section and name
	files    []*unitFile          // in the order given
	errs     []error
	warnings []Warning
	refused  []string            // names that Without= would accept
	edges    map[edge]Position   // where an order was asked for
	start    map[string]string   // Start= of [X-Supervise], by unit
	sockets  map[string][]string // Sockets=, by service
	output   map[*Service]bool   // who says where its output goes
}

// edge: unit from has to be up before unit to.
type edge struct{ from, to string }

// unitFile is a unit with its drop-ins, read.
type unitFile struct {
	name     unitName
	file     string
	assigned []assignment
	named    bool // on the command line, not in a directory and not pulled in
	pulled   bool // by another unit
	linked   bool // its [Install] says that it is to be started by itself
}

func newLoader(opts LoadOptions) *loader {
	l := &loader{
		opts:    opts,
		host:    host{getenv: opts.Getenv, user: os.Getuid() != 0},
		table:   map[string]Directive{},
		edges:   map[edge]Position{},
		start:   map[string]string{},
		sockets: map[string][]string{},
		output:  map[*Service]bool{},
	}
	if l.host.getenv == nil {
		l.host.getenv = os.Getenv
	}
	for _, d := range rows() {
		l.table[d.Section+"."+d.Name] = d
	}
	return l
}

func (l *loader) fail(at Position, format string, args ...any) {
	l.errs = append(l.errs, &UnitError{At: at, Err: fmt.Errorf(format, args...)})
}

func (l *loader) warn(at Position, format string, args ...any) {
	l.warnings = append(l.warnings, Warning{At: at, Text: fmt.Sprintf(format, args...)})
}

func (l *loader) failure() error {
	slices.SortStableFunc(l.errs, byPosition)
	e := &LoadError{Errs: l.errs}
	slices.Sort(l.refused)
	if refused := slices.Compact(l.refused); len(refused) > 0 {
		e.Hint = "what is refused can be accepted as missing: --without " + strings.Join(refused, ",") +
			", or Without=" + strings.Join(refused, " ") + " in [X-Supervise] of the unit or a drop-in"
	}
	return e
}

// byPosition orders errors by file and line; what is about a file as a whole
// comes behind what is about its lines.
func byPosition(a, b error) int {
	var x, y *UnitError
	if !errors.As(a, &x) || !errors.As(b, &y) {
		return 0
	}
	if by := strings.Compare(x.At.File, y.At.File); by != 0 {
		return by
	}
	return cmp.Compare(uint(x.At.Line-1), uint(y.At.Line-1))
}

func (l *loader) find(name string) *unitFile {
	for _, f := range l.files {
		if f.name.String() == name {
			return f
		}
	}
	return nil
}

// systemPaths are where systemd keeps units (systemd.unit(5)), first wins.
func systemPaths() []string {
	return []string{"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}
}

// add takes up one argument: a directory, a file, an instance of a template.
func (l *loader) add(arg string) {
	info, err := os.Stat(arg)
	if err == nil && info.IsDir() {
		l.addDirectory(arg)
		return
	}
	name, nameErr := parseUnitName(filepath.Base(arg))
	if nameErr != nil {
		l.fail(Position{File: arg}, "%w", nameErr)
		return
	}
	if name.suffix != ".service" && name.suffix != ".socket" {
		l.fail(Position{File: arg}, "it is a unit of type %s; only services and sockets are run", name.suffix[1:])
		return
	}
	dirs := []string{filepath.Dir(arg)}
	if !strings.Contains(arg, "/") {
		dirs = append(dirs, systemPaths()...)
	}
	for _, dir := range dirs {
		if f := l.read(dir, name); f != nil {
			f.named = true
			return
		}
	}
	switch {
	case err == nil || len(l.errs) > 0 && l.mentions(arg):
	case len(dirs) > 1:
		l.fail(Position{File: arg}, "it is not here, nor where systemd keeps its units: write its path")
	default:
		l.fail(Position{File: arg}, "cannot read it: %w", errorCause(err))
	}
}

// mentions says whether an error about a file of this path is there already.
func (l *loader) mentions(file string) bool {
	return slices.ContainsFunc(l.errs, func(err error) bool {
		var u *UnitError
		return errors.As(err, &u) && filepath.Base(u.At.File) == filepath.Base(file)
	})
}

func errorCause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// addDirectory takes up the services and sockets of a directory.
func (l *loader) addDirectory(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		l.fail(Position{File: dir}, "cannot read the directory: %w", errorCause(err))
		return
	}
	found := false
	for _, e := range entries {
		name, err := parseUnitName(e.Name())
		if err != nil || e.IsDir() {
			continue
		}
		switch name.suffix {
		case ".service", ".socket":
			found = true
			l.read(dir, name)
		case ".target", ".slice":
		default:
			l.warn(Position{File: filepath.Join(dir, e.Name())}, "units of type %s are not done", name.suffix[1:])
		}
	}
	if !found {
		l.fail(Position{File: dir}, "there is no .service and no .socket in it")
	}
	// A template of which no instance is there is started as its DefaultInstance=.
	for _, f := range slices.Clone(l.files) {
		if !f.name.isTemplate() || filepath.Dir(f.file) != filepath.Clean(dir) {
			continue
		}
		if instance := f.last("Install", "DefaultInstance"); instance != "" {
			name := f.name
			name.instance = instance
			if _, err := parseUnitName(name.String()); err != nil {
				l.fail(Position{File: f.file}, "DefaultInstance=%s: %w", instance, err)
				continue
			}
			l.read(dir, name)
		}
	}
}

// last gives the last value that is assigned to a directive.
func (f *unitFile) last(section, name string) string {
	for _, a := range slices.Backward(f.assigned) {
		if a.section == section && a.name == name {
			return a.value
		}
	}
	return ""
}

// read reads a unit of a directory, or its template, unless it is known. It
// gives nil if there is none, or if it is masked, which is an error.
func (l *loader) read(dir string, name unitName) *unitFile {
	if f := l.find(name.String()); f != nil {
		return f
	}
	names := []unitName{name}
	if name.at && !name.isTemplate() {
		names = append(names, name.template())
	}
	for _, n := range names {
		file := filepath.Join(dir, n.String())
		data, err := readRegular(file)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case isMask(file) || err == nil && len(data) == 0:
			l.fail(Position{File: file}, "it is masked (empty, or a link to /dev/null): it cannot be started")
			return nil
		case err != nil:
			l.fail(Position{File: file}, "cannot read it: %w", errorCause(err))
			return nil
		}
		f := &unitFile{name: name, file: file}
		var errs []error
		f.assigned, errs = parseUnit(file, data)
		l.errs = append(l.errs, errs...)
		l.readDropIns(f, dir)
		for _, a := range f.assigned {
			f.linked = f.linked || a.section == "Install" && slices.Contains([]string{"WantedBy", "RequiredBy", "UpheldBy"}, a.name)
		}
		l.files = append(l.files, f)
		return f
	}
	return nil
}

// isMask says that file leads to /dev/null.
func isMask(file string) bool {
	target, err := filepath.EvalSymlinks(file)
	return err == nil && target == os.DevNull
}

// readDropIns adds what the *.conf files of the unit's drop-in directories say:
// of its own name, its template, its prefixes up to each '-', its type. They
// count in the order of their own names, and of one name that of the directory
// nearest to the unit (systemd.unit(5)).
func (l *loader) readDropIns(f *unitFile, dir string) {
	dirs := []string{dir}
	if slices.Contains(systemPaths(), filepath.Clean(dir)) {
		dirs = systemPaths()
	}
	chosen := map[string]string{}
	for _, name := range dropInNames(f.name) {
		for _, d := range dirs {
			files, _ := filepath.Glob(filepath.Join(escapeGlob(d), escapeGlob(name)+".d", "*.conf"))
			for _, file := range files {
				base := filepath.Base(file)
				if _, ok := chosen[base]; !ok {
					chosen[base] = file
				}
			}
		}
	}
	var bases []string
	for base := range chosen {
		bases = append(bases, base)
	}
	slices.Sort(bases)
	for _, base := range bases {
		file := chosen[base]
		if isMask(file) {
			continue
		}
		data, err := readRegular(file)
		if err != nil {
			l.fail(Position{File: file}, "cannot read the drop-in: %w", errorCause(err))
			continue
		}
		assigned, errs := parseUnit(file, data)
		l.errs = append(l.errs, errs...)
		f.assigned = append(f.assigned, assigned...)
	}
}

func escapeGlob(s string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(s)
}

// dropInNames are the names whose ".d" directories go for a unit, nearest first.
func dropInNames(n unitName) []string {
	names := []string{n.String()}
	if n.at && !n.isTemplate() {
		names = append(names, n.template().String())
	}
	prefix := n.prefix
	if !n.at {
		prefix = strings.TrimRight(prefix, "-")
	}
	for i := strings.LastIndexByte(prefix, '-'); i > 0; i = strings.LastIndexByte(prefix[:i], '-') {
		short := n
		short.prefix = prefix[:i+1]
		names = append(names, short.String())
		if short.at && !short.isTemplate() {
			names = append(names, short.template().String())
		}
	}
	return append(names, n.suffix[1:])
}

// pull reads the units that those given bring with them.
func (l *loader) pull() {
	bring := func(by *unitFile, name unitName) *unitFile {
		known := l.find(name.String())
		if known != nil {
			return known
		}
		f := l.read(filepath.Dir(by.file), name)
		if f != nil {
			f.pulled = true
		}
		return f
	}
	for i := 0; i < len(l.files); i++ { // the list grows
		f := l.files[i]
		if f.name.isTemplate() {
			continue
		}
		r := l.reading(f, nil)
		if f.name.suffix == ".service" {
			l.pullRequired(f, bring)
			for _, a := range f.assigned {
				if a.section != "Service" || a.name != "Sockets" {
					continue
				}
				r.at = a.at
				words, err := r.words(a.value)
				if err != nil {
					l.fail(a.at, "Sockets=: %w", err)
				}
				if a.value == "" {
					l.sockets[f.name.String()] = nil
				}
				for _, w := range words {
					name, err := parseUnitName(w)
					if err == nil && name.suffix != ".socket" {
						err = fmt.Errorf("%q is no socket unit", w)
					}
					if err == nil && bring(f, name) == nil && !l.mentions(w) {
						err = fmt.Errorf("%s is not given and not beside %s", w, filepath.Base(f.file))
					}
					if err != nil {
						l.fail(a.at, "Sockets=: %w", err)
						continue
					}
					l.sockets[f.name.String()] = append(l.sockets[f.name.String()], w)
				}
			}
			continue
		}
		target := l.target(f)
		if target == (unitName{}) || bring(f, target) != nil || l.mentions(target.String()) {
			continue
		}
		hint := "give it, too"
		if f.last("Socket", "Service") == "" {
			hint += ", or name another by Service="
		}
		l.fail(Position{File: f.file}, "there is no %s to be lent its listeners: %s", target, hint)
	}
}

// pullRequired brings the sockets that a service cannot be without.
func (l *loader) pullRequired(f *unitFile, bring func(*unitFile, unitName) *unitFile) {
	r := l.reading(f, nil)
	for _, a := range f.assigned {
		if a.section != "Unit" || a.name != "Requires" && a.name != "BindsTo" {
			continue
		}
		words, _ := r.words(a.value) // what is wrong is said where it is read
		for _, w := range words {
			if name, err := parseUnitName(w); err == nil && name.suffix == ".socket" && !name.isTemplate() {
				bring(f, name)
			}
		}
	}
}

// target is the unit that a socket activates; the template for Accept=yes.
func (l *loader) target(f *unitFile) unitName {
	accept, _ := ParseBool(f.last("Socket", "Accept"))
	name := f.name.with(".service")
	if accept {
		return name.template()
	}
	if text := f.last("Socket", "Service"); text != "" {
		expanded, err := l.reading(f, nil).expand(text)
		if err != nil {
			return unitName{} // said where it is read
		}
		if name, err = parseUnitName(expanded); err != nil || name.suffix != ".service" || name.isTemplate() {
			return unitName{}
		}
	}
	return name
}

// reading is how the values of a unit are read.
func (l *loader) reading(f *unitFile, notice func(string)) *reading {
	r := &reading{spec: &specifiers{unit: f.name, file: f.file, host: l.host}, notice: notice}
	if notice == nil {
		r.notice = func(string) {}
	}
	return r
}
