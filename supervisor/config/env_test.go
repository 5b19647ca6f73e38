package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestCleanEnv(t *testing.T) {
	in := []string{
		"PATH=/bin", "LISTEN_PID=1", "LISTEN_FDS=1", "LISTEN_FDNAMES=x", "LISTEN_PIDFDID=1", "LISTEN_FDS_FIRST_FD=5", "NOTIFY_SOCKET=/x",
		"WATCHDOG_USEC=1", "WATCHDOG_PID=1", "FDSTORE=1", "MAINPID=1", "SYSTEMD_EXEC_PID=1", "INVOCATION_ID=x", "JOURNAL_STREAM=1:2",
		"TABLEFLIP_HAS_PARENT_7DIU3=yes", "SERVER_STARTER_PORT=80=3", "SERVER_STARTER_GENERATION=1", "EINHORN_FD_0=3", "NGINX=3;", "ANGIE=3;",
		"FPM_SOCKETS=x", "GUNICORN_PID=1", "GUNICORN_FD=3", "UNICORN_FD=3", "PUMA_INHERIT_0=3:x", "UPSTART_FDS=1", "OVERSEER_IS_SLAVE=1",
		"ENDLESS_CONTINUE=1", "GOAGAIN_FD=3",
		"NGINX_VERSION=1", "MYNGINX=1", "LISTEN_ADDR=:80", "GUNICORN_CMD_ARGS=x", "TABLEFLIP=1", "EMPTY=", "ODD", "HOME=/",
	}
	want := []string{"PATH=/bin", "NGINX_VERSION=1", "MYNGINX=1", "LISTEN_ADDR=:80", "GUNICORN_CMD_ARGS=x", "TABLEFLIP=1", "EMPTY=", "ODD", "HOME=/"}
	before := slices.Clone(in)
	if got := CleanEnv(in); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if !slices.Equal(in, before) {
		t.Error("CleanEnv changed its argument")
	}
}

func TestParseEnvFile(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []string
	}{
		{"", nil},
		{"A=1\nB=2", []string{"A=1", "B=2"}},
		{"A=1\r\nB=2\r\n", []string{"A=1", "B=2"}},
		{"# A=1\n; B=2\n\n  # C=3\n\tD = 4 \n", []string{"D=4"}},
		{"no assignment\nA=1", []string{"A=1"}},
		{"# a comment \\\nA=1", []string{"A=1"}}, // as systemd 254 and newer
		{"A=", []string{"A="}},
		{"A=\nB=1", []string{"A=", "B=1"}},
		{"A=a  b\t c \nB=1", []string{"A=a  b\t c", "B=1"}},
		{"A=a # b", []string{"A=a # b"}},
		{`A=x"y"'z'`, []string{`A=x"y"'z'`}},
		{`A="y"'z' w`, []string{"A=yzw"}},
		{`A=a\"b\\c\d`, []string{`A=a"b\cd`}},
		{"A=a\\\nb", []string{"A=ab"}},
		{"A=\\\n  b", []string{"A=  b"}},
		{`A=a\ `, []string{"A=a "}},
		{`A=a\`, []string{"A=a"}},
		{"A='a\n\\b\"'\nB=1", []string{"A=a\n\\b\"", "B=1"}},
		{"A=\"a\nb\\\"c\\\\d\\e\\$\\`\\\nf\"  \nB=1", []string{"A=a\nb\"c\\d\\e$`f", "B=1"}},
		{`A="never closed`, []string{"A=never closed"}},
		{"A=b=c", []string{"A=b=c"}},
		{"A=ü", []string{"A=ü"}},
		{"A=1\nA=2", []string{"A=1", "A=2"}},
	} {
		got, err := ParseEnvFile(c.in)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("ParseEnvFile(%q) = %q, %v; want %q", c.in, got, err, c.want)
		}
	}
	for in, want := range map[string]string{
		"A=1\n\nexport B=2": `line 3: "export B"`,
		"1A=2":              "line 1",
		"=2":                `""`,
		"A=\x00":            "NUL",
		"A=1\nB=\xff":       "UTF-8",
	} {
		if got, err := ParseEnvFile(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseEnvFile(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestReadEnvFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	a := write("a.env", "A=1\nC=1")
	write("b.env", "B=2\nC=2")
	bad := write("bad", "1=2")
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string][]string{
		a:                           {"A=1", "C=1"},
		"-" + a:                     {"A=1", "C=1"},
		"-" + dir + "/none":         nil,
		"-" + dir + "/none*":        nil,
		filepath.Join(dir, "*.env"): {"A=1", "C=1", "B=2", "C=2"},
	} {
		if got, err := ReadEnvFile(path); err != nil || !slices.Equal(got, want) {
			t.Errorf("ReadEnvFile(%q) = %q, %v; want %q", path, got, err, want)
		}
	}
	for _, path := range []string{dir + "/none", dir + "/none*", bad, "-" + bad, fifo, dir, dir + "/[", ""} {
		if got, err := ReadEnvFile(path); err == nil {
			t.Errorf("ReadEnvFile(%q) = %q, want an error", path, got)
		}
	}

	s := Service{Env: []string{"A=env", "D=env", "D=later"}, EnvFiles: []string{a, "-" + dir + "/none", filepath.Join(dir, "b.env")}}
	got, err := s.Environ([]string{"PATH=/bin", "D=base"})
	if want := []string{"PATH=/bin", "D=later", "A=1", "C=2", "B=2"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("Environ = %q, %v; want %q", got, err, want)
	}
	s.EnvFiles = []string{bad}
	if _, err := s.Environ(nil); err == nil || !strings.Contains(err.Error(), bad) {
		t.Errorf("Environ with a bad file: %v", err)
	}
}

func FuzzEnvFile(f *testing.F) {
	for _, s := range []string{"A=1\n", "A='x\n'y\\\nz", "A=\"\\", "#\\\nB=2", "A = \"b\" 'c' d\\ \n=", "\r\nA=\\"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		env, err := ParseEnvFile(s)
		if err != nil {
			return
		}
		for _, kv := range env {
			if err := checkAssignment(kv); err != nil {
				t.Fatalf("%q gave %q: %v", s, kv, err)
			}
		}
	})
}

func TestWords(t *testing.T) {
	for in, want := range map[string][]string{
		"":                         nil,
		" a  b\tc\n":               {"a", "b", "c"},
		`"a b" 'c d' e" "f`:        {"a b", "c d", "e f"},
		`a\sb "\t" \x41\102\u00fc`: {"a b", "\t", "ABü"},
		`"" ''`:                    {"", ""},
		`'a"b' "c'd" \"`:           {`a"b`, "c'd", `"`},
	} {
		if got, err := SplitWords(in); err != nil || !slices.Equal(got, want) {
			t.Errorf("SplitWords(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{`"a`, `'a`, `a\`, `\d`, `\x4`, `\x00`, `\400`, `\ud800`, `\U00110000`, `\xzz`, `\UFFFFFFFF`, "a\x00"} {
		if got, err := SplitWords(in); err == nil {
			t.Errorf("SplitWords(%q) = %q, want an error", in, got)
		}
	}
}

func FuzzWords(f *testing.F) {
	f.Add(`a "b c" 'd\'`, "x")
	f.Add("\x01\xff\n", "")
	f.Fuzz(func(t *testing.T, a, b string) {
		_, _ = SplitWords(a)
		if strings.IndexByte(a+b, 0) >= 0 {
			return
		}
		words := []string{a, b}
		if got, err := SplitWords(JoinWords(words)); err != nil || !slices.Equal(got, words) {
			t.Fatalf("%q joined is %q and splits into %q, %v", words, JoinWords(words), got, err)
		}
	})
}
