package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Output is a place for standard output or standard error, as Output= of
// [X-Supervise] and --output have it:
//
//	inherit  prefix  journal  null
//	PATH[?rotate=SIZE&keep=N&prefix=BOOL]
//
// A path has a '/' in it. A file grows to rotate= bytes (K, M and G to the base
// of 1024; 0: it is not rotated) and is then PATH.1, and so on up to PATH.N.
type Output struct {
	Kind   OutputKind
	Path   string // OutputFile
	Rotate int64  // OutputFile: bytes; 0 is never
	Keep   int    // OutputFile: rotated files that are kept, 5 by default
	Prefix bool   // each line begins with the service and its generation; always of OutputPrefix
}

// OutputKind says what kind of place it is.
type OutputKind string

const (
	OutputInherit OutputKind = "inherit"
	OutputPrefix  OutputKind = "prefix"
	OutputJournal OutputKind = "journal"
	OutputNull    OutputKind = "null"
	OutputFile    OutputKind = "file"
)

// defaultKeep is how many rotated files are kept when only rotate= is given.
const defaultKeep = 5

// ParseOutput reads a place for output. A path without '/' is taken for a word
// that is wrong; "" is inherit.
func ParseOutput(s string) (Output, error) {
	switch kind := OutputKind(s); kind {
	case "":
		return Output{Kind: OutputInherit}, nil
	case OutputInherit, OutputJournal, OutputNull:
		return Output{Kind: kind}, nil
	case OutputPrefix:
		return Output{Kind: kind, Prefix: true}, nil
	}
	if !strings.Contains(s, "/") {
		return Output{}, fmt.Errorf("cannot read %q as a place for output: write inherit, prefix, journal, null, or a path such as ./%s", s, s)
	}
	o := Output{Kind: OutputFile, Path: s, Keep: defaultKeep}
	path, options, ok := strings.Cut(s, "?")
	if !ok {
		return o, nil
	}
	o.Path = path
	seen := map[string]bool{}
	for option := range strings.SplitSeq(options, "&") {
		key, value, _ := strings.Cut(option, "=")
		if seen[key] {
			return Output{}, fmt.Errorf("cannot read %q as a place for output: %s= is given twice", s, key)
		}
		seen[key] = true
		if err := o.set(key, value); err != nil {
			return Output{}, fmt.Errorf("cannot read %q as a place for output: %w", s, err)
		}
	}
	if seen["keep"] && o.Rotate == 0 {
		return Output{}, fmt.Errorf("cannot read %q as a place for output: keep= says nothing without rotate=; write rotate=10M&%s", s, options)
	}
	return o, nil
}

func (o *Output) set(key, value string) error {
	switch key {
	case "rotate":
		n, err := parseSize(value)
		if err == nil && n > math.MaxInt64 {
			err = errors.New("it is too large")
		}
		if err != nil {
			return fmt.Errorf("rotate=: %w", err)
		}
		o.Rotate = int64(n)
	case "keep":
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 || n > 1000 {
			return fmt.Errorf("keep=%s: write a number from 0 to 1000", value)
		}
		o.Keep = n
	case "prefix":
		b, err := ParseBool(value)
		if err != nil {
			return fmt.Errorf("prefix=: %w", err)
		}
		o.Prefix = b
	default:
		return fmt.Errorf("there is no option %q; there are rotate=, keep= and prefix=", key)
	}
	return nil
}
