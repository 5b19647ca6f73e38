package guest

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// How a service fares under a directive.
const (
	lossless = "lossless"      // rollouts lose nothing
	plain    = "plain restart" // it serves; a reload is a stop and a start, and the log says so
	refuses  = "does not start"
)

// sandbox is what people put into units, and how it goes with a server that
// knows LISTEN_FDS (--listen), and with one that binds by itself.
type sandbox struct {
	lines []string
	known string
	binds string
	note  string // what it takes
}

var sandboxes = []sandbox{
	{nil, lossless, lossless, ""},
	{[]string{"DynamicUser=yes"}, lossless, lossless, ""},
	{[]string{"User=anna", "AmbientCapabilities=CAP_NET_BIND_SERVICE"}, lossless, lossless, "ports below 1024 as a user"},
	{[]string{"NoNewPrivileges=yes", "CapabilityBoundingSet="}, lossless, lossless, ""},
	{[]string{"ProtectSystem=strict", "ProtectHome=yes", "PrivateTmp=yes"}, lossless, lossless, ""},
	{[]string{"ProtectProc=invisible", "ProcSubset=pid"}, lossless, lossless, ""},
	{[]string{"DynamicUser=yes", "ProtectProc=invisible"}, lossless, lossless, ""},
	{[]string{"PrivateUsers=yes"}, lossless, lossless, ""},
	{[]string{"PrivateDevices=yes", "ProtectClock=yes", "ProtectHostname=yes"}, lossless, lossless, ""},
	{[]string{"ProtectKernelTunables=yes", "ProtectKernelModules=yes", "ProtectKernelLogs=yes", "ProtectControlGroups=yes"}, lossless, lossless, ""},
	{[]string{"RestrictNamespaces=yes", "LockPersonality=yes", "RestrictRealtime=yes", "RestrictSUIDSGID=yes"}, lossless, lossless, ""},
	{[]string{"MemoryDenyWriteExecute=yes", "SystemCallArchitectures=native"}, lossless, lossless, ""},
	{[]string{"RestrictAddressFamilies=AF_UNIX AF_NETLINK AF_INET AF_INET6"}, lossless, lossless, ""},
	{[]string{"RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6"}, lossless, lossless, "few connections; queues cannot be watched, and a server that binds has one listener for all: allow AF_NETLINK"},
	{[]string{"SystemCallFilter=@system-service", "SystemCallErrorNumber=EPERM"}, lossless, plain, "interception takes the calls that the row after the next allows"},
	{[]string{"SystemCallFilter=@system-service"}, refuses, refuses, "killed for the first call that is not allowed: set SystemCallErrorNumber=EPERM, or allow them"},
	{[]string{"SystemCallFilter=@system-service seccomp pidfd_getfd process_vm_readv process_vm_writev"}, lossless, lossless, ""},
	{[]string{"SystemCallFilter=~@privileged @resources"}, lossless, lossless, ""},
	{[]string{"IPAddressDeny=any", "IPAddressAllow=localhost"}, lossless, lossless, ""},
	{[]string{"MemoryMax=64M", "TasksMax=64"}, lossless, lossless, ""},
	{[]string{"Delegate=yes"}, lossless, lossless, "a control group for each generation"},
	{[]string{
		"DynamicUser=yes", "Delegate=yes", "ProtectSystem=strict", "ProtectHome=yes", "PrivateDevices=yes", "ProtectClock=yes",
		"ProtectHostname=yes", "ProtectKernelTunables=yes", "ProtectKernelModules=yes", "ProtectKernelLogs=yes", "ProtectProc=invisible",
		"RestrictNamespaces=yes", "LockPersonality=yes", "RestrictRealtime=yes", "RestrictSUIDSGID=yes", "MemoryDenyWriteExecute=yes",
		"SystemCallArchitectures=native", "RestrictAddressFamilies=AF_UNIX AF_NETLINK AF_INET AF_INET6",
		"SystemCallFilter=@system-service seccomp pidfd_getfd process_vm_readv process_vm_writev", "SystemCallErrorNumber=EPERM", "CapabilityBoundingSet=",
	}, lossless, lossless, "all that can be recommended together"},
}

func TestSandbox(t *testing.T) {
	for _, s := range sandboxes {
		for _, server := range []struct{ exec, want string }{{servers[0].exec, s.known}, {servers[1].exec, s.binds}} {
			name := strings.Join(s.lines, ",")
			if len(name) > 60 {
				name = name[:60]
			}
			kind := "listen"
			if server.exec == servers[1].exec {
				kind = "binds"
			}
			t.Run(name+" "+kind, func(t *testing.T) {
				got, log := fares(t, server.exec, s.lines)
				warnings := regexp.MustCompile(`(?m)^.*\[(?:WARN|ERROR)\].*$`).FindAllString(log, -1)
				if got != server.want {
					t.Errorf("%s, not %s; the log:\n%s", got, server.want, log)
				} else if len(warnings) > 0 {
					t.Logf("%s, with warnings:\n%s", got, strings.Join(warnings, "\n"))
				}
			})
		}
	}
}

// fares starts a service, and reloads it twice under load.
func fares(t *testing.T, exec string, lines []string) (string, string) {
	u := newUnit(t, "web.service", notifying(t, exec, append([]string{"Restart=no", "TimeoutStartSec=60s"}, lines...)...))
	if _, err := try("systemctl", "start", "web.service"); err != nil {
		return refuses, u.property("Result") + " " + u.property("ExecMainStatus") + "\n" + u.journal()
	}
	w := newStorm(t, "tcp", "127.0.0.1:8080")
	w.more(10)
	for i := range 2 {
		w.Mark(fmt.Sprint("reload ", i+1))
		pid := w.LastPid()
		if err := unix.Kill(u.number("MainPID"), unix.SIGHUP); err != nil {
			return refuses, u.journal()
		}
		w.other(pid)
		w.more(10)
	}
	r := w.Stop()
	began := time.Now()
	u.do("stop")
	log := u.journal()
	if took := time.Since(began); took > 60*time.Second {
		log += fmt.Sprintf("\nstop took %v", took)
	}
	if r := u.property("Result"); r != "success" {
		return "ends with " + r, log
	}
	switch {
	case len(r.Failures) == 0 && strings.Contains(log, "rollout done"):
		return lossless, log
	case strings.Contains(log, "plain restart") || strings.Contains(log, "a stop and a start"):
		return plain, log
	}
	return fmt.Sprintf("%d of %d lost", len(r.Failures), r.OK), log
}

// With Delegate=yes each generation has a control group of its own below the
// unit's, and none is left. Without it root can make them as well, although
// systemd does not promise to leave them alone; that none is left is the same.
func TestDelegation(t *testing.T) {
	for _, delegate := range []string{"yes", "no"} {
		t.Run(delegate, func(t *testing.T) {
			u := newUnit(t, "web.service", notifying(t, servers[0].exec, "Restart=no", "Delegate="+delegate))
			u.do("start")
			group := "/sys/fs/cgroup" + u.property("ControlGroup")
			below := func() []string {
				var names []string
				dirs, err := os.ReadDir(group)
				if err != nil {
					t.Fatal(err)
				}
				for _, d := range dirs {
					if d.IsDir() {
						names = append(names, d.Name())
					}
				}
				return names
			}
			first := below()
			u.do("reload")
			u.await("rollout done", 1)
			second := below()
			t.Logf("groups: %v, then %v", first, second)
			if delegate == "yes" && (len(first) == 0 || len(second) == 0) {
				t.Error("no control group for a generation")
			}
			u.do("stop")
			if _, err := os.Stat(group); err == nil {
				t.Errorf("%s is left", group)
			}
		})
	}
}
