package supervisor

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/handoff/shim"
	"github.com/supervise/supervise/supervisor/config"
)

// limits are the resource limits of the service as they can be set: one that is
// above what we may raise it to becomes that, as systemd does, and not an
// error. In a container that is the rule: nobody there has CAP_SYS_RESOURCE.
func (r *runner) limits() []shim.Limit {
	var all []shim.Limit
	for _, l := range r.cfg.Limits {
		soft, hard := l.Soft, l.Hard
		if most, ok := mostOf(l.Resource); ok {
			soft, hard = min(soft, most), min(hard, most)
		}
		all = append(all, shim.Limit{Resource: l.Resource, Soft: soft, Hard: hard})
	}
	return all
}

// mostOf is the highest hard limit that we may set; ok is false where there is
// none.
func mostOf(resource int) (most uint64, ok bool) {
	var now unix.Rlimit
	if unix.Getrlimit(resource, &now) != nil {
		return 0, false
	}
	if !mayRaise() {
		return now.Max, true
	}
	if resource == unix.RLIMIT_NOFILE { // not even root gets beyond this: proc(5)
		text, err := os.ReadFile("/proc/sys/fs/nr_open")
		if n, bad := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil && bad == nil {
			return max(n, now.Max), true
		}
	}
	return 0, false
}

// mayRaise reports whether we have CAP_SYS_RESOURCE.
func mayRaise() bool {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	return unix.Capget(&h, &have[0]) == nil && have[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

// tellLimits warns, before anything is started, of limits that cannot be what
// they should.
func (r *runner) tellLimits() {
	for i, l := range r.limits() {
		wanted := r.cfg.Limits[i]
		if l.Hard < wanted.Hard {
			is := config.Limit{Soft: l.Soft, Hard: l.Hard}
			r.log.Warn("a limit cannot be raised that far, and is as high as we may", "service", r.cfg.Name,
				"directive", wanted.Name+"=", "wanted", wanted, "is", is)
		}
	}
}
