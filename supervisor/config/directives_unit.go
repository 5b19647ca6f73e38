package config

import (
	"slices"
	"strings"
)

// head is what units of all types have.
type head struct {
	description *string
	needs       *Dependencies
	conditions  *[]Condition
}

// headDirectives are those of [Unit] that go for services and sockets alike.
func headDirectives() []Directive {
	list := []Directive{
		{
			Section: "Unit", Name: "Description", Arg: "TEXT", Help: "what the unit is, in words",
			readHead: func(r *reading, h head, value string) (err error) {
				*h.description, err = r.expand(value)
				return err
			},
		},
		dependency("After", "started when these have started, stopped before them", func(d *Dependencies) *[]string { return &d.After }),
		dependency("Before", "these are started when this one has started", func(d *Dependencies) *[]string { return &d.Before }),
		dependency("Requires", "started with it; stopped when these are stopped", func(d *Dependencies) *[]string { return &d.Requires }),
		dependency("Requisite", "have to be up already", func(d *Dependencies) *[]string { return &d.Requisite }),
		dependency("Wants", "started with it, and may fail", func(d *Dependencies) *[]string { return &d.Wants }),
		dependency("BindsTo", "as Requires=, and stopped when these end for any reason", func(d *Dependencies) *[]string { return &d.BindsTo }),
		dependency("PartOf", "stopped and restarted with these", func(d *Dependencies) *[]string { return &d.PartOf }),
		dependency("Upholds", "kept up as long as it is up", func(d *Dependencies) *[]string { return &d.Upholds }),
		dependency("Conflicts", "cannot be up together with it", func(d *Dependencies) *[]string { return &d.Conflicts }),
		dependency("OnFailure", "started when it fails", func(d *Dependencies) *[]string { return &d.OnFailure }),
		dependency("OnSuccess", "started when it ends well", func(d *Dependencies) *[]string { return &d.OnSuccess }),
		{
			Section: "Unit", Name: "StopWhenUnneeded", Arg: argBool, Help: "stopped when no unit that is up needs it", Support: Pending,
			readHead: func(_ *reading, h head, value string) (err error) {
				h.needs.StopWhenUnneeded = false
				if value != "" {
					h.needs.StopWhenUnneeded, err = ParseBool(value)
				}
				return err
			},
		},
	}
	kinds := conditionKinds()
	for _, kind := range slices.Sorted(keys(kinds)) {
		list = append(list, condition("Condition"+kind, "what has to hold for a start, which is skipped else"),
			condition("Assert"+kind, "what has to hold for a start, which fails else"))
	}
	return list
}

// dependency makes the directive of a list of units.
func dependency(name, help string, at func(*Dependencies) *[]string) Directive {
	return Directive{
		Section: "Unit", Name: name, Arg: "UNIT...", Help: help, Repeat: true,
		Means: "counts among the units given; others are left out",
		readHead: func(r *reading, h head, value string) error {
			if value == "" {
				*at(h.needs) = nil
				return nil
			}
			words, err := r.words(value)
			if err != nil {
				return err
			}
			for _, w := range words {
				if _, err := parseUnitName(w); err != nil {
					return err
				}
				if !slices.Contains(*at(h.needs), w) {
					*at(h.needs) = append(*at(h.needs), w)
				}
			}
			return nil
		},
	}
}

func condition(name, help string) Directive {
	return Directive{
		Section: "Unit", Name: name, Arg: "[|][!]VALUE", Help: help, Repeat: true,
		readHead: func(r *reading, h head, value string) error {
			if value == "" { // all conditions, or all asserts
				kind := strings.HasPrefix(name, "Assert")
				*h.conditions = slices.DeleteFunc(slices.Clone(*h.conditions), func(c Condition) bool { return c.Assert() == kind })
				return nil
			}
			c, err := parseCondition(r, name, value)
			if err == nil {
				*h.conditions = append(*h.conditions, c)
			}
			return err
		},
	}
}

func keys[K comparable, V any](m map[K]V) func(func(K) bool) {
	return func(yield func(K) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}
