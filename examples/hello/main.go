// Command hello is a server that can be replaced while it runs, by package
// handoff:
//
//	supervise --listen :8080 -- hello
//
// and without supervise, too: kill -HUP starts the binary again and ends the
// old process once the new one is ready. Neither loses a request, be it on a
// new connection, on one that was reused, or in the middle of an answer.
package main

import (
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/supervise/supervise/handoff"
)

func main() {
	addr := flag.String("addr", ":8080", "`address` to listen on where no listener is inherited")
	flag.Parse()
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "hello from pid %d\n", os.Getpid())
	})
	if err := handoff.ListenAndServe(&http.Server{Addr: *addr}); err != nil {
		log.Fatal(err)
	}
}
