package supervisor

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor/config"
)

// TestLimits: a limit never exceeds what may be set, and is otherwise what it
// was asked to be.
func TestLimits(t *testing.T) {
	var now unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &now); err != nil {
		t.Fatal(err)
	}
	r := &runner{cfg: &config.Service{Limits: []config.Limit{
		{Name: "LimitNOFILE", Resource: unix.RLIMIT_NOFILE, Soft: 16, Hard: 32},
		{Name: "LimitNOFILE", Resource: unix.RLIMIT_NOFILE, Soft: config.Infinity, Hard: config.Infinity},
		{Name: "LimitCORE", Resource: unix.RLIMIT_CORE, Soft: 0, Hard: 0},
	}}}
	all := r.limits()
	if all[0].Soft != 16 || all[0].Hard != 32 || all[2].Hard != 0 {
		t.Errorf("%+v", all)
	}
	if all[1].Hard == config.Infinity || all[1].Hard < now.Max || all[1].Soft != all[1].Hard {
		t.Errorf("infinity is %+v, and we have %+v", all[1], now)
	}
	if _, ok := mostOf(99); ok {
		t.Error("there is a limit 99")
	}
}
