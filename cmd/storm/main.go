// Command storm proves, or disproves, that a supervised server can be replaced
// and can crash without its clients noticing.
//
// It starts the supervisor, loads the server with new connections, has it
// replaced or kills it again and again meanwhile, and accounts for each
// connection. Its exit status is 0 only if what was expected held.
//
// Package load makes the requests, package crash kills and attributes;
// both serve the end-to-end tests as well. "storm bench" measures what
// supervision costs.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/supervise/supervise/cmd/storm/load"
)

const usage = `usage:
  storm [flags] -- COMMAND [ARG...]   load the server that COMMAND supervises
  storm bench [flags]                 what supervision costs; see storm bench -h

COMMAND is a supervisor that does a rollout on SIGHUP, with its server. {addr}
and {port} in its arguments are the address of -addr, with port 0 replaced.
With -control, COMMAND is the server alone and storm supervises it badly itself.

what to ask
  -addr ADDR         host:port or unix path; several with commas   127.0.0.1:0
  -network NET       tcp, unix, udp                                tcp
  -path PATH         of the HTTP request                           /
  -echo              a line or datagram that comes back, no HTTP
  -keepalive         many requests on one connection; one that ends without an
                     answer, be it only closed, is lost: nothing is repeated
  -http2             the same on HTTP/2 without TLS; what GOAWAY declares as not
                     processed is made again and counted as moved
  -workers N         clients at a time                             4
  -rate N            requests per second of all; 0: no bound       0
  -timeout DUR       of one request                                10s
what to do meanwhile
  -rollouts N        SIGHUP to COMMAND, and wait until it is done  0
  -crashes N         kill -9 of the process that answers           0
  -min-requests N    at least so many in all, evenly around them   10000
  -done-by HOW       pid: a new one answers, the old one is gone   pid
                     log: COMMAND writes "rollout done"
  -accepted FILE     kill without a stop before; the server notes in
                     FILE what it accepts (plain -accepted FILE)
  -control HOW       shared: one listener for both generations
                     restart: stop, then start
what to make of it
  -expect WHAT       lossless: no failure                          lossless
                     crash: none refused, and every failure was accepted
                     by the killed process;  none: anything
  -step DUR          bound of the start, and of one rollout or crash  60s
  -json              the account as JSON
  -v                 show what COMMAND writes to standard error

example
  storm -rollouts 20 -- supervise --listen {addr} -- hello
`

// options are the flags of a storm.
type options struct {
	load        load.Options
	rollouts    int
	crashes     int
	minRequests int64
	doneBy      string
	accepted    string
	control     string
	expect      string
	step        time.Duration
	json        bool
	verbose     bool
	command     []string
}

func parse(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("storm", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	addr := f.String("addr", "127.0.0.1:0", "")
	f.StringVar(&o.load.Network, "network", "tcp", "")
	f.StringVar(&o.load.Path, "path", "/", "")
	echo := f.Bool("echo", false, "")
	f.BoolVar(&o.load.KeepAlive, "keepalive", false, "")
	http2 := f.Bool("http2", false, "")
	f.IntVar(&o.load.Workers, "workers", 4, "")
	f.IntVar(&o.load.Rate, "rate", 0, "")
	f.DurationVar(&o.load.Timeout, "timeout", 10*time.Second, "")
	f.IntVar(&o.rollouts, "rollouts", 0, "")
	f.IntVar(&o.crashes, "crashes", 0, "")
	f.Int64Var(&o.minRequests, "min-requests", 10000, "")
	f.StringVar(&o.doneBy, "done-by", "pid", "")
	f.StringVar(&o.accepted, "accepted", "", "")
	f.StringVar(&o.control, "control", "", "")
	f.StringVar(&o.expect, "expect", "lossless", "")
	f.DurationVar(&o.step, "step", time.Minute, "")
	f.BoolVar(&o.json, "json", false, "")
	f.BoolVar(&o.verbose, "v", false, "")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	o.command = f.Args()
	o.load.Addrs = strings.Split(*addr, ",")
	if *echo {
		o.load.Protocol = load.Echo
	}
	if *http2 {
		o.load.Protocol, o.load.KeepAlive = load.HTTP2, true
	}
	noPids := *echo || strings.HasPrefix(o.load.Network, "udp")
	switch {
	case len(o.command) == 0:
		return o, errors.New("no command given")
	case *echo && *http2:
		return o, errors.New("-echo or -http2, not both")
	case o.doneBy != "pid" && o.doneBy != "log":
		return o, fmt.Errorf("-done-by is pid or log, not %q", o.doneBy)
	case o.expect != "lossless" && o.expect != "crash" && o.expect != "none":
		return o, fmt.Errorf("-expect is lossless, crash or none, not %q", o.expect)
	case o.control != "" && o.control != "shared" && o.control != "restart":
		return o, fmt.Errorf("-control is shared or restart, not %q", o.control)
	case o.control != "" && (noPids || len(o.load.Addrs) > 1):
		return o, errors.New("-control needs HTTP and one address")
	case o.rollouts > 0 && o.crashes > 0:
		return o, errors.New("-rollouts or -crashes, not both: what failed must have one cause")
	case noPids && o.crashes > 0:
		return o, errors.New("-crashes needs HTTP: an echo does not tell whose it is")
	case noPids && o.rollouts > 0 && o.doneBy == "pid":
		return o, errors.New("an echo does not tell whose it is: take -done-by log")
	}
	return o, nil
}

func main() {
	// Pdeathsig of a child is about the thread that started it, prctl(2).
	runtime.LockOSThread()
	os.Exit(run(os.Args[1:]))
}

// run gives the exit status: 0 as expected, 1 not, 64 wrong use, 70 the storm
// itself could not be done.
func run(args []string) int {
	if len(args) > 0 && args[0] == "bench" {
		return bench(args[1:])
	}
	if len(args) > 0 && args[0] == controlVerb {
		return control(args[1:])
	}
	o, err := parse(args)
	if err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Print(usage)
			return 0
		}
		fmt.Fprintf(os.Stderr, "storm: %v\n\n%s", err, usage)
		return 64
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	a, err := storm(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "storm:", err)
		return 70
	}
	if o.json {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		err = e.Encode(a)
	} else {
		err = a.print(os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "storm:", err)
		return 70
	}
	if !a.Held {
		return 1
	}
	return 0
}
