package guest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// entries are those of the unit whose message contains text.
func (u *unit) entries(text string) []map[string]any {
	u.t.Helper()
	var found []map[string]any
	wait(u.t, "the journal to have "+text, func() bool {
		_, _ = try("journalctl", "--sync")
		args := []string{"--no-pager", "-q", "-o", "json", "-u", u.name}
		if u.mark != "" {
			args = append(args, "--after-cursor="+u.mark)
		}
		out, _ := try("journalctl", args...)
		found = nil
		for line := range strings.Lines(out) {
			var e map[string]any
			if json.Unmarshal([]byte(line), &e) == nil {
				if m, _ := e["MESSAGE"].(string); strings.Contains(m, text) {
					found = append(found, e)
				}
			}
		}
		return len(found) > 0
	})
	return found
}

// What the server prints is in the journal as of the unit, with the priority
// that it wrote in front; with --output journal also under its own name and pid.
func TestJournal(t *testing.T) {
	const script = `'echo "<3>word of the server $$$$"; exec /vm/bin/plain'`
	for _, c := range []struct{ flag, identifier string }{
		{"inherit", "supervise"},
		{"journal", "web"},
	} {
		t.Run(c.flag, func(t *testing.T) {
			u := newUnit(t, "web.service", notifying(t, "/vm/bin/supervise --name web --output "+c.flag+" --listen 127.0.0.1:8080 -- /bin/sh -c "+script, "Restart=no"))
			u.do("start")
			pid := strconv.Itoa(ask(t, "tcp", "127.0.0.1:8080"))
			e := u.entries("word of the server " + pid)[0]
			for field, want := range map[string]string{
				"_SYSTEMD_UNIT": "web.service", "SYSLOG_IDENTIFIER": c.identifier, "PRIORITY": "3", "MESSAGE": "word of the server " + pid,
			} {
				if e[field] != want {
					t.Errorf("%s=%v, not %s", field, e[field], want)
				}
			}
			// A stream to journald has one _PID, that of whom systemd made it for.
			if c.flag == "journal" && e["OBJECT_PID"] != pid {
				t.Errorf("OBJECT_PID=%v, not %s", e["OBJECT_PID"], pid)
			}
			t.Log(e)
			e = u.entries(" ready: ")[0]
			if e["_PID"] != u.property("MainPID") || e["SYSLOG_IDENTIFIER"] != "supervise" {
				t.Errorf("our own words: %v", e)
			}
		})
	}
}

// As a unit of a user's own systemd.
func TestUserUnit(t *testing.T) {
	inVM(t)
	file := "/etc/systemd/user/web.service"
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(notifying(t, servers[0].exec)), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(file) })
	uid := run(t, "id", "-u", "anna")
	wait(t, "the systemd of anna", func() bool {
		_, err := os.Stat("/run/user/" + uid + "/systemd/private")
		return err == nil
	})
	systemctl := func(args ...string) string {
		return run(t, "runuser", append([]string{"-u", "anna", "--", "env", "XDG_RUNTIME_DIR=/run/user/" + uid, "systemctl", "--user"}, args...)...)
	}
	systemctl("daemon-reload")
	systemctl("start", "web.service")
	t.Cleanup(func() { systemctl("stop", "web.service") })
	pid := ask(t, "tcp", "127.0.0.1:8080")
	w := newStorm(t, "tcp", "127.0.0.1:8080")
	w.more(10)
	for range 2 {
		systemctl("reload", "web.service")
		pid = w.other(pid)
		w.more(20)
	}
	w.lost()
	if s := systemctl("show", "--value", "-p", "ActiveState", "web.service"); s != "active" {
		t.Errorf("state %s", s)
	}
	// A crash of the server is told from nothing.
	group := systemctl("show", "--value", "-p", "ControlGroup", "web.service")
	t.Log(group)
}
