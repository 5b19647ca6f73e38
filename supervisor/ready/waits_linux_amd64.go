package ready

import "golang.org/x/sys/unix"

// waits are the system calls in which a server waits for connections or
// datagrams. (A package variable that is never written: a table.)
var waits = map[int]wait{
	unix.SYS_ACCEPT:   waitFD,
	unix.SYS_ACCEPT4:  waitFD,
	unix.SYS_RECVFROM: waitFD,
	unix.SYS_RECVMSG:  waitFD,
	unix.SYS_RECVMMSG: waitFD,
	unix.SYS_READ:     waitFD, // a connected reader of datagrams, seldom
	unix.SYS_POLL:     waitPoll,
	unix.SYS_PPOLL:    waitPoll,
	unix.SYS_SELECT:   waitSelect,
	unix.SYS_PSELECT6: waitSelect,
}
