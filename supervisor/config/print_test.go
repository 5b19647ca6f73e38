package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// flagsSay draws a service as flags say it.
func flagsSay(t *rapid.T) *Service {
	s := Defaults()
	s.Name = rapid.StringMatching(`[a-z][a-z0-9_.:]{0,8}`).Draw(t, "name")
	word := rapid.OneOf(
		rapid.StringMatching(`[a-z$%;{}'"\\ \t-]{0,6}`),
		rapid.SampledFrom([]string{"", ";", `\;`, "%", "%%", "$", "$$", "${A}", "$A", "%n", "a b", `a"b`, `'`, "ä", "#", "{fd}", "\n", "\\", "-x", "a=b", "\x01"}),
	)
	s.Command = append([]string{"/" + rapid.StringMatching(`[a-zA-Z%$ ;]{0,5}x`).Draw(t, "command")}, rapid.SliceOfN(word, 0, 4).Draw(t, "args")...)
	for _, v := range rapid.SliceOfN(word, 0, 3).Draw(t, "values") {
		if !strings.Contains(v, "\x00") {
			s.Env = append(s.Env, rapid.StringMatching(`[A-Z_]{1,3}`).Draw(t, "variable")+"="+v)
		}
	}
	samples := directiveSamples()
	for _, d := range Directives() {
		sample, ok := samples[d.Name]
		// What the flags do not have, units need not have either; these have tests of their own.
		if !ok || d.Section == "Socket" || d.Get == nil || d.Name == "ExecStart" || d.Name == "Environment" || d.Name == "StandardOutput" {
			continue
		}
		if !rapid.Bool().Draw(t, d.Name) {
			continue
		}
		if err := d.Set(&s, sample); err != nil {
			t.Fatal(err)
		}
	}
	s.Bounding, s.Ambient = nil, 0
	listen := rapid.SampledFrom([]string{
		":80", "8080", "127.0.0.1:81", "[::1]:82", "tcp6://:83", "[::]:84", "udp://:53", "localhost:85", "/run/x.sock", "@abstract", "unixgram:/run/%d",
		"unixpacket:@p", "a=:90;b=:91", "a=:92?backlog=5&nodelay=1", "/run/y?mode=0600&user=www&remove-on-stop=no", ":0", "udp://127.0.0.1:54?receive-buffer=64K&broadcast=yes",
		"c d=:93?fast-open=5&shared=yes&blocking=yes", "[fe80::1%eth0]:94", ":95?optional=yes&reuse-port=yes", ":96?mark=0&priority=0&ip-tos=16&ip-ttl=3&keep-alive-time=5s",
		"tcp4://:97", "udp6://:55?bind-to-device=eth0",
	})
	for _, l := range rapid.SliceOfN(listen, 0, 4).Draw(t, "listen") {
		sockets, err := ParseListen(l)
		if err != nil {
			t.Fatal(err)
		}
		s.Sockets = append(s.Sockets, sockets...)
	}
	if NameSockets(s.Name, s.Sockets) != nil || s.Validate() != nil {
		t.Skip("these do not go together")
	}
	return &s
}

// TestUnitFiles: what flags say is what is loaded from the units that say the
// same.
func TestUnitFiles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := flagsSay(t)
		units, err := s.UnitFiles()
		if err != nil {
			t.Fatal(err)
		}
		dir, err := os.MkdirTemp("", "units-*")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		var texts []string
		for _, u := range units {
			texts = append(texts, "# "+u.Name+"\n"+u.Text)
			if err := os.WriteFile(filepath.Join(dir, u.Name), []byte(u.Text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		text := strings.Join(texts, "\n")
		loaded, warnings, err := Load([]string{dir}, LoadOptions{Pending: true})
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if len(loaded.Services) != 1 {
			t.Fatalf("%d services\n%s", len(loaded.Services), text)
		}
		for _, w := range warnings {
			if !strings.Contains(w.Text, "has no meaning for") {
				t.Fatalf("%s\n%s", w, text)
			}
		}
		got, want := plainValues(loaded.Services[0]), plainValues(s)
		v, w := reflect.ValueOf(got), reflect.ValueOf(want)
		for i := range v.NumField() {
			if !reflect.DeepEqual(v.Field(i).Interface(), w.Field(i).Interface()) {
				t.Fatalf("%s is %+v, want %+v\n%s", v.Type().Field(i).Name, v.Field(i).Interface(), w.Field(i).Interface(), text)
			}
		}
	})
}

// plainValues is s without what flags and units say differently by nature.
func plainValues(s *Service) Service {
	c := *s
	c.At, c.SocketUnits, c.Description, c.OnDemand, c.Dependencies = Position{}, nil, "", false, Dependencies{}
	for _, list := range []*[]ExecLine{&c.Start, &c.Condition, &c.StartPre, &c.StartPost, &c.Reload, &c.Stop, &c.StopPost} {
		var lines []ExecLine
		for _, l := range *list {
			l.At = Position{}
			lines = append(lines, l)
		}
		*list = lines
	}
	var sockets []Socket
	for _, socket := range c.Sockets {
		socket.At, socket.Source, socket.Unit = Position{}, "", ""
		sockets = append(sockets, socket)
	}
	c.Sockets = sockets
	return c
}

func TestUnitFilesErrors(t *testing.T) {
	for want, change := range map[string]func(*Service){
		"taken for a prefix":   func(s *Service) { s.Command[0] = "-x" },
		"more than one line":   func(s *Service) { s.Dir = "/a\nb" },
		"continue the line":    func(s *Service) { s.Dir = `/a\` },
		"ends with a blank":    func(s *Service) { s.User = "x " },
		"cannot name the unit": func(s *Service) { s.Name = "a b" },
		"relative":             func(s *Service) { s.Sockets, _ = ParseListen("./x") },
	} {
		s := Defaults()
		s.Name, s.Command = "web", []string{"/bin/web"}
		change(&s)
		if units, err := s.UnitFiles(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v", want, units, err)
		}
	}
}

func TestUnitFilesText(t *testing.T) {
	s := Defaults()
	s.Name, s.Command = "web", []string{"/bin/web", "--fd", "{fd:http}", "100%", "a b"}
	for flag, value := range map[string]string{"listen": "http=:80?backlog=9", "timeout-stop": "5s", "user": "www", "ready": "/healthz"} {
		if err := s.SetFlag(flag, value); err != nil {
			t.Fatal(err)
		}
	}
	units, err := s.UnitFiles()
	if err != nil {
		t.Fatal(err)
	}
	want := `[Unit]
Description=web
StartLimitIntervalSec=0
StartLimitBurst=0

[Service]
ExecStart=/bin/web --fd {fd:http} 100%% "a b"
User=www
IgnoreSIGPIPE=no
TimeoutStopSec=5s
Restart=on-failure
Type=exec

[X-Supervise]
Type=auto
StandardInput=inherit
RestartBackoff=yes
RestartMaxDelaySec=30s
Ready=/healthz
Inherit=environment umask directory

[Install]
WantedBy=multi-user.target
`
	if len(units) != 2 || units[0].Name != "web.service" || units[0].Text != want {
		t.Errorf("got %s\n%s", units[0].Name, units[0].Text)
	}
	want = `[Unit]
Description=listeners of web

[Socket]
ListenStream=80
FileDescriptorName=http
Backlog=9

[Install]
WantedBy=sockets.target
`
	if units[1].Name != "web.socket" || units[1].Text != want {
		t.Errorf("got %s\n%s", units[1].Name, units[1].Text)
	}
}
