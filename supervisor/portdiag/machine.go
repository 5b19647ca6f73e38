package portdiag

import (
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// portRange is an inclusive range of ports.
type portRange struct{ low, high uint16 }

func (r portRange) has(p uint16) bool { return r.low <= p && p <= r.high }

func sysctl(name string) string {
	b, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// ephemeralPorts is net.ipv4.ip_local_port_range (ip(7)); IPv6 uses it too.
func ephemeralPorts() portRange {
	f := strings.Fields(sysctl("net.ipv4.ip_local_port_range"))
	if len(f) == 2 {
		low, lerr := strconv.ParseUint(f[0], 10, 16)
		high, herr := strconv.ParseUint(f[1], 10, 16)
		if lerr == nil && herr == nil {
			return portRange{uint16(low), uint16(high)}
		}
	}
	return portRange{32768, 60999}
}

// reservedPort says whether the port is in net.ipv4.ip_local_reserved_ports,
// which reads "8080,9148-9150"; list is that text.
func reservedPort(port uint16) (yes bool, list string) {
	list = sysctl("net.ipv4.ip_local_reserved_ports")
	for _, part := range strings.Split(list, ",") {
		low, high, isRange := strings.Cut(part, "-")
		if !isRange {
			high = low
		}
		a, aerr := strconv.ParseUint(low, 10, 16)
		b, berr := strconv.ParseUint(high, 10, 16)
		if aerr == nil && berr == nil && (portRange{uint16(a), uint16(b)}).has(port) {
			return true, list
		}
	}
	return false, list
}

// unprivilegedStart is the first port that needs no privilege.
func unprivilegedStart() uint16 {
	if n, err := strconv.ParseUint(sysctl("net.ipv4.ip_unprivileged_port_start"), 10, 16); err == nil {
		return uint16(n)
	}
	return 1024
}

// mayBindLow says that this process has CAP_NET_BIND_SERVICE in effect.
func mayBindLow() bool {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "CapEff:"); ok {
			mask, err := strconv.ParseUint(strings.TrimSpace(rest), 16, 64)
			return err == nil && mask&(1<<unix.CAP_NET_BIND_SERVICE) != 0
		}
	}
	return false
}

// ipv6Off says that IPv6 is not usable here: not built in, or switched off on
// the loopback so that there is no ::1.
func ipv6Off() bool {
	if _, err := os.Stat("/proc/net/if_inet6"); err != nil {
		return true
	}
	b, err := os.ReadFile("/proc/self/net/if_inet6")
	return err != nil || !strings.HasPrefix(string(b), "00000000000000000000000000000001 ") && !strings.Contains(string(b), "\n00000000000000000000000000000001 ")
}

// tentative says that an interface has the IPv6 address, and that it is not
// usable (yet). The flags are IFA_F_* of linux/if_addr.h.
func tentative(addr netip.Addr) (where string, duplicate, yes bool) {
	const dadFailed, isTentative = 0x08, 0x40
	b, err := os.ReadFile("/proc/self/net/if_inet6")
	if err != nil {
		return "", false, false
	}
	a16 := addr.As16()
	var want strings.Builder
	for _, c := range a16 {
		if c < 16 {
			want.WriteByte('0')
		}
		want.WriteString(strconv.FormatUint(uint64(c), 16))
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) != 6 || f[0] != want.String() {
			continue
		}
		flags, err := strconv.ParseUint(f[4], 16, 32)
		if err == nil && flags&(dadFailed|isTentative) != 0 {
			return f[5], flags&dadFailed != 0, true
		}
	}
	return "", false, false
}

// localAddresses are those that a server could bind, for the hint; link-local
// ones are left out.
func localAddresses() []string {
	var all []string
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok || n.IP.IsLinkLocalUnicast() {
			continue
		}
		all = append(all, n.IP.String())
	}
	return all
}

// isBroadcast says that addr is the limited broadcast address, or the
// broadcast address of an interface.
func isBroadcast(addr netip.Addr) bool {
	if !addr.Is4() {
		return false
	}
	if addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return true
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	a := addr.As4()
	for _, x := range addrs {
		n, ok := x.(*net.IPNet)
		if !ok || n.IP.To4() == nil {
			continue
		}
		ones, bits := n.Mask.Size()
		if bits != 32 || ones > 30 {
			continue
		}
		var last [4]byte
		for i := range last {
			last[i] = n.IP.To4()[i] | ^n.Mask[i]
		}
		if last == a {
			return true
		}
	}
	return false
}

// interfaceName is the name of an interface by index, or "interface N".
func interfaceName(index uint32) string {
	if i, err := net.InterfaceByIndex(int(index)); err == nil {
		return i.Name
	}
	return "interface " + strconv.FormatUint(uint64(index), 10)
}
