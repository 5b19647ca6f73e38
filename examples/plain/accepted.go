package main

import (
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The file of -accepted outlives a kill -9, so that a load tool (cmd/storm)
// can tell a connection that this process had taken from one that the kernel
// still had in the queue. It is shared memory: an array of slots, one for each
// client address 127.0.0.0 to 127.0.0.15 and port,
//
//	slot = (last byte & 15) * 65536 + port, 16 bytes each:
//	uint64 pid of the acceptor, uint64 CLOCK_MONOTONIC in ns, native order
//
// pid first, time last: a torn slot has an old time and counts for nothing.
// What a kill hits between accept4(2) and the note is missing.
// The file is made large by the one who passes its name, 16 MiB.
const acceptedSize = 16 * 65536 * 16

type noting struct {
	net.Listener
	slots []uint64
	pid   uint64
}

func noteAccepted(file string, listeners []net.Listener) ([]net.Listener, error) {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	mem, err := unix.Mmap(int(f.Fd()), 0, acceptedSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("cannot map %s: %w", file, err)
	}
	slots := unsafe.Slice((*uint64)(unsafe.Pointer(&mem[0])), len(mem)/8)
	for i, l := range listeners {
		listeners[i] = noting{l, slots, uint64(os.Getpid())}
	}
	return listeners, nil
}

func (n noting) Accept() (net.Conn, error) {
	c, err := n.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok && len(a.IP) > 0 {
		at := 2 * (int(a.IP[len(a.IP)-1]&15)*65536 + a.Port)
		var now unix.Timespec
		unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
		atomic.StoreUint64(&n.slots[at], n.pid)
		atomic.StoreUint64(&n.slots[at+1], uint64(now.Nano()))
	}
	return c, nil
}
