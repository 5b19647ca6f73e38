package config

import "fmt"

// UnsupportedError says that a directive is known to systemd and not done here.
type UnsupportedError struct {
	Name   string // of the directive, with its value where only that is not supported
	Unsafe bool   // going on without it would give the service more than its unit allows
}

func (e *UnsupportedError) Error() string {
	if e.Unsafe {
		return fmt.Sprintf("%s is not supported yet, and leaving it out would not be safe", e.Name)
	}
	return fmt.Sprintf("%s is not supported yet", e.Name)
}

// unsupported looks name up among the directives that are known and not done.
func unsupported(name string) (*UnsupportedError, bool) {
	var found *UnsupportedError
	for _, d := range rows() {
		switch {
		case d.Name != name:
		case d.Support == Supported:
			return nil, false
		case found == nil || d.Support == Refused:
			found = &UnsupportedError{Name: name + "=", Unsafe: d.Support == Refused}
		}
	}
	return found, found != nil
}
