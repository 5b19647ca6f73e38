package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// unitsOfPackages are units of Debian's packages that are to load, whatever else
// does. They are read where the package is installed, or below the directory
// that SUPERVISE_TEST_UNITS names, into which packages were unpacked
// (apt-get download PACKAGE; dpkg-deb -x PACKAGE.deb DIR/PACKAGE): most of their
// licences would not let them stand here.
const unitsOfPackages = `nginx.service redis-server.service ssh.service ssh.socket postgresql.service apache2.service mariadb.service
	mariadb.socket postfix.service dovecot.service dovecot.socket memcached.service varnish.service lighttpd.service caddy.service
	cron.service rsyslog.service containerd.service docker.service docker.socket chrony.service named.service unbound.service squid.service
	dnsmasq.service prometheus.service prometheus-node-exporter.service etcd.service rabbitmq-server.service mosquitto.service tor.service
	rsync.service knot.service vsftpd.service php8.2-fpm.service cups.service cups.socket saned.socket`

// TestInstalledUnits loads every service and socket of the packages that are
// installed. What keeps one from being loaded may only be what the table says is
// refused, never a thing that we cannot read.
func TestInstalledUnits(t *testing.T) {
	dirs := []string{"/lib/systemd/system"}
	if more := os.Getenv("SUPERVISE_TEST_UNITS"); more != "" {
		found, err := filepath.Glob(filepath.Join(more, "*", "lib", "systemd", "system"))
		if err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, found...)
	}
	wanted := map[string]bool{}
	for _, name := range strings.Fields(unitsOfPackages) {
		wanted[name] = false
	}
	loaded, refused := 0, map[string]string{}
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			name, err := parseUnitName(e.Name())
			if err != nil || e.IsDir() || name.suffix != ".service" && name.suffix != ".socket" || isMask(filepath.Join(dir, e.Name())) {
				continue
			}
			if name.isTemplate() {
				name.instance = "instance"
			}
			_, _, err = Load([]string{filepath.Join(dir, name.String())}, LoadOptions{Without: []string{"sandbox"}})
			if err == nil {
				loaded++
				wanted[e.Name()] = true
				continue
			}
			var load *LoadError
			if !errors.As(err, &load) {
				t.Fatal(err)
			}
			for _, err := range load.Errs {
				var unsupported *UnsupportedError
				text := err.Error()
				switch {
				case errors.As(err, &unsupported):
					refused[e.Name()] = unsupported.Name
				case strings.Contains(text, "is masked"):
				case strings.Contains(text, "there is no address") && refused[e.Name()] != "":
				case strings.Contains(text, "to be lent its listeners"): // syslog.socket, whose service is an alias
					refused[e.Name()] = "no service beside it"
				case strings.Contains(text, "there is no command"): // what SuccessAction= alone does
					refused[e.Name()] = "no command"
				default:
					t.Errorf("%s: %s", e.Name(), text)
				}
			}
		}
	}
	if loaded == 0 {
		t.Skip("no unit files are installed here")
	}
	t.Logf("%d loaded, %d refused: %v", loaded, len(refused), refused)
	there, list := 0, strings.Fields(unitsOfPackages)
	for _, name := range list {
		if wanted[name] {
			there++
			continue
		}
		for _, dir := range dirs {
			if file := filepath.Join(dir, name); !isMask(file) {
				if _, err := os.Stat(file); err == nil && refused[name] == "" {
					t.Errorf("%s does not load", file)
				}
			}
		}
	}
	t.Logf("%d of the %d that are to load are here and do", there, len(list))
}
