package portdiag

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write why.md and symptoms.md anew")

// causesMark begins the part of why.md that is made from the table.
const causesMark = "<!-- causes:"

// TestDocs: the table in why.md is the table in the code, and what its
// examples call a cause is one.
func TestDocs(t *testing.T) {
	b, err := os.ReadFile("why.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	at := strings.Index(text, causesMark)
	if at < 0 {
		t.Fatalf("why.md has no %q", causesMark)
	}
	end := at + strings.IndexByte(text[at:], '\n') + 1
	want := text[:end] + causesTable()
	if *update {
		if err := os.WriteFile("why.md", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if text != want {
		t.Error("why.md does not have the causes of the code: go test -run TestDocs -update ./supervisor/portdiag")
	}
	known := map[string]bool{}
	for _, c := range Causes() {
		if known[string(c.Cause)] {
			t.Errorf("%s is twice in the table", c.Cause)
		}
		known[string(c.Cause)] = true
		if c.Means == "" || c.Kind != KindFree && c.Kind != KindHolder && (c.Errno == "" || c.Cure == "") {
			t.Errorf("%s lacks its meaning, errno or cure", c.Cause)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^    .*\bcause ([a-z0-9-]+)$`).FindAllStringSubmatch(text[:at], -1) {
		if !known[m[1]] {
			t.Errorf("an example has the unknown cause %s", m[1])
		}
	}
	if n := len(known); n < 30 {
		t.Errorf("only %d causes", n)
	}
}

func causesTable() string {
	var b strings.Builder
	for _, k := range []struct {
		kind  Kind
		title string
		errno bool
	}{
		{KindConflict, "Another socket has the address", true},
		{KindPath, "A unix path", true},
		{KindRefused, "The kernel refuses the address", true},
		{KindFree, "Nothing is in the way", false},
		{KindHolder, "What the holder is", false},
	} {
		fmt.Fprintf(&b, "\n### %s\n\n", k.title)
		if k.errno {
			b.WriteString("| cause | bind says | what it means | what to do |\n| --- | --- | --- | --- |\n")
		} else {
			b.WriteString("| cause | what it means | what to do |\n| --- | --- | --- |\n")
		}
		for _, c := range Causes() {
			switch {
			case c.Kind != k.kind:
			case k.errno:
				fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", c.Cause, c.Errno, c.Means, c.Cure)
			default:
				fmt.Fprintf(&b, "| `%s` | %s | %s |\n", c.Cause, c.Means, c.Cure)
			}
		}
	}
	return b.String()
}
