package intercept

import (
	"golang.org/x/sys/unix"
)

// Options says which calls the filter reports or forbids. The zero value
// reports bind and listen.
type Options struct {
	Unlink    bool // report unlink and unlinkat as well: needed where a unix path is to survive its server; each unlink then costs a look at the path
	NoIOUring bool // io_uring_setup fails with ENOSYS: a bind by io_uring is not seen by any filter
}

// call is what a system call number stands for.
type call uint8

const (
	callNone       call = iota
	callBind            // bind(fd, addr, len)
	callListen          // listen(fd, backlog)
	callUnlink          // unlink(path)
	callUnlinkat        // unlinkat(dirfd, path, flags)
	callSocketcall      // socketcall(call, args): i386 only
	callURing           // io_uring_setup
)

// The calls of socketcall(2), from linux/net.h.
const (
	socketcallBind   = 2
	socketcallListen = 4
)

// x32Bit marks a system call of the x32 ABI (__X32_SYSCALL_BIT of asm/unistd.h).
const x32Bit = 0x40000000

// abi is one system call table that a process may use.
type abi struct {
	audit  uint32 // AUDIT_ARCH_* of linux/audit.h
	x32    bool   // numbers may carry x32Bit
	words  int    // size of a word in the caller's memory
	number map[call]uint32
}

// abis returns the tables of the machine goarch ("amd64" or "arm64"), the
// native one first. Numbers are those of the C headers; a test compares.
func abis(goarch string) []abi {
	switch goarch {
	case "amd64":
		return []abi{
			{audit: unix.AUDIT_ARCH_X86_64, x32: true, words: 8, number: map[call]uint32{
				callBind: 49, callListen: 50, callUnlink: 87, callUnlinkat: 263, callURing: 425,
			}},
			{audit: unix.AUDIT_ARCH_I386, words: 4, number: map[call]uint32{
				callBind: 361, callListen: 363, callUnlink: 10, callUnlinkat: 301, callSocketcall: 102, callURing: 425,
			}},
		}
	case "arm64":
		return []abi{
			{audit: unix.AUDIT_ARCH_AARCH64, words: 8, number: map[call]uint32{
				callBind: 200, callListen: 201, callUnlinkat: 35, callURing: 425,
			}},
			// EABI has no socketcall.
			{audit: unix.AUDIT_ARCH_ARM, words: 4, number: map[call]uint32{
				callBind: 282, callListen: 284, callUnlink: 10, callUnlinkat: 328, callURing: 425,
			}},
		}
	}
	return nil
}

// which tells the call that nr is in the table of the audit architecture.
func which(tables []abi, audit uint32, nr int32) (abi, call) {
	for _, t := range tables {
		if t.audit != audit {
			continue
		}
		n := uint32(nr)
		if t.x32 {
			n &^= x32Bit
		}
		for c, number := range t.number {
			if number == n {
				return t, c
			}
		}
	}
	return abi{}, callNone
}

// Offsets in struct seccomp_data of linux/seccomp.h. Both machines are
// little-endian, so the low half of an argument comes first.
const (
	dataNr   = 0
	dataArch = 4
	dataArgs = 16
)

func dataArg(n int) uint32 { return uint32(dataArgs + 8*n) }

// Program returns the filter for the machine goarch ("amd64" or "arm64"): all
// system call tables that a process may use there, 32-bit ones included. It
// returns nil for any other machine.
//
// Everything that is not named is allowed, without a look at its arguments, so
// that the kernel's bitmap of constant answers (5.11) keeps it cheap.
func Program(goarch string, opts Options) []unix.SockFilter {
	tables := abis(goarch)
	if tables == nil {
		return nil
	}
	prog := []unix.SockFilter{load(dataArch)}
	for _, t := range tables {
		body := table(t, opts)
		// Skip the whole table if the call came through another one. A table is far
		// shorter than the 255 instructions that a conditional jump can skip.
		prog = append(prog, jump(unix.BPF_JEQ, t.audit, 0, uint8(len(body))))
		prog = append(prog, body...)
	}
	return append(prog, ret(unix.SECCOMP_RET_ALLOW))
}

// table returns the part of the program for one system call table. It always
// ends in a verdict.
func table(t abi, opts Options) []unix.SockFilter {
	prog := []unix.SockFilter{load(dataNr)}
	if t.x32 {
		prog = append(prog, unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: ^uint32(x32Bit)})
	}
	match := func(c call, then ...unix.SockFilter) {
		nr, ok := t.number[c]
		if !ok {
			return
		}
		prog = append(prog, jump(unix.BPF_JEQ, nr, 0, uint8(len(then))))
		prog = append(prog, then...)
	}
	report, allow := ret(unix.SECCOMP_RET_USER_NOTIF), ret(unix.SECCOMP_RET_ALLOW)

	match(callBind, report)
	match(callListen, report)
	match(callSocketcall,
		load(dataArg(0)),
		jump(unix.BPF_JEQ, socketcallBind, 1, 0),
		jump(unix.BPF_JEQ, socketcallListen, 0, 1),
		report,
		allow)
	if opts.Unlink {
		match(callUnlink, report)
		match(callUnlinkat, // rmdir in disguise is nobody's socket
			load(dataArg(2)),
			jump(unix.BPF_JSET, unix.AT_REMOVEDIR, 1, 0),
			report,
			allow)
	}
	if opts.NoIOUring {
		match(callURing, ret(unix.SECCOMP_RET_ERRNO|uint32(unix.ENOSYS)))
	}
	return append(prog, allow)
}

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

func jump(op uint16, k uint32, jt, jf uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, Jt: jt, Jf: jf, K: k}
}

func ret(verdict uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: verdict}
}
