package logs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// journald is the receiving half of the native protocol.
type journald struct {
	path string
	fd   int
}

func newJournald(t testing.TB) *journald {
	t.Helper()
	j := &journald{path: filepath.Join(t.TempDir(), "socket")}
	j.listen(t)
	t.Cleanup(func() { unix.Close(j.fd) })
	return j
}

func (j *journald) listen(t testing.TB) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Unlink(j.path)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: j.path}); err != nil {
		t.Fatal(err)
	}
	tv := unix.NsecToTimeval(int64(deadline))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		t.Fatal(err)
	}
	j.fd = fd
}

// receive gives the fields of the next entry.
func (j *journald) receive(t testing.TB) map[string]string {
	t.Helper()
	buf, oob := make([]byte, 1<<20), make([]byte, 64)
	n, on, _, _, err := unix.Recvmsg(j.fd, buf, oob, 0)
	if err != nil {
		t.Fatal("nothing comes:", err)
	}
	b := buf[:n]
	if on > 0 {
		b = readRights(t, oob[:on])
	}
	fields, err := parseEntry(b)
	if err != nil {
		t.Fatalf("%v: %q", err, b)
	}
	return fields
}

func readRights(t testing.TB, oob []byte) []byte {
	t.Helper()
	m, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		t.Fatal(err)
	}
	fds, err := unix.ParseUnixRights(&m[0])
	if err != nil || len(fds) != 1 {
		t.Fatal(fds, err)
	}
	defer unix.Close(fds[0])
	seals, err := unix.FcntlInt(uintptr(fds[0]), unix.F_GET_SEALS, 0)
	if err != nil || seals&unix.F_SEAL_WRITE == 0 {
		t.Error("not sealed:", seals, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fds[0], &st); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, st.Size)
	if n, err := unix.Pread(fds[0], b, 0); n != len(b) {
		t.Fatal(n, err)
	}
	return b
}

// parseEntry reads what systemd.io/JOURNAL_NATIVE_PROTOCOL describes.
func parseEntry(b []byte) (map[string]string, error) {
	fields := map[string]string{}
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			return nil, fmt.Errorf("a field without its end")
		}
		if name, value, ok := bytes.Cut(b[:i], []byte{'='}); ok {
			fields[string(name)], b = string(value), b[i+1:]
			continue
		}
		name := string(b[:i])
		b = b[i+1:]
		if len(b) < 8 {
			return nil, fmt.Errorf("%s has no length", name)
		}
		n := binary.LittleEndian.Uint64(b)
		if uint64(len(b)) < 8+n+1 || b[8+n] != '\n' {
			return nil, fmt.Errorf("%s is cut", name)
		}
		fields[name], b = string(b[8:8+n]), b[8+n+1:]
	}
	return fields, nil
}

func TestJournal(t *testing.T) {
	j := newJournald(t)
	to := Place{Journal: &Journal{
		Identifier: "web", Service: "web.service", Generation: 7, Invocation: "abc", Socket: j.path,
	}}
	out := newOutput(t, Options{Stdout: to, Stderr: to})
	if !out.Captured() || out.ChildStdout() != out.ChildStderr() {
		t.Error("not one pipe")
	}
	out.SetPID(4711)
	long := strings.Repeat("y", lineMax+10)
	write(t, out, "hello\n<3>bad\n<30>daemon\n<a>b\n\n\xff\x00\x01\n"+long+"\nlast")
	out.Started()
	for _, want := range []map[string]string{
		{"MESSAGE": "hello", "PRIORITY": "6"},
		{"MESSAGE": "bad", "PRIORITY": "3"},
		{"MESSAGE": "daemon", "PRIORITY": "6", "SYSLOG_FACILITY": "3"},
		{"MESSAGE": "<a>b", "PRIORITY": "6"},
		{"MESSAGE": "", "PRIORITY": "6"},
		{"MESSAGE": "\xff\x00\x01", "PRIORITY": "6"},
		{"MESSAGE": long[:lineMax], "PRIORITY": "6", "LINE_BREAK": "line-max"},
		{"MESSAGE": long[lineMax:], "PRIORITY": "6"},
		{"MESSAGE": "last", "PRIORITY": "6", "LINE_BREAK": "eof"},
	} {
		for k, v := range map[string]string{
			"SYSLOG_IDENTIFIER": "web", "SUPERVISE_SERVICE": "web.service", "SUPERVISE_GENERATION": "7",
			"SUPERVISE_INVOCATION_ID": "abc", "OBJECT_PID": "4711", "SYSLOG_PID": "4711",
		} {
			want[k] = v
		}
		got := j.receive(t)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%.200q, not %.200q", got, want)
		}
	}
	waitEOF(t, out)
	mustClose(t, out)
}

// What is too large for a datagram goes by a sealed file.
func TestJournalLarge(t *testing.T) {
	j := newJournald(t)
	d := newJournalDest(Journal{Identifier: "x", Socket: j.path}, &(&Output{}).pid)
	defer d.close()
	if err := d.connect(); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptInt(d.sock, unix.SOL_SOCKET, unix.SO_SNDBUF, 1); err != nil {
		t.Fatal(err)
	}
	line := strings.Repeat("z", 40000)
	if _, err := d.try([]byte(line + "\n")); err != nil {
		t.Fatal(err)
	}
	if got := j.receive(t); got["MESSAGE"] != line {
		t.Errorf("%d bytes", len(got["MESSAGE"]))
	}
}

// Entries are the lines, however the stream is cut, and whenever journald is busy.
func TestJournalLines(t *testing.T) {
	dir := t.TempDir()
	count := 0
	rapid.Check(t, func(r *rapid.T) {
		count++
		j := &journald{path: filepath.Join(dir, strconv.Itoa(count))}
		j.listen(t)
		defer unix.Close(j.fd)
		d := newJournalDest(Journal{Socket: j.path}, &(&Output{}).pid)
		defer d.close()
		var all string
		var got []string
		for _, piece := range rapid.SliceOfN(rapid.StringMatching(`[ab\n]{0,40}`), 1, 20).Draw(r, "pieces") {
			all += piece
			for b := []byte(piece); len(b) > 0; {
				n, err := d.try(b)
				b = b[n:]
				if err == unix.EAGAIN { // its queue is full: 10 datagrams, as a rule
					got = append(got, j.receive(t)["MESSAGE"])
				} else if err != nil {
					r.Fatal(err)
				}
			}
		}
		want := strings.Split(all, "\n")
		want = want[:len(want)-1]
		for len(got) < len(want) {
			got = append(got, j.receive(t)["MESSAGE"])
		}
		if strings.Join(got, "|") != strings.Join(want, "|") {
			r.Errorf("%q, not %q", got, want)
		}
	})
}

// journald goes away and comes back: said once, with what was lost.
func TestJournalRestart(t *testing.T) {
	j := newJournald(t)
	said := make(chan error, 10)
	to := Place{Journal: &Journal{Socket: j.path}}
	out := newOutput(t, Options{Stdout: to, Stderr: to, Report: func(err error) { said <- err }})
	write := func(s string) {
		if _, err := unix.Write(out.ChildStdout(), []byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	write("one\n")
	if got := j.receive(t)["MESSAGE"]; got != "one" {
		t.Error(got)
	}
	unix.Close(j.fd)
	write("lost\n")
	if err := <-said; !strings.Contains(err.Error(), "cannot pass on output") {
		t.Error(err)
	}
	write("lost too\n")
	for end := time.Now().Add(deadline); ; time.Sleep(time.Millisecond) {
		if lines, _ := out.Dropped(); lines == 2 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("not dropped")
		}
	}
	j.listen(t)
	write("two\n")
	if got := j.receive(t)["MESSAGE"]; got != "two" {
		t.Error(got)
	}
	if err := <-said; !strings.HasPrefix(err.Error(), "output was dropped: 2 lines, 14 bytes") {
		t.Error(err)
	}
	mustClose(t, out)
}

func FuzzSplitPriority(f *testing.F) {
	for _, s := range []string{"", "<", "<3>x", "<30>", "<191>a", "<192>a", "<1", "<>x", "<0000>"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		p, facility, text := splitPriority(line)
		if p < '0' || p > '7' || facility < -1 || facility > 23 || !bytes.HasSuffix(line, text) || len(line)-len(text) > 5 {
			t.Errorf("%q: %c %d %q", line, p, facility, text)
		}
	})
}

// swallow is a journald that reads and forgets.
func swallow(t testing.TB) string {
	j := &journald{path: filepath.Join(t.TempDir(), "socket")}
	j.listen(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 64<<10)
		for {
			if _, err := unix.Read(j.fd, buf); err != nil && err != unix.EINTR {
				return
			}
		}
	})
	t.Cleanup(func() {
		_ = unix.Shutdown(j.fd, unix.SHUT_RDWR)
		wg.Wait()
		unix.Close(j.fd)
	})
	return j.path
}
