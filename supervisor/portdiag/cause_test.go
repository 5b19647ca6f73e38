package portdiag

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// scenario makes one cause on purpose and gives the report of it. also are the
// findings that belong to it besides.
type scenario struct {
	cause   Cause
	verdict Verdict
	also    []Cause
	make    func(t *testing.T) Report
}

// TestCauses makes every cause of the table, and wants it named, and nothing
// else but what belongs to it.
func TestCauses(t *testing.T) {
	made := map[Cause]bool{}
	for _, s := range scenarios() {
		made[s.cause] = true
		t.Run(string(s.cause), func(t *testing.T) {
			r := s.make(t)
			if t.Failed() {
				return
			}
			got := []Cause{r.Cause}
			if r.Cause == OtherNamespace && s.cause != OtherNamespace {
				got[0] = Free // but for what runs beside the tests, which may have the same port
			}
			for _, f := range r.Findings {
				// Ports of tests come from the ephemeral range.
				if (f.Cause != EphemeralPort && f.Cause != OtherNamespace || s.cause == f.Cause) && !slices.Contains(got, f.Cause) {
					got = append(got, f.Cause)
				}
			}
			want := append([]Cause{s.cause}, s.also...)
			slices.Sort(got)
			slices.Sort(want)
			if s.cause == SystemdSocket {
				// There the explainer looks at itself, which runs while it looks.
				got = slices.DeleteFunc(got, func(c Cause) bool { return c == UnusedFD })
			}
			if !slices.Equal(slices.Compact(got), slices.Compact(want)) || !r.Has(s.cause) {
				t.Errorf("causes %v, want %v\n%s", got, want, r.Text(Style{}))
			}
			if r.Verdict != s.verdict {
				t.Errorf("verdict %s, want %s\n%s", r.Verdict, s.verdict, r.Text(Style{}))
			}
			if r.Sentence == "" {
				t.Errorf("no sentence for %s", r.Cause)
			}
			t.Log(r.Line())
		})
	}
	for _, c := range Causes() {
		if !made[c.Cause] {
			t.Errorf("no test makes the cause %s", c.Cause)
		}
	}
}

// explain asks for a target of this process.
func explain(t *testing.T, target Target) Report {
	t.Helper()
	r, err := Explain(Ask{Target: target})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// explainAtRest explains once it can be told of every holder whether it waits: a
// thread that still runs may be on its way to accept.
func explainAtRest(t *testing.T, at netip.AddrPort) (r Report) {
	t.Helper()
	waitFor(t, "rest of the holders", func() bool {
		r = explain(t, tcp(at))
		return !slices.ContainsFunc(r.Parties, func(p Party) bool { return p.Waits == "unknown" })
	})
	return r
}

// explainMessage explains a text in this process.
func explainMessage(t *testing.T, text string) Report {
	t.Helper()
	r, err := explainText(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func tcp(a netip.AddrPort) Target { return Target{Network: "tcp", Addr: a} }

func unixPath(p string) Target { return Target{Network: "unix", Path: p} }

// held explains, for a holder of spec, the address host on the same port.
func held(t *testing.T, spec, host string, adjust ...func(*exec.Cmd)) Report {
	t.Helper()
	if strings.Contains(spec+host, "::") {
		needIPv6(t)
	}
	h := hold(t, spec, adjust...)
	network, _, _ := strings.Cut(spec, " ")
	return explain(t, Target{Network: network, Addr: h.with(host)})
}

// asProgram runs the holder from a copy of the test binary with another name.
func asProgram(t *testing.T, name string, args ...string) func(*exec.Cmd) {
	t.Helper()
	file := copyBinary(t, name)
	return func(c *exec.Cmd) {
		c.Path = file
		c.Args = append([]string{name}, args...)
	}
}

func copyBinary(t *testing.T, name string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}

// leftBehind runs the holder in the background of a shell that ends at once. The
// shell leads a session of its own, as that of a daemon or of a closed terminal
// does: so the holder is seen to be no child of who adopts it, whoever that is
// on this machine and whatever session the tests run in. A shell that is not
// reaped stays a zombie until the holder ends.
func leftBehind(t *testing.T, reaped bool) (adjust func(*exec.Cmd)) {
	return func(c *exec.Cmd) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.Close() }) // ends the holder
		c.ExtraFiles = []*os.File{r}
		words := []string{"/bin/sh", "-c", `"$@" <&3 3<&- & exit 0`, "sh", c.Path}
		if reaped {
			setsid, err := exec.LookPath("setsid")
			if err != nil {
				t.Skipf("needs setsid: %v", err)
			}
			words = append([]string{"/bin/sh", "-c", `"$@" & wait`, "sh", setsid}, words...)
		}
		c.Path, c.Args = words[0], append(words, c.Args[1:]...)
		c.SysProcAttr.Setsid = !reaped
		t.Cleanup(func() { r.Close() })
	}
}

// inCgroup moves a process into a cgroup2 of our own making.
func inCgroup(t *testing.T, pid int, name string) {
	t.Helper()
	needRoot(t)
	root := ""
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		before, after, _ := strings.Cut(line, " - ")
		if f := strings.Fields(before); strings.HasPrefix(after, "cgroup2 ") && len(f) > 4 {
			root = f[4]
		}
	}
	if root == "" {
		t.Skip("no cgroup2 here")
	}
	top := filepath.Join(root, fmt.Sprintf("portdiag-test-%d", os.Getpid()))
	dir := filepath.Join(top, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Skipf("no cgroup can be made: %v", err)
	}
	home, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Back to where we are, so that the directories can go.
		for line := range strings.Lines(string(home)) {
			if p, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
				_ = os.WriteFile(filepath.Join(root, p, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
			}
		}
		for d := dir; len(d) >= len(top); d = filepath.Dir(d) {
			if err := unix.Rmdir(d); err != nil {
				t.Logf("cannot remove %s: %v", d, err)
			}
		}
	})
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		t.Skipf("cannot move a process into a cgroup: %v", err)
	}
}

const containerID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func scenarios() []scenario {
	const server = "tcp 127.0.0.1:0 reuseaddr listen"
	return []scenario{
		{SameAddress, Held, nil, func(t *testing.T) Report { return held(t, server, "127.0.0.1") }},
		{SameAddress, Held, nil, func(t *testing.T) Report { return held(t, "tcp [::]:0 listen", "::") }},
		{SameAddress, Held, nil, func(t *testing.T) Report { return held(t, "udp 127.0.0.1:0", "127.0.0.1") }},
		{WildcardHeld, Held, nil, func(t *testing.T) Report { return held(t, "tcp 0.0.0.0:0 listen", "127.0.0.1") }},
		{WildcardHeld, Held, nil, func(t *testing.T) Report { return held(t, "tcp [::]:0 listen", "::1") }},
		{WildcardHeld, Held, nil, func(t *testing.T) Report { return held(t, "udp 0.0.0.0:0", "127.0.0.1") }},
		{SpecificHeld, Held, nil, func(t *testing.T) Report { return held(t, server, "0.0.0.0") }},
		{SpecificHeld, Held, nil, func(t *testing.T) Report { return held(t, "tcp [::1]:0 listen", "::") }},
		{DualStackHeld, Held, nil, func(t *testing.T) Report { return held(t, "tcp [::]:0 listen", "127.0.0.1") }},
		{DualStackHeld, Held, nil, func(t *testing.T) Report { return held(t, "tcp [::]:0 listen", "0.0.0.0") }},
		{DualStackAsked, Held, nil, func(t *testing.T) Report { return held(t, server, "::") }},
		{DualStackAsked, Held, nil, func(t *testing.T) Report { return held(t, "tcp 0.0.0.0:0 listen", "::") }},

		{BoundOnly, Held, nil, func(t *testing.T) Report {
			if !kernelAtLeast(t, 6, 8) {
				t.Skip("shown since Linux 6.8")
			}
			return held(t, "tcp 127.0.0.1:0", "0.0.0.0")
		}},
		// The client did not set SO_REUSEADDR, so only waiting helps.
		{TimeWaitLeft, Held, nil, func(t *testing.T) Report { return explain(t, tcp(timeWait(t))) }},
		{TimeWaitLeft, NeedsReuseAddr, nil, func(t *testing.T) Report {
			l, client, accepted := connection(t)
			l.Close()
			accepted.Close()
			if _, err := client.Read(make([]byte, 1)); err != io.EOF {
				t.Fatal(err)
			}
			client.Close()
			at := netip.MustParseAddrPort(accepted.LocalAddr().String())
			waitFor(t, "TIME_WAIT", func() bool {
				hs := mustHolders(t, "tcp", at)
				return len(hs) == 1 && hs[0].State == TimeWait
			})
			return explain(t, tcp(at))
		}},
		{ClosingLeft, NeedsReuseAddr, nil, func(t *testing.T) Report {
			l, client, accepted := connection(t)
			defer client.Close()
			l.Close()
			accepted.Close() // and the client does not: FIN_WAIT2
			at := netip.MustParseAddrPort(accepted.LocalAddr().String())
			waitFor(t, "FIN_WAIT2", func() bool {
				hs := mustHolders(t, "tcp", at)
				return len(hs) == 1 && hs[0].State == FinWait2
			})
			return explain(t, tcp(at))
		}},
		{OldConnections, NeedsReuseAddr, nil, func(t *testing.T) Report {
			l, client, accepted := connection(t)
			defer client.Close()
			defer accepted.Close()
			l.Close()
			return explain(t, tcp(netip.MustParseAddrPort(accepted.LocalAddr().String())))
		}},
		{Outgoing, Held, nil, func(t *testing.T) Report {
			l, client, accepted := connection(t)
			defer l.Close()
			defer client.Close()
			defer accepted.Close()
			r := explain(t, tcp(netip.MustParseAddrPort(client.LocalAddr().String())))
			if !slices.ContainsFunc(r.Remedies, func(m Remedy) bool { return strings.Contains(m.Command, "ip_local_reserved_ports=") }) {
				t.Errorf("remedies %v", r.Remedies)
			}
			return r
		}},
		{Outgoing, Held, nil, func(t *testing.T) Report { // UDP: a client's connected socket
			s := hold(t, "udp 127.0.0.1:0")
			return held(t, "udp 127.0.0.1:0 connect="+s.at[0].String(), "127.0.0.1")
		}},
		{ReusePortMismatch, Held, nil, func(t *testing.T) Report {
			r := held(t, server+" reuseport", "127.0.0.1")
			if !r.trialOK("with SO_REUSEPORT too") {
				t.Errorf("trials %+v", r.Trials)
			}
			return r
		}},
		{ReusePortUser, Held, nil, func(t *testing.T) Report {
			return held(t, server+" reuseport", "127.0.0.1", asNobody(t))
		}},
		{NoFreePort, Held, nil, func(t *testing.T) Report {
			return explainAs(t, "127.0.0.1:0", inNamespaces(t, "-n", "ip link set lo up; echo 1-65535 > /proc/sys/net/ipv4/ip_local_reserved_ports"))
		}},
		// No kernel of ours hides a socket any more: what is decided when one does.
		{UnseenHolder, Held, nil, func(*testing.T) Report {
			r := Report{errno: unix.EADDRINUSE, target: tcp(netip.MustParseAddrPort("127.0.0.1:9"))}
			r.explainConflict()
			r.conclude()
			return r
		}},

		{AbstractHeld, Held, nil, func(t *testing.T) Report {
			name := "@portdiag-cause-" + strconv.Itoa(os.Getpid())
			hold(t, "unix "+name+" listen")
			return explain(t, unixPath(name))
		}},
		{UnixLive, Held, nil, func(t *testing.T) Report {
			p := filepath.Join(t.TempDir(), "s")
			hold(t, "unix "+p+" listen")
			return explain(t, unixPath(p))
		}},
		{UnixLive, Held, nil, func(t *testing.T) Report {
			p := filepath.Join(t.TempDir(), "s")
			hold(t, "unixgram "+p)
			return explain(t, unixPath(p))
		}},
		{UnixLiveElsewhere, Held, nil, func(t *testing.T) Report {
			p := filepath.Join(t.TempDir(), "s")
			hold(t, "unix "+p+" listen", inNamespaces(t, "-n", ""))
			return explain(t, unixPath(p))
		}},
		{UnixLiveElsewhere, Held, nil, func(t *testing.T) Report {
			p := filepath.Join(t.TempDir(), "s")
			hold(t, "unixpacket "+p+" listen", inNamespaces(t, "-n", ""))
			return explain(t, unixPath(p))
		}},
		{UnixDead, Held, nil, func(t *testing.T) Report {
			p := filepath.Join(t.TempDir(), "s")
			hold(t, "unix "+p+" listen").end()
			return explain(t, unixPath(p))
		}},
		{UnixUnknown, Unknown, nil, func(t *testing.T) Report {
			dir := openDir(t)
			p := filepath.Join(dir, "s")
			hold(t, "unix "+p+" listen").end()
			if err := os.Chmod(p, 0o600); err != nil {
				t.Fatal(err)
			}
			return explainAs(t, p, asNobody(t))
		}},
		{NotASocket, Held, nil, func(t *testing.T) Report {
			p := filepath.Join(t.TempDir(), "f")
			if err := os.WriteFile(p, []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			return explain(t, unixPath(p))
		}},
		{DanglingLink, Held, nil, func(t *testing.T) Report {
			p := filepath.Join(t.TempDir(), "l")
			if err := os.Symlink("nowhere", p); err != nil {
				t.Fatal(err)
			}
			return explain(t, unixPath(p))
		}},
		{PathTooLong, Refused, nil, func(t *testing.T) Report {
			return explain(t, unixPath("/run/"+strings.Repeat("x", 103)))
		}},
		{NoDirectory, Refused, nil, func(t *testing.T) Report { return explain(t, unixPath(filepath.Join(t.TempDir(), "no", "s"))) }},
		{NotADirectory, Refused, nil, func(t *testing.T) Report {
			p := filepath.Join(t.TempDir(), "f")
			if err := os.WriteFile(p, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return explain(t, unixPath(filepath.Join(p, "s")))
		}},
		{Unwritable, Refused, nil, func(t *testing.T) Report {
			return explainAs(t, filepath.Join(openDir(t), "s"), asNobody(t))
		}},
		{ReadOnly, Refused, nil, func(t *testing.T) Report {
			dir := t.TempDir()
			return explainAs(t, filepath.Join(dir, "s"), inNamespaces(t, "-m", "mount -t tmpfs -o ro none "+dir))
		}},

		{PrivilegedPort, Refused, nil, func(t *testing.T) Report {
			if unprivilegedStart() <= 897 {
				t.Skip("every port is open to all here")
			}
			return explainAs(t, "127.0.0.1:897", asNobody(t))
		}},
		{PrivilegedPort, Refused, nil, func(t *testing.T) Report { // asked by root, who could
			needRoot(t)
			return explainAs(t, "Error: listen EACCES: permission denied 127.0.0.1:897", inNamespaces(t, "-n", "ip link set lo up"))
		}},
		{DeniedByPolicy, Refused, nil, func(t *testing.T) Report {
			return explainAs(t, freePort(t).String(), func(c *exec.Cmd) { c.Env = append(c.Env, landlockEnv+"=1") })
		}},
		{DeniedByPolicy, Refused, nil, func(t *testing.T) Report { // of the program, not of us
			return explainMessage(t, "listen tcp "+freePort(t).String()+": bind: permission denied")
		}},
		{Unwritable, Refused, nil, func(t *testing.T) Report { // for the program's user, not for us
			return explainMessage(t, "listen unix "+filepath.Join(t.TempDir(), "s")+": bind: permission denied")
		}},
		{Free, Available, nil, func(t *testing.T) Report {
			r := explainMessage(t, "listen tcp "+freePort(t).String()+": bind: address already in use")
			if !strings.Contains(r.Sentence, "when Go tried") {
				t.Errorf("sentence %s", r.Sentence)
			}
			return r
		}},
		{AddressNotHere, Refused, nil, func(t *testing.T) Report {
			return explainAs(t, "198.51.100.7:8080", inNamespaces(t, "-n", "ip link set lo up"))
		}},
		{AddressTentative, Refused, nil, func(t *testing.T) Report {
			needIPv6(t)
			return explainAs(t, "[fd00:77::1]:8080", inNamespaces(t, "-n", `ip link set lo up
				ip link add v0 type veth peer name v1
				echo 1000 > /proc/sys/net/ipv6/conf/v0/dad_transmits
				ip link set v1 up; ip link set v0 up
				ip address add fd00:77::1/64 dev v0`))
		}},
		{AddressUnusable, Refused, nil, func(t *testing.T) Report {
			needIPv6(t)
			return explain(t, tcp(netip.MustParseAddrPort("[ff0e::77]:18080")))
		}},
		{AddressUnusable, Available, nil, func(t *testing.T) Report {
			return explainAs(t, "239.1.1.1:8080", inNamespaces(t, "-n", "ip link set lo up"))
		}},
		{IPv6Off, Refused, nil, func(t *testing.T) Report {
			return explainAs(t, "[::1]:8080", inNamespaces(t, "-n", "ip link set lo up; echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"))
		}},
		{ZoneMissing, Refused, nil, func(t *testing.T) Report {
			needIPv6(t)
			return explain(t, tcp(netip.MustParseAddrPort("[fe80::77]:18080")))
		}},
		{ZoneUnknown, Refused, nil, func(t *testing.T) Report {
			needIPv6(t)
			return explain(t, tcp(netip.MustParseAddrPort("[fe80::77%nosuch0]:18080")))
		}},

		{Free, Available, nil, func(t *testing.T) Report { return explain(t, tcp(freePort(t))) }},
		{Free, Available, nil, func(t *testing.T) Report { return explain(t, unixPath(filepath.Join(t.TempDir(), "s"))) }},
		{OtherProtocol, Available, nil, func(t *testing.T) Report {
			h := hold(t, "udp 127.0.0.1:0")
			return explain(t, tcp(h.at[0]))
		}},
		{OtherProtocol, Available, nil, func(t *testing.T) Report {
			h := hold(t, server)
			return explain(t, Target{Network: "udp", Addr: h.at[0]})
		}},
		{OtherAddress, Available, nil, func(t *testing.T) Report { return held(t, "tcp 127.0.0.2:0 listen", "127.0.0.1") }},
		{V6OnlyApart, Available, nil, func(t *testing.T) Report { return held(t, "tcp [::]:0 v6only listen", "0.0.0.0") }},
		{V6OnlyApart, Available, nil, func(t *testing.T) Report {
			needIPv6(t)
			h := hold(t, "tcp 0.0.0.0:0 listen")
			return explain(t, Target{Network: "tcp", Addr: h.with("::"), V6Only: true})
		}},
		{OtherNamespace, Available, nil, func(t *testing.T) Report {
			h := hold(t, "tcp 0.0.0.0:0 listen", inNamespaces(t, "-n", ""))
			r := explain(t, tcp(h.at[0]))
			if !strings.Contains(r.Findings[0].Text, fmt.Sprintf("pid %d ", h.pid)) {
				t.Errorf("does not name pid %d: %v", h.pid, r.Findings)
			}
			return r
		}},

		{IsMPTCP, Held, []Cause{SameAddress}, func(t *testing.T) Report {
			if fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP); err != nil {
				t.Skipf("no MPTCP here: %v", err)
			} else {
				unix.Close(fd)
			}
			return held(t, server+" mptcp", "127.0.0.1")
		}},
		{DeviceBound, Held, []Cause{SameAddress}, func(t *testing.T) Report {
			needRoot(t)
			return held(t, server+" device=lo", "127.0.0.1")
		}},
		{ReservedPort, Available, []Cause{Free}, func(t *testing.T) Report {
			return explainAs(t, ":8080", inNamespaces(t, "-n", "ip link set lo up; echo 8000-8100 > /proc/sys/net/ipv4/ip_local_reserved_ports"))
		}},
		{EphemeralPort, Available, []Cause{Free}, func(t *testing.T) Report {
			return explainAs(t, "127.0.0.1:40000", inNamespaces(t, "-n", "ip link set lo up"))
		}},
		{Forwarder, Held, []Cause{SameAddress}, func(t *testing.T) Report {
			r := held(t, server, "127.0.0.1", asProgram(t, "docker-proxy", "-proto", "tcp", "-host-ip", "127.0.0.1", "-host-port", "8080", "-container-ip", "172.17.0.2", "-container-port", "80"))
			if r.Remedies[0].Command != "docker ps --filter publish=8080" {
				t.Errorf("remedies %v", r.Remedies)
			}
			return r
		}},
		{UnusedFD, Held, []Cause{SameAddress}, func(t *testing.T) Report { return explainAtRest(t, hold(t, server+" idle").at[0]) }},
		{UnusedFD, Held, []Cause{SameAddress}, func(t *testing.T) Report {
			fd, at, err := openSocket([]string{"tcp", "127.0.0.1:0", "reuseaddr", "listen"})
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() { // a server in this process, which leaks its listener to a child
				defer close(ended)
				for {
					c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
					if err == unix.EINVAL {
						return
					}
					unix.Close(c)
				}
			}()
			t.Cleanup(func() {
				_ = unix.Shutdown(fd, unix.SHUT_RD)
				<-ended
				unix.Close(fd)
			})
			leak := os.NewFile(uintptr(must(unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3))), "leak")
			h := hold(t, "udp 127.0.0.1:0", func(c *exec.Cmd) { c.ExtraFiles = []*os.File{leak} })
			leak.Close()
			r := explainAtRest(t, netip.MustParseAddrPort(at))
			if r.Parties[0].Waits != "yes" {
				t.Errorf("the server waits: %s", r.Parties[0].Waits)
			}
			for _, f := range r.Findings {
				if f.Cause == UnusedFD && f.PID != h.pid {
					t.Errorf("names pid %d, the leak is in %d", f.PID, h.pid)
				}
			}
			return r
		}},
		{Supervised, Held, []Cause{SameAddress}, func(t *testing.T) Report {
			r := held(t, server, "127.0.0.1", asProgram(t, "supervise", "--listen", ":80", "--", "./web"))
			if want := "supervise rollout web"; r.Remedies[1].Command != want {
				t.Errorf("remedies %v", r.Remedies)
			}
			return r
		}},
		{Supervised, Held, []Cause{SameAddress}, func(t *testing.T) Report { // its lanes are SO_REUSEPORT: nothing to join
			return held(t, server+" reuseport", "127.0.0.1", asProgram(t, "supervise", "--name", "web", "--", "./server"))
		}},
		{SystemdUnit, Held, []Cause{SameAddress}, func(t *testing.T) Report {
			h := hold(t, server, func(c *exec.Cmd) { c.SysProcAttr.Setsid = true })
			inCgroup(t, h.pid, "system.slice/web.service")
			r := explain(t, tcp(h.at[0]))
			if r.Remedies[1].Command != "systemctl stop web.service" {
				t.Errorf("remedies %v", r.Remedies)
			}
			return r
		}},
		{SystemdSocket, Held, []Cause{SameAddress}, func(t *testing.T) Report {
			return explainAs(t, "", inNamespaces(t, "--pid --fork --mount-proc", ""), func(c *exec.Cmd) {
				for i, a := range c.Args {
					if exe, _ := os.Executable(); a == exe {
						c.Args[i] = copyBinary(t, "systemd")
					}
				}
				c.Env = append(c.Env, childEnv+"="+server+" idle")
			})
		}},
		{InContainer, Held, []Cause{SameAddress}, func(t *testing.T) Report {
			h := hold(t, server)
			inCgroup(t, h.pid, "system.slice/docker-"+containerID+".scope")
			r := explain(t, tcp(h.at[0]))
			if r.Remedies[0].Command != "docker stop 0123456789ab" {
				t.Errorf("remedies %v", r.Remedies)
			}
			return r
		}},
		{Orphan, Held, []Cause{SameAddress}, func(t *testing.T) Report {
			return held(t, server, "127.0.0.1", leftBehind(t, true))
		}},
		{ZombieParent, Held, []Cause{SameAddress, Orphan}, func(t *testing.T) Report {
			return held(t, server, "127.0.0.1", leftBehind(t, false))
		}},
		{ZombieLeader, Held, []Cause{SameAddress}, func(t *testing.T) Report {
			h := hold(t, server, func(c *exec.Cmd) { c.Env = append(c.Env, zombieEnv+"=1") })
			waitFor(t, "end of the main thread", func() bool {
				p, err := readBrief(h.pid)
				return err == nil && p.State == "Z"
			})
			return explain(t, tcp(h.at[0]))
		}},
		{Stopped, Held, []Cause{SameAddress}, func(t *testing.T) Report {
			h := hold(t, server)
			t.Cleanup(func() { _ = h.cmd.Process.Signal(syscall.SIGCONT) })
			if err := h.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "stop", func() bool {
				p, err := readBrief(h.pid)
				return err == nil && p.State == "T"
			})
			r := explain(t, tcp(h.at[0]))
			if want := fmt.Sprintf("kill -CONT %d", h.pid); r.Remedies[0].Command != want {
				t.Errorf("remedies %v", r.Remedies)
			}
			return r
		}},
		{OlderInstance, Held, []Cause{SameAddress}, func(t *testing.T) Report {
			h := hold(t, server)
			r, err := Explain(Ask{Target: tcp(h.at[0]), Command: h.cmd.Args})
			if err != nil {
				t.Fatal(err)
			}
			return r
		}},
		{OlderInstance, Held, []Cause{SameAddress}, func(t *testing.T) Report { // the younger one runs, and has another parent
			h := hold(t, server)
			hold(t, "udp 127.0.0.1:0", leftBehind(t, true))
			return explain(t, tcp(h.at[0]))
		}},
		{ReplacedProgram, Held, []Cause{SameAddress}, func(t *testing.T) Report {
			file := copyBinary(t, "server")
			h := hold(t, server, func(c *exec.Cmd) { c.Path = file })
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			return explain(t, tcp(h.at[0]))
		}},
		{KernelSocket, Held, []Cause{SameAddress}, func(t *testing.T) Report {
			r := explainAs(t, "udp://0.0.0.0:4789", inNamespaces(t, "-n -p -f --mount-proc", `ip link set lo up
				ip link add vx0 type vxlan id 7 dstport 4789 local 127.0.0.1 dev lo || { echo SKIP no vxlan here; exit 0; }
				ip link set vx0 up`))
			return r
		}},
		{NoProcess, Held, []Cause{SameAddress}, func(t *testing.T) Report {
			return explainAs(t, "", inNamespaces(t, "--pid --fork --mount-proc", ""), func(c *exec.Cmd) { c.Env = append(c.Env, inFlightEnv+"=1") })
		}},
		{HiddenOwner, Held, []Cause{SameAddress}, func(t *testing.T) Report {
			h := hold(t, server)
			r := explainAs(t, h.at[0].String(), asNobody(t))
			if len(r.Unseen) == 0 {
				t.Error("does not say what it could not see")
			}
			return r
		}},
		{PathLost, Available, []Cause{Free}, func(t *testing.T) Report {
			p := filepath.Join(t.TempDir(), "s")
			hold(t, "unix "+p+" listen")
			if err := os.Remove(p); err != nil {
				t.Fatal(err)
			}
			return explain(t, unixPath(p))
		}},
	}
}

// connection makes a connection without MPTCP within this process. The caller
// closes all three.
func connection(t *testing.T) (l net.Listener, client, accepted net.Conn) {
	t.Helper()
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if client, err = net.Dial("tcp4", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if accepted, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return l, client, accepted
}

// freePort is an address that was free a moment ago.
func freePort(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, at, err := openSocket([]string{"tcp", "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	return netip.MustParseAddrPort(at)
}

// openDir is a directory that everybody may enter.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "portdiag")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
