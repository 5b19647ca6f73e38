package config

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// unitReading reads values as those of web@a-b.service are.
func unitReading(t interface{ Helper() }) *reading {
	t.Helper()
	name, err := parseUnitName("web@a-b.service")
	if err != nil {
		panic(err)
	}
	return &reading{
		at:     Position{File: "web@.service", Line: 1},
		spec:   &specifiers{unit: name, file: "/x/web@.service", host: host{getenv: func(string) string { return "" }}},
		notice: func(string) {},
	}
}

// TestExecLines: the examples of systemd.service(5), "command lines", and what
// its page leaves open.
func TestExecLines(t *testing.T) {
	env := []string{"ONE='one'", "TWO='two two' too", "THREE=", "A=1"}
	for value, want := range map[string][]string{
		"echo $ONE $TWO $THREE":                     {"echo one 'two two' too"},
		"/bin/echo ${ONE} ${TWO} ${THREE}":          {`/bin/echo "'one'" "'two two' too" ""`},
		"echo one ; echo \"two two\"":               {"echo one", "echo 'two two'"},
		"echo / >/dev/null & \\; ls":                {"echo / >/dev/null & ; ls"},
		"/bin/x a$A ${A}b $$A $${A} $NIX x${NIX} $": {"/bin/x a$A 1b $A ${A} x $"},
		":/bin/x $A ${A} $$":                        {"/bin/x $A ${A} $$"},
		"@/bin/x y $A":                              {"/bin/x: y 1"},
		"-@:+/bin/x y":                              {"/bin/x: y"},
		"\"/bin/a b\" c":                            {"'/bin/a b' c"},
		"'-/bin/x' c":                               {"/bin/x c"},
		"/bin//x/./y/../z /a//b":                    {"/bin/x/y/../z /a//b"},
		"/bin/%i %i %I %p %n %N %j %% %- %":         {"/bin/a-b a-b a/b web web@a-b.service web@a-b web % %- %"},
		"/bin/x \"%i %i\" '%i'a %f":                 {"/bin/x 'a-b a-b' a-ba /a/b"},
		`/bin/x \d "\d" a\ b`:                       {`/bin/x \d "\d" 'a\ b'`},
		"/bin/x ;a a; a;b ;; ;":                     {"/bin/x ;a a; a;b ;;"},
	} {
		lines, err := unitReading(t).parseExec(value)
		if err != nil {
			t.Errorf("%s: %v", value, err)
			continue
		}
		var got []string
		for _, l := range lines {
			args := l.Args(env)
			text := strings.Join(quoted(args), " ")
			if l.Path != l.Argv[0] {
				text = l.Path + ": " + text
			}
			got = append(got, text)
		}
		var expected []string
		for _, w := range want {
			head, rest, separate := strings.Cut(w, ": ")
			if !separate {
				head, rest = "", w
			}
			words := splitRelaxedKeep(rest)
			text := strings.Join(quoted(words), " ")
			if separate {
				text = head + ": " + text
			}
			expected = append(expected, text)
		}
		if !slices.Equal(got, expected) {
			t.Errorf("%s\ngives %q\nwant  %q", value, got, expected)
		}
		for _, l := range lines { // and back
			again, err := unitReading(t).parseExec(formatExec(l))
			if err != nil || len(again) != 1 || !slices.Equal(again[0].Argv, l.Argv) || again[0].Path != l.Path ||
				again[0].IgnoreFailure != l.IgnoreFailure || again[0].NoExpand != l.NoExpand || again[0].Privilege != l.Privilege {
				t.Errorf("%+v is written %q and read as %+v, %v", l, formatExec(l), again, err)
			}
		}
	}
	for value, want := range map[string]string{
		"":                 "empty",
		" ":                "empty",
		"-":                "empty",
		"/bin/x \"a":       "closing",
		"/bin/x %z":        "no such specifier",
		"/bin/x/":          "directory",
		"$X a":             "variable",
		"bin/x":            "relative",
		"@/bin/x":          "'@' wants",
		"--/bin/x":         "do not go together",
		"+!/bin/x":         "do not go together",
		"!!!/bin/x":        "do not go together",
		"|/bin/x":          "not supported",
		"\"/bin/\\x01\" a": "control character",
	} {
		if lines, err := unitReading(t).parseExec(value); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v; want %q", value, lines, err, want)
		}
	}
}

func quoted(words []string) []string {
	var all []string
	for _, w := range words {
		all = append(all, fmt.Sprintf("%q", w))
	}
	return all
}

// splitRelaxedKeep splits the expected words of a test at blanks outside of
// quotes; a backslash is nothing special.
func splitRelaxedKeep(s string) []string {
	return splitRelaxed(strings.ReplaceAll(s, `\`, `\\`))
}

// TestExecLinesReference compares with the installed systemd what words it finds
// in a command line: "systemd-analyze verify" shows them when it is talkative.
// It is told the lines as those of one unit, each with its number in front, and
// what it does not show it has refused; the "-" keeps that from being fatal.
func TestExecLinesReference(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("no systemd to compare with: ", err)
	}
	piece := rapid.SampledFrom([]string{
		"a", "b", " ", " ", "\t", "'", `"`, `\\`, `\x41`, `\d`, `\s`, `\"`, `\'`, `\u00e4`, `\101`, `\;`, "%", "%%", "%n", "%i", "%I", "%z", "%-", "%f",
		"$A", "${B}", "$$", ";x", "ä", "-", "@", "=", "#", `\x0`, `\U00000041`, `\8`,
	})
	var lines []string
	rapid.Check(t, func(t *rapid.T) {
		for range 5 {
			line := strings.Join(rapid.SliceOfN(piece, 1, 12).Draw(t, "pieces"), "")
			// A ';' of its own begins another command, which has no number.
			if !strings.Contains(" "+line+" ", " ; ") && len(lines) < 500 {
				lines = append(lines, strings.TrimRight(line, " \t"))
			}
		}
	})
	dir := t.TempDir()
	var unit strings.Builder
	unit.WriteString("[Service]\nType=oneshot\n")
	for i, line := range lines {
		fmt.Fprintf(&unit, "ExecStart=-/bin/echo %d %s\n", i, line)
	}
	if err := os.WriteFile(filepath.Join(dir, "web@.service"), []byte(unit.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(analyze, "verify", "--man=no", "--generators=no", "--recursive-errors=no", filepath.Join(dir, "web@a-b.service"))
	cmd.Env = append(os.Environ(), "SYSTEMD_LOG_LEVEL=debug", "LC_ALL=C.UTF-8")
	out, _ := cmd.Output() // it complains of the lines that it refuses
	theirs := map[string][]string{}
	for line := range bytes.Lines(out) {
		_, words, ok := strings.Cut(string(line), "Command Line: /bin/echo ")
		if !ok {
			continue
		}
		argv := splitShown(strings.TrimSuffix(words, "\n"))
		theirs[argv[0]] = argv[1:]
	}
	if len(theirs) == 0 {
		t.Skipf("this systemd shows no command lines: %s", out)
	}
	_, warnings, loadErr := Load([]string{filepath.Join(dir, "web@a-b.service")}, LoadOptions{})
	t.Logf("%d lines, %d taken by systemd; %d warnings, %v", len(lines), len(theirs), len(warnings), loadErr != nil)
	for i, line := range lines {
		want, taken := theirs[fmt.Sprint(i)]
		got, err := unitReading(t).parseExec(fmt.Sprintf("/bin/echo %d %s", i, joined(line)))
		switch {
		case err != nil && taken:
			t.Errorf("%q: %v; systemd takes %q", line, err, want)
		case err == nil && !taken:
			t.Errorf("%q gives %q, and systemd refuses it", line, got)
		case taken && !slices.Equal(got[0].Argv[2:], want):
			t.Errorf("%q gives %q, want %q", line, got[0].Argv[2:], want)
		}
	}
}

// joined is a line as unitLines leaves it: none of the lines here is continued.
func joined(line string) string { return strings.Trim(line, blanks) }

// splitShown takes apart what systemd shows: words quoted as for a shell.
func splitShown(s string) []string {
	var words []string
	var b strings.Builder
	in, quote := false, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && quote && i+3 < len(s) && s[i+1] >= '0' && s[i+1] <= '3':
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | s[i+3] - '0')
			i += 3
		case c == '\\' && i+1 < len(s):
			i++
			if at := strings.IndexByte("abfnrtv", s[i]); at >= 0 {
				b.WriteByte("\a\b\f\n\r\t\v"[at])
			} else {
				b.WriteByte(s[i])
			}
			in = true
		case c == '"':
			quote, in = !quote, true
		case c == ' ' && !quote:
			if in {
				words = append(words, b.String())
				b.Reset()
				in = false
			}
		default:
			b.WriteByte(c)
			in = true
		}
	}
	if in {
		words = append(words, b.String())
	}
	return words
}

func FuzzParseExec(f *testing.F) {
	for _, s := range []string{"/bin/x a ; b", `-@:+/bin/x "a b" \x41 ${A}$B`, "x %i%%", `'`, `\`, "!!/x", "a\x00b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		lines, err := unitReading(t).parseExec(s)
		if err != nil {
			return
		}
		for _, l := range lines {
			if len(l.Argv) == 0 || l.Path == "" {
				t.Fatalf("%q: %+v", s, l)
			}
			l.Args([]string{"A=1", "B=2 3"})
			again, err := unitReading(t).parseExec(formatExec(l))
			if err != nil || len(again) != 1 || !slices.Equal(again[0].Argv, l.Argv) || again[0].Path != l.Path {
				t.Fatalf("%q is %+v, written %q, read as %+v, %v", s, l, formatExec(l), again, err)
			}
		}
	})
}
