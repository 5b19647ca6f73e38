// A server on github.com/facebookgo/grace, as its README has it.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/facebookgo/grace/gracehttp"
)

func main() {
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, "pid %d\n", os.Getpid()) })
	if err := gracehttp.Serve(&http.Server{Addr: os.Args[1], Handler: handler}); err != nil {
		log.Fatal(err)
	}
}
