package config

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/coreos/go-systemd/v22/unit"
)

const (
	// maxUnitFile and maxUnitLine bound what is read; systemd's own bound of a
	// line, continued ones together, is 1 MiB.
	maxUnitFile = 4 << 20
	maxUnitLine = 1 << 20
)

// assignment is NAME=VALUE of a unit file: the value as written, lines that
// were continued joined by a blank.
type assignment struct {
	section, name, value string
	at                   Position // of its first line
}

// unitLine is a line of a unit file that says something, comments and
// continuations gone.
type unitLine struct {
	text string
	line int
}

// parseUnit reads the text of a unit file or drop-in by the rules of
// systemd.syntax(7). It gives every assignment in order, of every section, but
// for sections X-... other than [X-Supervise], and all errors that it finds,
// each as a *UnitError.
//
// The lines are taken apart by go-systemd's parser, which keeps no positions,
// takes a comment within a continued value for a part of it, goes over text
// before the first section without a word, and knows no line above 2048 bytes.
// So unitLines comes before it, and it is given one clean line for each
// assignment, in small pieces.
func parseUnit(file string, data []byte) ([]assignment, []error) {
	lines, errs := unitLines(file, data)
	var text strings.Builder
	var places []int
	section, skip := "", false
	for _, l := range lines {
		fail := func(format string, args ...any) {
			errs = append(errs, &UnitError{At: Position{file, l.line}, Err: fmt.Errorf(format, args...)})
		}
		if l.text[0] == '[' {
			name, ok := strings.CutSuffix(l.text[1:], "]")
			section, skip = name, true
			switch {
			case !ok:
				section = l.text
				fail("the ']' is missing at the end of %q", l.text)
			case knownSection(name):
				skip = false
				text.WriteString(l.text + "\n")
			case !strings.HasPrefix(name, "X-"):
				fail("cannot use section [%s]: write [Unit], [Service], [Socket], [Install] or [X-Supervise]", name)
			}
			continue
		}
		name, _, ok := strings.Cut(l.text, "=")
		name = strings.TrimRight(name, blanks)
		switch {
		case section == "":
			fail("%q stands before the first section: write [Service] or [Unit] above it", shorten(l.text))
		case skip:
		case !ok:
			fail("there is no '=' in %q: write NAME=VALUE, or begin a comment with '#'", shorten(l.text))
		case name == "":
			fail("there is no name before '=' in %q", shorten(l.text))
		case strings.Trim(name, directiveLetters) != "":
			fail("%q is no name of a directive: names have letters, digits and '-'", shorten(name))
		default:
			// The blank keeps a backslash at its end from continuing it.
			text.WriteString(l.text + " \n")
			places = append(places, l.line)
		}
	}
	options, err := unit.DeserializeOptions(&trickle{text.String()})
	if err == nil && len(options) != len(places) {
		err = fmt.Errorf("%d assignments became %d", len(places), len(options))
	}
	if err != nil { // cannot happen: the lines are clean
		return nil, append(errs, &UnitError{At: Position{File: file}, Err: fmt.Errorf("cannot take it apart: %w", err)})
	}
	all := make([]assignment, len(options))
	for i, o := range options {
		all[i] = assignment{o.Section, o.Name, o.Value, Position{file, places[i]}}
	}
	return all, errs
}

const directiveLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-"

func knownSection(name string) bool {
	switch name {
	case "Unit", "Service", "Socket", "Install", "X-Supervise":
		return true
	}
	return false
}

// UnitError is one thing that is wrong in a unit file. Its text may have a
// second line: what to do.
type UnitError struct {
	At  Position
	Err error
}

func (e *UnitError) Error() string { return e.At.String() + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *UnitError) Unwrap() error { return e.Err }

// unitLines takes a file apart into lines that say something: a backslash at
// the end joins a line and the next by a blank, comments and empty lines are
// gone, also between the two.
func unitLines(file string, data []byte) ([]unitLine, []error) {
	var lines []unitLine
	var errs []error
	fail := func(line int, text string) {
		errs = append(errs, &UnitError{At: Position{file, line}, Err: errors.New(text)})
	}
	if len(data) > maxUnitFile {
		fail(0, fmt.Sprintf("it has %d bytes; %d is the most", len(data), maxUnitFile))
		return nil, errs
	}
	rest := strings.TrimPrefix(string(data), "\ufeff")
	var joined strings.Builder
	begin := 0
	finish := func() {
		text := strings.Trim(joined.String(), blanks)
		joined.Reset()
		switch {
		case text == "":
		case !utf8.ValidString(text):
			fail(begin, "the line is not UTF-8")
		case strings.IndexByte(text, 0) >= 0:
			fail(begin, "there is a NUL byte in the line")
		default:
			lines = append(lines, unitLine{text, begin})
		}
		begin = 0
	}
	for number := 1; rest != ""; number++ {
		var line string
		line, rest = cutLine(rest)
		if bare := strings.TrimLeft(line, blanks); bare != "" && (bare[0] == '#' || bare[0] == ';') {
			continue
		}
		if begin == 0 {
			begin = number
		}
		if joined.Len()+len(line) > maxUnitLine {
			fail(begin, fmt.Sprintf("the line is longer than %d bytes", maxUnitLine))
			return lines, errs
		}
		if body, ok := continued(line); ok {
			joined.WriteString(body + " ")
			continue
		}
		joined.WriteString(line)
		finish()
	}
	if begin != 0 {
		finish()
	}
	return lines, errs
}

// cutLine takes the first line off s. Lines end with \n, \r\n or \r.
func cutLine(s string) (line, rest string) {
	i := strings.IndexAny(s, "\n\r")
	if i < 0 {
		return s, ""
	}
	end := i + 1
	if s[i] == '\r' && strings.HasPrefix(s[end:], "\n") {
		end++
	}
	return s[:i], s[end:]
}

// continued says whether line ends in a backslash that is not itself escaped,
// and gives what is before it.
func continued(line string) (body string, ok bool) {
	body = strings.TrimRight(line, `\`)
	if (len(line)-len(body))%2 == 0 {
		return line, false
	}
	return line[:len(line)-1], true
}

// trickle gives a text in pieces that are too small for go-systemd's parser to
// see a long line by.
type trickle struct{ rest string }

func (t *trickle) Read(p []byte) (int, error) {
	if t.rest == "" {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), 512)], t.rest)
	t.rest = t.rest[n:]
	return n, nil
}

// shorten makes a quotation fit a line.
func shorten(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	cut := most
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "..."
}
