package wire

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cloudflare/tableflip"
	"golang.org/x/sys/unix"
)

const askVariable = "WIRE_TEST_ASK"

// TestMain plays the child of TestTableflipChild: the library itself.
func TestMain(m *testing.M) {
	if ask := os.Getenv(askVariable); ask != "" {
		if err := flipChild(strings.Split(ask, ";")); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func flipChild(asks []string) error {
	upg, err := tableflip.New(tableflip.Options{})
	if err != nil {
		return err
	}
	for _, ask := range asks {
		network, addr, _ := strings.Cut(ask, " ")
		var at net.Addr
		if network == "udp" || network == "unixgram" {
			c, err := upg.ListenPacket(network, addr)
			if err != nil {
				return fmt.Errorf("%s: %w", ask, err)
			}
			at = c.LocalAddr()
		} else {
			l, err := upg.Listen(network, addr)
			if err != nil {
				return fmt.Errorf("%s: %w", ask, err)
			}
			at = l.Addr()
		}
		fmt.Printf("%s: %s\n", ask, at)
	}
	if err := upg.Upgrade(); err == nil {
		return fmt.Errorf("it upgrades before it is ready")
	}
	if err := upg.Ready(); err != nil {
		return err
	}
	if err := upg.WaitForParent(context.Background()); err != nil {
		return err
	}
	fmt.Println("the parent is gone")
	return nil
}

// TestTableflipChild: the real library finds each listener under every spelling,
// says that it is ready, and hears when its parent has exited.
func TestTableflipChild(t *testing.T) {
	dir := t.TempDir()
	var listeners []Listener
	var asks, want []string
	add := func(name, network, addr string, spellings ...string) {
		t.Helper()
		var f *os.File
		var at string
		switch network {
		case "udp":
			c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			at = c.LocalAddr().String()
			if f, err = c.File(); err != nil {
				t.Fatal(err)
			}
		default:
			lc := net.ListenConfig{}
			lc.SetMultipathTCP(false)
			l, err := lc.Listen(context.Background(), network, addr)
			if err != nil {
				t.Skip(err) // no IPv6
			}
			if u, ok := l.(*net.UnixListener); ok {
				u.SetUnlinkOnClose(false)
			}
			defer l.Close()
			at = l.Addr().String()
			if f, err = l.(interface{ File() (*os.File, error) }).File(); err != nil {
				t.Fatal(err)
			}
		}
		t.Cleanup(func() { f.Close() })
		generic := strings.TrimRight(network, "46")
		listeners = append(listeners, Listener{FD: int(f.Fd()), Name: name, Network: generic, Addr: at})
		_, port, _ := net.SplitHostPort(at)
		for _, s := range spellings {
			s = strings.ReplaceAll(s, "PORT", port)
			asks, want = append(asks, s), append(want, s+": "+at)
		}
	}
	// What it is not given under the name that it asks for it could not bind.
	add("loopback", "tcp4", "127.0.0.1:0", "tcp 127.0.0.1:PORT", "tcp localhost:PORT", "tcp :PORT", "tcp4 127.0.0.1:PORT", "tcp4 :PORT", "tcp web.internal:PORT")
	add("wildcard", "tcp4", "0.0.0.0:0", "tcp 0.0.0.0:PORT", "tcp :PORT", "tcp4 :PORT", "tcp localhost:PORT", "tcp 127.0.0.1:PORT")
	add("dual", "tcp", ":0", "tcp :PORT", "tcp [::]:PORT", "tcp 0.0.0.0:PORT", "tcp6 :PORT", "tcp localhost:PORT")
	add("udp", "udp", "", "udp 127.0.0.1:PORT", "udp localhost:PORT", "udp :PORT")
	path := filepath.Join(dir, "web.sock")
	add("unix", "unix", path, "unix "+path)

	readyR, readyW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	namesR, namesW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(listeners[0].Addr)
	r := request("tableflip", listeners...)
	r.Words = []string{"server", "--listen=web.internal:" + port}
	r.Pipes = Pipes{Ready: int(readyW.Fd()), Names: int(namesR.Fd())}
	plan, err := For(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := namesW.Write(plan.Names); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), plan.Env...), askVariable+"="+strings.Join(asks, ";"))
	cmd.Stderr = os.Stderr
	for _, fd := range plan.Files {
		own, err := unix.Dup(fd)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(own), "lent")
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	for _, line := range want {
		if !lines.Scan() || lines.Text() != line {
			t.Fatalf("the child says %q, want %q", lines.Text(), line)
		}
	}
	readyR.SetDeadline(time.Now().Add(time.Minute))
	b := make([]byte, 2)
	if n, err := readyR.Read(b); n != 1 || b[0] != FlipReady {
		t.Fatalf("its ready pipe has %q, %v", b[:n], err)
	}
	if err := namesW.Close(); err != nil {
		t.Fatal(err)
	}
	if !lines.Scan() || lines.Text() != "the parent is gone" {
		t.Errorf("the child says %q", lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the unix path is gone: %v", err)
	}
}
