package portdiag

// Cause names one reason for which a bind fails, or one fact about who stands
// in its way. The text is stable: it is what --json shows.
type Cause string

// CauseInfo is a row of the table of causes.
type CauseInfo struct {
	Cause Cause
	Kind  Kind
	Errno string // what bind(2) says, "" where the cause is none of a failure
	Means string // one sentence, for the documentation
	Cure  string // likewise
}

// Kind orders the causes in the documentation.
type Kind string

const (
	KindConflict Kind = "conflict" // another socket has the address
	KindPath     Kind = "path"     // a unix path cannot be bound
	KindRefused  Kind = "refused"  // the kernel refuses the address, whoever has it
	KindFree     Kind = "free"     // nothing is in the way; what looked like it
	KindHolder   Kind = "holder"   // what the holder is, beside the cause
)

// Conflicts of TCP and UDP addresses.
const (
	SameAddress       Cause = "same-address"
	WildcardHeld      Cause = "wildcard-held"
	SpecificHeld      Cause = "specific-held"
	DualStackHeld     Cause = "dual-stack-held"
	DualStackAsked    Cause = "dual-stack-asked"
	BoundOnly         Cause = "bound-not-listening"
	TimeWaitLeft      Cause = "time-wait"
	ClosingLeft       Cause = "closing-connections"
	OldConnections    Cause = "old-connections"
	Outgoing          Cause = "outgoing-connection"
	ReusePortMismatch Cause = "reuseport-mismatch"
	ReusePortUser     Cause = "reuseport-other-user"
	NoFreePort        Cause = "no-free-port"
	UnseenHolder      Cause = "unseen-holder"
)

// Unix sockets.
const (
	AbstractHeld      Cause = "abstract-held"
	UnixLive          Cause = "unix-live"
	UnixLiveElsewhere Cause = "unix-live-elsewhere"
	UnixDead          Cause = "unix-dead"
	UnixUnknown       Cause = "unix-unknown"
	NotASocket        Cause = "path-not-socket"
	DanglingLink      Cause = "path-dangling-link"
	PathTooLong       Cause = "path-too-long"
	NoDirectory       Cause = "directory-missing"
	NotADirectory     Cause = "path-through-file"
	Unwritable        Cause = "directory-unwritable"
	ReadOnly          Cause = "directory-read-only"
)

// What the kernel refuses.
const (
	PrivilegedPort   Cause = "privileged-port"
	DeniedByPolicy   Cause = "denied-by-policy"
	AddressNotHere   Cause = "address-not-here"
	AddressTentative Cause = "address-tentative"
	AddressUnusable  Cause = "address-not-bindable"
	IPv6Off          Cause = "ipv6-off"
	ZoneMissing      Cause = "zone-missing"
	ZoneUnknown      Cause = "zone-unknown"
)

// Nothing is in the way.
const (
	Free           Cause = "free"
	OtherProtocol  Cause = "other-protocol"
	OtherAddress   Cause = "other-address"
	V6OnlyApart    Cause = "v6only-apart"
	OtherNamespace Cause = "other-namespace"
)

// What the holder is, and what else is worth knowing.
const (
	IsMPTCP         Cause = "mptcp"
	DeviceBound     Cause = "device-bound"
	ReservedPort    Cause = "reserved-port"
	EphemeralPort   Cause = "ephemeral-port"
	Forwarder       Cause = "forwarder"
	UnusedFD        Cause = "unused-descriptor"
	Supervised      Cause = "supervised"
	SystemdUnit     Cause = "systemd-unit"
	SystemdSocket   Cause = "systemd-socket"
	InContainer     Cause = "container"
	Orphan          Cause = "orphan"
	ZombieParent    Cause = "zombie-parent"
	ZombieLeader    Cause = "zombie-leader"
	Stopped         Cause = "stopped"
	OlderInstance   Cause = "older-instance"
	ReplacedProgram Cause = "replaced-program"
	KernelSocket    Cause = "kernel-socket"
	NoProcess       Cause = "no-process"
	HiddenOwner     Cause = "hidden-owner"
	PathLost        Cause = "path-lost"
)

// Causes is the table: every cause once, in the order of the documentation.
func Causes() []CauseInfo {
	return []CauseInfo{
		{SameAddress, KindConflict, "EADDRINUSE", "Another socket listens on (UDP: is bound to) this very address and port.", "End the holder, or take another port."},
		{WildcardHeld, KindConflict, "EADDRINUSE", "A socket on every address (0.0.0.0 or [::]) covers the one asked for.", "End the holder, or let it bind one address only."},
		{SpecificHeld, KindConflict, "EADDRINUSE", "Every address was asked for, and one of them is held.", "End the holder, or bind another address instead of every one."},
		{DualStackHeld, KindConflict, "EADDRINUSE", "A socket on [::] without IPV6_V6ONLY covers IPv4 too.", "End the holder, or let it set IPV6_V6ONLY (nginx: ipv6only=on)."},
		{DualStackAsked, KindConflict, "EADDRINUSE", "[::] without IPV6_V6ONLY was asked for, which takes IPv4 too, and an IPv4 address is held.", "End the holder, or set IPV6_V6ONLY, or bind IPv4 and IPv6 separately."},
		{BoundOnly, KindConflict, "EADDRINUSE", "A TCP socket is bound to the address but does not listen: tools that list listeners do not show it.", "End the holder; it may be between bind(2) and listen(2), or a client with a fixed local port."},
		{TimeWaitLeft, KindConflict, "EADDRINUSE", "Only closed connections in TIME_WAIT are left; they block a bind without SO_REUSEADDR.", "Set SO_REUSEADDR before bind(2), or wait (60 s at most)."},
		{ClosingLeft, KindConflict, "EADDRINUSE", "Connections of an ended process have not been acknowledged to their end (FIN_WAIT, LAST_ACK, CLOSING).", "Set SO_REUSEADDR before bind(2), or wait; the kernel gives them up by itself."},
		{OldConnections, KindConflict, "EADDRINUSE", "Nobody listens, but a process still has connections that were accepted at this address.", "Set SO_REUSEADDR before bind(2), or end that process: an older instance that drains, or a worker left behind."},
		{Outgoing, KindConflict, "EADDRINUSE", "An outgoing connection got the port from the range of ephemeral ports.", "Reserve the port in net.ipv4.ip_local_reserved_ports, or take one below the range; for now, end the connection."},
		{ReusePortMismatch, KindConflict, "EADDRINUSE", "The holder shares its port by SO_REUSEPORT, but only with sockets that set it as well before bind(2).", "Set SO_REUSEPORT in both (then connections are spread over both), or end the holder."},
		{ReusePortUser, KindConflict, "EADDRINUSE", "The holder shares its port by SO_REUSEPORT, but with sockets of its own user only.", "Run both as one user, or end the holder."},
		{NoFreePort, KindConflict, "EADDRINUSE", "Port 0 asks for any free port, and the range of ephemeral ports has none left.", "Widen net.ipv4.ip_local_port_range, or close connections."},
		{UnseenHolder, KindConflict, "EADDRINUSE", "The bind fails, and no socket is seen that holds the address.", "Try again; Linux before 6.8 does not show sockets that are bound and do not listen."},

		{AbstractHeld, KindPath, "EADDRINUSE", "A socket has this name in the abstract namespace.", "End the holder; the name goes with its last descriptor."},
		{UnixLive, KindPath, "EADDRINUSE", "A living server has the path.", "End the holder; it or you must then remove the path."},
		{UnixLiveElsewhere, KindPath, "EADDRINUSE", "A server answers at the path, from a network namespace that we cannot see into.", "Look for it in the container that shares the directory."},
		{UnixDead, KindPath, "EADDRINUSE", "The path is a socket that no server has any more: its server ended without removing it.", "Remove the path."},
		{UnixUnknown, KindPath, "EADDRINUSE", "The path is a socket, and whether a server has it cannot be found out with our rights.", "Ask again as root."},
		{NotASocket, KindPath, "EADDRINUSE", "Something that is no socket has the path.", "Look at it; choose another path, or remove it if it is not needed."},
		{DanglingLink, KindPath, "EADDRINUSE", "The path is a symbolic link to nothing; bind(2) does not follow it.", "Remove the link, or bind the path that it points to."},
		{PathTooLong, KindPath, "EINVAL", "The path is longer than the 107 bytes that a socket's address has room for.", "Use a shorter path, for example below /run."},
		{NoDirectory, KindPath, "ENOENT", "The directory of the path does not exist.", "Make it; for a service RuntimeDirectory= does."},
		{NotADirectory, KindPath, "ENOTDIR", "A part of the path is a file and no directory.", "Correct the path."},
		{Unwritable, KindPath, "EACCES", "The directory may not be written, or not be entered, by this user.", "Use a directory of the user's own, for example in $XDG_RUNTIME_DIR, or give it to the user."},
		{ReadOnly, KindPath, "EROFS", "The directory is on a read-only file system.", "Mount a writable directory there (a tmpfs), or choose another."},

		{PrivilegedPort, KindRefused, "EACCES", "The port is below net.ipv4.ip_unprivileged_port_start, and the process lacks CAP_NET_BIND_SERVICE.", "Let a supervisor or systemd hold the socket, or give the capability, or lower the sysctl."},
		{DeniedByPolicy, KindRefused, "EACCES or EPERM", "A security policy refuses the bind: Landlock, SELinux, AppArmor, a BPF program of the cgroup, or seccomp.", "Look at the policy: ausearch -m avc, SocketBindDeny= of the unit, the container's profile."},
		{AddressNotHere, KindRefused, "EADDRNOTAVAIL", "No interface of this machine (of this network namespace) has the address.", "Bind an address that `ip address` shows, or 0.0.0.0; IP_FREEBIND or net.ipv4.ip_nonlocal_bind=1 binds it in advance."},
		{AddressTentative, KindRefused, "EADDRNOTAVAIL", "The IPv6 address is there but not usable yet (duplicate address detection), or was found to be a duplicate.", "Wait a second, use IP_FREEBIND, or add the address with nodad."},
		{AddressUnusable, KindRefused, "EINVAL or none", "A multicast or broadcast address is none for a TCP server: IPv6 refuses it, IPv4 binds it and nobody can connect.", "Bind an address of an interface."},
		{IPv6Off, KindRefused, "EADDRNOTAVAIL or EAFNOSUPPORT", "IPv6 is switched off here, so that not even [::1] exists.", "Bind IPv4 (127.0.0.1 instead of localhost, 0.0.0.0 instead of [::]), or switch IPv6 on."},
		{ZoneMissing, KindRefused, "EINVAL", "A link-local IPv6 address is not complete without its interface.", "Write the interface: [fe80::1%eth0]:80."},
		{ZoneUnknown, KindRefused, "ENODEV", "The interface after the '%' does not exist here.", "Take one of those that `ip link` shows."},

		{Free, KindFree, "", "The bind succeeds now.", "Start the server; if it fails again, something holds the address for moments only."},
		{OtherProtocol, KindFree, "", "The same port is used by the other of TCP and UDP; they have a port space each.", "None needed."},
		{OtherAddress, KindFree, "", "The same port is used on another address of this machine.", "None needed, unless every address was meant."},
		{V6OnlyApart, KindFree, "", "The same port is used on [::] with IPV6_V6ONLY, which leaves IPv4 alone.", "None needed."},
		{OtherNamespace, KindFree, "", "The same port is used in another network namespace (a container); each has its own ports.", "None needed here; from outside, that one is reached by its own address."},

		{IsMPTCP, KindHolder, "", "The holder is an MPTCP socket (the default of Go servers since 1.24): tools that know only TCP show it without a process.", ""},
		{DeviceBound, KindHolder, "", "The holder is bound to one network interface (SO_BINDTODEVICE); it conflicts with sockets of that interface and with those of none.", "Bind the new socket to another interface."},
		{ReservedPort, KindHolder, "", "The port is in net.ipv4.ip_local_reserved_ports: never given out by chance, free for who asks for it.", ""},
		{EphemeralPort, KindHolder, "", "The port is in the range from which outgoing connections take theirs: one day one of them will have it.", "Reserve it in net.ipv4.ip_local_reserved_ports, or take a port below the range."},
		{Forwarder, KindHolder, "", "The holder only forwards the port (docker-proxy, rootlessport, ssh -L, kubectl port-forward, socat): the server is elsewhere.", "End the forwarding where it was asked for, for example docker stop."},
		{UnusedFD, KindHolder, "", "The process has the socket open but does not wait for connections on it: a descriptor that it inherited.", "End that process; in its parent, set close-on-exec on the socket."},
		{Supervised, KindHolder, "", "The address belongs to a supervise service, which keeps it over restarts on purpose.", "supervise rollout, or supervise stop."},
		{SystemdUnit, KindHolder, "", "The holder belongs to a systemd unit, which starts it again when it is killed.", "systemctl stop."},
		{SystemdSocket, KindHolder, "", "systemd itself holds the socket for a .socket unit.", "systemctl stop the .socket unit, or accept LISTEN_FDS from it."},
		{InContainer, KindHolder, "", "The holder runs in a container.", "Stop the container."},
		{Orphan, KindHolder, "", "The parent of the holder has ended and another process adopted it: a left-over, or a daemon.", "End it."},
		{ZombieParent, KindHolder, "", "The process that led the holder's group is dead and not reaped: the holder is what it left behind.", "End the holder; repair or end the parent that does not reap."},
		{ZombieLeader, KindHolder, "", "The main thread of the holder has ended, its other threads keep the socket open.", "End it."},
		{Stopped, KindHolder, "", "The holder is stopped (Ctrl-Z, SIGSTOP or a debugger): it holds the address and answers nobody.", "Let it go on (fg, kill -CONT), or end it."},
		{OlderInstance, KindHolder, "", "The holder is another instance of the same program.", "End the older one, or let a supervisor do the change."},
		{ReplacedProgram, KindHolder, "", "The program file of the holder was replaced or removed since it started: it runs an older version.", "Restart it."},
		{KernelSocket, KindHolder, "", "The kernel itself has the socket (nfsd, WireGuard, VXLAN and the like): there is no process to end.", "Remove the interface or stop the kernel's service."},
		{NoProcess, KindHolder, "", "No process that can be seen has the socket: it is in another PID namespace, on its way in a unix socket, or of the kernel.", "Look from outside of the container."},
		{HiddenOwner, KindHolder, "", "The owner cannot be seen with our rights.", "Ask again as root."},
		{PathLost, KindHolder, "", "A server was bound to this path, and the file was removed or replaced: it still runs, and nobody can reach it.", "Restart it; in the other program, do not unlink a path that is in use."},
	}
}
