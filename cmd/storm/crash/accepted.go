package crash

import (
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Accepted is the memory in which a server notes what it has accepted, where
// it outlives the server. The layout is told in examples/plain/accepted.go.
// Its limit: a process that is killed between accept4(2) and the note has
// taken a connection that nobody knows of, at most one for each of its
// listeners. In a busy Go server that is no rare thing (at 10,000 connections
// a second on two cores: 9 of the 62 failures of 20 kills). Kill is exact.
type Accepted struct {
	mem   []byte
	slots []uint64
}

const acceptedSize = 16 * 65536 * 16

// OpenAccepted makes or empties the file and maps it. Call Close.
func OpenAccepted(file string) (*Accepted, error) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o666)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.Truncate(acceptedSize); err != nil {
		return nil, err
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, acceptedSize, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("cannot map %s: %w", file, err)
	}
	return &Accepted{mem: mem, slots: unsafe.Slice((*uint64)(unsafe.Pointer(&mem[0])), len(mem)/8)}, nil
}

// Close unmaps the memory; the file stays.
func (a *Accepted) Close() error { return unix.Munmap(a.mem) }

// at gives who accepted the latest connection from the address, and when.
func (a *Accepted) at(local string) (pid, when uint64) {
	from, err := netip.ParseAddrPort(local)
	if err != nil {
		return 0, 0
	}
	bytes := from.Addr().AsSlice()
	slot := 2 * (int(bytes[len(bytes)-1]&15)*65536 + int(from.Port()))
	return atomic.LoadUint64(&a.slots[slot]), atomic.LoadUint64(&a.slots[slot+1])
}

func monotonic() uint64 {
	var now unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // cannot fail for this clock
	return uint64(now.Nano())
}
