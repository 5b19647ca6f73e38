// Command tableflip is a net/http server that uses github.com/cloudflare/tableflip
// as its README shows, and knows nothing of supervise:
//
//	tableflip -listen :8080 -pid-file /run/tableflip.pid
//	kill -HUP $(cat /run/tableflip.pid)     # it upgrades itself
//
// Under supervise the same binary needs no change: supervise is its parent, hands
// it the listener that it asks for, takes its Ready for readiness, and has it drain
// as after an upgrade.
//
//	supervise --listen :8080 -- tableflip -listen :8080
//
// It handles SIGHUP and nothing else, as the README has it; with -term also SIGTERM
// and SIGINT.
//
//	/             pid N
//	/slow?ms=500  answers after so many milliseconds
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/cloudflare/tableflip"
)

func main() {
	network := flag.String("network", "tcp", "of the address")
	listen := flag.String("listen", ":8080", "`address` to listen on")
	pidFile := flag.String("pid-file", "", "path to the pid file")
	term := flag.Bool("term", false, "handle SIGTERM and SIGINT, too")
	wait := flag.Bool("wait", false, "wait for the parent to exit, and say so")
	flag.Parse()
	if err := run(*network, *listen, *pidFile, *term, *wait); err != nil {
		log.Fatal(err)
	}
}

func run(network, address, pidFile string, term, wait bool) error {
	upg, err := tableflip.New(tableflip.Options{PIDFile: pidFile})
	if err != nil {
		return err
	}
	defer upg.Stop()

	go func() {
		sig := make(chan os.Signal, 1)
		signal.Notify(sig, syscall.SIGHUP)
		for range sig {
			if err := upg.Upgrade(); err != nil {
				log.Println("upgrade failed:", err)
			}
		}
	}()
	if term {
		go func() {
			sig := make(chan os.Signal, 1)
			signal.Notify(sig, syscall.SIGTERM, syscall.SIGINT)
			<-sig
			log.Println("told to stop")
			upg.Stop()
		}()
	}

	ln, err := upg.Listen(network, address)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler()}
	go func() {
		if err := server.Serve(ln); err != http.ErrServerClosed {
			log.Println("http server:", err)
		}
	}()
	log.Println("has a parent:", upg.HasParent())
	if err := upg.Ready(); err != nil {
		return err
	}
	if wait {
		go func() { log.Println("parent is gone:", upg.WaitForParent(context.Background())) }()
	}
	<-upg.Exit()

	// Not longer than this; a client that holds its connection must not keep us.
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	err = server.Shutdown(ctx)
	log.Println("drained")
	return err
}

func handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "pid %d\n", os.Getpid())
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		ms, _ := strconv.Atoi(r.FormValue("ms"))
		time.Sleep(time.Duration(ms) * time.Millisecond)
		fmt.Fprintf(w, "slow pid %d\n", os.Getpid())
	})
	return mux
}
