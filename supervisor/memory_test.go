package supervisor

import "testing"

// What may be written is never given back: it would be read from the file again.
func TestOwnConstants(t *testing.T) {
	const exe = "/bin/supervise"
	for line, want := range map[string]bool{
		"00400000-006dd000 r-xp 00000000 08:01 99 /bin/supervise\n":         false,
		"006dd000-00a3c000 r--p 002dd000 08:01 99 /bin/supervise\n":         true,
		"00a3c000-00a71000 rw-p 0063c000 08:01 99 /bin/supervise\n":         false,
		"7f0000400000-7f00006dd000 r-xp 00000000 08:01 99 /bin/supervise\n": false,
		"7f00006dd000-7f0000a3c000 r--p 002dd000 08:01 99 /bin/supervise\n": false, // relocated when it was loaded
		"7f0000a3c000-7f0000a71000 r-xp 00000000 08:01 98 /lib/libc.so\n":   false,
		"7ffd000-7ffe000 rw-p 00000000 00:00 0 [stack]\n":                   false,
		"00a71000-00a72000 rw-p 00000000 00:00 0\n":                         false,
		"nonsense\n": false,
		"006dd000-00400000 r-xp 00000000 08:01 99 /bin/supervise\n":           false,
		"zz-00400000 r-xp 00000000 08:01 99 /bin/supervise\n":                 false,
		"00400000-006dd000 r-xp 00000000 08:01 99 /bin/supervise (deleted)\n": false,
		"00400000-006dd000 r-xp 00000000 08:01 99 /bin/supervise.old\n":       false,
		"00400000-zz r-xp 00000000 08:01 99 /bin/supervise\n":                 false,
	} {
		if _, _, got := ownConstants(line, exe); got != want {
			t.Errorf("%q: %v", line, got)
		}
	}
}
