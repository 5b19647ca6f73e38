package wire

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"syscall"
)

// FirstFD is the number in the child of the first fd of a Plan: 0 to 2 are
// the standard streams.
const FirstFD = 3

// Listener is one listening socket that is lent to a child.
type Listener struct {
	FD      int    // in the supervisor; never closed by whoever carries out the plan
	Name    string // of the socket, for LISTEN_FDNAMES and {fd:NAME}
	Network string // "tcp", "udp", "unix", "unixgram", "unixpacket"
	Addr    string // "127.0.0.1:8080", a path, "@name"
	V6Only  bool   // an IPv6 wildcard that takes no IPv4
}

// Request is what a Plan is made of.
type Request struct {
	Protocols  []string // names of this package; none is an empty Plan
	Listeners  []Listener
	Generation int      // from 1
	Words      []string // command line and environment of the service, as configured: there the program's own spelling of an address may stand
	Path       string   // of the executable
	Pipes      Pipes    // tableflip
	Ack        Ack      // einhorn
}

// Pipes are the supervisor's fds of tableflip's two pipes: the child's ends.
type Pipes struct {
	Ready int // write end: the child writes byte 42
	Names int // read end: Names of the plan was written there
}

// Ack says where an Einhorn worker acknowledges.
type Ack struct {
	Master int    // pid of the supervisor
	Socket string // path of a unix stream socket; "@name" is understood by Go programs only
}

// Plan is what the child must be given.
type Plan struct {
	Stdin   int      // of the supervisor, becomes fd 0 of the child; 0 is its own
	Files   []int    // Files[i] of the supervisor becomes fd FirstFD+i of the child
	Numbers []int    // Numbers[i] is the fd of Listeners[i] in the child, for {fd:NAME}; nil where a tableflip child has no use for it
	Env     []string // K=V to be added to the environment
	PIDEnv  []string // names of variables whose value is the child's own pid
	PIDFDID bool     // LISTEN_PIDFDID is to be set, where the kernel has it

	// Names is what the reader of tableflip's names pipe must find in it; nil
	// without tableflip.
	Names []byte
	// Tame: the child signals its parent, which must not come to anything.
	Tame bool
	// Stop is the signal by which these programs drain, where it is not what the
	// service says; 0 is none.
	Stop syscall.Signal
}

// protocol is one of them. add writes what the child is given; the fds have
// their numbers by then.
type protocol struct {
	name   string
	fds    fds
	env    []string // variables that it owns: no other may be asked for that has one of them
	single bool     // takes one listener
	tame   bool
	stop   syscall.Signal
	add    func(*Request, *Plan) error
}

// fds is where a protocol wants its fds.
type fds uint8

const (
	anywhere  fds = iota
	fromThree     // the sockets, in order
	fromFive      // behind two pipes
	asStdin
)

func protocols() []protocol {
	return []protocol{
		{name: "systemd", fds: fromThree, env: []string{"LISTEN_FDS"}, add: addSystemd},
		{name: "tableflip", fds: fromFive, add: addTableflip},
		{name: "server-starter", add: addServerStarter},
		{name: "einhorn", stop: syscall.SIGUSR2, add: addEinhorn},
		{name: "fd", add: addNothing},
		{name: "nginx", stop: syscall.SIGQUIT, add: addNginx},
		{name: "php-fpm", stop: syscall.SIGQUIT, add: addPHPFPM},
		{name: "unicorn", env: []string{"LISTEN_FDS"}, stop: syscall.SIGQUIT, add: addUnicorn},
		{name: "puma", env: []string{"LISTEN_FDS"}, add: addPuma},
		{name: "gunicorn", env: []string{"LISTEN_FDS"}, add: addGunicorn},
		{name: "inetd", fds: asStdin, single: true, add: addInetd},
		{name: "grace", fds: fromThree, env: []string{"LISTEN_FDS"}, tame: true, add: addGrace},
		{name: "endless", fds: fromThree, tame: true, add: addEndless},
		{name: "overseer", fds: fromThree, tame: true, stop: syscall.SIGUSR2, add: addOverseer},
		{name: "goagain", single: true, tame: true, stop: syscall.SIGQUIT, add: addGoagain},
	}
}

// Names gives the names of all protocols.
func Names() []string {
	var names []string
	for _, p := range protocols() {
		names = append(names, p.name)
	}
	return names
}

// For makes the plan of a request. It is an error when the protocols exclude
// one another, or when one of them has no word for one of the listeners: the child
// would bind for itself, or take one socket for another. Without listeners a plan
// has at most tableflip's pipes: a program that counts zero sockets must bind for
// itself.
func For(r Request) (Plan, error) {
	chosen, err := choose(r.Protocols)
	if err != nil {
		return Plan{}, err
	}
	flip := slices.ContainsFunc(chosen, func(p protocol) bool { return p.fds == fromFive })
	if len(chosen) == 0 || len(r.Listeners) == 0 && !flip {
		return Plan{}, nil
	}
	// What wants its fds from 3 on comes before what wants copies behind them.
	slices.SortStableFunc(chosen, func(a, b protocol) int { return cmp.Compare(rank(a), rank(b)) })
	var plan Plan
	if !flip {
		for _, l := range r.Listeners {
			plan.lend(l)
		}
	} else if err := addTableflip(&r, &plan); err != nil { // its fds come first
		return Plan{}, err
	}
	var stops []string
	for _, p := range chosen {
		if p.single && len(r.Listeners) > 1 {
			return Plan{}, fmt.Errorf("handoff %s takes one socket, and there are %d (%s): leave sockets out, or use another protocol for them", p.name, len(r.Listeners), names(r.Listeners))
		}
		if p.fds != fromFive && len(r.Listeners) > 0 {
			if err := p.add(&r, &plan); err != nil {
				return Plan{}, err
			}
		}
		plan.Tame = plan.Tame || p.tame
		stops = append(stops, p.name)
		plan.Stop = p.stop
	}
	if len(stops) > 1 { // who knows which of them the program speaks
		plan.Stop = 0
	}
	return plan, nil
}

// choose looks up the names and what they exclude.
func choose(names []string) ([]protocol, error) {
	var chosen []protocol
	for _, name := range names {
		all := protocols()
		i := slices.IndexFunc(all, func(p protocol) bool { return p.name == name })
		if i < 0 {
			return nil, fmt.Errorf("protocol %q is unknown: write one of %s", name, strings.Join(Names(), ", "))
		}
		for _, other := range chosen {
			if why := excludes(other, all[i]); why != "" {
				return nil, fmt.Errorf("handoff %s and %s exclude one another, since %s: leave one out", other.name, name, why)
			}
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// rank is 0 for what comes first.
func rank(p protocol) int {
	if p.fds == fromThree {
		return 0
	}
	return 1
}

func excludes(a, b protocol) string {
	switch {
	case a.fds == fromFive && b.fds == fromThree, a.fds == fromThree && b.fds == fromFive:
		return "both begin at fd 3"
	case slices.ContainsFunc(a.env, func(v string) bool { return slices.Contains(b.env, v) }):
		return "a program that reads both has each socket twice"
	case a.tame && b.tame:
		return "a program uses one of these libraries"
	}
	return ""
}

// lend gives the child a further fd and tells its number.
func (p *Plan) lend(l Listener) int {
	n := p.copy(l)
	p.Numbers = append(p.Numbers, n)
	return n
}

// copy is lend for a further copy of a listener.
func (p *Plan) copy(l Listener) int {
	p.Files = append(p.Files, l.FD)
	return FirstFD + len(p.Files) - 1
}

func (p *Plan) setenv(name, value string) { p.Env = append(p.Env, name+"="+value) }

func names(listeners []Listener) string {
	var b strings.Builder
	for i, l := range listeners {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(l.Name + "=" + l.Addr)
	}
	return b.String()
}

func (l *Listener) isUnix() bool { return strings.HasPrefix(l.Network, "unix") }

// isStream reports whether connections are accepted on it.
func (l *Listener) isStream() bool { return l.Network == "tcp" || l.Network == "unix" }

// cannotSay is the error of a listener that a protocol has no word for.
func cannotSay(protocol string, l Listener, why string) error {
	return fmt.Errorf("handoff %s cannot hand over %s (%s %s): %s", protocol, l.Name, l.Network, l.Addr, why)
}
