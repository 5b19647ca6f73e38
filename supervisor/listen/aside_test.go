package listen

import (
	"net"
	"testing"
	"time"

	"github.com/supervise/supervise/supervisor/config"
)

// Connections that come while new ones go aside wait there, and the next who is
// lent lanes gets them.
func TestAside(t *testing.T) {
	addr, err := config.ParseListen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := Open(addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	old, err := s.Lend()
	if err != nil {
		t.Fatal(err)
	}
	aside, err := s.Aside()
	if err != nil || len(aside) != 1 {
		t.Fatal(aside, err)
	}
	if err := s.Steer(aside); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", s.Sockets()[0].Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		n, _, err := aside[0].Queue()
		if err != nil || time.Now().After(deadline) {
			t.Fatal(n, err)
		}
		if n == 1 {
			break
		}
	}
	if n, _, _ := old[0].Queue(); n != 0 {
		t.Errorf("%d wait in the old lane", n)
	}
	next, err := s.Lend()
	if err != nil {
		t.Fatal(err)
	}
	if next[0] != aside[0] {
		t.Error("the next one is lent another lane")
	}
}
