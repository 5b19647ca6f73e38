package portdiag

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// remedies says what to do, safest first: look, let a manager do it, change
// the asker, end the process.
func (r *Report) remedies(ask Ask) {
	r.managed()
	r.ofCause(ask)
	r.ofHolder()
}

// managed are holders that somebody else starts and stops.
func (r *Report) managed() {
	for _, f := range r.Findings {
		var p Party
		if i := slices.IndexFunc(r.Parties, func(p Party) bool { return p.PID == f.PID }); i >= 0 {
			p = r.Parties[i]
		}
		switch f.Cause {
		case Supervised:
			name := superviseName(p.Process)
			r.advise("see the service that has it", "supervise status")
			if name != "" {
				r.advise("put a new version in its place", "supervise rollout "+quote(name))
				r.advise("give the address up", "supervise stop "+quote(name))
			}
		case SystemdSocket:
			r.advise("see which socket unit it is, then systemctl stop it", "systemctl list-sockets")
		case SystemdUnit:
			ctl := "systemctl "
			if p.Place.UserUnit {
				ctl = "systemctl --user "
			}
			r.advise("look at the unit", ctl+"status "+quote(p.Place.Unit))
			r.advise("stop it", ctl+"stop "+quote(p.Place.Unit))
		case InContainer:
			id := shortID(p.Place.Container)
			switch p.Place.Runtime {
			case "docker", "podman":
				r.advise("stop the container", p.Place.Runtime+" stop "+quote(id))
			case "containerd", "cri-o":
				r.advise("see the container; Kubernetes starts it again unless the pod goes", "crictl ps --id "+quote(id))
			case "lxc":
				r.advise("stop the container", "lxc-stop -n "+quote(id))
			case "nspawn":
				r.advise("stop the container", "machinectl poweroff "+quote(id))
			}
		case Forwarder:
			if fw, ok := forwarderOf(p.Process); ok {
				r.advise(fw.remedy.Text, fw.remedy.Command)
			}
		}
	}
}

func (r *Report) ofCause(ask Ask) {
	t := r.target
	port := t.Addr.Port()
	again := "supervise why " + quote(r.addressArg())
	switch r.Cause {
	case TimeWaitLeft, ClosingLeft:
		r.advise("wait until it is free", again+" --wait 2m")
		r.advise("set SO_REUSEADDR before bind, as most servers do", "")
	case OldConnections:
		if r.Verdict == NeedsReuseAddr {
			r.advise("set SO_REUSEADDR before bind, as most servers do", "")
		}
	case Outgoing:
		r.advise("wait until the connection ends", again+" --wait 2m")
		if yes, list := reservedPort(port); !yes {
			value := fmt.Sprint(port)
			if list != "" {
				value = list + "," + value
			}
			r.advise("keep clients from getting the port again (write it to /etc/sysctl.d too)", "sysctl -w net.ipv4.ip_local_reserved_ports="+value)
		}
	case NoFreePort:
		r.advise("see who has them", "ss -tanp | sort -k4 | head -50")
		r.advise("widen the range", `sysctl -w net.ipv4.ip_local_port_range="10240 65535"`)
	case UnseenHolder:
		r.advise("look again", again)
	case DualStackAsked:
		r.advise("bind IPv6 only (IPV6_V6ONLY; nginx: ipv6only=on), or the IPv4 address besides", "")
	case DualStackHeld:
		r.advise("let the holder bind IPv6 only (IPV6_V6ONLY; nginx: ipv6only=on)", "")
	case SpecificHeld:
		r.advise("bind the address that is needed instead of every one", "")
	case PrivilegedPort:
		program := "PROGRAM"
		if len(ask.Command) > 0 {
			program = quote(ask.Command[0])
		}
		r.advise("let the supervisor, started by root, hold the port for an unprivileged server", fmt.Sprintf("supervise --listen %s --user USER -- %s", quote(strings.TrimPrefix(r.addressArg(), "tcp://")), program))
		r.advise("give the program the capability (not to an interpreter)", "setcap cap_net_bind_service=+ep "+program)
		r.advise("let every user bind from here on", fmt.Sprintf("sysctl -w net.ipv4.ip_unprivileged_port_start=%d", port))
	case DeniedByPolicy:
		r.advise("see what was denied", "journalctl -k -g 'denied|DENIED' -n 20")
		r.advise("see what restricts the process: SocketBindDeny=, RestrictAddressFamilies= of its unit, the profile of its container", "")
	case AddressNotHere:
		r.advise("see the addresses of this machine", "ip address")
		r.advise("bind an address before it is there: IP_FREEBIND (FreeBind= of a socket unit; --listen 'ADDRESS?freebind=1')", "")
		name := "net.ipv4.ip_nonlocal_bind"
		if t.Addr.Addr().Is6() {
			name = "net.ipv6.ip_nonlocal_bind"
		}
		r.advise("the same for every program", "sysctl -w "+name+"=1")
	case AddressTentative:
		r.advise("wait a second and try again", "")
		r.advise("see the state of the address", "ip -6 address show to "+t.Addr.Addr().WithZone("").String())
	case AddressUnusable:
		r.advise("see the addresses of this machine", "ip address")
	case IPv6Off:
		r.advise("bind IPv4: 127.0.0.1 instead of localhost or [::1], 0.0.0.0 instead of [::]", "")
		r.advise("switch IPv6 on", "sysctl -w net.ipv6.conf.all.disable_ipv6=0")
	case ZoneMissing:
		r.advise(fmt.Sprintf("write the interface after it: [%v%%eth0]:%d", t.Addr.Addr(), port), "")
		r.advise("see which interface has it", "ip -6 address show to "+t.Addr.Addr().String())
	case ZoneUnknown:
		r.advise("see the interfaces", "ip link")
	default:
		r.ofPath(again)
	}
	if r.Has(ReusePortMismatch) {
		r.advise("set SO_REUSEPORT in the new server too, if both shall serve the port together", "")
	}
	if r.Has(EphemeralPort) && r.Verdict == Available {
		_, list := reservedPort(port)
		value := fmt.Sprint(port)
		if list != "" {
			value = list + "," + value
		}
		r.advise("keep clients from getting the port", "sysctl -w net.ipv4.ip_local_reserved_ports="+value)
	}
}

func (r *Report) ofPath(again string) {
	if !r.target.unix() {
		return
	}
	path := quote(r.target.abs())
	dir := quote(filepath.Dir(r.target.abs()))
	switch r.Cause {
	case UnixDead:
		r.advise("remove what the dead server left", "rm "+path)
	case NotASocket, DanglingLink:
		r.advise("look at it", "ls -ld "+path)
		r.advise("remove it only if nobody needs it, or choose another path", "")
	case PathTooLong:
		r.advise("use a shorter path, for example below /run or $XDG_RUNTIME_DIR; or chdir to the directory and bind a relative one", "")
	case NoDirectory:
		r.advise("make the directory (RuntimeDirectory= does it for a service)", "mkdir -p "+dir)
	case NotADirectory:
		r.advise("see which part is a file", "namei -l "+path)
	case Unwritable:
		r.advise("see who may write there", "namei -l "+path)
		r.advise("use a directory of your own, for example $XDG_RUNTIME_DIR", "")
	case ReadOnly:
		r.advise("see how it is mounted", "findmnt -T "+dir)
		r.advise("mount a tmpfs for sockets there, or use /run or /tmp", "")
	case UnixUnknown:
		r.advise("ask again with more rights", "sudo "+again)
	}
}

// ofHolder are what is left when nobody manages the holder: to end it.
func (r *Report) ofHolder() {
	if r.Verdict == Available || r.Verdict == Refused {
		return
	}
	if r.Has(HiddenOwner) && os.Geteuid() != 0 {
		r.advise("see the owner", "sudo supervise why "+quote(r.addressArg()))
	}
	if r.Has(Supervised) || r.Has(SystemdUnit) || r.Has(SystemdSocket) || r.Has(InContainer) || len(r.Parties) == 0 {
		return
	}
	for _, f := range r.Findings {
		if f.Cause == Stopped {
			r.advise("let it go on", fmt.Sprintf("kill -CONT %d", f.PID))
		}
	}
	p, ok := r.victim()
	if !ok || p.PID == 1 || r.Has(Forwarder) {
		return
	}
	if p.PID == os.Getpid() {
		r.advise("it is this very process that holds it: close the earlier socket first", "")
		return
	}
	r.advise("end it the graceful way, after asking", "supervise why "+quote(r.addressArg())+" --free")
	r.advise("or by hand", fmt.Sprintf("kill -TERM %d", p.PID))
}

// victim is the process whose end would free the address.
func (r *Report) victim() (Party, bool) {
	if len(r.Parties) == 0 {
		return Party{}, false
	}
	return r.Parties[0], true
}

// addressArg is the address as an argument of supervise why.
func (r *Report) addressArg() string {
	t := r.target
	switch {
	case t.unix() && t.Network == "unix":
		return t.abs()
	case t.unix():
		return t.Network + ":" + t.abs()
	case t.Port && t.Network == "tcp":
		return fmt.Sprintf(":%d", t.Addr.Port())
	case t.Network == "udp":
		return "udp://" + t.Addr.String()
	case t.V6Only:
		return "tcp6://" + t.Addr.String()
	}
	return t.Addr.String()
}
