package portdiag

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor/sockdiag"
)

// Holders lists what conflicts with binding addr: sockets of the same network
// and port whose local addresses overlap with it, wildcards and dual-stack
// sockets included. What listens or is bound comes first, then connections,
// which stand in the way of a bind without SO_REUSEADDR; of an address that is
// listened on they are counted with the listener instead.
//
// network is "tcp" or "udp"; with the suffix "6" an IPv6 wildcard means IPv6
// only, without it both families; "4" is as without. Port 0 conflicts with
// nothing. No holder and no error: nothing is in the way now.
//
// Whether a conflict is one indeed also depends on SO_REUSEADDR, SO_REUSEPORT
// and SO_BINDTODEVICE of both sockets, which the kernel does not tell.
func Holders(network string, addr netip.AddrPort) ([]Holder, error) {
	base := strings.TrimRight(network, "46")
	if base != "tcp" && base != "udp" {
		return nil, fmt.Errorf("cannot look for holders of %v: no such network %q", addr, network)
	}
	if addr.Port() == 0 || !addr.Addr().IsValid() {
		return nil, nil
	}
	all, err := portSockets(base, addr.Port())
	if err != nil {
		return nil, fmt.Errorf("cannot look for holders of %s %v: %w", network, addr, err)
	}
	asked := spanOf(addr.Addr(), strings.HasSuffix(network, "6"))
	var in []sockdiag.Socket
	for _, s := range all {
		if socketSpan(s).overlaps(asked) {
			in = append(in, s)
		}
	}
	hs := group(base, in)
	if err := attribute(hs); err != nil {
		return nil, err
	}
	return merge(hs), nil
}

// portSockets gives every socket with the local port. An MPTCP socket is
// given once, without its TCP subflow: the subflow's inode is in no process.
func portSockets(base string, port uint16) ([]sockdiag.Socket, error) {
	c, err := sockdiag.Dial()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if base == "udp" {
		all, err := c.Inet(sockdiag.Query{Protocol: sockdiag.UDP, LocalPort: port})
		return all, err
	}
	tcp, err := c.Inet(sockdiag.Query{Protocol: sockdiag.TCP, LocalPort: port})
	if err != nil {
		return nil, err
	}
	// Without the module there is no MPTCP, or the sockets are still found as
	// TCP, but without owner.
	mptcp, err := c.Inet(sockdiag.Query{Protocol: sockdiag.MPTCP, LocalPort: port})
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
		return nil, err
	}
	type pair struct {
		src, dst netip.AddrPort
		listen   bool
	}
	key := func(s sockdiag.Socket) pair {
		return pair{plainPort(s.Src), plainPort(s.Dst), s.State == sockdiag.Listen}
	}
	held := map[pair]bool{}
	for _, s := range mptcp {
		held[key(s)] = true
	}
	all := mptcp
	for _, s := range tcp {
		if !held[key(s)] {
			all = append(all, s)
		}
	}
	return all, nil
}

func plainPort(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

func socketSpan(s sockdiag.Socket) span {
	return spanOf(s.Src.Addr(), s.V6Only != nil && *s.V6Only)
}

// candidate is a holder whose processes are not known yet.
type candidate struct {
	Holder
	inodes []uint64
}

// group makes one candidate of each socket, but one in all of the connections
// that no process holds any more and are in the same state. Connections on an
// address that is listened on are only counted.
func group(base string, sockets []sockdiag.Socket) []candidate {
	var heads, rest []candidate
	index := map[string]int{}
	isHead := func(s sockdiag.Socket) bool {
		return s.State == sockdiag.Listen || s.State == sockdiag.Close || s.State == sockdiag.BoundInactive
	}
	for _, s := range sockets {
		if isHead(s) {
			heads = append(heads, candidate{Holder: holderOf(base, s), inodes: []uint64{uint64(s.Inode)}})
		}
	}
	for _, s := range sockets {
		if isHead(s) {
			continue
		}
		if base == "tcp" {
			// There may be many thousands: they are counted and not looked at.
			at := socketSpan(s)
			if i := slices.IndexFunc(heads, func(l candidate) bool {
				return l.State == Listen && l.span().overlaps(at)
			}); i >= 0 {
				heads[i].Connections++
				continue
			}
		}
		h := holderOf(base, s)
		if h.Inode != 0 {
			rest = append(rest, candidate{Holder: h, inodes: []uint64{h.Inode}})
			continue
		}
		key := string(h.State) + " " + plain(h.Local)
		if i, ok := index[key]; ok {
			rest[i].Count++
			rest[i].Expires = max(rest[i].Expires, h.Expires)
			continue
		}
		index[key] = len(rest)
		rest = append(rest, candidate{Holder: h})
	}
	return append(heads, rest...)
}

func (h Holder) span() span { return spanOf(h.Local.Addr(), h.V6Only) }

func holderOf(base string, s sockdiag.Socket) Holder {
	h := Holder{
		Network: base,
		State:   State(s.State.String()),
		Local:   s.Src,
		V6Only:  s.V6Only != nil && *s.V6Only,
		MPTCP:   s.Protocol == sockdiag.MPTCP || s.MPTCP,
		Device:  s.Iface,
		UID:     s.UID,
		Inode:   uint64(s.Inode),
		Count:   1,
	}
	if s.Dst.Port() != 0 {
		h.Remote = s.Dst
	}
	switch {
	case s.State == sockdiag.Close || s.State == sockdiag.BoundInactive:
		h.State = Bound
	case s.State == sockdiag.TimeWait || s.State == sockdiag.FinWait2 && s.Inode == 0:
		h.Expires = s.Expires
	}
	return h
}

// attribute finds the processes and the users of the candidates.
func attribute(cs []candidate) error {
	want := map[uint64]bool{}
	users := map[uint32]string{}
	for i, c := range cs {
		if _, ok := users[c.UID]; !ok {
			users[c.UID] = userName(c.UID)
		}
		cs[i].User = users[c.UID]
		for _, i := range c.inodes {
			if i != 0 {
				want[i] = true
			}
		}
	}
	found, err := findDescriptors(want)
	if err != nil {
		return err
	}
	known := map[int]Process{}
	why := ""
	for i := range cs {
		c := &cs[i]
		at := map[int][]int{}
		for _, inode := range c.inodes {
			for _, r := range found.holders[inode] {
				at[r.pid] = append(at[r.pid], r.fd)
			}
		}
		for pid, fds := range at {
			p, ok := known[pid]
			if !ok {
				if p, err = readProcess(pid); err != nil {
					continue // ended meanwhile
				}
				known[pid] = p
			}
			slices.Sort(fds)
			p.FDs = fds
			p.poller = found.pollers[pid]
			c.Processes = append(c.Processes, p)
		}
		order(c.Processes)
		if len(c.Processes) == 0 && c.Inode != 0 {
			if why == "" {
				why = found.why()
			}
			c.Hidden = why
		}
	}
	return nil
}

// order puts the process first that is an ancestor of the others, else the
// oldest: of a master and its workers the master.
func order(ps []Process) {
	slices.SortFunc(ps, func(a, b Process) int {
		return cmp.Or(cmp.Compare(a.ticks, b.ticks), cmp.Compare(a.PID, b.PID))
	})
	for i, p := range ps {
		if i > 0 && ps[0].PPID == p.PID {
			ps[0], ps[i] = ps[i], ps[0]
		}
	}
}

// why says what kept us from seeing the owner of a socket; "" when every
// process could be looked into.
func (d descriptors) why() string {
	switch n := d.hiddenCount(); {
	case n > 0 && os.Geteuid() == 0:
		return fmt.Sprintf("%s may not be looked into even by this root; the capabilities are not enough", plural(n, "process", "processes"))
	case n > 0:
		return fmt.Sprintf("%s of other users may not be looked into; root sees them", plural(n, "process", "processes"))
	case hidepid():
		return "/proc hides the processes of other users (hidepid); root sees them"
	}
	return ""
}

// merge makes one holder of the connections in the same state and of the same
// processes: a server's ten thousand are one fact.
func merge(cs []candidate) []Holder {
	var out []Holder
	index := map[string]int{}
	for _, c := range cs {
		h := c.Holder
		if h.State == Listen || h.State == Bound || h.Network != "tcp" {
			out = append(out, h)
			continue
		}
		key := fmt.Sprintf("%s %s %d", h.State, plain(h.Local), pids(h.Processes))
		if i, ok := index[key]; ok {
			out[i].Count += h.Count
			out[i].Expires = max(out[i].Expires, h.Expires)
			continue
		}
		index[key] = len(out)
		out = append(out, h)
	}
	return out
}

func pids(ps []Process) []int {
	var ids []int
	for _, p := range ps {
		ids = append(ids, p.PID)
	}
	return ids
}

// PathHolders lists the sockets that are bound to a unix path or, with '@' in
// front, to an abstract name, and who has them open. Only sockets that were
// bound to that very file count: a server whose path was removed, or replaced
// by another's, still has the name but does not hold the path.
//
// No holder and no error: nobody serves the path; the file, if there is one,
// is stale or no socket.
func PathHolders(path string) ([]Holder, error) {
	all, err := sockdiag.Unix(sockdiag.UnixQuery{})
	if err != nil {
		return nil, fmt.Errorf("cannot look for holders of %s: %w", path, err)
	}
	match, err := pathMatcher(path)
	if err != nil {
		return nil, fmt.Errorf("cannot look for holders of %s: %w", path, err)
	}
	var cs []candidate
	for _, s := range all {
		if !match(s) {
			continue
		}
		h := unixHolder(s)
		// What a server accepted has the name of the listener.
		if h.State == Established && h.Network != "unixgram" {
			cs = append(cs, candidate{Holder: h, inodes: []uint64{h.Inode}})
			continue
		}
		cs = slices.Insert(cs, 0, candidate{Holder: h, inodes: []uint64{h.Inode}})
	}
	if i := slices.IndexFunc(cs, func(c candidate) bool { return c.State == Established && c.Network != "unixgram" }); i > 0 {
		cs[0].Connections = len(cs) - i
		cs = cs[:i]
	}
	if err := attribute(cs); err != nil {
		return nil, err
	}
	var out []Holder
	var sx unix.Statx_t
	made := !strings.HasPrefix(path, "@") && unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_BTIME, &sx) == nil && sx.Mask&unix.STATX_BTIME != 0
	for _, c := range cs {
		if made {
			c.Since = time.Unix(sx.Btime.Sec, int64(sx.Btime.Nsec))
		}
		out = append(out, c.Holder)
	}
	return out, nil
}

// pathMatcher says which sockets have the path. A file is compared by inode
// and device, for the name that the socket was bound with may be relative or
// go through a symbolic link; the kernel tells 32 bits of the inode.
func pathMatcher(path string) (func(sockdiag.UnixSocket) bool, error) {
	if strings.HasPrefix(path, "@") {
		return func(s sockdiag.UnixSocket) bool { return s.Name == path }, nil
	}
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return func(sockdiag.UnixSocket) bool { return false }, nil
	}
	if err != nil {
		// What cannot be looked at is at least compared by name.
		abs, aerr := filepath.Abs(path)
		if aerr != nil {
			return nil, aerr
		}
		return func(s sockdiag.UnixSocket) bool { return s.Name == abs || s.Name == path }, nil
	}
	dev := unix.Major(st.Dev)<<20 | unix.Minor(st.Dev)
	return func(s sockdiag.UnixSocket) bool {
		return s.VfsInode != 0 && s.VfsInode == uint32(st.Ino) && s.VfsDev == dev
	}, nil
}

func unixHolder(s sockdiag.UnixSocket) Holder {
	h := Holder{Path: s.Name, Inode: uint64(s.Inode), Count: 1, State: State(s.State.String())}
	switch s.Type {
	case unix.SOCK_DGRAM:
		h.Network = "unixgram"
	case unix.SOCK_SEQPACKET:
		h.Network = "unixpacket"
	default:
		h.Network = "unix"
	}
	if s.State == sockdiag.Close || h.Network == "unixgram" {
		h.State = Bound
	}
	if s.UID != nil {
		h.UID = *s.UID
	}
	return h
}
