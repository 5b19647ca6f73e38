// Command udp echoes datagrams; "pid" is answered with the process id.
//
//	supervise --listen udp://:5353 -- udp
//
// Under supervise each generation has a socket of its own, and datagrams are steered
// to the newest: what is in the queue of the old one is answered by the old one.
// Without it, SIGHUP starts the binary again with the same socket: both
// read from one queue until the old process ends, so nothing is lost either, but
// a client may be answered by one and the other meanwhile.
package main

import (
	"errors"
	"flag"
	"log"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/supervise/supervise/handoff"
)

func main() {
	addr := flag.String("addr", ":5353", "`address` to listen on where no socket is inherited")
	flag.Parse()
	if err := run(*addr); err != nil {
		log.Fatal(err)
	}
}

func run(addr string) error {
	c, err := handoff.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	draining := handoff.Draining() // from here on SIGTERM is heard
	go func() {
		<-draining
		c.SetReadDeadline(time.Now()) // an echo in progress is finished
	}()
	if err := handoff.Ready(); err != nil {
		return err
	}
	buf := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return rest(c, buf)
		}
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err == nil { // else an ICMP error of an earlier answer: that client's, not ours
			answer(c, buf[:n], from)
		}
	}
}

// rest answers what is already in the queue. With a socket of our own nobody
// else will; with a shared one it does no harm.
func rest(c net.PacketConn, buf []byte) error {
	for {
		if err := c.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			return err
		}
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return nil
		}
		answer(c, buf[:n], from)
		if end, _ := handoff.Deadline(); time.Now().After(end) {
			return nil
		}
	}
}

func answer(c net.PacketConn, message []byte, from net.Addr) {
	if strings.TrimSpace(string(message)) == "pid" {
		message = []byte(strconv.Itoa(os.Getpid()))
	}
	c.WriteTo(message, from)
}
