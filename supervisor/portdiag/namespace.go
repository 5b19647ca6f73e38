package portdiag

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// foreign is a socket in another network namespace.
type foreign struct {
	network string
	addr    netip.AddrPort
	inode   uint64
	pid     int // some process of that namespace
}

// foreignSockets looks for what listens on (UDP: is bound to) the port in the
// network namespaces of other processes. /proc/PID/net shows the sockets of
// the namespace of that process to everybody, while /proc/PID/ns does not; so
// namespaces are told apart by the inode of their own /proc/PID/net/tcp, which
// each has of its own.
func foreignSockets(base string, port uint16) []foreign {
	own, ok := netKey("self")
	if !ok {
		return nil
	}
	all, err := listPIDs()
	if err != nil {
		return nil
	}
	seen := map[uint64]bool{own: true}
	var found []foreign
	for _, pid := range all {
		key, ok := netKey(strconv.Itoa(pid))
		if !ok || seen[key] {
			continue
		}
		seen[key] = true
		for _, file := range []string{base, base + "6"} {
			found = append(found, readProcNet(pid, file, base, port)...)
		}
	}
	return found
}

func netKey(pid string) (uint64, bool) {
	var st unix.Stat_t
	if unix.Stat("/proc/"+pid+"/net/tcp", &st) != nil {
		return 0, false
	}
	return st.Ino, true
}

// readProcNet reads /proc/PID/net/tcp and its kin (proc_pid_net(5)): local and
// remote address in hexadecimal, each 32-bit word in the machine's byte order.
func readProcNet(pid int, file, base string, port uint16) []foreign {
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/net/" + file)
	if err != nil {
		return nil
	}
	defer f.Close()
	var found []foreign
	want := ":" + strings.ToUpper(hex.EncodeToString([]byte{byte(port >> 8), byte(port)}))
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		w := strings.Fields(lines.Text())
		if len(w) < 10 {
			continue
		}
		const listen, unconnected = "0A", "07"
		if base == "tcp" && w[3] != listen && w[3] != "st" {
			break // listeners come first, and there may be many connections
		}
		if !strings.HasSuffix(w[1], want) || base == "udp" && w[3] != unconnected {
			continue
		}
		addr, ok := procAddr(strings.TrimSuffix(w[1], want))
		inode, err := strconv.ParseUint(w[9], 10, 64)
		if !ok || err != nil {
			continue
		}
		found = append(found, foreign{base, netip.AddrPortFrom(addr, port), inode, pid})
	}
	return found
}

func procAddr(s string) (netip.Addr, bool) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 4 && len(b) != 16 {
		return netip.Addr{}, false
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	return netip.AddrFromSlice(b)
}

// inInitPIDNamespace says that every process of the machine is in our /proc.
// The number is the kernel's PROC_PID_INIT_INO.
func inInitPIDNamespace() bool {
	link, err := os.Readlink("/proc/self/ns/pid")
	return err == nil && link == "pid:[4026531836]"
}
