// Command oldbind is a server as most are: it binds its address by itself, knows
// no handoff protocol, and has no handler for any signal.
//
//	supervise -- oldbind -addr 127.0.0.1:8080
//
// keeps its port over restarts and crashes all the same.
package main

import (
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
)

func main() {
	addr := flag.String("addr", ":8080", "`address` to listen on")
	flag.Parse()
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "hello from pid %d\n", os.Getpid())
	})
	log.Fatal(http.ListenAndServe(*addr, nil))
}
