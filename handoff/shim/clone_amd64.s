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
// below the pointer. The kernel keeps all registers but AX, CX and R11.
TEXT ·clone(SB), NOSPLIT, $0-72
	MOVQ trap+0(FP), AX
	MOVQ a1+8(FP), DI
	MOVQ a2+16(FP), SI
	MOVQ a3+24(FP), DX
	MOVQ a4+32(FP), R10
	MOVQ a5+40(FP), R8
	MOVQ head+48(FP), R13
	MOVQ $0, R9
	SYSCALL
	TESTQ AX, AX
	JZ   child
	CMPQ AX, $0xfffffffffffff001
	JLS  parent
	NEGQ AX
	MOVQ $-1, r1+56(FP)
	MOVQ AX, errno+64(FP)
	RET
parent:
	MOVQ AX, r1+56(FP)
	MOVQ $0, errno+64(FP)
	RET

child:
	MOVQ head_calls(R13), R12
	JMP  step
next:
	ADDQ $call_size, R12
step:
	MOVQ call_nr(R12), AX
	CMPQ AX, $-1
	JEQ  exit
	CMPQ AX, $-2
	JEQ  decimal
	CMPQ AX, $-3
	JEQ  expect
	MOVQ (call_args+0)(R12), DI
	MOVQ (call_args+8)(R12), SI
	MOVQ (call_args+16)(R12), DX
	MOVQ (call_args+24)(R12), R10
	MOVQ (call_args+32)(R12), R8
	MOVQ (call_args+40)(R12), R9
	SYSCALL
	CMPQ AX, $0xfffffffffffff001
	JCC  failed
	MOVQ call_save(R12), BX
	TESTQ BX, BX
	JZ   next
	MOVQ AX, (BX)
	JMP  next

expect:
	MOVQ (call_args+0)(R12), BX
	MOVQ (BX), BX
	MOVQ $-3, AX           // -ESRCH
	CMPQ BX, (call_args+8)(R12)
	JNE  failed
	JMP  next

decimal:                   // digits backwards below SP, then copied
	MOVQ (call_args+8)(R12), BX
	MOVQ (BX), AX
	MOVQ (call_args+0)(R12), DI
	MOVQ SP, SI
	MOVQ $10, CX
digit:
	XORQ DX, DX
	DIVQ CX
	ADDQ $48, DX           // '0'
	DECQ SI
	MOVB DX, (SI)
	TESTQ AX, AX
	JNZ  digit
copy:
	MOVB (SI), AX
	MOVB AX, (DI)
	INCQ SI
	INCQ DI
	CMPQ SI, SP
	JNE  copy
	MOVB $0, (DI)
	JMP  next

failed:
	MOVQ call_tag(R12), BX
	TESTL BX, BX           // stage 0: the call may fail
	JZ   next
	NEGQ AX
	MOVQ head_report(R13), SI
	MOVQ BX, 0(SI)
	MOVQ AX, 8(SI)
	MOVQ head_fd(R13), DI
	MOVQ $16, DX
	MOVQ $1, AX            // SYS_write
	SYSCALL
exit:
	MOVQ $127, DI
	MOVQ $231, AX          // SYS_exit_group
	SYSCALL
	JMP  exit
