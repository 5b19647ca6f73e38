package signs

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// build makes a Go program in a module of its own.
func build(t *testing.T, source string, flags ...string) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", "module example.com/server\n\ngo 1.26\n\nrequire (\n\tgithub.com/cloudflare/tableflip v1.0.0\n\tgithub.com/facebookgo/grace v1.0.0\n\tgithub.com/supervise/supervise v1.0.0\n)\n\n"+
		"replace (\n\tgithub.com/cloudflare/tableflip => ./tableflip\n\tgithub.com/facebookgo/grace => ./grace\n\tgithub.com/supervise/supervise => ./supervise\n)\n")
	write("main.go", source)
	write("tableflip/go.mod", "module github.com/cloudflare/tableflip\n")
	write("tableflip/t.go", "package tableflip\n\nimport \"os\"\n\nfunc Parent() string { return os.Getenv(\"TABLEFLIP_HAS_PARENT_7DIU3\") }\n")
	write("grace/go.mod", "module github.com/facebookgo/grace\n")
	write("grace/gracehttp/g.go", "package gracehttp\n\nimport \"os\"\n\n//go:noinline\nfunc Parent() string { return os.Getenv(\"LISTEN_FDS\") }\n")
	write("supervise/go.mod", "module github.com/supervise/supervise\n")
	write("supervise/handoff/h.go", "package handoff\n\nimport \"os\"\n\n//go:noinline\nfunc Listen() string { return os.Getenv(\"LISTEN_FDS\") }\n")
	bin := filepath.Join(dir, "server")
	cmd := exec.Command("go", append(append([]string{"build", "-mod=mod", "-o", bin}, flags...), ".")...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false", "GOPROXY=off", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return bin
}

const (
	plainProgram = "package main\n\nfunc main() { println() }\n"
	flipProgram  = "package main\n\nimport \"github.com/cloudflare/tableflip\"\n\nfunc main() { println(tableflip.Parent()) }\n"
	graceProgram = "package main\n\nimport \"github.com/facebookgo/grace/gracehttp\"\n\nfunc main() { println(gracehttp.Parent()) }\n"
	oursProgram  = "package main\n\nimport (\n\t\"github.com/cloudflare/tableflip\"\n\t\"github.com/supervise/supervise/handoff\"\n)\n\nfunc main() { println(tableflip.Parent(), handoff.Listen()) }\n"
	copyProgram  = "package main\n\nimport \"os\"\n\nfunc main() { println(os.Getenv(\"TABLEFLIP_HAS_PARENT_7DIU3\")) }\n"
)

func TestOf(t *testing.T) {
	for _, c := range []struct {
		name, source string
		flags        []string
		want         Signs
	}{
		{"plain", plainProgram, nil, Signs{}},
		{"tableflip", flipProgram, nil, Signs{Tableflip: true}},
		{"stripped", flipProgram, []string{"-trimpath", "-ldflags=-s -w"}, Signs{Tableflip: true}},
		{"pie", flipProgram, []string{"-buildmode=pie"}, Signs{Tableflip: true}},
		{"grace", graceProgram, []string{"-ldflags=-s -w"}, Signs{Grace: true}},
		{"ours", oursProgram, []string{"-ldflags=-s -w"}, Signs{}},
		{"copied", copyProgram, nil, Signs{}}, // the module list says no
	} {
		t.Run(c.name, func(t *testing.T) {
			bin := build(t, c.source, c.flags...)
			if got := Of(bin); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
			// Without a module list the text alone decides.
			b, err := os.ReadFile(bin)
			if err != nil {
				t.Fatal(err)
			}
			want := c.want
			want.Tableflip = want.Tableflip || c.name == "copied"
			b = bytes.ReplaceAll(b, []byte("\xff Go buildinf:"), []byte("\xff no buildinf:"))
			if got := look(bytes.NewReader(b)); got != want {
				t.Errorf("without modules: %+v, want %+v", got, want)
			}
		})
	}
}

func TestOfOthers(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n# TABLEFLIP_HAS_PARENT_7DIU3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	var c Cache
	for _, path := range []string{script, fifo, dir, dir + "/none", "/dev/zero", "/bin/true"} {
		if got := Of(path); got != (Signs{}) {
			t.Errorf("%s: %+v", path, got)
		}
		if got := c.Of(path); got != (Signs{}) {
			t.Errorf("%s: %+v", path, got)
		}
	}
}

// TestCache: a file is looked at once, and another file of the same name again.
func TestCache(t *testing.T) {
	flip, plain := build(t, flipProgram), build(t, plainProgram)
	var c Cache
	for range 2 {
		if !c.Of(flip).Tableflip {
			t.Fatal("not found")
		}
	}
	if len(c.known) != 1 {
		t.Fatalf("%d files are known", len(c.known))
	}
	if err := os.Rename(plain, flip); err != nil {
		t.Fatal(err)
	}
	if c.Of(flip).Tableflip {
		t.Error("the file before is remembered")
	}
}

// FuzzLook: no file makes it fail or read without end.
func FuzzLook(f *testing.F) {
	head := make([]byte, 4096)
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		f.Fatal(err)
	}
	defer exe.Close()
	if _, err := exe.ReadAt(head, 0); err != nil {
		f.Fatal(err)
	}
	f.Add(head)
	f.Add([]byte("\x7fELF\x01\x01"))
	f.Fuzz(func(_ *testing.T, b []byte) { look(bytes.NewReader(b)) })
}

func BenchmarkOf(b *testing.B) {
	goTool, err := exec.LookPath("go")
	if err != nil {
		b.Skip(err)
	}
	for name, path := range map[string]string{"true": "/bin/true", "go": goTool} {
		b.Run(name, func(b *testing.B) {
			for range b.N {
				Of(path)
			}
		})
	}
	b.Run("known", func(b *testing.B) {
		var c Cache
		for range b.N {
			c.Of(goTool)
		}
	})
}
