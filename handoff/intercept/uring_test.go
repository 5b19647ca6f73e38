package intercept

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// playURing binds by io_uring (IORING_OP_BIND, 6.11), and listens by listen(2).
func playURing(port uint16) (string, error) {
	const opBind, enterGetEvents = 56, 1
	var params [120]byte // struct io_uring_params
	ring, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		return "skip: io_uring_setup: " + errno.Error(), nil
	}
	u32 := func(off int) uint32 { return *(*uint32)(unsafe.Pointer(&params[off])) }
	// sq_off at 40 {head, tail, ring_mask, ring_entries, flags, dropped, array},
	// cq_off at 80 {head, tail, ring_mask, ring_entries, overflow, cqes}.
	sq, err := unix.Mmap(int(ring), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return "", err
	}
	cq, err := unix.Mmap(int(ring), 0x8000000, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return "", err
	}
	sqes, err := unix.Mmap(int(ring), 0x10000000, 64, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return "", err
	}
	s, err := newSock(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC)
	if err != nil {
		return "", err
	}
	addr := rawInet4(fmt.Sprintf("127.0.0.1:%d", port))
	sqes[0] = opBind
	*(*int32)(unsafe.Pointer(&sqes[4])) = int32(s.fd)
	*(*uint64)(unsafe.Pointer(&sqes[8])) = uint64(len(addr))                          // addr2
	*(*uint64)(unsafe.Pointer(&sqes[16])) = uint64(uintptr(unsafe.Pointer(&addr[0]))) // addr
	*(*uint32)(unsafe.Pointer(&sq[u32(40+24)])) = 0                                   // array[0]
	*(*uint32)(unsafe.Pointer(&sq[u32(40+4)]))++                                      // tail
	if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, ring, 1, 1, enterGetEvents, 0, 0); errno != 0 {
		return "", errno
	}
	res := *(*int32)(unsafe.Pointer(&cq[u32(80+20)+8]))
	switch {
	case res == -int32(unix.EINVAL):
		return "skip: this kernel has no bind by io_uring", nil
	case res < 0:
		return "", unix.Errno(-res)
	}
	if sa, ok := name(s.fd); !ok || sa.addr.Port() != port {
		return "", errors.New("io_uring did not bind")
	}
	return "ok", unix.Listen(s.fd, 5)
}
