// A server on github.com/fvbock/endless, as its README has it.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/fvbock/endless"
)

func main() {
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, "pid %d\n", os.Getpid()) })
	log.Println(endless.ListenAndServe(os.Args[1], handler))
}
