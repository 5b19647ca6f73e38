package portdiag

import (
	"os"
	"path"
	"strconv"
	"strings"
)

// Place is what a process belongs to, as its cgroup says.
type Place struct {
	Cgroup    string `json:"cgroup,omitempty"`
	Unit      string `json:"unit,omitempty"`      // systemd unit: web.service, session-3.scope
	UserUnit  bool   `json:"user_unit,omitempty"` // of a user's manager: systemctl --user
	Container string `json:"container,omitempty"` // id or name
	Runtime   string `json:"runtime,omitempty"`   // docker, podman, containerd, cri-o, lxc, nspawn
	Pod       string `json:"pod,omitempty"`       // uid of the Kubernetes pod
}

// placeOf reads /proc/PID/cgroup, which everybody may read.
func placeOf(pid int) Place {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return Place{}
	}
	return parsePlace(string(b))
}

// parsePlace reads proc(5) cgroup lines. The unified hierarchy ("0::") and
// systemd's own v1 hierarchy tell most; in a container on cgroup v1 the others
// may be the only ones that name it.
func parsePlace(lines string) Place {
	var best Place
	for line := range strings.Lines(lines) {
		f := strings.SplitN(strings.TrimRight(line, "\n"), ":", 3)
		if len(f) != 3 {
			continue
		}
		p := parseCgroup(f[2])
		if score(p) > score(best) {
			best = p
		}
	}
	return best
}

func score(p Place) int {
	n := 0
	if p.Cgroup != "" && p.Cgroup != "/" {
		n = 1
	}
	if p.Unit != "" {
		n += 2
	}
	if p.Container != "" {
		n += 4
	}
	return n
}

func parseCgroup(cgroup string) Place {
	p := Place{Cgroup: cgroup}
	for _, part := range strings.Split(cgroup, "/") {
		if pod, ok := podOf(part); ok {
			p.Pod = pod
		}
		if id, runtime := containerOf(part); id != "" {
			p.Container, p.Runtime = id, runtime
		}
		switch path.Ext(part) {
		case ".service", ".scope":
			// A unit below user@1000.service is one of that user's manager.
			if strings.HasPrefix(p.Unit, "user@") {
				p.UserUnit = true
			}
			p.Unit = unescape(part)
		}
	}
	if p.Container != "" {
		if p.Runtime == "" {
			p.Runtime = runtimeOf(cgroup, p.Pod)
		}
		// The scope of a container is no unit to stop.
		if strings.HasSuffix(p.Unit, ".scope") {
			p.Unit = ""
		}
	}
	return p
}

// containerOf recognises the cgroup of one container. Names: docker-ID.scope,
// libpod-ID.scope, cri-containerd-ID.scope, crio-ID.scope, a bare 64-digit id
// below docker, libpod_parent or kubepods, lxc.payload.NAME, machine-NAME.scope.
func containerOf(part string) (id, runtime string) {
	if name, ok := strings.CutPrefix(part, "lxc.payload."); ok {
		return name, "lxc"
	}
	s := strings.TrimSuffix(part, ".scope")
	if name, ok := strings.CutPrefix(s, "machine-"); ok && s != part {
		return unescape(name), "nspawn"
	}
	prefix := ""
	if i := strings.LastIndexByte(s, '-'); i >= 0 {
		prefix, s = s[:i], s[i+1:]
	}
	if len(s) != 64 || strings.Trim(s, "0123456789abcdef") != "" {
		return "", ""
	}
	switch prefix {
	case "docker":
		return s, "docker"
	case "libpod":
		return s, "podman"
	case "cri-containerd":
		return s, "containerd"
	case "crio":
		return s, "cri-o"
	case "":
		return s, ""
	}
	return "", "" // libpod-conmon-ID and the like: beside the container, not in it
}

func runtimeOf(cgroup, pod string) string {
	switch {
	case strings.Contains(cgroup, "/docker/"):
		return "docker"
	case strings.Contains(cgroup, "libpod"):
		return "podman"
	case pod != "":
		return "containerd"
	}
	return "container"
}

// podOf reads kubepods-burstable-podUID.slice (dashes as '_') and podUID.
func podOf(part string) (string, bool) {
	s := strings.TrimSuffix(part, ".slice")
	i := strings.LastIndex(s, "pod")
	if i < 0 || i > 0 && s[i-1] != '-' {
		return "", false
	}
	uid := strings.ReplaceAll(s[i+len("pod"):], "_", "-")
	if len(uid) != 36 && len(uid) != 32 || strings.Trim(uid, "0123456789abcdef-") != "" {
		return "", false
	}
	return uid, true
}

// unescape undoes systemd's \xNN in unit names.
func unescape(s string) string {
	if !strings.Contains(s, `\x`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if strings.HasPrefix(s[i:], `\x`) && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+2:i+4], 16, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
