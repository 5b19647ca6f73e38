package intercept

import (
	"encoding/binary"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// interpret runs a seccomp program as the kernel would, as far as ours uses it.
func interpret(prog []unix.SockFilter, d seccompData) (verdict uint32, err error) {
	var mem [64]byte
	binary.LittleEndian.PutUint32(mem[0:], uint32(d.Nr))
	binary.LittleEndian.PutUint32(mem[4:], d.Arch)
	binary.LittleEndian.PutUint64(mem[8:], d.IP)
	for i, a := range d.Args {
		binary.LittleEndian.PutUint64(mem[16+8*i:], a)
	}
	var a uint32
	for pc, steps := 0, 0; ; pc++ {
		if pc < 0 || pc >= len(prog) {
			return 0, fmt.Errorf("pc %d is outside of the program", pc)
		}
		if steps++; steps > len(prog) {
			return 0, fmt.Errorf("no end")
		}
		in := prog[pc]
		branch := func(cond bool) {
			if cond {
				pc += int(in.Jt)
			} else {
				pc += int(in.Jf)
			}
		}
		switch in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			if in.K%4 != 0 || in.K > 60 {
				return 0, fmt.Errorf("load at %d", in.K)
			}
			a = binary.LittleEndian.Uint32(mem[in.K:])
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			a &= in.K
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			branch(a == in.K)
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			branch(a&in.K != 0)
		case unix.BPF_RET | unix.BPF_K:
			return in.K, nil
		default:
			return 0, fmt.Errorf("instruction %#x", in.Code)
		}
	}
}

// TestProgramAllNumbers runs every system call number of every table, with
// every set of options, and some arguments.
func TestProgramAllNumbers(t *testing.T) {
	const errno = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	type want struct{ bind, listen, unlink, unlinkat, socketcall, uring int32 }
	tables := map[string]map[uint32]want{
		"amd64": {
			unix.AUDIT_ARCH_X86_64: {49, 50, 87, 263, -1, 425},
			unix.AUDIT_ARCH_I386:   {361, 363, 10, 301, 102, 425},
		},
		"arm64": {
			unix.AUDIT_ARCH_AARCH64: {200, 201, -1, 35, -1, 425},
			unix.AUDIT_ARCH_ARM:     {282, 284, 10, 328, -1, 425},
		},
	}
	others := []uint32{0, unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_AARCH64, unix.AUDIT_ARCH_ARM, 0xffffffff}
	for goarch, archs := range tables {
		for mask := range 4 {
			opts := Options{Unlink: mask&1 != 0, NoIOUring: mask&2 != 0}
			prog := Program(goarch, opts)
			check := func(arch uint32, nr int32, args [6]uint64, want uint32) {
				t.Helper()
				got, err := interpret(prog, seccompData{Nr: nr, Arch: arch, Args: args})
				if err != nil || got != want {
					t.Fatalf("%s %+v: arch %#x nr %d args %x: verdict %#x, %v; want %#x", goarch, opts, arch, nr, args, got, err, want)
				}
			}
			for _, arch := range others {
				w, known := archs[arch]
				for nr := int32(-2); nr < 1100; nr++ {
					verdict := uint32(unix.SECCOMP_RET_ALLOW)
					if known && nr >= 0 {
						switch nr {
						case w.bind, w.listen:
							verdict = unix.SECCOMP_RET_USER_NOTIF
						case w.unlink, w.unlinkat:
							if opts.Unlink {
								verdict = unix.SECCOMP_RET_USER_NOTIF
							}
						case w.uring:
							if opts.NoIOUring {
								verdict = errno
							}
						case w.socketcall:
							for arg := range uint64(30) {
								v := uint32(unix.SECCOMP_RET_ALLOW)
								if arg == 2 || arg == 4 {
									v = unix.SECCOMP_RET_USER_NOTIF
								}
								check(arch, nr, [6]uint64{arg}, v)
							}
							continue
						}
					}
					check(arch, nr, [6]uint64{}, verdict)
					if arch == unix.AUDIT_ARCH_X86_64 && nr >= 0 {
						check(arch, nr|x32Bit, [6]uint64{}, verdict)
					}
					if known && nr == w.unlinkat && opts.Unlink {
						check(arch, nr, [6]uint64{0, 0, unix.AT_REMOVEDIR}, unix.SECCOMP_RET_ALLOW)
						check(arch, nr, [6]uint64{0, 0, ^uint64(unix.AT_REMOVEDIR)}, unix.SECCOMP_RET_USER_NOTIF)
					}
				}
			}
		}
	}
	if Program("riscv64", Options{}) != nil {
		t.Fatal("a program for a machine that we know nothing about")
	}
}

// TestConstantAllow: the kernel answers from a bitmap, without running the
// program, for numbers where it gets to "allow" without loading arguments.
func TestConstantAllow(t *testing.T) {
	for _, goarch := range []string{"amd64", "arm64"} {
		for i, in := range Program(goarch, Options{}) {
			if in.Code != unix.BPF_LD|unix.BPF_W|unix.BPF_ABS || in.K == dataNr || in.K == dataArch {
				continue
			}
			if goarch == "arm64" || in.K != dataArg(0) {
				t.Errorf("%s: instruction %d loads offset %d", goarch, i, in.K)
			}
		}
	}
}

// TestWhichAgreesWithProgram: what the filter reports, the server understands.
func TestWhichAgreesWithProgram(t *testing.T) {
	for _, goarch := range []string{"amd64", "arm64"} {
		prog := Program(goarch, Options{Unlink: true})
		for _, tab := range abis(goarch) {
			for nr := int32(0); nr < 1100; nr++ {
				for _, n := range []int32{nr, nr | x32Bit} {
					verdict, err := interpret(prog, seccompData{Nr: n, Arch: tab.audit, Args: [6]uint64{socketcallBind}})
					if err != nil {
						t.Fatal(err)
					}
					_, c := which(abis(goarch), tab.audit, n)
					reported := verdict == unix.SECCOMP_RET_USER_NOTIF
					if understood := c != callNone && c != callURing; reported != understood {
						t.Errorf("%s arch %#x nr %d: reported %v, understood as call %d", goarch, tab.audit, n, reported, c)
					}
				}
			}
		}
	}
}

// TestNumbersOfHeaders compares the tables with the C headers that are there.
func TestNumbersOfHeaders(t *testing.T) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler")
	}
	names := map[call]string{
		callBind: "__NR_bind", callListen: "__NR_listen", callUnlink: "__NR_unlink",
		callUnlinkat: "__NR_unlinkat", callSocketcall: "__NR_socketcall", callURing: "__NR_io_uring_setup",
	}
	for _, h := range []struct {
		name, header string
		flags        []string
		table        abi
	}{
		{"x86-64", "asm/unistd_64.h", nil, abis("amd64")[0]},
		{"x32", "asm/unistd_x32.h", []string{"-D__X32_SYSCALL_BIT=0"}, abis("amd64")[0]},
		{"i386", "asm/unistd_32.h", nil, abis("amd64")[1]},
		{"aarch64", "asm/unistd.h", []string{"-nostdinc", "-I/usr/aarch64-linux-gnu/include"}, abis("arm64")[0]},
		{"aarch64 generic", "asm-generic/unistd.h", []string{"-D__BITS_PER_LONG=64"}, abis("arm64")[0]},
		{"arm", "asm/unistd.h", []string{"-nostdinc", "-D__ARM_EABI__", "-I/usr/arm-linux-gnueabihf/include"}, abis("arm64")[1]},
	} {
		t.Run(h.name, func(t *testing.T) {
			src := "#include <" + h.header + ">\n"
			for c, name := range names {
				src += fmt.Sprintf("#ifdef %s\nNUMBER %d %s\n#endif\n", name, c, name)
			}
			cmd := exec.Command(cc, append(append([]string{"-E", "-P"}, h.flags...), "-")...)
			cmd.Stdin = strings.NewReader(src)
			out, err := cmd.Output()
			if err != nil {
				t.Skipf("no header %s: %v", h.header, err)
			}
			seen := map[call]bool{}
			for line := range strings.Lines(string(out)) {
				var c call
				var expr string
				if n, _ := fmt.Sscanf(line, "NUMBER %d %s", &c, &expr); n != 2 {
					continue
				}
				// Numbers of arm and x32 are sums: (0+282).
				expr = strings.TrimSpace(line[strings.Index(line, expr):])
				var nr uint32
				for part := range strings.SplitSeq(strings.Trim(expr, "()"), "+") {
					var v uint32
					if _, err := fmt.Sscan(strings.TrimSpace(part), &v); err != nil {
						t.Fatalf("%s: %q: %v", names[c], expr, err)
					}
					nr += v
				}
				if c == callUnlink && h.table.number[c] == 0 {
					continue
				}
				seen[c] = true
				if h.table.number[c] != nr {
					t.Errorf("%s is %d, the table has %d", names[c], nr, h.table.number[c])
				}
			}
			for c := range h.table.number {
				if !seen[c] {
					t.Errorf("%s is not in the header", names[c])
				}
			}
		})
	}
}

// TestSizes: the size of each structure is part of its ioctl number.
func TestSizes(t *testing.T) {
	size := func(ioctl uint) uintptr { return uintptr(ioctl >> 16 & 0x3fff) }
	if s := unsafe.Sizeof(seccompNotif{}); s != size(unix.SECCOMP_IOCTL_NOTIF_RECV) {
		t.Errorf("seccomp_notif has %d bytes", s)
	}
	if s := unsafe.Sizeof(seccompNotifResp{}); s != size(unix.SECCOMP_IOCTL_NOTIF_SEND) {
		t.Errorf("seccomp_notif_resp has %d bytes", s)
	}
	if s := unsafe.Sizeof(seccompNotifAddfd{}); s != size(unix.SECCOMP_IOCTL_NOTIF_ADDFD) {
		t.Errorf("seccomp_notif_addfd has %d bytes", s)
	}
	var kernel [3]uint16 // struct seccomp_notif_sizes
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_NOTIF_SIZES, 0, uintptr(unsafe.Pointer(&kernel)))
	if errno != 0 {
		t.Skip("the kernel does not tell its sizes: ", errno)
	}
	if kernel != [3]uint16{80, 24, 64} {
		t.Errorf("the kernel has sizes %v", kernel)
	}
}
