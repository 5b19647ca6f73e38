package packaging

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// build makes the packages for this machine, and skips where the module proxy
// with nfpm cannot be reached.
func build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("./build", "-a", runtime.GOARCH, dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		for _, why := range []string{"dial tcp", "no such host", "connection refused", "Forbidden"} {
			if bytes.Contains(out, []byte(why)) {
				t.Skipf("nfpm cannot be fetched here: %s", out)
			}
		}
		t.Fatalf("%v: %s", err, out)
	}
	return dir
}

// The packages are the same bytes each time, and the deb can be installed into
// a root, works there, and leaves nothing when it is purged.
func TestPackages(t *testing.T) {
	if testing.Short() {
		t.Skip("builds packages twice")
	}
	dir := build(t)
	sums := func(dir string) string {
		text, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if a, b := sums(dir), sums(build(t)); a != b {
		t.Errorf("two builds differ:\n%s\n%s", a, b)
	} else if n := strings.Count(a, "\n"); n != 5 {
		t.Errorf("%d files, not sbom, archive, deb, rpm, apk:\n%s", n, a)
	}

	if os.Getuid() != 0 {
		t.Skip("only root can install")
	}
	if _, err := exec.LookPath("dpkg"); err != nil {
		t.Skip(err)
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != 1 {
		t.Fatal(debs, err)
	}
	root := t.TempDir()
	admin := filepath.Join(root, "var/lib/dpkg")
	for _, d := range []string{"info", "updates", "triggers"} {
		if err := os.MkdirAll(filepath.Join(admin, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"status", "available"} {
		if err := os.WriteFile(filepath.Join(admin, f), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	dpkg := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("dpkg", append([]string{"--root=" + root, "--log=" + filepath.Join(root, "log")}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("dpkg %q: %v: %s", args, err, out)
		}
		return string(out)
	}
	before := files(t, root)
	dpkg("--install", debs[0])
	for _, file := range []string{
		"usr/bin/supervise", "usr/lib/systemd/system/supervise@.service", "usr/share/doc/supervise/sbom.json",
		"usr/share/doc/supervise/examples/web.socket", "usr/share/man/man1/supervise.1.gz", "usr/share/man/man7/handoff.7.gz",
		"usr/share/bash-completion/completions/supervise", "usr/share/zsh/vendor-completions/_supervise",
		"usr/share/fish/vendor_completions.d/supervise.fish", "etc/supervise",
	} {
		if _, err := os.Stat(filepath.Join(root, file)); err != nil {
			t.Error(err)
		}
	}
	if out, err := exec.Command("chroot", root, "/usr/bin/supervise", "version").CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "supervise ") {
		t.Errorf("the installed program: %v: %s", err, out)
	}
	// The unit that systemd would read: each command it names is there.
	unit, err := os.ReadFile(filepath.Join(root, "usr/lib/systemd/system/supervise@.service"))
	if err != nil || !bytes.Contains(unit, []byte("\nExecStart=/usr/bin/supervise run ")) {
		t.Errorf("%v: %s", err, unit)
	}
	dpkg("--purge", "supervise")
	for file := range files(t, root) {
		if !before[file] && !strings.HasPrefix(file, "/var/lib/dpkg") && file != "/log" {
			t.Errorf("%s is left", file)
		}
	}
}

// files are the names of the files below root; directories do not count.
func files(t *testing.T, root string) map[string]bool {
	t.Helper()
	all := make(map[string]bool)
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			all[strings.TrimPrefix(path, root)] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// What the shells are given is a program of theirs.
func TestCompletions(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "supervise")
	cmd := exec.Command("go", "build", "-o", bin, "../cmd/supervise")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		text, err := exec.Command(bin, "completion", shell).Output()
		if err != nil || len(text) < 500 {
			t.Fatalf("%s: %v: %s", shell, err, text)
		}
		if _, err := exec.LookPath(shell); err != nil {
			t.Log(err)
			continue
		}
		check := exec.Command(shell, "-n")
		check.Stdin = bytes.NewReader(text)
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", shell, err, out)
		}
	}
	out, err := exec.Command(bin, "__complete", "--timeout-st").Output()
	if err != nil || !strings.Contains(string(out), "--timeout-stop") {
		t.Errorf("completing a flag: %v: %s", err, out)
	}
}
