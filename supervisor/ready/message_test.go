package ready

import (
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
)

func ptr[T any](v T) *T { return &v }

func TestParseMessage(t *testing.T) {
	for _, c := range []struct {
		text     string
		files    int
		want     Message // Raw and Problems are not compared
		problems int
	}{
		{"READY=1", 0, Message{Ready: true}, 0},
		{"READY=1\x00", 0, Message{Ready: true}, 0},
		{"READY=0", 0, Message{}, 1},
		{"READY", 0, Message{}, 1},
		{"=1", 0, Message{}, 1},
		{"\n\nREADY=1\r\nSTATUS=a=b\n", 0, Message{Ready: true, Status: ptr("a=b")}, 0},
		{"READY=1\nSTOPPING=1", 0, Message{Stopping: true}, 0},
		{"RELOADING=1\nREADY=1", 0, Message{Ready: true}, 0},
		{"RELOADING=1\nMONOTONIC_USEC=77", 0, Message{Reloading: true, MonotonicUsec: 77}, 0},
		{"MONOTONIC_USEC=77", 0, Message{}, 0},
		{"STATUS=", 0, Message{Status: ptr("")}, 0},
		{"STATUS=\xff", 0, Message{}, 1},
		{"STATUS=a\nSTATUS=b", 0, Message{Status: ptr("a")}, 1},
		{"ERRNO=2\nBUSERROR=org.x.Y\nVARLINKERROR=a.B\nEXIT_STATUS=255", 0, Message{Errno: 2, BusError: "org.x.Y", VarlinkError: "a.B", ExitStatus: ptr(uint8(255))}, 0},
		{"ERRNO=-2", 0, Message{}, 1},
		{"ERRNO=4096", 0, Message{}, 1},
		{"BUSERROR=\nEXIT_STATUS=256", 0, Message{}, 2},
		{"MAINPID=4711", 0, Message{MainPID: 4711}, 0},
		{"MAINPID=0", 0, Message{}, 1},
		{"MAINPID=1", 0, Message{}, 1},
		{"MAINPID=-5", 0, Message{}, 1},
		{"MAINPID=2147483648", 0, Message{}, 1},
		{"MAINPIDFD=1\nMAINPIDFDID=9", 1, Message{MainPIDFD: true, MainPIDFDID: 9}, 0},
		{"MAINPIDFD=1", 0, Message{}, 1},
		{"WATCHDOG=1", 0, Message{Watchdog: true}, 0},
		{"WATCHDOG=trigger", 0, Message{WatchdogTrigger: true}, 0},
		{"WATCHDOG=2", 0, Message{}, 1},
		{"WATCHDOG_USEC=0", 0, Message{WatchdogUsec: ptr(uint64(0))}, 0},
		{"WATCHDOG_USEC=18446744073709551615", 0, Message{WatchdogUsec: ptr(uint64(math.MaxUint64))}, 0},
		{"WATCHDOG_USEC=18446744073709551616", 0, Message{}, 1},
		{"EXTEND_TIMEOUT_USEC=1500000", 0, Message{ExtendTimeout: 1500 * time.Millisecond}, 0},
		{"EXTEND_TIMEOUT_USEC=18446744073709551615", 0, Message{ExtendTimeout: math.MaxInt64}, 0},
		{"NOTIFYACCESS=exec", 0, Message{NotifyAccess: "exec"}, 0},
		{"NOTIFYACCESS=some", 0, Message{}, 1},
		{"RESTART_RESET=1", 0, Message{RestartReset: true}, 0},
		{"BARRIER=1", 1, Message{Barrier: true}, 0},
		{"BARRIER=1\n", 1, Message{Barrier: true}, 0},
		{"BARRIER=1", 2, Message{}, 1},
		{"READY=1\nBARRIER=1", 1, Message{}, 1},
		{"FDSTORE=1", 2, Message{FDStore: true, FDPoll: true}, 0},
		{"FDSTORE=1\nFDPOLL=0\nFDNAME=db", 1, Message{FDStore: true, FDName: "db"}, 0},
		{"FDSTORE=1\nFDNAME=a:b", 1, Message{FDStore: true, FDPoll: true}, 1},
		{"FDSTORE=1", 0, Message{}, 1},
		{"FDSTOREREMOVE=1\nFDNAME=db", 0, Message{FDStoreRemove: true, FDName: "db"}, 0},
		{"FDSTOREREMOVE=1", 0, Message{}, 1},
		{"X_OURS=1\nLATER=2", 0, Message{Unknown: []string{"X_OURS=1", "LATER=2"}}, 0},
	} {
		m := parseMessage([]byte(c.text), c.files)
		if len(m.Problems) != c.problems {
			t.Errorf("%q: problems %q", c.text, m.Problems)
		}
		m.Raw, m.Problems, m.noPoll = "", nil, false
		if !reflect.DeepEqual(m, c.want) {
			t.Errorf("%q:\n got %+v\nwant %+v", c.text, m, c.want)
		}
	}
}

func FuzzNotify(f *testing.F) {
	for _, s := range []string{
		"", "\x00", "READY=1", "READY=1\nSTATUS=x\n", "BARRIER=1", "MAINPID=99999999999999999999",
		"FDSTORE=1\nFDNAME=\x7f\nFDPOLL=0", "EXTEND_TIMEOUT_USEC=18446744073709551615", "A=\xff\xfe\nB", "=\n=\n",
	} {
		f.Add([]byte(s), 1)
	}
	f.Fuzz(func(t *testing.T, b []byte, files int) {
		m := parseMessage(b, files)
		states := 0
		for _, on := range []bool{m.Ready, m.Reloading, m.Stopping, m.Barrier} {
			if on {
				states++
			}
		}
		if states > 1 {
			t.Errorf("more than one state: %+v", m)
		}
		if m.Barrier && files != 1 || m.FDStore && (files == 0 || m.FDStoreRemove) || m.FDStoreRemove && m.FDName == "" {
			t.Errorf("descriptors: %+v", m)
		}
		if m.MainPID < 0 || m.MainPID == 1 || m.ExtendTimeout < 0 || m.Errno < 0 {
			t.Errorf("out of range: %+v", m)
		}
		if len(b) == 0 && len(m.Problems) == 0 {
			t.Error("nothing said of an empty message")
		}
		for _, p := range m.Problems {
			if strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("not fit for a log: %q", p)
			}
		}
	})
}
