package config

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The real-time signals as glibc, and so systemd and kill(1), count them: the
// kernel's 32 and 33 belong to the threads library (signal(7)).
const (
	sigRTMin = 34
	sigRTMax = 64
)

// ParseSignal reads a signal: "TERM", "SIGTERM", "15", "RTMIN+3", "RTMAX-1",
// in upper or lower case. Signal 0 is refused.
func ParseSignal(s string) (syscall.Signal, error) {
	word := strings.ToUpper(strings.TrimSpace(s))
	if n, err := strconv.Atoi(word); err == nil {
		if n < 1 || n > sigRTMax || word[0] == '+' {
			return 0, fmt.Errorf("cannot read %q as a signal: numbers go from 1 to %d", s, sigRTMax)
		}
		return syscall.Signal(n), nil
	}
	word = strings.TrimPrefix(word, "SIG")
	if n, ok := realTimeSignal(word); ok {
		return n, nil
	}
	switch word { // the other names of signal(7)
	case "IOT":
		return syscall.SIGABRT, nil
	case "CLD":
		return syscall.SIGCHLD, nil
	case "POLL":
		return syscall.SIGIO, nil
	}
	if n := unix.SignalNum("SIG" + word); n != 0 {
		return n, nil
	}
	return 0, fmt.Errorf("cannot read %q as a signal: write a name of signal(7), such as TERM or SIGTERM, a number, or RTMIN+n", s)
}

// realTimeSignal reads RTMIN, RTMIN+n, RTMAX and RTMAX-n.
func realTimeSignal(word string) (syscall.Signal, bool) {
	base, sign, rest := sigRTMin, "+", ""
	switch {
	case strings.HasPrefix(word, "RTMIN"):
		rest = word[len("RTMIN"):]
	case strings.HasPrefix(word, "RTMAX"):
		base, sign, rest = sigRTMax, "-", word[len("RTMAX"):]
	default:
		return 0, false
	}
	if rest == "" {
		return syscall.Signal(base), true
	}
	digits, ok := strings.CutPrefix(rest, sign)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 8)
	if err != nil || n > sigRTMax-sigRTMin {
		return 0, false
	}
	if sign == "-" {
		return syscall.Signal(base - int(n)), true
	}
	return syscall.Signal(base + int(n)), true
}

// SignalName gives the name that ParseSignal reads back: "SIGTERM",
// "SIGRTMIN+3"; for what has no name, the number.
func SignalName(sig syscall.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return name
	}
	switch n := int(sig); {
	case n == sigRTMin:
		return "SIGRTMIN"
	case n > sigRTMin && n <= sigRTMax:
		return "SIGRTMIN+" + strconv.Itoa(n-sigRTMin)
	}
	return strconv.Itoa(int(sig))
}
