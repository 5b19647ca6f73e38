package logs

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// JournalSocket is where journald listens for its native protocol.
const JournalSocket = "/run/systemd/journal/socket"

// lineMax is LineMax= of journald.conf(5), its default: where journald splits a
// line that it reads from a service.
const lineMax = 48 << 10

// defaultPriority is that of SyslogLevel= in systemd.exec(5): info.
const defaultPriority = '6'

// Journal says how output is sent to the journal: each line an entry, in the
// native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL). A line may begin with its
// priority, "<3>", as sd-daemon(3) has it, or with "<N>" of syslog, which has a
// facility in it. Fields are MESSAGE, PRIORITY, SYSLOG_IDENTIFIER, OBJECT_PID and
// the ones below.
//
// It is written here and not with go-systemd's journal package, because that one
// waits for ever when journald does not read, and makes a map and a buffer for
// each line.
type Journal struct {
	Identifier string // SYSLOG_IDENTIFIER: journalctl -t
	Service    string // SUPERVISE_SERVICE
	Generation int    // SUPERVISE_GENERATION
	Invocation string // SUPERVISE_INVOCATION_ID, "" for none
	Socket     string // "" is JournalSocket
}

type journalDest struct {
	path  string
	fixed []byte // fields that are the same for each line
	pid   *atomic.Int64

	waits int // milliseconds that were waited for the pid

	sock int // -1 when there is none
	held []byte
	msg  []byte
}

// maxWaits bounds, once for each output, how long its pid is waited for.
const maxWaits = 100

func newJournalDest(j Journal, pid *atomic.Int64) *journalDest {
	d := &journalDest{path: j.Socket, pid: pid, sock: -1}
	if d.path == "" {
		d.path = JournalSocket
	}
	field := func(name, value string) {
		if value != "" {
			d.fixed = appendField(d.fixed, name, []byte(value))
		}
	}
	field("SYSLOG_IDENTIFIER", j.Identifier)
	field("SUPERVISE_SERVICE", j.Service)
	field("SUPERVISE_GENERATION", strconv.Itoa(j.Generation))
	field("SUPERVISE_INVOCATION_ID", j.Invocation)
	return d
}

// appendField writes one field: the simple form, or, for what has a line feed in
// it, the one with a length.
func appendField(b []byte, name string, value []byte) []byte {
	b = append(b, name...)
	if bytes.IndexByte(value, '\n') < 0 {
		b = append(b, '=')
	} else {
		b = append(b, '\n')
		b = binary.LittleEndian.AppendUint64(b, uint64(len(value)))
	}
	return append(append(b, value...), '\n')
}

func (d *journalDest) fd() int { return d.sock }

// hopeless: journald may be started again.
func (d *journalDest) hopeless(error) bool { return false }

func (d *journalDest) close() { d.disconnect() }

func (d *journalDest) disconnect() {
	if d.sock >= 0 {
		unix.Close(d.sock)
		d.sock = -1
	}
}

// try sends each whole line of b. What has no end yet is held.
func (d *journalDest) try(b []byte) (int, error) {
	done := 0
	for done < len(b) {
		rest := b[done:]
		room := lineMax - len(d.held)
		i := bytes.IndexByte(rest[:min(len(rest), room+1)], '\n')
		var line []byte
		taken, why := 0, ""
		switch {
		case i >= 0:
			line, taken = rest[:i], i+1
		case len(rest) <= room:
			d.held = append(d.held, rest...)
			return len(b), nil
		default:
			line, taken, why = rest[:room], room, "line-max"
		}
		if len(d.held) > 0 {
			line = append(d.held, line...) // beyond its length: kept only if it is sent
		}
		if err := d.send(line, why); err != nil {
			return done, err
		}
		d.held = d.held[:0]
		done += taken
	}
	return done, nil
}

// end sends what has no end.
func (d *journalDest) end() {
	if len(d.held) == 0 {
		return
	}
	_ = d.send(d.held, "eof") // its stream has ended: there is nobody to wait
	d.held = d.held[:0]
}

// send sends one line. why says that it did not end by itself.
func (d *journalDest) send(line []byte, why string) error {
	priority, facility, text := splitPriority(line)
	m := append(d.msg[:0], d.fixed...)
	m = append(append(m, "PRIORITY="...), priority, '\n')
	if facility >= 0 {
		m = append(strconv.AppendInt(append(m, "SYSLOG_FACILITY="...), int64(facility), 10), '\n')
	}
	for ; d.pid.Load() == 0 && d.waits < maxWaits; d.waits++ {
		time.Sleep(time.Millisecond) // it writes already, and our side of the fork has not returned
	}
	if pid := d.pid.Load(); pid > 0 {
		m = append(strconv.AppendInt(append(m, "OBJECT_PID="...), pid, 10), '\n')
		m = append(strconv.AppendInt(append(m, "SYSLOG_PID="...), pid, 10), '\n')
	}
	if why != "" {
		m = append(append(append(m, "LINE_BREAK="...), why...), '\n')
	}
	m = appendField(m, "MESSAGE", text)
	d.msg = m
	fresh := d.sock < 0
	for {
		err := d.connect()
		if err == nil {
			err = d.sendmsg(m, -1)
		}
		switch err {
		case nil:
			return nil
		case unix.EMSGSIZE, unix.ENOBUFS:
			return d.sendFile(m)
		case unix.ECONNREFUSED, unix.ENOTCONN, unix.ECONNRESET, unix.EPIPE:
			// journald was started again, with another socket.
			d.disconnect()
			if fresh {
				return err
			}
			fresh = true
		default:
			return err
		}
	}
}

// connect connects: poll(2) then knows about the receiver's queue.
func (d *journalDest) connect() error {
	if d.sock >= 0 {
		return nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: d.path}); err != nil {
		unix.Close(fd)
		return err
	}
	d.sock = fd
	return nil
}

// sendmsg sends m, or the descriptor of a file with the message in it.
func (d *journalDest) sendmsg(m []byte, file int) error {
	var rights []byte
	if file >= 0 {
		rights = unix.UnixRights(file)
	}
	for {
		err := unix.Sendmsg(d.sock, m, rights, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return err
		}
	}
}

// sendFile sends what is too large for a datagram here: a sealed memfd.
func (d *journalDest) sendFile(m []byte) error {
	fd, err := unix.MemfdCreate("journal", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for len(m) > 0 {
		n, err := unix.Write(fd, m)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		m = m[n:]
	}
	const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return err
	}
	return d.sendmsg(nil, fd)
}

// splitPriority takes "<N>" off a line: the priority in the lowest three bits,
// the facility above them, -1 where there is none. What is not such a number is
// part of the text.
func splitPriority(line []byte) (priority byte, facility int, text []byte) {
	const longest = len("<191>")
	if len(line) < 3 || line[0] != '<' {
		return defaultPriority, -1, line
	}
	i := bytes.IndexByte(line[:min(len(line), longest)], '>')
	if i < 2 {
		return defaultPriority, -1, line
	}
	n := 0
	for _, c := range line[1:i] {
		if c < '0' || c > '9' {
			return defaultPriority, -1, line
		}
		n = 10*n + int(c-'0')
	}
	if n > 191 { // local7.debug
		return defaultPriority, -1, line
	}
	facility = n >> 3
	if i == 2 { // sd-daemon(3) knows no facility
		facility = -1
	}
	return '0' + byte(n&7), facility, line[i+1:]
}
