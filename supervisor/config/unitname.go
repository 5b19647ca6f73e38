package config

import (
	"fmt"
	"strings"
)

// unitName is the name of a unit, taken apart (systemd.unit(5)).
type unitName struct {
	prefix   string // before the '@', or all but the suffix
	at       bool   // there is an '@': a template, or its instance
	instance string // "" of a template
	suffix   string // ".service"
}

// maxUnitName is UNIT_NAME_MAX of systemd.
const maxUnitName = 255

// parseUnitName takes a name such as web@8080.service apart.
func parseUnitName(name string) (unitName, error) {
	dot := strings.LastIndexByte(name, '.')
	switch {
	case dot <= 0 || !strings.Contains(unitSuffixes, name[dot:]+" "):
		return unitName{}, fmt.Errorf("%q is no name of a unit: write for example web.service or web.socket", name)
	case len(name) > maxUnitName:
		return unitName{}, fmt.Errorf("the name %q is %d bytes long; %d is the most", shorten(name), len(name), maxUnitName)
	case strings.Trim(name, unitLetters) != "":
		return unitName{}, fmt.Errorf(`%q is no name of a unit: names have letters, digits, and ":-_.\@"; systemd-escape(1) writes others`, name)
	}
	n := unitName{suffix: name[dot:]}
	n.prefix, n.instance, n.at = strings.Cut(name[:dot], "@")
	if n.prefix == "" {
		return unitName{}, fmt.Errorf("%q is no name of a unit: there is nothing before '@'", name)
	}
	return n, nil
}

const (
	unitSuffixes = ".service .socket .target .timer .path .mount .automount .swap .slice .scope .device "
	unitLetters  = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.\\@"
)

// isTemplate says that it is "web@.service".
func (n unitName) isTemplate() bool { return n.at && n.instance == "" }

// template is the name of the template of an instance.
func (n unitName) template() unitName { return unitName{n.prefix, true, "", n.suffix} }

// bare is the name without its suffix.
func (n unitName) bare() string {
	if n.at {
		return n.prefix + "@" + n.instance
	}
	return n.prefix
}

func (n unitName) String() string { return n.bare() + n.suffix }

// with is the name with another suffix.
func (n unitName) with(suffix string) unitName {
	n.suffix = suffix
	return n
}

// unescapeName undoes systemd-escape(1): '-' is '/', "\xNN" a byte.
func unescapeName(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '-':
			b.WriteByte('/')
		case s[i] == '\\' && i+3 < len(s) && s[i+1] == 'x' && isHex(s[i+2]) && isHex(s[i+3]):
			b.WriteByte(hexValue(s[i+2])<<4 | hexValue(s[i+3]))
			i += 3
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// EscapeName writes s so that it can be a part of a unit's name, as
// systemd-escape(1) does: for the instances of Accept=yes.
func EscapeName(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c == '/':
			b.WriteByte('-')
		case c == '.' && i == 0, c == '-', c == '\\', strings.IndexByte(unitLetters, c) < 0, c == '@':
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f'
}

func hexValue(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}
