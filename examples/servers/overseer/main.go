// A server on github.com/jpillora/overseer, as its README has it.
package main

import (
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/jpillora/overseer"
)

func main() {
	overseer.Run(overseer.Config{Program: program, Address: os.Args[1], TerminateTimeout: 5 * time.Second})
}

func program(state overseer.State) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, "pid %d\n", os.Getpid()) })
	http.Serve(state.Listener, handler)
}
