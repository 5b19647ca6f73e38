package main

import (
	"strings"
	"testing"
)

// TestMayNameVerb: a verb is never missed.
func TestMayNameVerb(t *testing.T) {
	for _, c := range []struct {
		args string
		want bool
	}{
		{"-- ./web", false},
		{"-- why", false},
		{"--listen :8080 --name=web -- ./web --help", false},
		{"--listen :8080", true},
		{"", true},
		{"version", true},
		{"why 8080", true},
		{"why -- ./web", true},
		{"--log-level debug adopt -- ./web", true},
		{"--help -- ./web", true},
		{"-h", true},
		{"__complete ru", true},
		{"__complete -- -", true},
	} {
		if got := mayNameVerb(strings.Fields(c.args)); got != c.want {
			t.Errorf("%q: %v, want %v", c.args, got, c.want)
		}
	}
	status := 0
	for _, verb := range newRoot(nil, &status).Commands() {
		if !mayNameVerb([]string{verb.Name(), "--"}) {
			t.Errorf("the verb %s is missed before --", verb.Name())
		}
	}
}
