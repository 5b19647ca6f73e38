package config

import (
	"strings"
	"testing"
)

func TestParseOutput(t *testing.T) {
	for s, want := range map[string]Output{
		"":                                  {Kind: OutputInherit},
		"inherit":                           {Kind: OutputInherit},
		"journal":                           {Kind: OutputJournal},
		"null":                              {Kind: OutputNull},
		"prefix":                            {Kind: OutputPrefix, Prefix: true},
		"/var/log/x":                        {Kind: OutputFile, Path: "/var/log/x", Keep: 5},
		"./x?rotate=10M":                    {Kind: OutputFile, Path: "./x", Keep: 5, Rotate: 10 << 20},
		"./x?rotate=1.5K&keep=0":            {Kind: OutputFile, Path: "./x", Rotate: 1536},
		"./x?prefix=yes":                    {Kind: OutputFile, Path: "./x", Keep: 5, Prefix: true},
		"./x?keep=2&rotate=65536&prefix=no": {Kind: OutputFile, Path: "./x", Keep: 2, Rotate: 65536},
	} {
		if got, err := ParseOutput(s); err != nil || got != want {
			t.Errorf("%q: %+v, %v", s, got, err)
		}
	}
	for s, want := range map[string]string{
		"journla":               "write inherit",
		"./x?":                  "no option",
		"./x?rotte=1":           `no option "rotte"`,
		"./x?rotate=":           "no number",
		"./x?rotate=-1":         "no number",
		"./x?rotate=9E":         "too large",
		"./x?keep=3":            "without rotate=",
		"./x?rotate=1&keep=x":   "write a number",
		"./x?rotate=1&rotate=2": "twice",
		"./x?prefix=perhaps":    "prefix=",
	} {
		if got, err := ParseOutput(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v", s, got, err)
		}
	}
}
