package handoff

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// monotonic is the line that Type=notify-reload wants beside RELOADING=1.
func monotonic() string {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return ""
	}
	return "\nMONOTONIC_USEC=" + strconv.FormatInt(now.Nano()/1000, 10)
}
