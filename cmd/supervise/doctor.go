package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/supervise/supervise/handoff/intercept"
	"github.com/supervise/supervise/supervisor/proc"
)

func newDoctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "what this machine gives, and what each lack costs",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, _ = proc.Setup() // so that what it says of us is what a run would be
			facts := append(proc.Facts(), interceptFacts(intercept.Probe())...)
			printFacts(os.Stdout, facts)
			return nil
		},
	}
}

// interceptFacts says in words what a probe of interception found: what each
// lack costs, and what cures it.
func interceptFacts(r intercept.Report) []proc.Fact {
	const plain = "a server that only knows bind(2) is stopped before it is started again: its clients are refused meanwhile"
	var facts []proc.Fact
	add := func(name string, err error, fine, cost string) {
		f := proc.Fact{Name: name, OK: err == nil, Detail: fine}
		if err != nil {
			f.Detail, f.Cost = err.Error(), cost
		}
		facts = append(facts, f)
	}
	lacks := func(ok bool, what string) error {
		if ok {
			return nil
		}
		return fmt.Errorf("%s", what)
	}
	const profile = "; in a container: a seccomp profile that allows seccomp(2), and --cap-add SYS_PTRACE; never under another supervisor that intercepts"
	add("intercept bind", r.Install, "a filter with a notify fd can be installed", plain+profile)
	if r.Install == nil {
		add("intercept answer", r.Swap, "a bind is answered with another socket", plain+profile)
	}
	add("pidfd_getfd", r.Dup, "sockets of a child can be duplicated", plain+"; in a container: --cap-add SYS_PTRACE")
	add("child memory", r.Memory, "arguments of a child can be read", plain+"; in a container: --cap-add SYS_PTRACE")
	add("yama", lacks(r.Yama < 2, fmt.Sprintf("kernel.yama.ptrace_scope is %d", r.Yama)), "lets us look into children",
		plain+"; set it to 1 or less, or run as root")
	if r.Install != nil {
		return facts
	}
	add("no-new-privs", lacks(!r.NoNewPrivs, "the filter needs it, as we lack CAP_SYS_ADMIN"), "not needed for the filter",
		"setuid programs of an intercepted command do not elevate; run as root, or --handoff systemd")
	add("wait-killable", lacks(r.WaitKillable, "before Linux 5.19"), "there", "a bind that a signal interrupts is answered twice: slower, and no harm")
	add("sync wake-up", lacks(r.SyncWakeUp, "before Linux 6.6"), "there", "an intercepted bind costs some five times more")
	add("netns cookie", lacks(r.NetNSCookie, "before Linux 5.14"), "there", "network namespaces are told apart by /proc, which costs a little more")
	return facts
}
