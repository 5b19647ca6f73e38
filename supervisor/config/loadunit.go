package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// assigned applies what a unit file says to its parts, each assignment in its
// order, those of [X-Supervise] last: they stand above the others.
type assigned struct {
	l       *loader
	file    *unitFile
	reading *reading
	head    head
	service *Service    // nil for a socket
	socket  *SocketUnit // nil for a service
	without []string
	lacking []string            // refused, and accepted as missing
	said    map[string]Position // section and name: where it was said last
}

// service makes the Service of a unit file; of a template, for its instance.
func (l *loader) service(f *unitFile) *Service {
	s := UnitDefaults(l.host.user)
	s.Name, s.Instance, s.At = f.name.bare(), f.name.instance, Position{File: f.file}
	a := l.assigning(f)
	a.service = &s
	a.head = head{&s.Description, &s.Dependencies, &s.Conditions}
	for _, word := range a.inherited() {
		switch word {
		case "environment":
			s.InheritEnv = true
		case "umask":
			s.Umask = -1
		case "directory":
			s.Dir, s.DirHome = "", false
		}
	}
	a.apply()
	a.finishService()
	return &s
}

// socket makes the SocketUnit of a unit file.
func (l *loader) socket(f *unitFile) *SocketUnit {
	u := &SocketUnit{
		Name: f.name.bare(), At: Position{File: f.file},
		MaxConnections: 64, TriggerInterval: 2 * time.Second, TriggerBurst: -1, Timeout: 90 * time.Second,
	}
	a := l.assigning(f)
	a.socket = u
	a.head = head{&u.Description, &u.Dependencies, &u.Conditions}
	a.apply()
	a.waiting()
	before := len(l.errs)
	l.errs = append(l.errs, u.finish()...)
	if len(u.Sockets) == 0 && l.mentions(f.file) && before > 0 {
		l.errs = l.errs[:before] // its addresses are what is wrong
	}
	if target := l.target(f); u.Service == "" && target != (unitName{}) {
		u.Service = target.String()
	}
	a.unused()
	return u
}

func (l *loader) assigning(f *unitFile) *assigned {
	a := &assigned{l: l, file: f, without: slices.Clone(l.opts.Without), said: map[string]Position{}}
	a.reading = l.reading(f, func(text string) { l.warn(a.reading.at, "%s", text) })
	for _, as := range f.assigned {
		if as.section == "X-Supervise" && as.name == "Without" {
			a.without = append(a.without, strings.Fields(as.value)...)
			for _, word := range strings.Fields(as.value) {
				if !l.mayLack(word) {
					l.fail(as.at, "Without=: %q is no directive that is refused%s", word, didYouMean(word))
				}
			}
		}
	}
	return a
}

// mayLack says whether word has a meaning in Without=.
func (l *loader) mayLack(word string) bool {
	if word == "sandbox" {
		return true
	}
	for _, section := range []string{"Service", "Socket", "Unit"} {
		if d, ok := l.table[section+"."+word]; ok && d.Support == Refused {
			return true
		}
	}
	return false
}

// inherited are the words of Inherit=.
func (a *assigned) inherited() []string {
	var words []string
	for _, as := range a.file.assigned {
		if as.section != "X-Supervise" || as.name != "Inherit" {
			continue
		}
		if as.value == "" {
			words = nil
		}
		for _, w := range strings.Fields(as.value) {
			if !slices.Contains([]string{"environment", "umask", "directory"}, w) {
				a.l.fail(as.at, "Inherit=: cannot read %q: write environment, umask or directory", w)
			}
			words = append(words, w)
		}
	}
	return words
}

func (a *assigned) apply() {
	for _, ours := range []bool{false, true} {
		for _, as := range a.file.assigned {
			if (as.section == "X-Supervise") == ours {
				a.assign(as)
			}
		}
	}
}

// own is the section of the unit's type.
func (a *assigned) own() string {
	if a.service != nil {
		return "Service"
	}
	return "Socket"
}

// assign applies one assignment.
func (a *assigned) assign(as assignment) {
	a.reading.at = as.at
	d, ok := a.lookup(as)
	if !ok {
		return
	}
	a.said[d.Section+"."+d.Name] = as.at
	if as.section == "X-Supervise" && d.Name == "Start" {
		if !slices.Contains([]string{"auto", "now", "on-connection"}, as.value) {
			a.l.fail(as.at, "Start=: cannot read %q: write auto, now or on-connection", as.value)
		}
		a.l.start[a.file.name.String()] = as.value
	}
	switch d.Support {
	case Supported, Pending:
		a.note(d, as)
		if err := a.set(d, as.value); err != nil {
			a.l.fail(as.at, "%s=: %w", as.name, err)
		}
	case Ignored:
		if !harmless(d, as.value) {
			a.l.warn(as.at, "%s= is ignored: %s", as.name, d.Means)
		}
	case Refused:
		switch {
		case harmless(d, as.value):
		case slices.Contains(a.without, d.Name) || d.Sandbox && slices.Contains(a.without, "sandbox"):
			if !slices.Contains(a.lacking, as.name+"=") {
				a.lacking = append(a.lacking, as.name+"=")
			}
		default:
			word := d.Name
			if d.Sandbox {
				word = "sandbox"
			}
			a.l.refused = append(a.l.refused, word)
			a.l.fail(as.at, "%w: %s", &UnsupportedError{Name: as.name + "=", Unsafe: true}, d.Means)
		}
	case Moot:
	}
}

// note remembers where an order between units was asked for.
func (a *assigned) note(d Directive, as assignment) {
	if d.Section != "Unit" || d.Name != "After" && d.Name != "Before" {
		return
	}
	me := a.file.name.String()
	words, _ := a.reading.words(as.value)
	for _, w := range words {
		e := edge{w, me}
		if d.Name == "Before" {
			e = edge{me, w}
		}
		if _, ok := a.l.edges[e]; !ok {
			a.l.edges[e] = as.at
		}
	}
}

// set applies a value by whatever the directive has for it.
func (a *assigned) set(d Directive, value string) error {
	switch {
	case d.readHead != nil:
		return d.readHead(a.reading, a.head, value)
	case a.socket != nil && d.readSocket != nil:
		return d.readSocket(a.reading, a.socket, value)
	case a.service == nil:
		return nil // StartLimitBurst= and its like of a socket
	case d.read != nil:
		return d.read(a.reading, a.service, value)
	case d.Set == nil:
		return nil // what the loader itself obeys
	}
	text, err := a.reading.expand(value)
	if err != nil {
		return err
	}
	if text == "" && d.Get != nil && d.Name != "CapabilityBoundingSet" && d.Name != "AmbientCapabilities" && !d.Repeat {
		return a.reset(d)
	}
	return d.Set(a.service, text)
}

// reset gives a directive the default that it has in unit files.
func (a *assigned) reset(d Directive) error {
	defaults := UnitDefaults(a.l.host.user)
	for _, text := range d.Get(&defaults) {
		return d.Set(a.service, text)
	}
	return d.Set(a.service, "")
}

// lookup finds the row of an assignment, and says what is wrong if there is
// none or if it is in a wrong place.
func (a *assigned) lookup(as assignment) (Directive, bool) {
	if strings.HasPrefix(as.name, "X-") {
		return Directive{}, false
	}
	name := as.name
	if now, ok := oldNames()[name]; ok {
		name = now
	}
	sections := []string{as.section}
	switch as.section {
	case "X-Supervise":
		sections = []string{"X-Supervise", a.own(), "Unit"}
	case "Service", "Socket":
		if as.section != a.own() {
			a.l.fail(as.at, "[%s] does not belong into a unit of type %s", as.section, a.file.name.suffix[1:])
			return Directive{}, false
		}
		if slices.Contains([]string{"StartLimitIntervalSec", "StartLimitBurst", "StartLimitAction", "FailureAction", "RebootArgument"}, name) {
			sections = []string{"Unit"} // where they were once
		}
	}
	for _, section := range sections {
		if d, ok := a.l.table[section+"."+name]; ok {
			return d, true
		}
	}
	if as.section == "Socket" {
		if d, ok := a.l.table["Service."+name]; ok && d.Flag != "timeout-start" && !strings.HasPrefix(name, "Exec") {
			a.l.warn(as.at, "%s= is ignored: it goes for the commands of a socket", name)
			return Directive{}, false
		}
	}
	for _, section := range []string{"Unit", "Service", "Socket", "Install", "X-Supervise"} {
		if _, ok := a.l.table[section+"."+name]; ok {
			a.l.fail(as.at, "%s= belongs to [%s], and stands in [%s]: move it there", as.name, section, as.section)
			return Directive{}, false
		}
	}
	a.l.fail(as.at, "there is no directive %s=%s", as.name, a.near(as.name))
	return Directive{}, false
}

// near names the directive that was probably meant.
func (a *assigned) near(name string) string {
	best, distance := "", 2+len(name)/4
	for _, d := range a.l.table {
		n := editDistance(strings.ToLower(name), strings.ToLower(d.Name))
		if n < distance || n == distance && best != "" && d.Name < best { // of two equally near ones always the same
			best, distance = d.Name, n
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "=?"
}

// finishService is what holds for a service as a whole once all is said.
func (a *assigned) finishService() {
	s := a.service
	if _, ok := a.said["Service.Type"]; !ok && len(s.ExecStart()) == 0 {
		s.Type = Oneshot
	}
	if s.Type == Oneshot && !a.mentioned("TimeoutStartSec") && !a.mentioned("TimeoutSec") {
		s.TimeoutStart = 0
	}
	if s.StartLimitInterval == 0 || s.StartLimitBurst == 0 {
		s.StartLimitInterval, s.StartLimitBurst = 0, 0
	}
	if only, err := ParseBool(a.file.last("Service", "PermissionsStartOnly")); err == nil && only {
		for _, list := range [][]ExecLine{s.StartPre, s.StartPost, s.Reload, s.Stop, s.StopPost} {
			for i := range list {
				if list[i].Privilege == PrivilegeNone {
					list[i].Privilege = PrivilegeFull
				}
			}
		}
	}
	if len(s.ExecStart()) == 0 && len(s.Stop) > 0 && !a.l.opts.Pending {
		a.l.fail(s.At, "%w: write ExecStart=/bin/true", &UnsupportedError{Name: "a unit without ExecStart="})
	}
	if s.KillMode == KillNone {
		s.SendSIGKILL = false // what it says
	}
	if s.TimeoutAbort != 0 && s.Watchdog == 0 {
		s.TimeoutAbort = 0 // of no use, and no fault in a unit
	}
	_, words := a.said["Service.StandardOutput"]
	_, ours := a.said["X-Supervise.Output"]
	a.l.output[s] = words || ours
	a.waiting()
}

func (a *assigned) mentioned(name string) bool {
	_, ok := a.said["Service."+name]
	return ok
}

// waiting refuses what the supervisor does not carry out yet.
func (a *assigned) waiting() {
	if a.l.opts.Pending {
		return
	}
	defaults := UnitDefaults(a.l.host.user)
	var late []error
	for key, at := range a.said {
		d := a.l.table[key]
		refuse := func(name string) {
			late = append(late, &UnitError{At: at, Err: &UnsupportedError{Name: name}})
		}
		switch {
		case d.Support == Pending && d.Section == "Unit" && d.Repeat && !strings.HasPrefix(d.Name, "Condition") && !strings.HasPrefix(d.Name, "Assert"):
			// Dependencies: only if they point to a unit that is given.
		case d.Name == "StopWhenUnneeded" && !a.head.needs.StopWhenUnneeded:
		case d.Support == Pending && a.socket != nil && d.idle != nil && d.idle(a.socket):
		case d.Support == Pending && a.service != nil && d.Get != nil && slices.Equal(d.Get(a.service), d.Get(&defaults)):
		case d.Support == Pending:
			refuse(d.Name + "=")
		case d.Waits != nil && a.service != nil && d.Waits(a.service) != "" && d.Waits(a.service) != d.Waits(&defaults):
			refuse(d.Name + "=" + shorten(d.Waits(a.service)))
		}
	}
	slices.SortFunc(late, func(x, y error) int { return strings.Compare(x.Error(), y.Error()) })
	a.l.errs = append(a.l.errs, late...)
}

// unused warns of options that mean nothing for any address of the unit.
func (a *assigned) unused() {
	for _, v := range a.socket.options {
		if v.value == "" || len(a.socket.Sockets) == 0 {
			continue
		}
		if !slices.ContainsFunc(a.socket.Sockets, func(s Socket) bool { return slices.Contains(v.option.networks, s.Network) }) {
			a.l.warn(a.said[v.option.section+"."+v.option.directive], "%s= has no meaning for %s", v.option.directive, a.socket.Sockets[0].Source)
		}
	}
}

// units makes the plain values of all files and joins them.
func (l *loader) units() *Units {
	u := &Units{Templates: map[string]*Template{}}
	byName := map[string]*Service{}
	for _, f := range l.files {
		switch {
		case f.name.isTemplate() && f.name.suffix == ".service":
			u.Templates[f.name.bare()] = l.template(f)
		case f.name.isTemplate():
			if !slices.ContainsFunc(l.files, func(o *unitFile) bool { return o != f && o.name.template() == f.name }) {
				l.warn(Position{File: f.file}, "no instance of the template is given: nothing is done with it")
			}
		case f.name.suffix == ".service":
			s := l.service(f)
			byName[f.name.String()] = s
			u.Services = append(u.Services, s)
		default:
			u.Sockets = append(u.Sockets, l.socket(f))
		}
	}
	l.join(u, byName)
	l.depend(u, byName)
	for _, s := range u.Services {
		l.decideStart(s)
		if len(u.Services) == 1 && !l.output[s] {
			s.Output = "inherit" // there is nobody to tell its lines from
		}
		l.validate(s)
	}
	l.clashes(u)
	return u
}

// template makes the Template of a file. What is wrong with it is told now, by
// an instance made for the purpose.
func (l *loader) template(f *unitFile) *Template {
	t := &Template{Name: f.name.bare(), At: Position{File: f.file}}
	instantiate := func(l *loader, instance string) *Service {
		copied := *f
		copied.name.instance = instance
		s := l.service(&copied)
		l.validate(s)
		return s
	}
	instantiate(l, "instance")
	opts := l.opts
	t.make = func(instance string) (*Service, error) {
		name := f.name
		name.instance = instance
		if instance == "" {
			return nil, fmt.Errorf("cannot make an instance of %s: its name is empty", filepath.Base(f.file))
		}
		if _, err := parseUnitName(name.String()); err != nil {
			return nil, fmt.Errorf("cannot make an instance of %s: %w", filepath.Base(f.file), err)
		}
		own := newLoader(opts)
		s := instantiate(own, instance)
		if len(own.errs) > 0 {
			return nil, own.failure()
		}
		return s, nil
	}
	return t
}

// join gives each service its sockets: those of its Sockets= first, then those
// that name it, in the order given.
func (l *loader) join(u *Units, byName map[string]*Service) {
	owner := map[*SocketUnit]*Service{}
	lend := func(s *Service, unit *SocketUnit) {
		switch other := owner[unit]; {
		case other == s:
		case other != nil:
			l.fail(unit.At, "its listeners would belong to %s.service and %s.service: one service each", other.Name, s.Name)
		default:
			owner[unit] = s
			s.SocketUnits = append(s.SocketUnits, unit)
			s.Sockets = append(s.Sockets, unit.Sockets...)
		}
	}
	bySocket := map[string]*SocketUnit{}
	for _, unit := range u.Sockets {
		bySocket[unit.Name+".socket"] = unit
	}
	for _, s := range u.Services {
		for _, name := range l.sockets[s.Name+".service"] {
			if unit := bySocket[name]; unit != nil {
				if unit.Accept {
					l.fail(unit.At, "Accept=yes makes a service for each connection: %s.service cannot have its listeners by Sockets=", s.Name)
					continue
				}
				lend(s, unit)
			}
		}
	}
	for _, unit := range u.Sockets {
		if unit.Accept {
			unit.Template = u.Templates[strings.TrimSuffix(unit.Service, ".service")]
			continue
		}
		// By Sockets= of another, and its own does not exist: that is no fault.
		if s := byName[unit.Service]; s != nil {
			lend(s, unit)
		}
	}
}

// decideStart says whether a service waits for the first connection.
func (l *loader) decideStart(s *Service) {
	f := l.find(s.Name + ".service")
	switch start := l.start[s.Name+".service"]; {
	case start == "on-connection" && len(s.SocketUnits) == 0:
		l.fail(s.At, "Start=on-connection wants a socket, and none is lent to it: give its .socket, too")
	case start == "now":
	case start == "on-connection":
		s.OnDemand = true
	default:
		s.OnDemand = len(s.SocketUnits) > 0 && !f.named && (f.pulled || !f.linked)
	}
}

// validate looks at a service as a whole.
func (l *loader) validate(s *Service) {
	if slices.ContainsFunc(l.errs, func(err error) bool {
		var e *UnitError
		return errors.As(err, &e) && e.At.File == s.At.File
	}) {
		return // what follows from another fault is no help
	}
	err := s.Validate()
	if err == nil {
		return
	}
	var all interface{ Unwrap() []error }
	if errors.As(err, &all) {
		for _, e := range all.Unwrap() {
			l.fail(s.At, "%w", e)
		}
		return
	}
	l.fail(s.At, "%w", err)
}

// clashes looks for addresses that cannot be bound together.
func (l *loader) clashes(u *Units) {
	var all []Socket
	for _, unit := range u.Sockets {
		all = append(all, unit.Sockets...)
	}
	for i := range all {
		for j := range i {
			if why := clash(all[j], all[i]); why != "" {
				l.fail(all[i].At, "cannot listen on %q: %s has %q, and %s; leave one out", source(all[i]), all[j].At, source(all[j]), why)
			}
		}
	}
}
