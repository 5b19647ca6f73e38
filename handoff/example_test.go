package handoff_test

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/supervise/supervise/handoff"
)

func Example() {
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") })
	if err := handoff.ListenAndServe(&http.Server{Addr: ":8080"}); err != nil {
		log.Fatal(err)
	}
}

// Any server that knows how to stop gracefully, one for gRPC say, does by hand what
// Serve does for net/http.
func ExampleDraining() {
	var server interface { // *grpc.Server
		Serve(net.Listener) error
		GracefulStop() // GOAWAY; returns when the streams have ended
		Stop()         // cuts off
	}

	l, err := handoff.Listen("tcp", ":50051")
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		<-handoff.Draining()
		deadline, _ := handoff.Deadline()
		cut := time.AfterFunc(time.Until(deadline), server.Stop)
		defer cut.Stop()
		server.GracefulStop()
	}()
	if err := handoff.Ready(); err != nil {
		log.Fatal(err)
	}
	if err := server.Serve(l); err != nil {
		log.Fatal(err)
	}
}

// A handler that streams ends between two messages, and its client comes back to
// the new process.
func ExampleDraining_stream() {
	http.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case now := <-tick.C:
				fmt.Fprintf(w, "data: %v\n\n", now)
				http.NewResponseController(w).Flush()
			case <-r.Context().Done(): // the client has gone
				return
			case <-handoff.Draining(): // we are going
				return
			}
		}
	})
}

// Two listeners: names tell which is which, whatever addresses they are given.
//
//	supervise --listen web=:80 --listen admin=127.0.0.1:9090 -- server
func ExampleListen() {
	web, err := handoff.Listen("tcp", "web=:8080")
	if err != nil {
		log.Fatal(err)
	}
	admin, err := handoff.Listen("tcp", "admin=127.0.0.1:9090")
	if err != nil {
		log.Fatal(err)
	}
	public, private := &http.Server{}, &http.Server{Handler: http.NotFoundHandler()}
	go func() {
		if err := handoff.Serve(private, admin); err != nil {
			log.Fatal(err)
		}
	}()
	if err := handoff.Serve(public, web); err != nil { // returns when both have drained
		log.Fatal(err)
	}
}

func ExampleListenPacket() {
	c, err := handoff.ListenPacket("udp", ":5353")
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		<-handoff.Draining()
		c.SetReadDeadline(time.Now()) // not Close: an answer may be under way
	}()
	if err := handoff.Ready(); err != nil {
		log.Fatal(err)
	}
	buf := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		c.WriteTo(buf[:n], from)
	}
}

// A server that takes time to prepare says that it is ready when it is: until then
// clients are served by the process before it.
func ExampleReady() {
	l, err := handoff.Listen("tcp", ":7")
	if err != nil {
		log.Fatal(err)
	}
	warmUp()
	if err := handoff.Ready(); err != nil {
		log.Fatal(err)
	}
	serve(l)
}

func ExampleServe() {
	l, err := handoff.Listen("tcp", ":8080")
	if err != nil {
		log.Fatal(err)
	}
	local, err := handoff.Listen("unix", "/run/hello.sock")
	if err != nil {
		log.Fatal(err)
	}
	if err := handoff.Serve(&http.Server{ReadHeaderTimeout: 10 * time.Second}, l, local); err != nil {
		log.Fatal(err)
	}
}

// What the service cannot do without is asked before each ping; supervise and
// systemd restart it when pings are missing (WatchdogSec=, --watchdog).
func ExampleWatchdog() {
	var database interface{ Ping() error } // *sql.DB
	handoff.Watchdog(func() error { return database.Ping() })
}

func warmUp() {}

func serve(net.Listener) {}
