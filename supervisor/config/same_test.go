package config

import (
	"reflect"
	"testing"
)

func TestSame(t *testing.T) {
	dir := unitDir(t, map[string]string{
		"a.service": "[Service]\nExecStart=/bin/a -x\nEnvironment=A=1\nSuccessExitStatus=3\n",
		"a.socket":  "[Socket]\nListenStream=127.0.0.1:8080\n",
	})
	load := func(dir string) *Service {
		u, _ := loadAll(t, dir, "a.service", "a.socket")
		return service(t, u, "a")
	}
	a := load(dir)
	moved := load(unitDir(t, map[string]string{
		"a.service": "# a line more\n[Service]\nExecStart=/bin/a -x\nEnvironment=A=1\nSuccessExitStatus=3\n",
		"a.socket":  "\n[Socket]\nListenStream=127.0.0.1:8080\n",
	}))
	if !Same(a, a) || !Same(a, moved) {
		t.Error("what is only elsewhere in the file is not the same")
	}
	for name, file := range map[string]string{
		"command": "[Service]\nExecStart=/bin/a -y\nEnvironment=A=1\nSuccessExitStatus=3\n",
		"value":   "[Service]\nExecStart=/bin/a -x\nEnvironment=A=2\nSuccessExitStatus=3\n",
		"set":     "[Service]\nExecStart=/bin/a -x\nEnvironment=A=1\nSuccessExitStatus=4\n",
		"more":    "[Service]\nExecStart=/bin/a -x\nEnvironment=A=1\nSuccessExitStatus=3\nNice=3\n",
	} {
		if Same(a, load(unitDir(t, map[string]string{"a.service": file, "a.socket": "[Socket]\nListenStream=127.0.0.1:8080\n"}))) {
			t.Errorf("%s: the same", name)
		}
	}
	if Same(a, load(unitDir(t, map[string]string{
		"a.service": "[Service]\nExecStart=/bin/a -x\nEnvironment=A=1\nSuccessExitStatus=3\n",
		"a.socket":  "[Socket]\nListenStream=127.0.0.1:8081\n",
	}))) {
		t.Error("another port is the same")
	}
	// Every field is looked at: a change of one alone is seen.
	typ := reflect.TypeFor[Service]()
	for i := range typ.NumField() {
		b := *a
		f := reflect.ValueOf(&b).Elem().Field(i)
		switch f.Kind() {
		case reflect.String:
			f.SetString(f.String() + "x")
		case reflect.Int, reflect.Int64:
			f.SetInt(f.Int() + 1)
		case reflect.Bool:
			f.SetBool(!f.Bool())
		default:
			continue
		}
		if Same(a, &b) {
			t.Errorf("%s is not looked at", typ.Field(i).Name)
		}
	}
}
