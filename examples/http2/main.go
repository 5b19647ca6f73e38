// Command http2 serves HTTP/2, without TLS (by prior knowledge, as gRPC does in
// a cluster) or with it:
//
//	supervise --listen :8080 -- http2
//	supervise --listen :8443 -- http2 -cert cert.pem -key key.pem
//
// When it is replaced, each connection is told so by GOAWAY with an answer, the
// streams that are open are finished, and a client opens its next connection to
// the new process. /slow?ms=500 takes its time.
//
// A gRPC server does the same with the functions below ListenAndServe: see the
// example of handoff.Draining.
package main

import (
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/supervise/supervise/handoff"
)

func main() {
	addr := flag.String("addr", ":8080", "`address` to listen on where no listener is inherited")
	cert := flag.String("cert", "", "`file` of the certificate; without it there is no TLS")
	key := flag.String("key", "", "`file` of the key")
	flag.Parse()

	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s, pid %d\n", r.Proto, os.Getpid())
	})
	http.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		ms, _ := strconv.Atoi(r.FormValue("ms"))
		select {
		case <-time.After(time.Duration(ms) * time.Millisecond):
			fmt.Fprintf(w, "%s after %d ms, pid %d\n", r.Proto, ms, os.Getpid())
		case <-r.Context().Done(): // the client has gone
		}
	})

	srv := &http.Server{Addr: *addr, Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetHTTP2(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	serve := handoff.ListenAndServe
	if *cert != "" {
		serve = func(srv *http.Server) error { return handoff.ListenAndServeTLS(srv, *cert, *key) }
	}
	if err := serve(srv); err != nil {
		log.Fatal(err)
	}
}
