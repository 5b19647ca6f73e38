package wire

import (
	"bytes"
	"strconv"
)

// addEinhorn is the worker's protocol of Einhorn (README, "Writing workers"):
// the numbers, and where to acknowledge. Workers look whether EINHORN_MASTER_PID
// is their parent.
//
// EINHORN_FDS is the form before 0.4, which socketmaster still uses.
func addEinhorn(r *Request, p *Plan) error {
	var list []byte
	p.setenv("EINHORN_MASTER_PID", strconv.Itoa(r.Ack.Master))
	p.setenv("EINHORN_SOCK_PATH", r.Ack.Socket)
	p.setenv("EINHORN_FD_COUNT", strconv.Itoa(len(r.Listeners)))
	for i := range r.Listeners {
		n := strconv.Itoa(p.Numbers[i])
		p.setenv("EINHORN_FD_"+strconv.Itoa(i), n)
		if i > 0 {
			list = append(list, ' ')
		}
		list = append(list, n...)
	}
	p.setenv("EINHORN_FDS", string(list))
	p.setenv("EINHORN_CHILD_INDEX", "0")
	return nil
}

// ParseAck reads a command that an Einhorn worker sends, one line: the pid that
// it acknowledges. ok is false for every other command and for what is none.
//
// The line is YAML with '%' and newline written %25 and %0A, and in practice
// JSON or the two-line YAML of Ruby's library: {"command":"worker:ack","pid":7}, or
// "command: worker:ack" and "pid: 7".
func ParseAck(line []byte) (pid int, ok bool) {
	line = bytes.ReplaceAll(bytes.ReplaceAll(line, []byte("%0A"), []byte("\n")), []byte("%25"), []byte("%"))
	fields := bytes.FieldsFunc(line, func(r rune) bool {
		return r == '{' || r == '}' || r == ',' || r == '\n' || r == '\r'
	})
	for _, field := range fields {
		key, value, _ := bytes.Cut(bytes.TrimLeft(field, " \t\"':"), []byte(":"))
		key, value = bare(key), bare(value)
		switch string(key) {
		case "command":
			ok = string(value) == "worker:ack"
		case "pid":
			n, err := strconv.ParseInt(string(value), 10, 32)
			if err != nil || n <= 0 {
				return 0, false
			}
			pid = int(n)
		}
	}
	if !ok || pid == 0 {
		return 0, false
	}
	return pid, true
}

// bare takes blanks, quotes and the ':' of a Ruby symbol off.
func bare(b []byte) []byte { return bytes.Trim(b, " \t\"':") }
