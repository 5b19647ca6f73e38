package config

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// directiveSamples has a value that is not the default for every directive.
func directiveSamples() map[string]string {
	samples := map[string]string{
		"ExecStart": `/bin/x "a b" 100%% $$HOME ";" {fd:web}`, "Type": "notify", "WorkingDirectory": "/srv", "Environment": `A=1 "B=2 3" C=%%`,
		"EnvironmentFile": "-/etc/x", "User": "www", "Group": "www", "UMask": "0027", "Nice": "-5", "KillSignal": "SIGQUIT",
		"KillMode": "mixed", "FinalKillSignal": "SIGABRT", "SendSIGKILL": "no", "SendSIGHUP": "yes", "TimeoutStartSec": "infinity",
		"TimeoutStopSec": "5s", "TimeoutAbortSec": "7s", "WatchdogSec": "20s", "Restart": "always", "RestartSec": "1s", "RestartSteps": "3",
		"RestartMaxDelaySec": "1min", "StartLimitIntervalSec": "10s", "StartLimitBurst": "5", "SuccessExitStatus": "3 SIGUSR1",
		"RestartPreventExitStatus": "4", "RestartForceExitStatus": "5", "ListenStream": "[::]:80", "ListenDatagram": "/run/d",
		"ListenSequentialPacket": "@p", "Handoff": "systemd,einhorn", "Ready": "timeout=3s http://127.0.0.1/h", "GateBoundSec": "1s",
		"ExecCondition": "/bin/c", "ExecStartPre": `-/bin/a "x y" ; @/bin/b b 100%% $$X`, "ExecStartPost": "+/bin/p $A ${B}c", "ExecReload": ":/bin/r $MAINPID",
		"ExecStop": "!/bin/s", "ExecStopPost": "!!/bin/t", "PassEnvironment": "A B", "UnsetEnvironment": `C "D=1 %%"`, "SupplementaryGroups": "a 5",
		"OOMScoreAdjust": "-5", "NoNewPrivileges": "yes", "CapabilityBoundingSet": "CAP_KILL CAP_CHOWN", "AmbientCapabilities": "cap_net_bind_service",
		"IgnoreSIGPIPE": "yes", "RuntimeDirectoryPreserve": "restart", "RemainAfterExit": "yes", "ExitType": "cgroup", "PIDFile": "x.pid",
		"GuessMainPID": "no", "NotifyAccess": "all", "ReloadSignal": "SIGUSR1", "RuntimeMaxSec": "1h", "RuntimeRandomizedExtraSec": "1min",
		"RestartKillSignal": "SIGINT", "WatchdogSignal": "SIGKILL", "TimeoutStartFailureMode": "abort", "TimeoutStopFailureMode": "kill",
		"RestartMode": "direct", "StandardInput": "file:/dev/zero", "StandardError": "append:/e", "SyslogIdentifier": "x%%y", "SyslogLevelPrefix": "no",
		"RestartBackoff": "no", "Instances": "4", "RolloutBatch": "2", "InheritEnvironment": "no", "StandardOutput": "truncate:/o",
		"RuntimeDirectory": "web web/x:y", "RuntimeDirectoryMode": "0700", "StateDirectory": "s", "StateDirectoryMode": "0750", "CacheDirectory": `"c d"`,
		"CacheDirectoryMode": "0711", "LogsDirectory": "l", "LogsDirectoryMode": "0700", "ConfigurationDirectory": "e", "ConfigurationDirectoryMode": "0700",
		"SettleSec": "10ms", "Standby": "yes", "Live": "/healthz", "LiveIntervalSec": "5s", "LiveTimeoutSec": "2s", "LiveFailures": "2", "LiveAction": "rollout", "ProbationSec": "5s", "InterceptUDP": "yes", "Cgroup": "no", "Output": "prefix",
	}
	for _, k := range limitKinds() {
		samples[k.name] = "1:2"
	}
	return samples
}

// TestDirectives walks the whole table: each directive changes something, reads
// back what it writes, goes back to its default, and is described.
func TestDirectives(t *testing.T) {
	samples := directiveSamples()
	seen := map[string]bool{}
	touched := map[string]bool{}
	for _, d := range Directives() {
		for _, key := range []string{d.Name, "--" + d.Flag} {
			if key != "--" && seen[key] {
				t.Errorf("%s is there twice", key)
			}
			seen[key] = true
		}
		if d.Help == "" || d.Arg == "" || d.Set == nil || (d.Flag != "") != (d.FromFlag != nil) {
			t.Errorf("%s is described by halves", d.Name)
		}
		if e, known := unsupported(d.Name); known && (d.Support == Supported || e.Unsafe) {
			t.Errorf("%s is supported and listed as not", d.Name)
		}
		if d.Get == nil {
			continue
		}
		sample, ok := samples[d.Name]
		if !ok {
			t.Errorf("%s has no sample here", d.Name)
			continue
		}
		s, defaults := Defaults(), Defaults()
		if err := d.Set(&s, sample); err != nil {
			t.Errorf("%v", err)
			continue
		}
		v, w := reflect.ValueOf(s), reflect.ValueOf(defaults)
		for i := range v.NumField() {
			if !reflect.DeepEqual(v.Field(i).Interface(), w.Field(i).Interface()) {
				touched[v.Type().Field(i).Name] = true
			}
		}
		if reflect.DeepEqual(s, defaults) {
			t.Errorf("%s=%s changed nothing", d.Name, sample)
		}
		again := Defaults()
		for _, text := range d.Get(&s) {
			if err := d.Set(&again, text); err != nil {
				t.Errorf("read back: %v", err)
			}
		}
		for _, service := range []*Service{&s, &again} {
			for i := range service.Sockets {
				service.Sockets[i].Source = ""
			}
		}
		if !reflect.DeepEqual(again, s) {
			t.Errorf("%s=%s reads back as %q: %+v, want %+v", d.Name, sample, d.Get(&s), again, s)
		}
		if d.Name == "CapabilityBoundingSet" {
			continue // whose empty value is the empty set
		}
		if err := d.Set(&s, ""); err != nil {
			t.Errorf("%s=: %v", d.Name, err)
		}
		if text := strings.Join(d.Get(&s), " "); text != d.Default {
			t.Errorf("%s= gives %q back, want the default %q", d.Name, text, d.Default)
		}
		if err := d.Set(&s, d.Default); err != nil {
			t.Errorf("default %s=%s: %v", d.Name, d.Default, err)
		}
	}
	// What no directive of a service says.
	exempt := strings.Fields("Name Instance At OnDemand Dependencies Conditions SocketUnits Description Start DirOptional DirHome KillGiven TruncateOut")
	kind := reflect.TypeFor[Service]()
	for i := range kind.NumField() {
		if name := kind.Field(i).Name; !slices.Contains(exempt, name) && !touched[name] {
			t.Errorf("no directive sets Service.%s", name)
		}
	}
	for name := range samples {
		if !seen[name] {
			t.Errorf("sample for %s, which is no directive", name)
		}
	}
}

// TestDirectiveFlags holds the names against the contract of the command line.
func TestDirectiveFlags(t *testing.T) {
	for flag, name := range map[string]string{
		"listen": "ListenStream", "handoff": "Handoff", "type": "Type", "ready": "Ready", "kill-signal": "KillSignal", "kill-mode": "KillMode",
		"timeout-stop": "TimeoutStopSec", "send-sigkill": "SendSIGKILL", "timeout-start": "TimeoutStartSec", "timeout-abort": "TimeoutAbortSec",
		"restart": "Restart", "restart-sec": "RestartSec", "restart-steps": "RestartSteps", "restart-max-delay": "RestartMaxDelaySec",
		"start-limit-interval": "StartLimitIntervalSec", "start-limit-burst": "StartLimitBurst", "watchdog": "WatchdogSec", "env": "Environment",
		"env-file": "EnvironmentFile", "chdir": "WorkingDirectory", "umask": "UMask", "user": "User", "group": "Group", "nice": "Nice",
		"limit-nofile": "LimitNOFILE", "output": "Output",
	} {
		if !slices.ContainsFunc(Directives(), func(d Directive) bool { return d.Flag == flag && d.Name == name }) {
			t.Errorf("there is no --%s for %s=", flag, name)
		}
	}
	for name, want := range map[string]string{
		"Type": "auto", "Handoff": "auto", "Ready": "auto", "KillSignal": "SIGTERM", "KillMode": "control-group", "TimeoutStopSec": "30s",
		"TimeoutStartSec": "1min 30s", "SendSIGKILL": "yes", "Restart": "on-failure", "RestartSec": "100ms", "RestartMaxDelaySec": "30s",
		"StartLimitIntervalSec": "0", "StartLimitBurst": "0", "WatchdogSec": "0", "Output": "inherit", "UMask": "", "Cgroup": "yes",
		"GateBoundSec": "2s", "SettleSec": "50ms", "FinalKillSignal": "SIGKILL",
	} {
		for _, d := range Directives() {
			if d.Name == name && d.Default != want {
				t.Errorf("the default of %s= is %q, want %q", name, d.Default, want)
			}
		}
	}
}

func TestSetErrors(t *testing.T) {
	for _, c := range []struct{ name, value, want string }{
		{"TimeoutStop", "1", "TimeoutStopSec="},
		{"timeoutstopsec", "1", "TimeoutStopSec="},
		{"KilSignal", "1", "KillSignal="},
		{"timeout-stop", "1", "TimeoutStopSec="},
		{"Bcklog", "1", "Backlog="},
		{"Zzzzzzzz", "1", "no such directive"},
		{"Backlog", "1", "?backlog="},
		{"FileDescriptorName", "x", "--listen NAME="},
		{"Type", "dbus", "not supported yet"},
		{"Wants", "db.service", "unit file"},
		{"Type", "foo", "control"},
		{"Restart", "sometimes", "on-failure"},
		{"KillSignal", "FOO", `"FOO"`},
		{"TimeoutStopSec", "soon", `"soon"`},
		{"RestartSec", "infinity", "infinity"},
		{"StartLimitIntervalSec", "infinity", "infinity"},
		{"TimeoutAbortSec", "0", "empty"},
		{"Environment", "A", "no '='"},
		{"Environment", "1=2", `"1"`},
		{"Environment", "A=%h", "%%"},
		{"EnvironmentFile", "-", "missing"},
		{"ExecStart", "/bin/x %h", "%%"},
		{"ExecStart", `/bin/x "a`, "closing"},
		{"ExecStart", " ", "empty"},
		{"UMask", "8", "octal"},
		{"Nice", "20", "19"},
		{"User", "a b", `"a b"`},
		{"WorkingDirectory", "~www", "alone"},
		{"Handoff", "magic", "tableflip"},
		{"Handoff", "fd,fd", "twice"},
		{"Output", "journla", "journal"},
		{"StandardOutput", "tty", "not supported"},
		{"StandardOutput", "file:x", "absolute"},
		{"ListenStream", "web=:80", "--listen"},
		{"ListenStream", "80?backlog=1", "--listen"},
		{"ListenStream", "vsock:1:2", "not supported yet"},
		{"ListenStream", "host:80", "is a name"},
		{"ListenSequentialPacket", "80", "unix sockets only"},
		{"LimitNOFILE", "2:1", "above"},
		{"Cgroup", "maybe", "yes or no"},
	} {
		s := Defaults()
		err := s.Set(c.name, c.value)
		if c.name == "Type" && c.value == "foo" {
			c.want = "notify-reload"
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s=%s: %v; want %q in it", c.name, c.value, err, c.want)
		}
		if !reflect.DeepEqual(s, Defaults()) {
			t.Errorf("%s=%s failed and changed the service", c.name, c.value)
		}
	}
}

func TestUnsupported(t *testing.T) {
	for name, unsafe := range map[string]bool{
		"MemoryMax": false, "NonBlocking": false, "Slice": false,
		"DynamicUser": true, "ProtectSystem": true, "SystemCallFilter": true, "PrivateTmp": true,
	} {
		s := Defaults()
		err := s.Set(name, "x")
		var e *UnsupportedError
		if !errors.As(err, &e) || e.Unsafe != unsafe || !strings.Contains(err.Error(), "not supported yet") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSetLists(t *testing.T) {
	s := Defaults()
	set := func(name, value string) {
		t.Helper()
		if err := s.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	set("Environment", "A=1")
	set("Environment", "B=2")
	set("LimitNOFILE", "1")
	set("LimitCORE", "0")
	shared := s
	set("LimitNOFILE", "2")
	set("SuccessExitStatus", "1")
	set("SuccessExitStatus", "2")
	set("ListenStream", "80")
	set("ListenDatagram", "53")
	if !slices.Equal(s.Env, []string{"A=1", "B=2"}) || len(s.Limits) != 2 || len(s.Sockets) != 2 || s.SuccessExit.String() != "1 2" {
		t.Errorf("lists do not add up: %+v", s)
	}
	if shared.Limits[0].Soft != 1 {
		t.Error("a copy of the service was changed")
	}
	set("Environment", "")
	set("LimitNOFILE", "")
	set("SuccessExitStatus", "")
	set("ListenDatagram", "")
	if s.Env != nil || len(s.Limits) != 1 || s.Sockets != nil || !s.SuccessExit.Empty() {
		t.Errorf("lists are not empty: %+v", s)
	}
	set("TimeoutSec", "infinity")
	if s.TimeoutStart != 0 || s.TimeoutStop != 0 {
		t.Errorf("TimeoutSec=infinity: %v %v", s.TimeoutStart, s.TimeoutStop)
	}
	set("TimeoutSec", "")
	if s.TimeoutStart != 90*time.Second || s.TimeoutStop != 30*time.Second {
		t.Errorf("TimeoutSec=: %v %v", s.TimeoutStart, s.TimeoutStop)
	}
	set("StandardOutput", "append:/var/log/x")
	if s.Output != "/var/log/x" {
		t.Errorf("Output = %q", s.Output)
	}
	set("ExecStart", `a \; "b;" ;c`)
	if want := []string{"a", ";", "b;", ";c"}; !slices.Equal(s.Command, want) {
		t.Errorf("Command = %q", s.Command)
	}
}

func TestSetFlag(t *testing.T) {
	s := Defaults()
	for _, f := range [][2]string{{"env", `A=1 "2" %h`}, {"listen", "web=:80?backlog=5;:81"}, {"timeout-stop", "5"}} {
		if err := s.SetFlag(f[0], f[1]); err != nil {
			t.Fatal(err)
		}
	}
	if s.Env[0] != `A=1 "2" %h` || len(s.Sockets) != 2 || s.Sockets[0].Options.Backlog != 5 || s.TimeoutStop != 5*time.Second {
		t.Errorf("got %+v", s)
	}
	for _, f := range [][2]string{{"timeout-stp", "5"}, {"listen", "x:1"}, {"", "1"}} {
		if err := s.SetFlag(f[0], f[1]); err == nil {
			t.Errorf("--%s %s is no error", f[0], f[1])
		}
	}
}

func TestListenDirective(t *testing.T) {
	for listen, want := range map[string]string{
		":80": "ListenStream=[::]:80", "127.0.0.1:80": "ListenStream=127.0.0.1:80", "udp://[fe80::1%eth0]:53": "ListenDatagram=[fe80::1]:53%eth0",
		"/x": "ListenStream=/x", "unixgram:@x": "ListenDatagram=@x", "unixpacket:/x": "ListenSequentialPacket=/x",
	} {
		sockets, err := ParseListen(listen)
		if err != nil {
			t.Fatal(err)
		}
		if name, value := sockets[0].ListenDirective(); name+"="+value != want {
			t.Errorf("%s: %s=%s, want %s", listen, name, value, want)
		}
	}
}
