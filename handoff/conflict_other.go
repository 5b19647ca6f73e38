//go:build !linux

package handoff

// holders are not to be found without the help of other programs.
func holders(*ask) []holder { return nil }
