package portdiag

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// kernelOwner guesses which part of the kernel has a socket that is in no
// process; "" when none fits.
func kernelOwner(h Holder) string {
	port := h.Local.Port()
	if h.Network == "udp" {
		for _, l := range tunnels() {
			if l.port == port {
				return fmt.Sprintf("the %s interface %s", l.kind, l.name)
			}
			if l.kind == "wireguard" {
				return fmt.Sprintf("WireGuard probably (interface %s; `wg show` tells its port)", l.name)
			}
		}
	}
	if b, err := os.ReadFile("/proc/fs/nfsd/portlist"); err == nil && strings.Contains(string(b), fmt.Sprintf(" %d\n", port)) {
		return "the NFS server (nfsd)"
	}
	return ""
}

// tunnel is an interface of a kind that has a UDP socket in the kernel; port 0
// is not told.
type tunnel struct {
	name, kind string
	port       uint16
}

// tunnels asks rtnetlink(7) for the interfaces with their kind. Numbers are
// those of linux/if_link.h.
func tunnels() []tunnel {
	const infoKind, infoData = 1, 2
	ports := map[string]uint16{"vxlan": 15, "geneve": 5}
	rib, err := syscall.NetlinkRIB(syscall.RTM_GETLINK, syscall.AF_UNSPEC)
	if err != nil {
		return nil
	}
	msgs, err := syscall.ParseNetlinkMessage(rib)
	if err != nil {
		return nil
	}
	var found []tunnel
	for _, m := range msgs {
		if m.Header.Type != syscall.RTM_NEWLINK {
			continue
		}
		attrs, err := syscall.ParseNetlinkRouteAttr(&m)
		if err != nil {
			continue
		}
		var t tunnel
		var data []byte
		for _, a := range attrs {
			switch a.Attr.Type {
			case unix.IFLA_IFNAME:
				t.name = strings.TrimRight(string(a.Value), "\x00")
			case unix.IFLA_LINKINFO:
				eachAttribute(a.Value, func(typ uint16, v []byte) {
					switch typ {
					case infoKind:
						t.kind = strings.TrimRight(string(v), "\x00")
					case infoData:
						data = v
					}
				})
			}
		}
		if t.kind != "wireguard" && ports[t.kind] == 0 {
			continue
		}
		eachAttribute(data, func(typ uint16, v []byte) {
			if typ == ports[t.kind] && len(v) == 2 {
				t.port = binary.BigEndian.Uint16(v)
			}
		})
		found = append(found, t)
	}
	return found
}

// eachAttribute walks netlink attributes and stops at a malformed one.
func eachAttribute(b []byte, each func(typ uint16, v []byte)) {
	for len(b) >= 4 {
		n := int(binary.NativeEndian.Uint16(b))
		if n < 4 || n > len(b) {
			return
		}
		each(binary.NativeEndian.Uint16(b[2:])&0x3fff, b[4:n])
		b = b[min((n+3)&^3, len(b)):]
	}
}
