package config

import (
	"fmt"
	"strings"
)

// CapSet is a set of capabilities (capabilities(7)): bit N is capability N.
type CapSet uint64

// capNames are the capabilities by number, without "cap_": those of Linux 6.x.
func capNames() []string {
	return strings.Fields(`chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable
		net_bind_service net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace
		sys_pacct sys_admin sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write audit_control
		setfcap mac_override mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore`)
}

// AllCaps is every capability that this package knows by name.
func AllCaps() CapSet { return 1<<len(capNames()) - 1 }

// ParseCaps reads names such as CAP_NET_BIND_SERVICE, in any case, separated by
// blanks. invert says that a '~' stood before them: all but these.
func ParseCaps(s string) (set CapSet, invert bool, err error) {
	s, invert = strings.CutPrefix(s, "~")
	names := capNames()
word:
	for _, w := range strings.Fields(s) {
		bare := strings.TrimPrefix(strings.ToLower(w), "cap_")
		for n, name := range names {
			if name == bare {
				set |= 1 << n
				continue word
			}
		}
		return 0, false, fmt.Errorf("cannot read %q as a capability: write names of capabilities(7), such as CAP_NET_BIND_SERVICE", w)
	}
	return set, invert, nil
}

// String writes the set so that ParseCaps reads it back.
func (c CapSet) String() string {
	var words []string
	for n, name := range capNames() {
		if c&(1<<n) != 0 {
			words = append(words, "CAP_"+strings.ToUpper(name))
		}
	}
	return strings.Join(words, " ")
}
