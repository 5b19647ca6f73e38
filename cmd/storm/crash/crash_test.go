package crash

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

const childVariable = "CRASH_TEST_CHILD"

// The test binary is the server too: it accepts one connection and no more.
func TestMain(m *testing.M) {
	if network := os.Getenv(childVariable); network != "" {
		l, err := net.Listen(network, os.Args[1])
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(l.Addr())
		c, err := l.Accept()
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		c.Write([]byte("x"))
		select {}
	}
	os.Exit(m.Run())
}

func TestTook(t *testing.T) {
	for _, test := range []struct{ network, addr string }{
		{"tcp", "127.0.0.1:0"},
		{"tcp", "[::]:0"}, // peers are IPv4-mapped
		{"unix", filepath.Join(t.TempDir(), "s")},
	} {
		t.Run(test.network+" "+test.addr, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], test.addr)
			cmd.Env = append(os.Environ(), childVariable+"="+test.network)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Wait()
			defer cmd.Process.Kill()
			addr, err := bufio.NewReader(out).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			addr = addr[:len(addr)-1]
			if test.network == "tcp" {
				_, port, err := net.SplitHostPort(addr)
				if err != nil {
					t.Fatal(addr, err)
				}
				addr = net.JoinHostPort("127.0.0.1", port)
			}
			began := time.Now()
			dial := func(name string) net.Conn {
				var d net.Dialer
				if test.network == "unix" {
					d.LocalAddr = &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("@crash-test-%d-%s", os.Getpid(), name)}
				}
				c, err := d.Dial(test.network, addr)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
				c.SetDeadline(time.Now().Add(30 * time.Second))
				return c
			}
			accepted := dial("accepted")
			if _, err := accepted.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			queued := dial("queued")
			d, err := Kill(os.Getpid(), cmd.Process.Pid)
			if err != nil {
				t.Fatal(err)
			}
			now := time.Now()
			if local := accepted.LocalAddr().String(); !d.Took(local, began, now) {
				t.Errorf("%s was accepted, and is not known: %v", local, d.taken)
			}
			if local := queued.LocalAddr().String(); d.Took(local, began, now) {
				t.Errorf("%s was queued, and is said to be accepted", local)
			}
			if local := accepted.LocalAddr().String(); d.Took(local, began, d.Stopped.Add(-1)) || d.Took(local, d.Stopped.Add(1), now) {
				t.Errorf("%s is taken for a connection of another time", local)
			}
			if d.Took("", began, now) {
				t.Error("what was never connected was taken")
			}
		})
	}
}

// Nobody is signalled who was not started here.
func TestStrangers(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	for _, pid := range []int{os.Getpid(), os.Getppid()} {
		if _, err := Kill(cmd.Process.Pid, pid); err == nil {
			t.Errorf("process %d, no descendant of %d, was killed", pid, cmd.Process.Pid)
		}
	}
	if ok, err := Descends(cmd.Process.Pid, os.Getpid()); err != nil || !ok {
		t.Errorf("a child does not descend: %v, %v", ok, err)
	}
	if ok, err := Descends(cmd.Process.Pid, os.Getppid()); err != nil || !ok {
		t.Errorf("a grandchild does not descend: %v, %v", ok, err)
	}
	if ok, _ := Descends(os.Getpid(), cmd.Process.Pid); ok {
		t.Error("a parent descends from its child")
	}
	if _, err := Descends(1<<30, os.Getpid()); err == nil {
		t.Error("a process that cannot be has parents")
	}
}
