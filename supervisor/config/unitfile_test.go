package config

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParseUnit(t *testing.T) {
	text := "\ufeff# a comment\n" +
		"; another\r\n" +
		"[Unit]\r\n" +
		"A=1\n" +
		"  B =  two words  \t\n" +
		"C=one \\\n" +
		"  two\\\n" +
		"# in between\n" +
		"\n" +
		"D=\n" +
		"E=a\\\\\n" +
		"F=x=y # no comment\r" +
		"[X-Foo]\n" +
		"nothing said\n" +
		"[Service]\n" +
		"G=[a]\n" +
		"H=" + strings.Repeat("long ", 2000) + "end\n" +
		"I=ends\\"
	all, errs := parseUnit("u", []byte(text))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	var got []string
	for _, a := range all {
		value := a.value
		if len(value) > 40 {
			value = fmt.Sprint(len(value))
		}
		got = append(got, fmt.Sprintf("%s.%s=%q:%d", a.section, a.name, value, a.at.Line))
	}
	want := []string{
		`Unit.A="1":4`, `Unit.B="two words":5`, `Unit.C="one    two":6`, `Unit.D="":10`, `Unit.E="a\\\\":11`, `Unit.F="x=y # no comment":12`,
		`Service.G="[a]":16`, `Service.H="10003":17`, `Service.I="ends":18`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for text, want := range map[string]string{
		"[Unit":              "u:1: the ']' is missing",
		"[Foo]\nA=1":         "u:1: cannot use section [Foo]",
		"A=1":                "u:1: \"A=1\" stands before",
		"[Unit]\n=1":         "u:2: there is no name",
		"[Unit]\nA b=1":      "u:2: \"A b\" is no name",
		"[Unit]\nA":          "u:2: there is no '='",
		"[Unit]\nA=\x00":     "u:2: there is a NUL",
		"[Unit]\nA=\xff":     "u:2: the line is not UTF-8",
		"[Unit]\nA=\\\n\xff": "u:2: the line is not UTF-8",
		"[Unit]\nA=" + strings.Repeat("x", maxUnitLine): "u:2: the line is longer",
		strings.Repeat("\n", maxUnitFile+1):             "u: it has",
	} {
		if _, errs := parseUnit("u", []byte(text)); len(errs) != 1 || !strings.HasPrefix(errs[0].Error(), want) {
			t.Errorf("%.30q: %v, want %s", text, errs, want)
		}
	}
}

func FuzzParseUnit(f *testing.F) {
	for _, s := range []string{"[Unit]\nA=b\\\n c\n# x\n[Service]\nExecStart=/bin/x \"", "[Socket]\nListenStream=80\r\nA=\\\\", "x\\\n[Unit]\nä=1\x00", "[Unit]\n=\n[[]]\n]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		all, errs := parseUnit("u", []byte(s))
		for _, err := range errs {
			if strings.Contains(err.Error(), "take it apart") {
				t.Fatalf("%q: %v", s, err)
			}
		}
		lines := 1 + strings.Count(s, "\n") + strings.Count(s, "\r")
		last := 0
		for _, a := range all {
			if a.name == "" || !knownSection(a.section) || a.at.Line < last || a.at.Line > lines || strings.ContainsAny(a.value, "\n\r\x00") {
				t.Fatalf("%q: %+v", s, a)
			}
			last = a.at.Line
		}
	})
}

// FuzzLoad: no text of a unit file makes loading it panic, and what is taken can
// be said again.
func FuzzLoad(f *testing.F) {
	for _, s := range []string{
		"[Service]\nExecStart=/bin/x %i ${A}\nRestart=always\nUser=%u\nRuntimeDirectory=a b:c\n[X-Supervise]\nReady=/x\nInherit=umask\nWithout=sandbox",
		"[Unit]\nAfter=a.service\nConditionPathExists=|!/x\n[Service]\nType=oneshot\nExecStart=a ; b\nEnvironment=\"A=b c\"\nCapabilityBoundingSet=~CAP_KILL\nLimitNOFILE=1:2",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		assigned, errs := parseUnit("web.service", []byte(s))
		l := newLoader(LoadOptions{Pending: true})
		l.files = []*unitFile{{name: unitName{prefix: "web", suffix: ".service"}, file: "/web.service", assigned: assigned}}
		u := l.units()
		if len(errs)+len(l.errs) > 0 {
			return
		}
		if _, err := u.Services[0].UnitFiles(); err != nil && !strings.Contains(err.Error(), "cannot write") {
			t.Fatal(err)
		}
	})
}

func FuzzSpecifiers(f *testing.F) {
	for _, s := range []string{"%n%N%p%P%i%I%j%J%f", "%%%", "%-", "100%", "%z%d", "%y %Y %h %t"} {
		f.Add(s, "web@a-b.service")
	}
	f.Add("%f %J", `a-b-\x2d\xc3.socket`)
	f.Fuzz(func(t *testing.T, s, name string) {
		n, err := parseUnitName(name)
		if err != nil {
			return
		}
		if n.String() != name {
			t.Fatalf("%q is %+v, which is %q", name, n, n)
		}
		p := &specifiers{unit: n, file: "/x/" + name, host: host{getenv: os.Getenv}}
		got, err := p.expand(s)
		if err == nil && !strings.Contains(s, "%") && got != s {
			t.Fatalf("%q became %q", s, got)
		}
		if back, err := p.expand(strings.ReplaceAll(s, "%", "%%")); err != nil || back != s {
			t.Fatalf("%q, escaped, became %q, %v", s, back, err)
		}
		if again := unescapeName(EscapeName(s)); again != s {
			t.Fatalf("%q is escaped %q, and that is %q", s, EscapeName(s), again)
		}
	})
}

// TestSpecifiersReference compares every specifier with what the installed
// systemd makes of it, for names with and without an instance.
func TestSpecifiersReference(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil || os.Getuid() != 0 {
		t.Skip("no systemd to compare with, or not root: ", err)
	}
	dir := t.TempDir()
	const letters = "abBCEfgGhHiIjJlLmMnNopPqsStuUvVwWTAzxk" // %c, %r and %R were taken out later
	for _, name := range []string{`web@a-b.service`, `web-x\x2dy.service`, `p-q@.service`, `a@b@c.service`} {
		var text strings.Builder
		text.WriteString("[Service]\nType=oneshot\n")
		for i, c := range letters {
			fmt.Fprintf(&text, "ExecStart=-/bin/echo %d %%%c\n", i, c)
		}
		n, err := parseUnitName(name)
		if err != nil {
			t.Fatal(err)
		}
		file := name
		if n.at {
			file = n.template().String()
		}
		if n.isTemplate() {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(analyze, "verify", "--man=no", "--generators=no", "--recursive-errors=no", filepath.Join(dir, name))
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "SYSTEMD_LOG_LEVEL=debug", "LC_ALL=C.UTF-8", "TMPDIR=/var/tmp"}
		out, _ := cmd.Output()
		if !strings.Contains(string(out), "Command Line:") {
			t.Skipf("this systemd shows no command lines: %s", out)
		}
		theirs := map[string]string{}
		for line := range strings.Lines(string(out)) {
			if _, words, ok := strings.Cut(line, "Command Line: /bin/echo "); ok {
				argv := append(splitShown(strings.TrimSuffix(words, "\n")), "")
				theirs[argv[0]] = argv[1]
			}
		}
		p := &specifiers{unit: n, file: filepath.Join(dir, file), host: host{getenv: func(name string) string {
			if name == "TMPDIR" {
				return "/var/tmp"
			}
			return ""
		}}}
		for i, c := range letters {
			got, err := p.expand("%" + string(c))
			want, taken := theirs[fmt.Sprint(i)]
			if (err == nil) != taken || got != want {
				t.Errorf("%s: %%%c is %q, %v; want %q (%v)", name, c, got, err, want, taken)
			}
		}
	}
}

// TestEscapeName compares with systemd-escape(1).
func TestEscapeName(t *testing.T) {
	escape, err := exec.LookPath("systemd-escape")
	for in, want := range map[string]string{
		"a/b-c": `a-b\x2dc`, ".x": `\x2ex`, `a\b`: `a\x5cb`, "ü@ x": `\xc3\xbc\x40\x20x`, "127.0.0.1:80": "127.0.0.1:80", "a.b": "a.b", "[::1]": `\x5b::1\x5d`,
	} {
		if got := EscapeName(in); got != want || unescapeName(got) != in {
			t.Errorf("%q is escaped %q, want %q; and back %q", in, got, want, unescapeName(got))
		}
		if err != nil {
			continue
		}
		if out, err := exec.Command(escape, "--", in).Output(); err != nil || strings.TrimSuffix(string(out), "\n") != want {
			t.Errorf("systemd escapes %q as %q, %v", in, out, err)
		}
	}
}
