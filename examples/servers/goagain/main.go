// A server on github.com/rcrowley/goagain, as its example has it.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/rcrowley/goagain"
)

func main() {
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, "pid %d\n", os.Getpid()) })
	server := &http.Server{Handler: handler}
	l, err := goagain.Listener()
	if err != nil {
		if l, err = net.Listen("tcp", os.Args[1]); err != nil {
			log.Fatal(err)
		}
		go server.Serve(l)
	} else {
		go server.Serve(l)
		if err := goagain.Kill(); err != nil {
			log.Fatal(err)
		}
	}
	if _, err := goagain.Wait(l); err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
}
