package sockdiag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ino gives the inode of the socket behind control.
func ino(t *testing.T, control func(func(uintptr)) error) uint32 {
	t.Helper()
	var st unix.Stat_t
	if err := control(func(fd uintptr) {
		if err := unix.Fstat(int(fd), &st); err != nil {
			t.Error(err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	return uint32(st.Ino)
}

func plainTCP(t *testing.T, network, addr string) *net.TCPListener {
	t.Helper()
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(t.Context(), network, addr)
	if err != nil {
		t.Skipf("cannot listen on %s: %v", addr, err)
	}
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener)
}

func addrOf(a net.Addr) netip.AddrPort { return netip.MustParseAddrPort(a.String()) }

func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if f() {
			return
		}
	}
	t.Fatalf("not in time: %s", what)
}

func TestTCP(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(addr, func(t *testing.T) {
			l := plainTCP(t, "tcp", addr)
			other := plainTCP(t, "tcp", addr)
			at := addrOf(l.Addr())
			rc, _ := l.SyscallConn()

			found, err := Inet(Query{Protocol: TCP, LocalPort: at.Port(), Info: true})
			if err != nil {
				t.Fatal(err)
			}
			if len(found) != 1 {
				t.Fatalf("%d sockets on port %d, want the listener alone: %+v", len(found), at.Port(), found)
			}
			s := found[0]
			if s.State != Listen || s.Src != at || s.Inode != ino(t, rc.Control) || s.Info == nil || s.Protocol != TCP || s.MPTCP || s.RQueue != 0 || s.WQueue == 0 {
				t.Errorf("listener seen as %+v", s)
			}
			if s.UID != uint32(os.Geteuid()) {
				t.Errorf("owner %d", s.UID)
			}
			if at.Addr().Is6() != (s.V6Only != nil) {
				t.Errorf("V6Only is %v", s.V6Only)
			}
			if addrOf(other.Addr()).Port() == s.Src.Port() {
				t.Error("the filter let another port pass")
			}

			client, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			peer := addrOf(client.LocalAddr())
			var server Socket
			until(t, "the connection is established", func() bool {
				server, err = Lookup(TCP, at, peer)
				if err != nil {
					t.Fatal(err)
				}
				return server.State == Established
			})
			if server.Inode != 0 || server.Cookie == 0 {
				t.Errorf("not accepted, seen as %+v", server)
			}
			conn, err := l.AcceptTCP()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			rc, _ = conn.SyscallConn()
			if _, err := client.Write(make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
			until(t, "the bytes are there", func() bool {
				accepted, err := Lookup(TCP, at, peer)
				if err != nil {
					t.Fatal(err)
				}
				if accepted.Cookie != server.Cookie || accepted.Inode != ino(t, rc.Control) {
					t.Fatalf("accepted, seen as %+v; before %+v", accepted, server)
				}
				return accepted.RQueue == 1000 && accepted.Info.Bytes_received == 1000
			})

			if _, err := Lookup(TCP, at, netip.AddrPortFrom(at.Addr(), 1)); !errors.Is(err, unix.ENOENT) {
				t.Errorf("a connection that is not there: %v", err)
			}
		})
	}
}

// A connection over IPv4 to a dual-stack listener is an IPv6 socket for the kernel.
func TestDualStack(t *testing.T) {
	l := plainTCP(t, "tcp", "[::]:0")
	at := addrOf(l.Addr())
	client, err := net.Dial("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(at.Port()))))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	s, err := Lookup(TCP, addrOf(client.RemoteAddr()), addrOf(client.LocalAddr()))
	if err != nil {
		t.Fatal(err)
	}
	if s.Family != unix.AF_INET6 || !s.Src.Addr().Is4In6() {
		t.Errorf("seen as %+v", s)
	}
}

func TestMPTCP(t *testing.T) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(true)
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	at := addrOf(l.Addr())
	found, err := Inet(Query{Protocol: MPTCP, LocalPort: at.Port()})
	if err != nil || len(found) == 0 {
		t.Skipf("no MPTCP diag here: %v", err)
	}
	rc, _ := l.(*net.TCPListener).SyscallConn()
	if len(found) != 1 || found[0].Inode != ino(t, rc.Control) || !found[0].MPTCP || found[0].Protocol != MPTCP {
		t.Errorf("seen as %+v", found)
	}
	found, err = Inet(Query{Protocol: TCP, LocalPort: at.Port(), Info: true})
	if err != nil || len(found) != 1 || found[0].Inode != ino(t, rc.Control) {
		t.Errorf("its subflow seen as %+v, %v", found, err)
	}
}

func TestUDP(t *testing.T) {
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	at := addrOf(c.LocalAddr())
	rc, _ := c.SyscallConn()
	found, err := Inet(Query{Protocol: UDP, LocalPort: at.Port()})
	if err != nil || len(found) != 1 || found[0].Inode != ino(t, rc.Control) || found[0].Src != at || found[0].State != Close {
		t.Fatalf("seen as %+v, %v", found, err)
	}
	client, err := net.Dial("udp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	s, err := Lookup(UDP, addrOf(client.LocalAddr()), at)
	if err != nil || s.State != Established {
		t.Errorf("connected one seen as %+v, %v", s, err)
	}
}

// Half-open connections are shown: a peer that sends SYN only, made by a
// listener whose handshake cannot end because its answers are dropped by the
// client's filter.
func TestSynRecv(t *testing.T) {
	l := plainTCP(t, "tcp4", "127.0.0.1:0")
	at := addrOf(l.Addr())
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	drop := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop[0]}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(at.Port()), Addr: [4]byte{127, 0, 0, 1}}); err != unix.EINPROGRESS {
		t.Fatal(err)
	}
	sa, _ := unix.Getsockname(fd)
	until(t, "the half-open connection is seen", func() bool {
		found, err := Inet(Query{Protocol: TCP, Family: unix.AF_INET, LocalPort: at.Port(), States: Mask(SynRecv)})
		if err != nil {
			t.Fatal(err)
		}
		if len(found) == 0 {
			return false
		}
		if len(found) != 1 || found[0].State != SynRecv || found[0].Inode != 0 || int(found[0].Dst.Port()) != sa.(*unix.SockaddrInet4).Port {
			t.Fatalf("seen as %+v", found)
		}
		return true
	})
}

func TestBoundInactive(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	sa, _ := unix.Getsockname(fd)
	port := uint16(sa.(*unix.SockaddrInet4).Port)
	found, err := Inet(Query{Protocol: TCP, LocalPort: port, States: Mask(BoundInactive)})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		t.Skip("this kernel does not show bound sockets (Linux 6.8)")
	}
	if len(found) != 1 || found[0].Src.Port() != port || found[0].Inode != ino(t, func(f func(uintptr)) error { f(uintptr(fd)); return nil }) {
		t.Errorf("seen as %+v", found)
	}
}

// More sockets than one datagram of answers holds.
func TestManyParts(t *testing.T) {
	l := plainTCP(t, "tcp4", "127.0.0.1:0")
	at := addrOf(l.Addr())
	const n = 200
	want := map[netip.AddrPort]bool{}
	for range n {
		c, err := net.Dial("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		want[addrOf(c.LocalAddr())] = true
	}
	until(t, "all connections are listed", func() bool {
		found, err := Inet(Query{Protocol: TCP, LocalPort: at.Port(), States: Mask(Established), Info: true})
		if err != nil {
			t.Fatal(err)
		}
		cookies := map[uint64]bool{}
		for _, s := range found {
			if !want[s.Dst] || s.Info == nil {
				t.Fatalf("unexpected %+v", s)
			}
			cookies[s.Cookie] = true
		}
		return len(cookies) == n
	})
}

func TestUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	abstract := fmt.Sprintf("@sockdiag-test-%d", os.Getpid())
	for _, address := range []string{path, abstract} {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: address, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		rc, _ := l.SyscallConn()
		client, err := net.Dial("unix", address)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		crc, _ := client.(*net.UnixConn).SyscallConn()
		cino := ino(t, crc.Control)

		found, err := Unix(UnixQuery{Inode: ino(t, rc.Control)})
		if err != nil || len(found) != 1 {
			t.Fatalf("%+v, %v", found, err)
		}
		s := found[0]
		if s.Name != address || s.State != Listen || s.RQueue != 1 || s.Type != unix.SOCK_STREAM || len(s.Pending) != 1 || s.Pending[0] != cino {
			t.Errorf("listener seen as %+v, client's inode %d", s, cino)
		}
		if s.UID == nil || *s.UID != uint32(os.Geteuid()) {
			t.Errorf("owner %v", s.UID)
		}
		if strings.HasPrefix(address, "/") {
			var st unix.Stat_t
			if err := unix.Stat(path, &st); err != nil {
				t.Fatal(err)
			}
			if s.VfsInode != uint32(st.Ino) || s.VfsDev != unix.Major(st.Dev)<<20|unix.Minor(st.Dev) {
				t.Errorf("file %d:%d, want %d:%d", s.VfsDev, s.VfsInode, st.Dev, st.Ino)
			}
		}
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := client.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		all, err := Unix(UnixQuery{States: Mask(Established)})
		if err != nil {
			t.Fatal(err)
		}
		var peers int
		for _, s := range all {
			if s.Peer == cino {
				peers++
				if s.RQueue != 5 || s.Name != address {
					t.Errorf("accepted one seen as %+v", s)
				}
			}
		}
		if peers != 1 {
			t.Errorf("%d ends have the client as peer", peers)
		}
	}
	if _, err := Unix(UnixQuery{Inode: 1}); !errors.Is(err, unix.ENOENT) {
		t.Errorf("an inode that is not there: %v", err)
	}
}

// One connection serves many requests, also after an error.
func TestKeptConn(t *testing.T) {
	before := openFDs(t)
	c, err := Dial()
	if err != nil {
		t.Fatal(err)
	}
	l := plainTCP(t, "tcp4", "127.0.0.1:0")
	at := addrOf(l.Addr())
	for range 3 {
		if _, err := c.Lookup(TCP, at, netip.MustParseAddrPort("127.0.0.1:1")); !errors.Is(err, unix.ENOENT) {
			t.Fatal(err)
		}
		if found, err := c.Inet(Query{Protocol: TCP, LocalPort: at.Port()}); err != nil || len(found) != 1 {
			t.Fatal(found, err)
		}
	}
	l.Close()
	c.Close()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := c.Inet(Query{Protocol: TCP}); !errors.Is(err, unix.EBADF) {
		t.Errorf("after Close: %v", err)
	}
	if after := openFDs(t); after != before {
		t.Errorf("%d descriptors open, %d before", after, before)
	}
}

func openFDs(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range d {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}

func TestInterruptedDump(t *testing.T) {
	ne := binary.NativeEndian
	msg := make([]byte, 20)
	ne.PutUint32(msg, 20)
	ne.PutUint16(msg[4:], unix.NLMSG_DONE)
	ne.PutUint16(msg[6:], unix.NLM_F_MULTI|unix.NLM_F_DUMP_INTR)
	ne.PutUint32(msg[8:], 7)
	done, again, err := walk(msg, 7, nil)
	if !done || !again || err != nil {
		t.Error(done, again, err)
	}
	if done, again, err = walk(msg, 8, nil); done || again || err != nil {
		t.Error("another request's answer was taken:", done, again, err)
	}
	eperm := unix.EPERM
	ne.PutUint32(msg[16:], uint32(-int32(eperm)))
	if _, _, err = walk(msg, 7, nil); err != unix.EPERM {
		t.Error(err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, q := range []Query{{Protocol: TCP, LocalPort: 80}, {Protocol: MPTCP}} {
		f.Add(inetRequest(q, unix.AF_INET))
	}
	// Some of what the kernel says at the moment, as seeds.
	seeds := 0
	c, err := Dial()
	if err == nil {
		defer c.Close()
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			_ = c.ask(inetRequest(Query{Protocol: TCP, Info: true}, family), true, func() {}, func(b []byte) error {
				if seeds++; seeds < 32 {
					f.Add(append([]byte(nil), b...))
				}
				return nil
			})
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := decodeInet(b); err == nil && s.InfoSize > len(b) {
			t.Errorf("%d bytes of tcp_info in %d", s.InfoSize, len(b))
		}
		_, _ = decodeUnix(b)
		_, _, _ = walk(b, 1, func(p []byte) error {
			if len(p) > len(b) {
				t.Error("longer than the datagram")
			}
			_, err := decodeInet(p)
			return err
		})
	})
}
