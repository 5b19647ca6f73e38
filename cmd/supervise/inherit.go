package main

import (
	"fmt"
	"strconv"
	"strings"
)

// firstFD is SD_LISTEN_FDS_START of sd_listen_fds(3).
const firstFD = 3

// parseListenFDs reads LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES: the fds that
// were meant for the process pid, with a name each ("" where none was given).
// Nothing meant for us is no error; a number that cannot be read is one.
func parseListenFDs(getenv func(string) string, pid int) (fds []int, names []string, err error) {
	if getenv("LISTEN_FDS") == "" {
		return nil, nil, nil
	}
	if getenv("LISTEN_PID") != strconv.Itoa(pid) {
		return nil, nil, nil // for somebody else: an ancestor of ours
	}
	n, err := strconv.Atoi(getenv("LISTEN_FDS"))
	if err != nil || n < 0 || n > 1024 {
		return nil, nil, fmt.Errorf("cannot take over listeners: LISTEN_FDS=%q is no number of descriptors", getenv("LISTEN_FDS"))
	}
	all := strings.Split(getenv("LISTEN_FDNAMES"), ":")
	for i := range n {
		name := ""
		if i < len(all) && all[i] != "unknown" {
			name = all[i]
		}
		fds, names = append(fds, firstFD+i), append(names, name)
	}
	return fds, names, nil
}
