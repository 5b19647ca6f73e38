package config

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// unitDir writes units into a directory of the test: a name, then its text.
func unitDir(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if target, ok := strings.CutPrefix(text, "-> "); ok {
			if err := os.Symlink(target, file); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// loadAll loads paths of a directory, all of it if there are none, and wants it
// to be well.
func loadAll(t *testing.T, dir string, names ...string) (*Units, []string) {
	t.Helper()
	paths := []string{dir}
	if len(names) > 0 {
		paths = nil
	}
	for _, n := range names {
		paths = append(paths, filepath.Join(dir, n))
	}
	u, warnings, err := Load(paths, LoadOptions{Pending: true})
	if err != nil {
		t.Fatalf("%v", err)
	}
	var texts []string
	for _, w := range warnings {
		texts = append(texts, strings.ReplaceAll(w.String(), dir+"/", ""))
	}
	return u, texts
}

func loadError(t *testing.T, dir string, opts LoadOptions, names ...string) string {
	t.Helper()
	paths := []string{dir}
	if len(names) > 0 {
		paths = nil
	}
	for _, n := range names {
		paths = append(paths, filepath.Join(dir, n))
	}
	u, _, err := Load(paths, opts)
	if err == nil {
		t.Fatalf("loads: %+v", u)
	}
	var load *LoadError
	if !errors.As(err, &load) || u != nil {
		t.Fatalf("%T with %v", err, u)
	}
	return strings.ReplaceAll(err.Error(), dir+"/", "")
}

func service(t *testing.T, u *Units, name string) *Service {
	t.Helper()
	for _, s := range u.Services {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("there is no service %s", name)
	return nil
}

func TestLoad(t *testing.T) {
	dir := unitDir(t, map[string]string{
		"web.service": `# a server
[Unit]
Description=The %p of %n
After=network.target db.service
Wants=db.service

[Service]
Type=notify
Environment="A=1 2" B=%i%%
Environment=C=3
EnvironmentFile=-/etc/%p/env
ExecStartPre=-/bin/pre one; two
ExecStart=/usr//bin/web --port 80 \
  # in between
  --name "a b" \; 100% %N
ExecStartPost=+/bin/post $MAINPID
TimeoutSec=5
Restart=always
User=www
LimitNOFILE=1024:4096
RuntimeDirectory=web %p/x
X-Odd=1
[X-Foo]
Nonsense
[X-Supervise]
Ready=/healthz
Instances=2
`,
		"web.socket": `[Socket]
ListenStream=127.0.0.1:8080
ListenStream=/run/%p.sock
ListenDatagram=[::1]:53
SocketMode=0600
Backlog=77
`,
		"db.service": "[Service]\nExecStart=db\n[Install]\nWantedBy=x.target\n",
	})
	u, warnings := loadAll(t, dir)
	if len(warnings) != 0 {
		t.Errorf("warnings: %q", warnings)
	}
	var names []string
	for _, s := range u.Services {
		names = append(names, s.Name)
	}
	if !slices.Equal(names, []string{"db", "web"}) {
		t.Errorf("order %q", names)
	}
	web := service(t, u, "web")
	if web.Description != "The web of web.service" || web.Type != Notify || web.TimeoutStart != 5*time.Second || web.TimeoutStop != 5*time.Second ||
		web.Restart != RestartAlways || web.User != "www" || web.Instances != 2 || web.Ready.URL != "/healthz" || web.At.File != filepath.Join(dir, "web.service") {
		t.Errorf("web: %+v", web)
	}
	if want := []string{"A=1 2", "B=%", "C=3"}; !slices.Equal(web.Env, want) {
		t.Errorf("environment %q", web.Env)
	}
	if !slices.Equal(web.EnvFiles, []string{"-/etc/web/env"}) {
		t.Errorf("files %q", web.EnvFiles)
	}
	if want := []string{"/usr/bin/web", "--port", "80", "--name", "a b", ";", "100%", "web"}; !slices.Equal(web.Command, want) || web.Start != nil {
		t.Errorf("command %q %v", web.Command, web.Start)
	}
	if len(web.StartPre) != 1 || !slices.Equal(web.StartPre[0].Argv, []string{"/bin/pre", "one;", "two"}) || !web.StartPre[0].IgnoreFailure || web.StartPre[0].At.Line != 12 {
		t.Errorf("before: %+v", web.StartPre)
	}
	if len(web.StartPost) != 1 || web.StartPost[0].Privilege != PrivilegeFull || web.StartPost[0].At.Line != 16 {
		t.Errorf("after: %+v", web.StartPost)
	}
	if len(web.Directories) != 1 || !slices.Equal(web.Directories[0].Names, []string{"web", "web/x"}) || web.Directories[0].Root == "" {
		t.Errorf("directories: %+v", web.Directories)
	}
	if !slices.Equal(web.Dependencies.After, []string{"db.service", "web.socket"}) || !slices.Equal(web.Dependencies.Wants, []string{"db.service"}) {
		t.Errorf("dependencies: %+v", web.Dependencies)
	}
	if len(web.Sockets) != 3 || len(web.SocketUnits) != 1 || web.Sockets[1].Path != "/run/web.sock" || web.Sockets[1].Options.Mode != 0o600 ||
		web.Sockets[0].Options.Backlog != 77 || web.Sockets[0].Name != "web.socket" || web.Sockets[2].Network != "udp" || web.Sockets[1].Options.RemoveOnStop {
		t.Errorf("sockets: %+v", web.Sockets)
	}
	if !web.OnDemand {
		t.Error("a service of a directory with a socket and no [Install] starts at once")
	}
	db := service(t, u, "db")
	if db.OnDemand || db.Type != Simple || db.Restart != RestartNo || db.TimeoutStop != 90*time.Second || db.Umask != 0o022 || db.StartLimitBurst != 5 ||
		db.RestartBackoff || db.Input != "null" || db.Output != "prefix" || !db.IgnorePipe {
		t.Errorf("defaults: %+v", db)
	}
}

// TestLoadTogether: everything that is wrong is told at once, each with its
// place and what to do.
func TestLoadTogether(t *testing.T) {
	dir := unitDir(t, map[string]string{
		"a.service": `ExecStart=/bin/a
[Service]
ExecStart=/bin/a "b
Tpye=notify
[Unit]
TimeoutStopSec=5
After=x
[Bogus]
A=B
[Service]
no assignment
=5
Type=notify
PrivateTmp=yes
ProtectHome=no
User=a b
ExecStartPre=bin/x
Environment=A
ListenStream=80
[Socket]
ListenStream=80
`,
		"b.socket": `[Socket]
ListenStream=foo:80
ListenFIFO=/x
Service=c.service
Accept=perhaps
[X-Supervise]
Shared=1
Bogus=1
Without=Nix
`,
		"c.service": "[Service]\nExecStart=/bin/c\\\n",
		"d.service": "[Service]\nExecStart=/bin/d %z\nEnvironment=X=%d\nKillMode=hard\n[Unit]\nWants=d.service\n",
		"e.service": "[Service]\n",
		"f.service": "[Service]\nExecStart=/bin/f\nExecStart=/bin/f\n",
		"g.service": "-> /dev/null",
		"h.service": "\xff\xfe\n",
	})
	text := loadError(t, dir, LoadOptions{Pending: true})
	for _, want := range []string{
		`a.service:1: "ExecStart=/bin/a" stands before the first section: write [Service]`,
		`a.service:3: ExecStart=: the closing " is missing`,
		`a.service:4: there is no directive Tpye=; did you mean Type=?`,
		`a.service:6: TimeoutStopSec= belongs to [Service], and stands in [Unit]: move it there`,
		`a.service:7: After=: "x" is no name of a unit: write for example web.service`,
		`a.service:8: cannot use section [Bogus]: write [Unit]`,
		`a.service:11: there is no '=' in "no assignment"`,
		`a.service:12: there is no name before '='`,
		`a.service:14: PrivateTmp= is not supported yet, and leaving it out would not be safe: the service would see`,
		`a.service:16: User=: cannot read "a b" as a user`,
		`a.service:17: ExecStartPre=: the path "bin/x" is relative`,
		`a.service:19: ListenStream= belongs to [Socket], and stands in [Service]`,
		`a.service:21: [Socket] does not belong into a unit of type service`,
		`b.socket:2: ListenStream=: cannot listen on "foo:80": "foo" is a name`,
		`b.socket:3: ListenFIFO= is not supported yet, and leaving it out would not be safe: the service would miss a listener`,
		`b.socket:5: Accept=: cannot read "perhaps" as a boolean`,
		`b.socket:8: there is no directive Bogus=`,
		`b.socket:9: Without=: "Nix" is no directive that is refused`,
		`d.service:2: ExecStart=: cannot replace %z in "%z": there is no such specifier; write %%z`,
		`d.service:3: Environment=: cannot replace %d`,
		`d.service:4: KillMode=: cannot read "hard": write control-group`,
		`d.service:6: Wants= names the unit itself`,
		`e.service: there is no command`,
		`f.service: there are 2 commands in ExecStart=, and Type=simple has one: write Type=oneshot`,
		`g.service: it is masked`,
		`h.service:1: the line is not UTF-8`,
		`--without ListenFIFO,sandbox, or Without=ListenFIFO sandbox in [X-Supervise]`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q", want)
		}
	}
	if strings.Contains(text, "ProtectHome") {
		t.Error("ProtectHome=no is refused")
	}
	if t.Failed() {
		t.Log(text)
	}
}

func TestLoadPending(t *testing.T) {
	dir := unitDir(t, map[string]string{
		"a.service": "[Unit]\nAfter=b.service\n[Service]\nType=oneshot\nExecStartPre=/bin/x\nRemainAfterExit=no\nExitType=cgroup\nExecStart=-/bin/a $X\n",
		"b.service": "[Service]\nExecStart=/bin/b\n",
	})
	text := loadError(t, dir, LoadOptions{})
	for _, d := range []string{"ExecStartPre", "ExitType"} {
		row := newLoader(LoadOptions{}).table["Service."+d]
		if said := strings.Contains(text, d+"= is not supported yet"); said != (row.Support == Pending) {
			t.Errorf("%s: %v in\n%s", d, row.Support, text)
		}
	}
	if strings.Contains(text, "RemainAfterExit") {
		t.Errorf("what is off is refused: %s", text)
	}
}

func TestLoadTemplates(t *testing.T) {
	dir := unitDir(t, map[string]string{
		"web@.service":                  "[Service]\nExecStart=/bin/web %i %I %p %j\nEnvironment=WHO=%n\n[Install]\nDefaultInstance=one\n",
		"web@.service.d/10-a.conf":      "[Service]\nEnvironment=A=template\n",
		"web@80.service.d/10-a.conf":    "[Service]\nEnvironment=A=instance\n",
		"web@80.service.d/05-b.conf":    "[Service]\nEnvironment=B=first\n",
		"service.d/20-all.conf":         "[Service]\nEnvironment=ALL=yes\n",
		"service.d/30-none.conf":        "[Service]\nEnvironment=NONE=yes\n",
		"web@80.service.d/30-none.conf": "-> /dev/null",
		"web@.socket":                   "[Socket]\nListenStream=%i\n",
		"web@linked.service":            "-> web@.service",
		"echo.socket":                   "[Socket]\nListenStream=7\nAccept=yes\n",
		"echo@.service":                 "[Service]\nExecStart=/bin/echo %i\nStandardInput=socket\n",
		"a-b-c.service":                 "[Service]\nExecStart=/bin/x\n",
		"a-.service.d/x.conf":           "[Service]\nEnvironment=P=a\nEnvironment=Q=a\n",
		"a-b-.service.d/x.conf":         "[Service]\nEnvironment=P=ab\n",
	})
	u, _ := loadAll(t, dir, "web@80.service", "web@80.socket", "echo.socket", `web@x-y\x2dz.service`, "a-b-c.service")
	web := service(t, u, "web@80")
	if want := []string{"/bin/web", "80", "80", "web", "web"}; !slices.Equal(web.Command, want) {
		t.Errorf("command %q", web.Command)
	}
	if want := []string{"WHO=web@80.service", "B=first", "A=instance", "ALL=yes"}; !slices.Equal(web.Env, want) {
		t.Errorf("environment %q, want %q", web.Env, want)
	}
	if len(web.Sockets) != 1 || web.Sockets[0].Addr.Port() != 80 || web.OnDemand {
		t.Errorf("sockets %+v, on demand %v", web.Sockets, web.OnDemand)
	}
	if other := service(t, u, `web@x-y\x2dz`); other.Command[2] != "x/y-z" || other.Instance != `x-y\x2dz` {
		t.Errorf("other: %q", other.Command)
	}
	if abc := service(t, u, "a-b-c"); !slices.Equal(abc.Env, []string{"ALL=yes", "NONE=yes", "P=ab"}) {
		t.Errorf("drop-ins of prefixes: %q", abc.Env)
	}
	if len(u.Sockets) != 2 || u.Sockets[1].Template == nil || !u.Sockets[1].Accept || u.Sockets[1].TriggerBurst != 200 || u.Sockets[0].TriggerBurst != 20 {
		t.Fatalf("sockets: %+v", u.Sockets)
	}
	echo, err := u.Sockets[1].Template.Instance("1-" + EscapeName("127.0.0.1:5"))
	if err != nil || echo.Command[1] != "1-127.0.0.1:5" || echo.Input != "socket" || echo.Name != "echo@1-127.0.0.1:5" {
		t.Errorf("instance: %+v, %v", echo, err)
	}
	for _, bad := range []string{"", "a/b", strings.Repeat("x", 300)} {
		if s, err := u.Sockets[1].Template.Instance(bad); err == nil {
			t.Errorf("instance %q: %+v", bad, s)
		}
	}
	all, _ := loadAll(t, dir)
	for _, name := range []string{"web@one", "web@linked"} {
		service(t, all, name)
	}
	if len(all.Services) != 3 || all.Templates["web@"] == nil {
		t.Errorf("of the directory: %d services, templates %v", len(all.Services), all.Templates)
	}
}

func TestLoadSockets(t *testing.T) {
	dir := unitDir(t, map[string]string{
		"app.service":   "[Service]\nExecStart=/bin/app\nSockets=admin.socket\n",
		"app.socket":    "[Socket]\nListenStream=1000\nFileDescriptorName=http\n[X-Supervise]\nShared=yes\n",
		"admin.socket":  "[Socket]\nListenStream=@admin\nSocketMode=0600\nService=app.service\n",
		"lone.socket":   "[Socket]\nListenStream=5\n",
		"clash.socket":  "[Socket]\nListenStream=127.0.0.1:1000\nService=app.service\n",
		"empty.socket":  "[Socket]\nListenStream=80\nListenStream=\nService=app.service\n",
		"links.socket":  "[Socket]\nListenStream=81\nSymlinks=/x\nService=app.service\n",
		"thief.service": "[Service]\nExecStart=/bin/t\nSockets=app.socket\n",
		"req.service":   "[Unit]\nRequires=app.socket nix.socket\n[Service]\nExecStart=/bin/t\n",
	})
	u, _ := loadAll(t, dir, "app.socket")
	app := service(t, u, "app")
	if len(app.Sockets) != 2 || app.Sockets[0].Name != "admin.socket" || app.Sockets[1].Name != "http" || !app.Sockets[1].Options.Shared || !app.OnDemand {
		t.Errorf("app: %+v", app)
	}
	u, _ = loadAll(t, dir, "app.service")
	if app = service(t, u, "app"); len(app.Sockets) != 1 || app.OnDemand {
		t.Errorf("app by name: %+v", app.Sockets)
	}
	u, warnings := loadAll(t, dir, "req.service")
	if len(u.Services) != 2 || len(warnings) != 1 || !strings.Contains(warnings[0], "Requires=nix.socket is ignored") {
		t.Errorf("required sockets: %d services, %q", len(u.Services), warnings)
	}
	for name, want := range map[string]string{
		"lone.socket":                          "lone.socket: there is no lone.service to be lent its listeners",
		"clash.socket app.socket":              `app.socket:2: cannot listen on "ListenStream=1000": clash.socket:2 has "ListenStream=127.0.0.1:1000", and one includes the other`,
		"empty.socket":                         "empty.socket: there is no address",
		"links.socket":                         "links.socket: Symlinks= wants exactly one unix path",
		"app.service thief.service app.socket": "app.socket: its listeners would belong to",
	} {
		if text := loadError(t, dir, LoadOptions{Pending: true}, strings.Fields(name)...); !strings.Contains(text, want) {
			t.Errorf("%s: %s", name, text)
		}
	}
}

func TestLoadOrder(t *testing.T) {
	dir := unitDir(t, map[string]string{
		"a.service": "[Unit]\nAfter=b.service\n[Service]\nExecStart=/bin/x\n",
		"b.service": "[Unit]\n\nAfter=c.service\n[Service]\nExecStart=/bin/x\n",
		"c.service": "[Unit]\nBefore=d.service\n[Service]\nExecStart=/bin/x\n",
		"d.service": "[Unit]\nBefore=a.service\nConflicts=e.service shutdown.target\n[Service]\nExecStart=/bin/x\n",
		"e.service": "[Unit]\nBefore=c.service\nAfter=a.service\n[Service]\nExecStart=/bin/x\n",
	})
	u, _ := loadAll(t, dir, "a.service", "b.service", "c.service", "d.service")
	var order []string
	for _, s := range u.Services {
		order = append(order, s.Name)
	}
	if !slices.Equal(order, []string{"c", "b", "d", "a"}) {
		t.Errorf("order %q", order)
	}
	text := loadError(t, dir, LoadOptions{Pending: true}, "a.service", "b.service", "c.service", "e.service")
	want := "a.service:2: the order of starting is a ring: a.service waits for b.service (a.service:2), b.service waits for c.service (b.service:3), " +
		"c.service waits for e.service (e.service:2), e.service waits for a.service (e.service:3); take one"
	if !strings.Contains(text, want) {
		t.Errorf("%s", text)
	}
	if text := loadError(t, dir, LoadOptions{Pending: true}, "d.service", "e.service"); !strings.Contains(text, "Conflicts=e.service: both would be started") {
		t.Errorf("%s", text)
	}
}

// TestLoadTolerates: what is useless in a unit, and no fault for systemd, is
// none here.
func TestLoadTolerates(t *testing.T) {
	dir := unitDir(t, map[string]string{
		"a.service": "[Service]\nExecStart=/bin/a\nKillMode=none\nTimeoutAbortSec=5\nRestart=on-watchdog\nStartLimitInterval=0\nType=idle\nEnvironment=A=1 nonsense\n" +
			"PrivateTmp=no\nSyslogFacility=daemon\n",
	})
	u, warnings := loadAll(t, dir)
	a := service(t, u, "a")
	if a.SendSIGKILL || a.TimeoutAbort != 0 || a.StartLimitBurst != 0 || a.Type != Simple || len(a.Env) != 1 {
		t.Errorf("%+v", a)
	}
	if len(warnings) != 2 || !strings.Contains(warnings[0], "a.service:8: a word of Environment= is ignored") || !strings.Contains(warnings[1], "a.service:10: SyslogFacility= is ignored") {
		t.Errorf("%q", warnings)
	}
}

func TestLoadPaths(t *testing.T) {
	dir := unitDir(t, map[string]string{"x.timer": "", "empty/readme": "", "fifo/x.service": "[Service]\nExecStart=/bin/x\n"})
	for path, want := range map[string]string{
		"nix.service": "nix.service: cannot read it: no such file",
		"x.timer":     "x.timer: it is a unit of type timer; only services and sockets are run",
		"nix":         "is no name of a unit",
		"empty":       "there is no .service and no .socket in it",
		"a b.service": "is no name of a unit: names have letters",
		"@x.service":  "nothing before '@'",
	} {
		if text := loadError(t, dir, LoadOptions{}, path); !strings.Contains(text, want) {
			t.Errorf("%s: %s", path, text)
		}
	}
	templates := unitDir(t, map[string]string{"web@.service": "[Service]\nExecStart=/bin/x\n", "a.service": "[Service]\nExecStart=/bin/x\n"})
	if text := loadError(t, templates, LoadOptions{}, "web@.service"); !strings.Contains(text, "web@.service: it is a template, and no instance of it is given: write web@NAME.service") {
		t.Errorf("a template: %s", text)
	}
	if text := loadError(t, templates, LoadOptions{Without: []string{"Nix"}}, "a.service"); !strings.Contains(text, `--without: "Nix" is no directive that is refused`) {
		t.Errorf("without: %s", text)
	}
	if _, _, err := Load([]string{"surely-not-there.service"}, LoadOptions{}); err == nil || !strings.Contains(err.Error(), "where systemd keeps") {
		t.Errorf("a bare name: %v", err)
	}
}
