package config

import (
	"fmt"
	"strings"
)

// foreignEnv are the variables by which some supervisor above us speaks to us.
// A child that inherited them would take fds, sockets or pids for its own that
// are not: nginx takes NGINX for a list of sockets whatever its content, and
// libsystemd refuses all sockets for a stale LISTEN_PIDFDID. A '*' at the end
// stands for any rest.
//
// Sources: sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3),
// systemd.exec(5), and the sources of the named programs.
func foreignEnv() []string {
	return []string{
		"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID",
		"LISTEN_FDS_FIRST_FD", // listenfd, systemfd
		"NOTIFY_SOCKET",
		"WATCHDOG_USEC", "WATCHDOG_PID",
		"TIMEOUT_STOP_USEC", // ours, to package handoff
		"FDSTORE",
		"MAINPID",
		"SYSTEMD_EXEC_PID",
		"INVOCATION_ID",  // the supervisor gives each generation its own
		"JOURNAL_STREAM", // names our stdout, which need not be the child's
		"TABLEFLIP_HAS_PARENT_7DIU3",
		"SERVER_STARTER_*",
		"EINHORN_*", // Einhorn, socketmaster
		"NGINX",
		"ANGIE",
		"FPM_SOCKETS",
		"GUNICORN_PID", "GUNICORN_FD",
		"UNICORN_FD",
		"PUMA_INHERIT_*",
		"UPSTART_*", // uWSGI
		"OVERSEER_*",
		"ENDLESS_*",
		"GOAGAIN_*",
	}
}

// CleanEnv gives env, in its order, without the variables that belong between
// the supervisor and its own parent. env itself is not changed.
func CleanEnv(env []string) []string {
	foreign := foreignEnv()
	var clean []string
	for _, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		if !matchesAny(name, foreign) {
			clean = append(clean, kv)
		}
	}
	return clean
}

func matchesAny(name string, patterns []string) bool {
	for _, p := range patterns {
		if prefix, ok := strings.CutSuffix(p, "*"); ok && strings.HasPrefix(name, prefix) || name == p {
			return true
		}
	}
	return false
}

// Environ gives the environment of a generation: base (CleanEnv of the
// supervisor's own, say), over it Env, over that the EnvFiles, which are read
// now. Of a name that comes more than once the last value holds.
func (s *Service) Environ(base []string) ([]string, error) {
	all := append(append([]string(nil), base...), s.Env...)
	for _, file := range s.EnvFiles {
		more, err := ReadEnvFile(file)
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
	at := make(map[string]int, len(all))
	var env []string
	for _, kv := range all {
		name, _, _ := strings.Cut(kv, "=")
		if i, ok := at[name]; ok {
			env[i] = kv
			continue
		}
		at[name] = len(env)
		env = append(env, kv)
	}
	return env, nil
}

// checkAssignment says what is wrong with K=V of Environment= and --env.
func checkAssignment(kv string) error {
	name, value, ok := strings.Cut(kv, "=")
	switch {
	case !ok:
		return fmt.Errorf("cannot read %q as a variable: there is no '='; write %s=value", kv, kv)
	case !validEnvName(name):
		return fmt.Errorf("cannot read %q as a variable: %q is no name; names have letters, digits and '_'", kv, name)
	case strings.IndexByte(value, 0) >= 0:
		return fmt.Errorf("cannot set variable %s: there is a NUL byte in its value", name)
	}
	return nil
}
