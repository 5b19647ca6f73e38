//go:build unix && !linux

package handoff

// monotonic is only for systemd.
func monotonic() string { return "" }
