#include "textflag.h"

// Offsets of call and header in program.go.
#define call_nr    0
#define call_args  8
#define call_save 56
#define call_tag  64
#define call_size 72
#define head_calls  0
#define head_fd     8
#define head_report 16

// func clone(trap, a1, a2, a3, a4, a5 uintptr, head *header) (r1, errno uintptr)
//
// In the parent it returns like any system call. The child never returns: it
// runs the list of head on its own stack, and touches of it only 32 bytes
// below the pointer. The kernel keeps all registers but R0.
TEXT ·clone(SB), NOSPLIT, $0-72
	MOVD trap+0(FP), R8
	MOVD a1+8(FP), R0
	MOVD a2+16(FP), R1
	MOVD a3+24(FP), R2
	MOVD a4+32(FP), R3
	MOVD a5+40(FP), R4
	MOVD head+48(FP), R20
	MOVD $0, R5
	SVC
	CBZ  R0, child
	CMN  $4095, R0
	BCC  parent
	MOVD $-1, R4
	MOVD R4, r1+56(FP)
	NEG  R0, R0
	MOVD R0, errno+64(FP)
	RET
parent:
	MOVD R0, r1+56(FP)
	MOVD ZR, errno+64(FP)
	RET

child:
	MOVD head_calls(R20), R19
	B    step
next:
	ADD  $call_size, R19
step:
	MOVD call_nr(R19), R8
	CMN  $1, R8
	BEQ  exit
	CMN  $2, R8
	BEQ  decimal
	CMN  $3, R8
	BEQ  expect
	MOVD (call_args+0)(R19), R0
	MOVD (call_args+8)(R19), R1
	MOVD (call_args+16)(R19), R2
	MOVD (call_args+24)(R19), R3
	MOVD (call_args+32)(R19), R4
	MOVD (call_args+40)(R19), R5
	SVC
	CMN  $4095, R0
	BCS  failed
	MOVD call_save(R19), R9
	CBZ  R9, next
	MOVD R0, (R9)
	B    next

expect:
	MOVD (call_args+0)(R19), R9
	MOVD (R9), R9
	MOVD (call_args+8)(R19), R10
	MOVD $-3, R0           // -ESRCH
	CMP  R9, R10
	BNE  failed
	B    next

decimal:                   // digits backwards below RSP, then copied
	MOVD (call_args+8)(R19), R9
	MOVD (R9), R9
	MOVD (call_args+0)(R19), R10
	MOVD RSP, R11
	MOVD RSP, R15
	MOVD $10, R12
digit:
	UDIV R12, R9, R13
	MSUB R12, R9, R13, R14 // R14 = R9 - R13*R12
	ADD  $48, R14          // '0'
	SUB  $1, R11
	MOVB R14, (R11)
	MOVD R13, R9
	CBNZ R9, digit
copy:
	MOVBU (R11), R14
	MOVB R14, (R10)
	ADD  $1, R11
	ADD  $1, R10
	CMP  R11, R15
	BNE  copy
	MOVB ZR, (R10)
	B    next

failed:
	MOVD call_tag(R19), R9
	CBZW R9, next          // stage 0: the call may fail
	NEG  R0, R0
	MOVD head_report(R20), R1
	MOVD R9, 0(R1)
	MOVD R0, 8(R1)
	MOVD head_fd(R20), R0
	MOVD $16, R2
	MOVD $64, R8           // SYS_write
	SVC
exit:
	MOVD $127, R0
	MOVD $94, R8           // SYS_exit_group
	SVC
	B    exit
