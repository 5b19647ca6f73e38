package portdiag

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor/sockdiag"
)

// Explain says why a bind to ask.Target fails, or that it does not, who is in
// the way and what to do. It changes nothing; see try for what it tries.
//
// The error is for what kept it from looking at all. What it could not see is
// in Report.Unseen.
func Explain(ask Ask) (Report, error) {
	t := ask.Target
	r := Report{
		Asked: t.Text, Network: t.Network, Symptom: ask.Symptom, Guessed: ask.Guessed,
		At: time.Now(), target: t,
	}
	if r.Asked == "" {
		r.Asked = t.String()
	}
	var err error
	if t.unix() {
		r.Address = t.abs()
		err = r.explainPath()
	} else {
		err = r.explainPort()
	}
	if err != nil {
		return r, fmt.Errorf("cannot explain %v: %w", t, err)
	}
	r.believe()
	if len(r.Holders) > 0 {
		all := readTable()
		r.parties(all)
		r.examine(all, ask.Command)
		r.sharing()
	}
	r.blind()
	if r.errno != 0 {
		r.Errno = unix.ErrnoName(r.errno)
	}
	r.conclude()
	r.remedies(ask)
	return r, nil
}

// believe takes the program's word where a bind of ours would succeed: it was
// refused as another user, under another policy or in another namespace.
func (r *Report) believe() {
	if r.Symptom == nil || r.Verdict != Available {
		return
	}
	refuse := func(c Cause) { r.Verdict, r.Cause, r.errno = Refused, c, r.Symptom.Errno }
	switch e := r.Symptom.Errno; {
	case e != unix.EACCES && e != unix.EPERM:
	case r.target.unix():
		if !strings.HasPrefix(r.target.Path, "@") {
			refuse(Unwritable)
		}
	case r.target.Addr.Port() != 0 && r.target.Addr.Port() < unprivilegedStart():
		refuse(PrivilegedPort)
		r.Findings = slices.DeleteFunc(r.Findings, func(f Finding) bool { return f.Cause == PrivilegedPort })
	default:
		refuse(DeniedByPolicy)
	}
}

// explainPort finds the holders of a port and the cause of the conflict.
func (r *Report) explainPort() error {
	t := r.target
	if t.Port && ipv6Off() {
		// Every address of a machine without IPv6.
		t.Addr = netip.AddrPortFrom(netip.IPv4Unspecified(), t.Addr.Port())
		r.target = t
	}
	r.Address = t.Addr.String()
	r.Trials = trials(t)
	r.errno = r.Trials[0].err
	port := t.Addr.Port()
	if port == 0 {
		r.explainAnyPort()
		return nil
	}
	sockets, err := portSockets(t.Network, port)
	if err != nil {
		return err
	}
	var in, beside []sockdiag.Socket
	for _, s := range sockets {
		if socketSpan(s).overlaps(t.span()) {
			in = append(in, s)
		} else {
			beside = append(beside, s)
		}
	}
	if r.Holders, err = attributed(t.Network, in); err != nil {
		return err
	}
	switch r.errno {
	case 0, unix.EADDRINUSE:
	default:
		r.explainRefusal()
		return nil
	}
	if r.errno == unix.EADDRINUSE {
		r.explainConflict()
		return nil
	}
	return r.explainFree(beside)
}

func attributed(network string, sockets []sockdiag.Socket) ([]Holder, error) {
	cs := group(network, sockets)
	if err := attribute(cs); err != nil {
		return nil, err
	}
	return merge(cs), nil
}

func (r *Report) explainAnyPort() {
	switch r.errno {
	case 0:
		r.Verdict, r.Cause = Available, Free
	case unix.EADDRINUSE:
		r.Verdict, r.Cause = Held, NoFreePort
	default:
		r.explainRefusal()
	}
}

// explainConflict decides which of the holders is the reason.
func (r *Report) explainConflict() {
	r.Verdict = Held
	if r.trialOK("with SO_REUSEADDR") {
		r.Verdict = NeedsReuseAddr
	}
	if len(r.Holders) == 0 {
		r.Cause = UnseenHolder
		return
	}
	slices.SortStableFunc(r.Holders, func(a, b Holder) int { return r.weight(a) - r.weight(b) })
	h := r.Holders[0]
	switch {
	case h.State == Listen || h.Network == "udp" && !h.connected():
		r.Cause = r.relation(h)
	case h.State == Bound:
		r.Cause = BoundOnly
	case h.connected() && (h.Network == "udp" || r.outgoing(h)):
		r.Cause = Outgoing
	case h.State == TimeWait:
		r.Cause = TimeWaitLeft
	case len(h.Processes) == 0 && h.Hidden == "":
		r.Cause = ClosingLeft
	default:
		r.Cause = OldConnections
	}
}

// weight orders holders: what decides first. A listener blocks every bind, a
// bound socket most; of connections, those that last longest.
func (r *Report) weight(h Holder) int {
	switch {
	case h.State == Listen, h.Network == "udp" && !h.connected():
		return slices.Index([]Cause{SameAddress, WildcardHeld, DualStackHeld, SpecificHeld, DualStackAsked}, r.relation(h))
	case h.State == Bound:
		return 10
	case h.State == TimeWait:
		return 14
	case h.Inode == 0:
		return 13
	case r.outgoing(h):
		return 11
	}
	return 12
}

func (h Holder) connected() bool { return h.Remote.IsValid() }

// relation says how the address of a holder relates to the one asked for.
func (r *Report) relation(h Holder) Cause {
	asked, held := r.target.span(), h.span()
	switch {
	case r.target.Port || asked.addr == held.addr:
		return SameAddress
	case held.covers(asked) && held.addr.Is6() && asked.addr.Is4():
		return DualStackHeld
	case held.covers(asked):
		return WildcardHeld
	case asked.addr.Is6() && held.addr.Is4():
		return DualStackAsked
	}
	return SpecificHeld
}

// outgoing guesses from which side a connection was opened; the kernel does
// not keep it. Its far end is a server when somebody listens there, or when
// its port is below the range from which clients take theirs.
func (r *Report) outgoing(h Holder) bool {
	if h.State == TimeWait || h.Inode == 0 && h.State != SynSent {
		return false
	}
	if h.State == SynSent {
		return true
	}
	remote := h.Remote.Addr().Unmap()
	if remote == h.Local.Addr().Unmap() || remote.IsLoopback() {
		listeners, err := sockdiag.Inet(sockdiag.Query{Protocol: sockdiag.TCP, LocalPort: h.Remote.Port(), States: sockdiag.Mask(sockdiag.Listen)})
		if err == nil {
			far := spanOf(remote, false)
			return slices.ContainsFunc(listeners, func(s sockdiag.Socket) bool { return socketSpan(s).overlaps(far) })
		}
	}
	ports := ephemeralPorts()
	return ports.has(h.Local.Port()) && !ports.has(h.Remote.Port())
}

// explainFree says what has the same port without being in the way.
func (r *Report) explainFree(beside []sockdiag.Socket) error {
	t := r.target
	r.Verdict, r.Cause = Available, Free
	var err error
	// Holders of an address that can be bound: connections that share it.
	r.Others = r.Holders
	r.Holders = nil
	decide := func(c Cause, text string) {
		if r.Cause == Free {
			r.Cause = c
		}
		r.find(c, 0, text)
	}
	// The kernel binds a TCP socket to these, and nobody can connect to it.
	if a := t.Addr.Addr(); t.Network == "tcp" && (a.IsMulticast() || isBroadcast(a)) {
		decide(AddressUnusable, fmt.Sprintf("%v is a multicast or broadcast address: a TCP server there is never reached", a))
	}
	more, err := attributed(t.Network, beside)
	if err != nil {
		return err
	}
	for _, h := range more {
		if h.State != Listen && h.State != Bound {
			continue
		}
		r.Others = append(r.Others, h)
		switch {
		case h.V6Only && h.Local.Addr().IsUnspecified() && t.Addr.Addr().Is4():
			decide(V6OnlyApart, h.String()+" and leaves IPv4 alone")
		case t.V6Only && h.Local.Addr().Unmap().Is4():
			decide(V6OnlyApart, h.String()+", which a socket that is IPv6 only does not touch")
		default:
			decide(OtherAddress, h.String())
		}
	}
	other := map[string]string{"tcp": "udp", "udp": "tcp"}[t.Network]
	sockets, err := portSockets(other, t.Addr.Port())
	if err != nil {
		return err
	}
	sockets = slices.DeleteFunc(sockets, func(s sockdiag.Socket) bool { return !socketSpan(s).overlaps(t.span()) })
	hs, err := attributed(other, sockets)
	if err != nil {
		return err
	}
	for _, h := range hs {
		if h.State == Listen || h.State == Bound {
			r.Others = append(r.Others, h)
			decide(OtherProtocol, h.String())
		}
	}
	r.foreign(decide)
	r.portNotes()
	return nil
}

// foreign looks into the other network namespaces, for an address that is free
// here.
func (r *Report) foreign(decide func(Cause, string)) {
	fs := foreignSockets(r.target.Network, r.target.Addr.Port())
	want := map[uint64]bool{}
	for _, f := range fs {
		want[f.inode] = true
	}
	found, err := findDescriptors(want)
	if err != nil {
		return
	}
	for _, f := range fs {
		pid, who := f.pid, fmt.Sprintf("in the network namespace of pid %d", f.pid)
		if refs := found.holders[f.inode]; len(refs) > 0 {
			pid = refs[0].pid
		}
		p, err := readProcess(pid)
		if err != nil {
			continue
		}
		place := placeOf(pid)
		if len(found.holders[f.inode]) > 0 {
			who = fmt.Sprintf("pid %d (%s), user %s", pid, p.Title(titleLimit), p.User)
		}
		if place.Container != "" {
			who += fmt.Sprintf(", %s container %s", place.Runtime, shortID(place.Container))
		}
		decide(OtherNamespace, fmt.Sprintf("%s has %s %v in another network namespace", who, f.network, f.addr))
	}
}

// portNotes says what the machine's settings mean for the port.
func (r *Report) portNotes() {
	port := r.target.Addr.Port()
	if yes, list := reservedPort(port); yes {
		r.find(ReservedPort, 0, "the port is in net.ipv4.ip_local_reserved_ports ("+printable(list, 80)+"): the kernel never gives it out by chance, a bind to it succeeds")
	} else if e := ephemeralPorts(); e.has(port) {
		r.find(EphemeralPort, 0, fmt.Sprintf("the port is in the range from which outgoing connections take theirs (%d to %d): some day one of them will have it", e.low, e.high))
	}
	if start := unprivilegedStart(); port < start {
		r.find(PrivilegedPort, 0, fmt.Sprintf("ports below %d need a privilege, which this process has", start))
	}
}

// explainRefusal names the cause of every errno but EADDRINUSE.
func (r *Report) explainRefusal() {
	r.Verdict = Refused
	a := r.target.Addr.Addr()
	switch r.errno {
	case unix.EACCES, unix.EPERM:
		r.Cause = DeniedByPolicy
		if p := r.target.Addr.Port(); r.errno == unix.EACCES && p != 0 && p < unprivilegedStart() && !mayBindLow() {
			r.Cause = PrivilegedPort
		}
	case unix.EAFNOSUPPORT:
		r.Cause = IPv6Off
	case unix.ENODEV:
		r.Cause = ZoneUnknown
	case unix.EINVAL:
		r.Cause = AddressUnusable
		if (a.IsLinkLocalUnicast() || a.IsLinkLocalMulticast()) && a.Is6() && a.Zone() == "" {
			r.Cause = ZoneMissing
		}
	case unix.EADDRNOTAVAIL:
		r.Cause = AddressNotHere
		_, _, isTentative := tentative(a)
		switch {
		case isTentative:
			r.Cause = AddressTentative
		case a.Is6() && ipv6Off():
			r.Cause = IPv6Off
		}
	default:
		r.Verdict, r.Cause = Unknown, DeniedByPolicy
	}
}

func (r *Report) trialOK(how string) bool {
	return slices.ContainsFunc(r.Trials, func(t Trial) bool { return t.How == how && t.OK })
}

// sharing refines a conflict of listeners by SO_REUSEPORT, which the holder's
// options or a trial show, and adds what else the socket is.
func (r *Report) sharing() {
	h := r.Holders[0]
	if h.MPTCP {
		r.find(IsMPTCP, 0, "the holder is an MPTCP socket (Go's default): a tool that knows only TCP shows it without a process")
	}
	if h.Device != 0 {
		name := interfaceName(h.Device)
		r.find(DeviceBound, 0, "the holder is bound to the interface "+name+" only; a socket that is bound to another interface (SO_BINDTODEVICE) does not conflict")
	}
	joinable := h.Network == "tcp" && h.State == Listen || h.Network == "udp" && h.State == Bound
	if !joinable || r.errno != unix.EADDRINUSE {
		return
	}
	if r.Has(Supervised) {
		return // its lanes are a group of their own, which nobody shall join
	}
	shared := r.trialOK("with SO_REUSEPORT too")
	for _, p := range r.Parties {
		if p.ReusePort != nil && slices.ContainsFunc(h.Processes, func(q Process) bool { return q.PID == p.PID }) {
			shared = *p.ReusePort
			break
		}
	}
	if !shared {
		return
	}
	if h.UID == uint32(os.Geteuid()) {
		r.Cause = ReusePortMismatch
	} else {
		r.Cause = ReusePortUser
	}
}

// blind says who could not be seen, and names the sockets of the kernel.
func (r *Report) blind() {
	for _, h := range r.Holders {
		if len(h.Processes) > 0 || h.Inode == 0 {
			continue
		}
		if h.Hidden != "" {
			r.find(HiddenOwner, 0, "the owner of "+h.address()+" cannot be seen; the socket was made by user "+h.User)
			if !slices.Contains(r.Unseen, h.Hidden) {
				r.Unseen = append(r.Unseen, h.Hidden)
			}
		}
		if kernel := kernelOwner(h); kernel != "" {
			r.find(KernelSocket, 0, "the kernel itself has the socket: "+kernel)
			continue
		}
		if h.Hidden != "" {
			continue
		}
		text := "no process has the socket: it is of the kernel (nfsd, WireGuard and the like), or on its way between processes in a unix socket"
		if !inInitPIDNamespace() {
			text = "no process that is visible here has the socket: the owner is outside of this PID namespace (container)"
			r.Unseen = append(r.Unseen, "processes outside of this PID namespace (container) are not shown")
		}
		r.find(NoProcess, 0, text)
	}
}

// conclude writes the sentence.
func (r *Report) conclude() {
	t := r.target
	at := t.String()
	who, what := "", ""
	if len(r.Holders) > 0 {
		h := r.Holders[0]
		who = h.who()
		what = h.does()
		at = strings.TrimPrefix(at, "tcp ")
	}
	port := t.Addr.Port()
	switch r.Cause {
	case SameAddress:
		r.Sentence = fmt.Sprintf("%s is in use: %s", at, what)
	case WildcardHeld:
		r.Sentence = fmt.Sprintf("%s is in use: %s, which is every address and so %v too", at, what, t.Addr.Addr())
	case SpecificHeld:
		r.Sentence = fmt.Sprintf("%s is every address, and one of them is in use: %s", at, what)
	case DualStackHeld:
		r.Sentence = fmt.Sprintf("%s is in use: %s, which without IPV6_V6ONLY is every IPv4 address too", at, what)
	case DualStackAsked:
		r.Sentence = fmt.Sprintf("%s without IPV6_V6ONLY is every IPv4 address too, and one is in use: %s", at, what)
	case BoundOnly:
		r.Sentence = fmt.Sprintf("%s is in use: %s", at, what)
	case TimeWaitLeft:
		h := r.Holders[0]
		r.Sentence = fmt.Sprintf("nobody holds %s, but %s still in TIME_WAIT", at, plural(h.Count, "closed connection is", "closed connections are"))
		if h.Expires > 0 {
			r.Sentence += fmt.Sprintf(" for %d s", seconds(h.Expires))
		}
		r.Sentence += r.reuseWords()
	case ClosingLeft:
		h := r.Holders[0]
		r.Sentence = fmt.Sprintf("nobody holds %s, but %s in %s: the process has ended, its far ends have not acknowledged that", at, plural(h.Count, "connection is", "connections are"), h.State)
		r.Sentence += r.reuseWords()
	case OldConnections:
		r.Sentence = fmt.Sprintf("nobody listens on %s, but %s", at, what)
		r.Sentence += r.reuseWords()
	case Outgoing:
		e := ephemeralPorts()
		r.Sentence = fmt.Sprintf("%s is in use by an outgoing connection: %s", at, what)
		if e.has(port) {
			r.Sentence += fmt.Sprintf("; the port is in the range that the kernel gives to clients (%d to %d)", e.low, e.high)
		}
	case ReusePortMismatch:
		r.Sentence = fmt.Sprintf("%s is in use: %s and shares it by SO_REUSEPORT, but only with sockets that set SO_REUSEPORT as well before bind", at, what)
	case ReusePortUser:
		r.Sentence = fmt.Sprintf("%s is in use: %s and shares it by SO_REUSEPORT, but only with sockets of its own user %s", at, what, r.Holders[0].User)
	case NoFreePort:
		e := ephemeralPorts()
		r.Sentence = fmt.Sprintf("no port is free: all of the range %d to %d are taken or reserved", e.low, e.high)
	case UnseenHolder:
		r.Sentence = fmt.Sprintf("a bind to %s fails, and no socket is seen that holds it", at)
	case PrivilegedPort:
		r.Sentence = fmt.Sprintf("port %d is below %d (net.ipv4.ip_unprivileged_port_start) and needs CAP_NET_BIND_SERVICE", port, unprivilegedStart())
		if what != "" {
			r.Sentence += "; besides, it is in use: " + what
		}
	case DeniedByPolicy:
		r.Sentence = fmt.Sprintf("a security policy refuses the bind to %s with %s (Landlock, SELinux, AppArmor, a BPF program of the cgroup or seccomp); the address itself needs no privilege", at, unix.ErrnoName(r.errno))
		if len(r.Trials) > 0 && r.Trials[0].OK {
			r.Sentence += ", and from here the bind succeeds"
		}
	case AddressNotHere:
		r.Sentence = fmt.Sprintf("%v is no address of this machine", t.Addr.Addr())
		if all := localAddresses(); len(all) > 0 {
			r.Sentence += "; it has " + strings.Join(all[:min(len(all), 8)], ", ")
		}
	case AddressTentative:
		where, duplicate, _ := tentative(t.Addr.Addr())
		r.Sentence = fmt.Sprintf("%v is on %s but not usable yet: duplicate address detection is under way", t.Addr.Addr().WithZone(""), where)
		if duplicate {
			r.Sentence = fmt.Sprintf("%v is on %s but not usable: another machine on the link has it too (duplicate address detection failed)", t.Addr.Addr().WithZone(""), where)
		}
	case AddressUnusable:
		r.Sentence = fmt.Sprintf("%v is no address for a %s server: it is a multicast or broadcast address", t.Addr.Addr(), t.Network)
		if r.Verdict == Refused && !t.Addr.Addr().IsMulticast() {
			r.Sentence = fmt.Sprintf("%v is no address that a %s socket can be bound to", t.Addr.Addr(), t.Network)
		}
	case IPv6Off:
		r.Sentence = fmt.Sprintf("IPv6 is switched off here, so %v does not exist", t.Addr.Addr())
	case ZoneMissing:
		r.Sentence = fmt.Sprintf("%v is a link-local address, which is complete only with its interface", t.Addr.Addr())
	case ZoneUnknown:
		r.Sentence = fmt.Sprintf("there is no interface %q here", t.Addr.Addr().Zone())
	case Free:
		r.Sentence = at + " is free: a bind succeeds"
	case OtherProtocol:
		other := map[string]string{"tcp": "UDP", "udp": "TCP"}[t.Network]
		r.Sentence = fmt.Sprintf("%s is free: a bind succeeds; %s uses the same port number, and each has its own", at, other)
	case OtherAddress:
		r.Sentence = fmt.Sprintf("%s is free: a bind succeeds; the same port is used on another address", at)
	case V6OnlyApart:
		r.Sentence = fmt.Sprintf("%s is free: a bind succeeds; the same port is used by a socket of the other IP version, which does not touch it", at)
	case OtherNamespace:
		r.Sentence = fmt.Sprintf("%s is free: a bind succeeds; the same port is used in another network namespace, which has its own", at)
	default:
		r.concludePath(who)
	}
	if r.Verdict != Available || r.Symptom == nil {
		return
	}
	switch r.Symptom.Errno {
	case unix.EADDRINUSE:
		r.Sentence += "; whoever held it when " + programName(r.Symptom.Program) + " tried has let it go"
	case unix.EADDRNOTAVAIL:
		r.Sentence += "; when " + programName(r.Symptom.Program) + " tried, the address was not there yet, or it ran in another network namespace"
	}
}

func programName(s string) string {
	if s == "" {
		return "the program"
	}
	return s
}

// reuseWords says what the trial with SO_REUSEADDR showed.
func (r *Report) reuseWords() string {
	if r.Verdict == NeedsReuseAddr {
		return "; a bind with SO_REUSEADDR succeeds, one without fails"
	}
	return "; SO_REUSEADDR does not help, for the earlier socket did not set it"
}

// who names the owner of a holder.
func (h Holder) who() string {
	switch {
	case len(h.Processes) > 0:
		s := fmt.Sprintf("pid %d (%s)", h.Processes[0].PID, h.Processes[0].Title(titleLimit))
		if n := len(h.Processes) - 1; n > 0 {
			s += " and " + plural(n, "other process", "other processes")
		}
		return s + " of user " + h.Processes[0].User
	case h.Hidden != "":
		return "a process that we cannot see (of user " + h.User + ")"
	case h.Inode != 0:
		return "no process that we can see, but a socket of user " + h.User
	}
	return "no process"
}

// does is who and verb as a clause.
func (h Holder) does() string { return h.who() + " " + h.verb() }

// verb is what the holder does, as the rest of a sentence.
func (h Holder) verb() string {
	switch w := h.what(); {
	case h.State == Listen:
		return "listens on " + strings.TrimPrefix(w, "listening on ")
	case h.State == Bound, strings.HasPrefix(w, "bound"):
		return "is " + w
	default:
		return "has " + w
	}
}
