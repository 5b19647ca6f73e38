package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// depend reduces the dependencies to the units that are given, finds the order
// of starting, and refuses rings and conflicts.
func (l *loader) depend(u *Units, byName map[string]*Service) {
	given := map[string]*Dependencies{}
	var names []string
	for _, unit := range u.Sockets {
		given[unit.Name+".socket"] = &unit.Dependencies
		names = append(names, unit.Name+".socket")
	}
	for _, s := range u.Services {
		given[s.Name+".service"] = &s.Dependencies
		names = append(names, s.Name+".service")
	}
	for _, name := range names {
		l.reduce(name, given[name], given)
	}
	// Listeners are there before who is lent them.
	for _, s := range u.Services {
		for _, unit := range s.SocketUnits {
			s.Dependencies.After = addName(s.Dependencies.After, unit.Name+".socket")
		}
	}
	for _, name := range names {
		for _, other := range given[name].Before {
			given[other].After = addName(given[other].After, name)
		}
	}
	order, ring := sortUnits(names, func(name string) []string { return given[name].After })
	if ring != nil {
		l.failRing(ring)
		return
	}
	u.Services = slices.DeleteFunc(mapUnits(order, byName), func(s *Service) bool { return s == nil })
	l.conflicts(u, byName)
}

func mapUnits(order []string, byName map[string]*Service) []*Service {
	services := make([]*Service, len(order))
	for i, name := range order {
		services[i] = byName[name]
	}
	return services
}

func addName(list []string, name string) []string {
	if slices.Contains(list, name) {
		return list
	}
	return append(list, name)
}

// reduce leaves out what is not given, with a warning where that takes
// something away: systemd would start it, or fail.
func (l *loader) reduce(name string, d *Dependencies, given map[string]*Dependencies) {
	f := l.find(name)
	at := func(directive, word string) Position {
		for _, a := range slices.Backward(f.assigned) {
			if a.section == "Unit" && a.name == directive && strings.Contains(a.value, word) {
				return a.at
			}
		}
		return Position{File: f.file}
	}
	for _, k := range []struct {
		directive string
		list      *[]string
		loss      string
	}{
		{"After", &d.After, ""},
		{"Before", &d.Before, ""},
		{"Requires", &d.Requires, "it is not started with this one, and not waited for"},
		{"Requisite", &d.Requisite, "nobody looks whether it is up"},
		{"Wants", &d.Wants, ""},
		{"BindsTo", &d.BindsTo, "this one goes on when it ends"},
		{"PartOf", &d.PartOf, ""},
		{"Upholds", &d.Upholds, "nobody keeps it up"},
		{"Conflicts", &d.Conflicts, ""},
		{"OnFailure", &d.OnFailure, "it is not started"},
		{"OnSuccess", &d.OnSuccess, "it is not started"},
	} {
		var kept []string
		for _, w := range *k.list {
			switch {
			case w == name:
				l.fail(at(k.directive, w), "%s= names the unit itself", k.directive)
			case given[w] != nil:
				kept = append(kept, w)
				if row := l.table["Unit."+k.directive]; row.Support == Pending && !l.opts.Pending {
					l.fail(at(k.directive, w), "%w", &UnsupportedError{Name: k.directive + "=" + w})
				}
			case k.loss != "" && !strings.HasSuffix(w, ".target") && !strings.HasSuffix(w, ".slice"):
				hint := ""
				if _, err := os.Stat(filepath.Join(filepath.Dir(f.file), w)); err == nil {
					hint = "; it lies beside it: give it, too"
				}
				l.warn(at(k.directive, w), "%s=%s is ignored, as that is not among the units given: %s%s", k.directive, w, k.loss, hint)
			}
		}
		*k.list = kept
	}
}

// sortUnits puts names into an order in which each is behind all that after
// names, and otherwise as they are. If there is none, it gives a ring.
func sortUnits(names []string, after func(string) []string) (order, ring []string) {
	const (
		unseen = iota
		open
		done
	)
	state := map[string]int{}
	var path []string
	var visit func(string) []string
	visit = func(name string) []string {
		switch state[name] {
		case done:
			return nil
		case open:
			return append(slices.Clone(path[slices.Index(path, name):]), name)
		}
		state[name] = open
		path = append(path, name)
		for _, other := range after(name) {
			if ring := visit(other); ring != nil {
				return ring
			}
		}
		path = path[:len(path)-1]
		state[name] = done
		order = append(order, name)
		return nil
	}
	for _, name := range names {
		if ring := visit(name); ring != nil {
			return nil, ring
		}
	}
	return order, nil
}

// failRing says who waits for whom, and where that is written.
func (l *loader) failRing(ring []string) {
	var steps []string
	var first Position
	for i := range len(ring) - 1 {
		at, ok := l.edges[edge{ring[i+1], ring[i]}]
		if !ok {
			at = Position{File: l.find(ring[i]).file}
		}
		if i == 0 {
			first = at
		}
		steps = append(steps, fmt.Sprintf("%s waits for %s (%s)", ring[i], ring[i+1], at))
	}
	l.fail(first, "the order of starting is a ring: %s; take one After= or Before= away", strings.Join(steps, ", "))
}

// conflicts refuses what can never be up together and would be started
// together.
func (l *loader) conflicts(u *Units, byName map[string]*Service) {
	for _, s := range u.Services {
		for _, name := range s.Dependencies.Conflicts {
			other := byName[name]
			if other == nil || l.start[name] == "on-connection" || l.start[s.Name+".service"] == "on-connection" {
				continue
			}
			l.fail(s.At, "Conflicts=%s: both would be started, and cannot be up together; leave one out", name)
		}
	}
}
