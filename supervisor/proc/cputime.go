package proc

import (
	"bytes"
	"os"
	"strconv"
)

// CPUTime is the processor time that the processes have used so far, in clock
// ticks (utime and stime of /proc/PID/stat). Who ended meanwhile counts nothing.
func CPUTime(pids []int) (ticks uint64) {
	for _, pid := range pids {
		b, err := os.ReadFile(procPath(pid, "stat"))
		if err != nil {
			continue
		}
		// The command in parentheses may contain anything; after it, fields 3 on.
		fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
		if len(fields) < 13 {
			continue
		}
		for _, f := range fields[11:13] {
			n, _ := strconv.ParseUint(string(f), 10, 64)
			ticks += n
		}
	}
	return ticks
}
