// Command server is a server that knows nothing of any handoff: net/http with
// Shutdown on SIGTERM. It is built static, and for 386, by the tests.
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

func main() {
	network, addr := "tcp", os.Args[1]
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		network, addr = "unix", path
		_ = os.Remove(addr)
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, os.Getpid())
	})}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	done := make(chan bool)
	go func() {
		<-term
		_ = srv.Shutdown(context.Background())
		close(done)
	}()
	if err := srv.Serve(l); err != http.ErrServerClosed {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	<-done
}
