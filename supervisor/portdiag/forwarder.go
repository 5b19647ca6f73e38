package portdiag

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
)

// forwarding is what a process that only forwards a port is asked to do.
type forwarding struct {
	text   string
	remedy Remedy
}

// forwarderOf recognises the programs that stand at a port for a server that
// is elsewhere.
func forwarderOf(p Process) (forwarding, bool) {
	name := p.Comm
	if p.Exe != "" {
		name = filepath.Base(p.Exe)
	} else if len(p.Args) > 0 {
		name = filepath.Base(p.Args[0])
	}
	flag := func(names ...string) string {
		for i, a := range p.Args {
			for _, n := range names {
				if a == n && i+1 < len(p.Args) {
					return p.Args[i+1]
				}
				if v, ok := strings.CutPrefix(a, n+"="); ok {
					return v
				}
			}
		}
		return ""
	}
	has := func(words ...string) bool {
		for _, w := range words {
			for _, a := range p.Args {
				if a == w {
					return true
				}
			}
		}
		return false
	}
	switch name {
	case "docker-proxy":
		text := "docker-proxy, to a container"
		if ip := flag("-container-ip"); ip != "" {
			text += " at " + printable(net.JoinHostPort(ip, flag("-container-port")), 80)
		}
		look := Remedy{"see which container publishes the port, then docker stop it", "docker ps"}
		if port := flag("-host-port"); port != "" {
			look.Command += " --filter publish=" + quote(port)
		}
		return forwarding{text, look}, true
	case "rootlessport", "rootlesskit", "rootlessport-child", "slirp4netns", "pasta", "pasta.avx2", "passt":
		return forwarding{
			name + ", to a rootless container",
			Remedy{"see which container publishes the port, then podman stop it", "podman ps --format '{{.Names}} {{.Ports}}'"},
		}, true
	case "com.docker.backend", "vpnkit", "gvproxy", "wslrelay":
		return forwarding{name + ", into a virtual machine", Remedy{"see which container publishes the port, then docker stop it", "docker ps"}}, true
	case "ssh":
		if spec := flag("-L", "-D", "-R"); spec != "" {
			return forwarding{"ssh, a tunnel " + printable(spec, 80), Remedy{"end the tunnel", fmt.Sprintf("kill -TERM %d", p.PID)}}, true
		}
	case "kubectl":
		if has("port-forward") {
			return forwarding{"kubectl port-forward", Remedy{"end the forwarding", fmt.Sprintf("kill -TERM %d", p.PID)}}, true
		}
	case "socat", "redir", "rinetd", "simpleproxy":
		return forwarding{p.Title(titleLimit), Remedy{"end the forwarding", fmt.Sprintf("kill -TERM %d", p.PID)}}, true
	case "systemd-socket-proxyd":
		return forwarding{"systemd-socket-proxyd", Remedy{"see its socket unit", "systemctl list-sockets"}}, true
	}
	return forwarding{}, false
}

// quote makes s one word of a POSIX shell.
func quote(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:@%+,=[]") == "" && !strings.ContainsAny(s, "[]") {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
