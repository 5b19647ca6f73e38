package config

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// UnitText is a unit file: its name and what is in it.
type UnitText struct{ Name, Text string }

// UnitFiles gives the .service and the .socket units that say the same as s:
// Load reads them back. What systemd has no word for, or would take for an
// error, stands in [X-Supervise], which it ignores and which Load puts above
// the rest. Paths have to be absolute, and the name one of a unit.
func (s *Service) UnitFiles() ([]UnitText, error) {
	name := s.Name + ".service"
	if _, err := parseUnitName(name); err != nil {
		return nil, fmt.Errorf("cannot name the unit: %w", err)
	}
	p := &printer{base: UnitDefaults(false)}
	p.base.Output = "inherit" // what Load makes of it where the service is the only one
	p.line("Unit", "Description", orName(s.Description, s.Name))
	groups := s.socketGroups()
	for _, d := range Directives() {
		if d.Get == nil || d.Section == "Socket" || d.Name == "InheritEnvironment" {
			continue
		}
		if err := p.directive(d, s); err != nil {
			return nil, err
		}
	}
	p.standIns(s)
	if len(groups) > 1 || len(groups) == 1 && groups[0].name != s.Name+".socket" {
		for _, g := range groups {
			p.line("Service", "Sockets", quoteWord(g.name))
		}
	}
	p.line("Install", "WantedBy", "multi-user.target")
	units := []UnitText{{name, p.text()}}
	for _, g := range groups {
		text, err := g.print(s.Name)
		if err != nil {
			return nil, err
		}
		units = append(units, UnitText{g.name, text})
	}
	return units, nil
}

func orName(text, name string) string {
	if text == "" {
		text = name
	}
	return strings.ReplaceAll(text, "%", "%%")
}

// printer collects the lines of one unit by section.
type printer struct {
	base  Service // what a unit says that says nothing
	lines map[string][]string
}

func (p *printer) line(section, name, value string) {
	if p.lines == nil {
		p.lines = map[string][]string{}
	}
	p.lines[section] = append(p.lines[section], name+"="+value)
}

func (p *printer) text() string {
	var b strings.Builder
	for _, section := range []string{"Unit", "Service", "Socket", "X-Supervise", "Install"} {
		if len(p.lines[section]) == 0 {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		b.WriteString("[" + section + "]\n" + strings.Join(p.lines[section], "\n") + "\n")
	}
	return b.String()
}

// directive writes what s says by d, if that is not what the unit says anyway.
func (p *printer) directive(d Directive, s *Service) error {
	texts := d.Get(s)
	if slices.Equal(texts, d.Get(&p.base)) {
		return nil
	}
	section := d.Section
	if section == "Service" && p.ours(d, s) {
		section = "X-Supervise"
	}
	for _, text := range texts {
		if d.read == nil {
			if why := unwritable(text); why != "" {
				return fmt.Errorf("cannot write %s=%s into a unit file: %s", d.Name, strconv.Quote(text), why)
			}
			text = strings.ReplaceAll(text, "%", "%%")
		}
		if d.Name == "ExecStart" {
			if first := s.ExecStart()[0].Path; first != "" && strings.IndexByte("-@:+!|$", first[0]) >= 0 {
				return fmt.Errorf("cannot write the command %q into a unit file: what it begins with would be taken for a prefix; give its whole path", first)
			}
		}
		p.line(section, d.Name, text)
	}
	return nil
}

// unwritable says why a value cannot stand in a line of its own as it is.
func unwritable(text string) string {
	_, continues := continued(text)
	switch {
	case strings.ContainsAny(text, "\n\r\x00"):
		return "it has more than one line"
	case continues:
		return "a backslash at its end would continue the line"
	case strings.Trim(text, blanks) != text:
		return "it begins or ends with a blank"
	}
	return ""
}

// ours says that a value is for the supervisor alone: systemd has no such word,
// or would complain.
func (p *printer) ours(d Directive, s *Service) bool {
	switch d.Name {
	case "Type":
		return s.Type == Auto
	case "StandardInput":
		return s.Input == "inherit"
	case "RestartMaxDelaySec", "RestartSteps":
		return s.RestartBackoff || s.RestartSteps == 0 || s.RestartMaxDelay == 0
	}
	return false
}

// standIns writes what a directive has no text for, and what systemd does best
// where it does not know the word.
func (p *printer) standIns(s *Service) {
	var inherit []string
	if s.InheritEnv {
		inherit = append(inherit, "environment")
	}
	if s.Umask < 0 {
		inherit = append(inherit, "umask")
	}
	if s.Dir == "" {
		inherit = append(inherit, "directory")
	}
	if len(inherit) > 0 {
		p.line("X-Supervise", "Inherit", strings.Join(inherit, " "))
	}
	if s.Type == Auto {
		p.line("Service", "Type", string(Exec))
	}
	if out, err := ParseOutput(s.Output); err == nil {
		switch {
		case out.Kind == OutputNull:
			p.line("Service", "StandardOutput", "null")
		case out.Kind == OutputFile && path.IsAbs(out.Path):
			kind := "append:"
			if s.TruncateOut {
				kind = "truncate:"
			}
			p.line("Service", "StandardOutput", kind+strings.ReplaceAll(out.Path, "%", "%%"))
		}
	}
}

// socketGroup are addresses that one socket unit can say.
type socketGroup struct {
	name    string // of the unit
	sockets []Socket
}

// socketGroups puts neighbours with the same name and options together.
func (s *Service) socketGroups() []socketGroup {
	var groups []socketGroup
	for _, socket := range s.Sockets {
		last := len(groups) - 1
		if last >= 0 && sameUnit(groups[last].sockets[0], socket) {
			groups[last].sockets = append(groups[last].sockets, socket)
			continue
		}
		groups = append(groups, socketGroup{sockets: []Socket{socket}})
	}
	taken := map[string]bool{}
	for i := range groups {
		bare := s.Name
		if len(groups) > 1 {
			bare += "-" + EscapeName(groups[i].sockets[0].Name)
		}
		name := bare
		for n := 2; taken[name]; n++ {
			name = bare + "." + strconv.Itoa(n)
		}
		taken[name] = true
		groups[i].name = name + ".socket"
	}
	return groups
}

func sameUnit(a, b Socket) bool {
	return a.Name == b.Name && a.IsUnix() == b.IsUnix() && a.Optional == b.Optional && a.Options == b.Options && a.V6Only == b.V6Only
}

func (g *socketGroup) print(service string) (string, error) {
	p := &printer{}
	p.line("Unit", "Description", orName("", "listeners of "+service))
	first := g.sockets[0]
	for _, s := range g.sockets {
		name, value := s.ListenDirective()
		if s.DualStack {
			value = strconv.Itoa(int(s.Addr.Port()))
		}
		if s.IsUnix() && value[0] != '/' && value[0] != '@' {
			return "", fmt.Errorf("cannot write %q into a unit file: the path is relative; write it from the root on", source(s))
		}
		p.line("Socket", name, strings.ReplaceAll(value, "%", "%%"))
	}
	if first.Name != "" && first.Name != g.name {
		p.line("Socket", "FileDescriptorName", strings.ReplaceAll(first.Name, "%", "%%"))
	}
	if first.V6Only {
		p.line("Socket", "BindIPv6Only", "ipv6-only")
	}
	base := Socket{Options: unitSocketOptions()}
	if !first.IsUnix() {
		base.Options = DefaultSocketOptions()
	}
	for _, o := range socketOptions() {
		text, initial := o.get(&first), o.get(&base)
		if o.directive == "RemoveOnStop" {
			text, initial = FormatBool(first.Options.RemoveOnStop), FormatBool(base.Options.RemoveOnStop)
		}
		if text == initial {
			continue
		}
		if text == "" {
			return "", errors.New("cannot write an option that is not set")
		}
		p.line(o.section, o.directive, strings.ReplaceAll(text, "%", "%%"))
	}
	if g.name != service+".socket" {
		p.line("Socket", "Service", service+".service")
	}
	p.line("Install", "WantedBy", "sockets.target")
	return p.text(), nil
}
