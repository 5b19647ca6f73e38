package handoff

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// inheritance is what this process was given.
type inheritance struct {
	mu      sync.Mutex
	sockets []*inherited
	foreign bool   // somebody else holds the listeners: this process does not upgrade itself
	missed  string // variables that were meant for another process, in words

	einhorn  bool   // a master waits for an acknowledgement
	einSock  string // EINHORN_SOCK_PATH
	einSockF int    // EINHORN_SOCK_FD, 0: none
}

// inherited is one socket; either stream or packet is set.
type inherited struct {
	name     string // given by the supervisor; "" if none
	asked    string // "tcp :8080": what our own predecessor called it; "" from others
	protocol string // the variable that announced it
	stream   net.Listener
	packet   net.PacketConn
	taken    bool
}

// announced is a descriptor that a variable speaks of.
type announced struct {
	fd       int
	name     string
	protocol string
}

// fds opens inherited descriptors.
type fds interface {
	// open makes a listener of a descriptor, which it closes; the listener has
	// a duplicate. One of the two results is nil.
	open(fd int, name string) (net.Listener, net.PacketConn, error)
	// message writes to an inherited descriptor and closes it.
	message(fd int, text string) error
}

const (
	firstFD = 3
	// maxFDs bounds what a variable may claim; a process with more
	// listeners than that is a mistake in the variable.
	maxFDs = 1 << 16
)

// inherit reads all protocols and opens what they announce. A descriptor that
// several of them announce, as supervise does, is taken once.
func inherit(env *environment) (*inheritance, error) {
	in := &inheritance{}
	all, missed, err := systemd(env)
	in.missed = missed
	if err != nil {
		return in, err
	}
	more, err := serverStarter(env)
	if err != nil {
		return in, err
	}
	all = append(all, more...)
	more, err = in.readEinhorn(env)
	if err != nil {
		return in, err
	}
	all = append(all, more...)
	seen := map[int]bool{}
	for _, a := range all {
		if seen[a.fd] {
			continue
		}
		seen[a.fd] = true
		stream, packet, err := env.fds.open(a.fd, a.name)
		if err != nil {
			return in, fmt.Errorf("cannot use descriptor %d of %s: %w", a.fd, a.protocol, err)
		}
		in.sockets = append(in.sockets, &inherited{name: a.name, protocol: a.protocol, stream: stream, packet: packet})
	}
	in.foreign = len(all) > 0
	return in, nil
}

// systemd reads the variables of sd_listen_fds(3). missed says in words that
// they were meant for another process.
func systemd(env *environment) (all []announced, missed string, err error) {
	count, pid, names := env.take("LISTEN_FDS"), env.take("LISTEN_PID"), env.take("LISTEN_FDNAMES")
	first := env.take("LISTEN_FDS_FIRST_FD") // listenfd, systemfd
	env.take("LISTEN_PIDFDID")               // says the same as LISTEN_PID
	if count == "" {
		return nil, "", nil
	}
	if pid != strconv.Itoa(env.pid) && (pid != "" || first == "") {
		if pid == "" {
			return nil, "LISTEN_FDS=" + quote(count) + " came without LISTEN_PID", nil
		}
		return nil, fmt.Sprintf("LISTEN_FDS=%s was for process %s, and this is process %d: start it by exec, without a shell between", quote(count), quote(pid), env.pid), nil
	}
	from := firstFD
	if first != "" {
		if from, err = fdNumber("LISTEN_FDS_FIRST_FD", first); err != nil {
			return nil, "", err
		}
	}
	n, err := number("LISTEN_FDS", count)
	if err != nil {
		return nil, "", err
	}
	var name []string
	if names != "" {
		if name = strings.Split(names, ":"); len(name) != n {
			return nil, "", fmt.Errorf("cannot read LISTEN_FDNAMES=%s: %d names for %d sockets", quote(names), len(name), n)
		}
	}
	for i := range n {
		a := announced{fd: from + i, protocol: "LISTEN_FDS"}
		if name != nil && name[i] != "unknown" { // what libsystemd says where there is no name
			a.name = name[i]
		}
		all = append(all, a)
	}
	return all, "", nil
}

// serverStarter reads SERVER_STARTER_PORT: "8080=3;127.0.0.1:81=4;/run/x=5". The
// addresses in it are how start_server was called; the sockets know theirs.
func serverStarter(env *environment) ([]announced, error) {
	ports := env.take("SERVER_STARTER_PORT")
	env.take("SERVER_STARTER_GENERATION")
	if ports == "" {
		return nil, nil
	}
	var all []announced
	for item := range strings.SplitSeq(ports, ";") {
		i := strings.LastIndexByte(item, '=')
		if i < 0 {
			return nil, fmt.Errorf("cannot read SERVER_STARTER_PORT: there is no '=' in %s", quote(item))
		}
		fd, err := fdNumber("SERVER_STARTER_PORT", item[i+1:])
		if err != nil {
			return nil, err
		}
		all = append(all, announced{fd: fd, protocol: "SERVER_STARTER_PORT"})
	}
	return all, nil
}

// readEinhorn reads EINHORN_FD_COUNT, EINHORN_FD_0 and so on, and how to
// acknowledge to the master.
func (in *inheritance) readEinhorn(env *environment) ([]announced, error) {
	count, master := env.take("EINHORN_FD_COUNT"), env.take("EINHORN_MASTER_PID")
	path, sock := env.take("EINHORN_SOCK_PATH"), env.take("EINHORN_SOCK_FD")
	env.take("EINHORN_CHILD_INDEX")
	if count == "" {
		return nil, nil
	}
	n, err := number("EINHORN_FD_COUNT", count)
	if err != nil {
		return nil, err
	}
	mine := master == strconv.Itoa(env.ppid)
	var all []announced
	for i := range n {
		name := "EINHORN_FD_" + strconv.Itoa(i)
		value := env.take(name)
		if !mine {
			continue
		}
		fd, err := fdNumber(name, value)
		if err != nil {
			return nil, err
		}
		all = append(all, announced{fd: fd, protocol: "EINHORN_FD_COUNT"})
	}
	if !mine {
		if in.missed == "" {
			in.missed = fmt.Sprintf("EINHORN_FD_COUNT=%d was given by process %s, and the parent is process %d: start it by exec, without a shell between", n, quote(master), env.ppid)
		}
		return nil, nil
	}
	in.einhorn, in.einSock = true, path
	if sock != "" {
		if in.einSockF, err = fdNumber("EINHORN_SOCK_FD", sock); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// acknowledge tells an Einhorn master that this worker is ready.
func (in *inheritance) acknowledge(pid int, fds fds) error {
	if !in.einhorn || in.einSock == "" && in.einSockF == 0 {
		return nil
	}
	word, err := json.Marshal(struct {
		Command string `json:"command"`
		Pid     int    `json:"pid"`
	}{"worker:ack", pid})
	if err != nil {
		return err
	}
	word = append(word, '\n')
	if in.einSockF != 0 {
		err = fds.message(in.einSockF, string(word))
	} else {
		err = writeUnix(in.einSock, word)
	}
	if err != nil {
		return fmt.Errorf("cannot acknowledge to the Einhorn master: %w", err)
	}
	return nil
}

func writeUnix(path string, text []byte) error {
	c, err := net.DialTimeout("unix", path, notifyPatience)
	if err != nil {
		return err
	}
	err = c.SetWriteDeadline(time.Now().Add(notifyPatience))
	if err == nil {
		_, err = c.Write(text)
	}
	return errors.Join(err, c.Close())
}

// number reads how many descriptors there are.
func number(variable, s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n > maxFDs {
		return 0, fmt.Errorf("cannot read %s=%s: not a number of descriptors", variable, quote(s))
	}
	return int(n), nil
}

// fdNumber reads the number of one descriptor, which is no standard stream.
func fdNumber(variable, s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil || n < firstFD || n > 1<<30 {
		return 0, fmt.Errorf("cannot read %s: %s is not the number of an inherited descriptor", variable, quote(s))
	}
	return int(n), nil
}

// quote shows foreign text: as it is where it is plain, and not at length.
func quote(s string) string {
	if len(s) > 100 {
		s = s[:100] + "..."
	}
	if q := strconv.Quote(s); q != `"`+s+`"` || s == "" || strings.ContainsAny(s, " ") {
		return q
	}
	return s
}

// addr is the socket's address.
func (h *inherited) addr() net.Addr {
	if h.stream != nil {
		return h.stream.Addr()
	}
	return h.packet.LocalAddr()
}

// String names the socket for messages: web (tcp 127.0.0.1:8080).
func (h *inherited) String() string {
	a := h.addr().Network() + " " + h.addr().String()
	if h.name == "" {
		return a
	}
	return h.name + " (" + a + ")"
}
