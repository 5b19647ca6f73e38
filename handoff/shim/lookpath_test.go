package shim

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestLookPath(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, mode os.FileMode) {
		path := filepath.Join(dir, name)
		os.MkdirAll(filepath.Dir(path), 0o755)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("one/prog", 0o755)
	write("two/prog", 0o755)
	write("two/plain", 0o644)
	write("three/plain", 0o755)
	os.MkdirAll(filepath.Join(dir, "one/folder"), 0o755)
	path := "PATH=" + dir + "/one:" + dir + "/two"
	tests := []struct {
		name, dir, path string
		want            string
		code            int
	}{
		{"prog", "", path, dir + "/one/prog", 0},
		{"prog", "", "PATH=" + dir + "/two/:" + dir + "/one", dir + "/two/prog", 0},
		{"plain", "", path, "", 126},
		{"plain", "", path + ":" + dir + "/three", dir + "/three/plain", 0},
		{"folder", "", path, "", 126},
		{"nothing", "", path, "", 127},
		{"", "", path, "", 127},
		{"./prog", dir + "/one", path, "./prog", 0},
		{"one/prog", dir, path, "one/prog", 0},
		{"prog", dir, "PATH=two", "two/prog", 0},
		{"prog", dir + "/one", "PATH=:/nope", "./prog", 0},
		{"./prog", dir, path, "", 127},
		{dir + "/two/plain", "", path, "", 126},
		{dir + "/two/plain/x", "", path, "", 127},
		{dir + "/one", "", path, "", 126},
		{"sh", "", "X=1", "/usr/bin/sh", 0},
	}
	for _, test := range tests {
		got, err := LookPath(test.name, test.dir, []string{"PATH=/first/is/not/used", test.path}[1:])
		var e *LookError
		code := 0
		if errors.As(err, &e) {
			code = e.Code
		}
		if test.name == "sh" && code == 0 {
			continue // where it is differs
		}
		if got != test.want || code != test.code {
			t.Errorf("LookPath(%q, %q, %s) = %q, %v", test.name, test.dir, test.path, got, err)
		}
	}
}
