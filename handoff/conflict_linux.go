package handoff

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// maxHolders is how many an error names.
const maxHolders = 4

// holders looks for those who are in the way of a, in the tables of proc(5).
// supervise why does it better (other namespaces, other owners, what to do);
// this is what a library can see for itself.
func holders(a *ask) []holder {
	inodes := map[string]string{} // socket inode: where it listens
	if a.unix() {
		unixInodes(inodes, a.address)
	} else {
		proto := a.network[:3]
		inetInodes(inodes, "/proc/net/"+proto, a)
		inetInodes(inodes, "/proc/net/"+proto+"6", a)
	}
	if len(inodes) == 0 {
		return nil
	}
	var all []holder
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	seen := map[string]bool{}
	for _, link := range links {
		to, err := os.Readlink(link)
		if err != nil {
			continue
		}
		inode, ok := strings.CutPrefix(to, "socket:[")
		where, wanted := inodes[strings.TrimSuffix(inode, "]")]
		if !ok || !wanted {
			continue
		}
		dir := link[:strings.IndexByte(link[len("/proc/"):], '/')+len("/proc/")]
		if seen[dir+where] {
			continue
		}
		seen[dir+where] = true
		pid, _ := strconv.Atoi(filepath.Base(dir))
		name, _ := os.ReadFile(dir + "/comm")
		all = append(all, holder{where: where, pid: pid, name: strings.TrimSpace(string(name))})
		if len(all) == maxHolders {
			return all
		}
	}
	if len(all) == 0 {
		for _, where := range inodes {
			return []holder{{where: where}}
		}
	}
	return all
}

// inetInodes reads /proc/net/tcp and the like: "sl local remote st ... inode".
func inetInodes(inodes map[string]string, file string, a *ask) {
	f, err := os.Open(file)
	if err != nil {
		return
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 {
			continue
		}
		// 0A is TCP_LISTEN, 07 (TCP_CLOSE) a UDP socket that is not connected.
		if fields[3] != "0A" && fields[3] != "07" {
			continue
		}
		at, ok := procAddr(fields[1])
		if !ok || int(at.Port()) != a.port {
			continue
		}
		ip := at.Addr().Unmap()
		if ip.IsUnspecified() || a.odd || a.loop || !a.host.IsValid() || a.host == ip {
			inodes[fields[9]] = fmt.Sprintf("%s %s", a.network[:3], at)
		}
	}
}

// procAddr reads "0100007F:1F90": words of the host's byte order, port in hex.
func procAddr(s string) (netip.AddrPort, bool) {
	host, port, _ := strings.Cut(s, ":")
	raw, err := hex.DecodeString(host)
	if err != nil || len(raw) != 4 && len(raw) != 16 {
		return netip.AddrPort{}, false
	}
	p, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	ip, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(ip, uint16(p)), true
}

// unixInodes reads /proc/net/unix: "Num RefCount Protocol Flags Type St Inode Path".
func unixInodes(inodes map[string]string, path string) {
	f, err := os.Open("/proc/net/unix")
	if err != nil {
		return
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.SplitN(strings.Join(strings.Fields(lines.Text()), " "), " ", 8)
		if len(fields) == 8 && fields[7] == path {
			inodes[fields[6]] = "unix " + path
		}
	}
}
