// Command plain is a plain net/http server. It knows nothing of supervise:
// only the two small things that systemd documents for every service,
//
//   - LISTEN_FDS, see sd_listen_fds(3): listeners may be open already, from
//     descriptor 3 on, and then nothing is bound here;
//   - with -notify, READY=1, see sd_notify(3): "I serve now".
//
// and, as every good server does, on SIGTERM it stops accepting, finishes what
// it has begun and exits 0. That is all that a server needs in order to be
// replaced while it runs:
//
//	supervise --listen :8080 -- plain
//
// Without LISTEN_FDS it binds $PORT, or 8080, itself.
//
// Stream sockets (TCP and unix) speak HTTP, datagram sockets echo:
//
//	/             hello from pid N
//	/pid          N
//	/slow?ms=500  answers after so many milliseconds
//	/exit?code=3  the process exits at once, in the middle of the answer
//
// The flags after -notify make it a bad neighbour, for the tests.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "plain:", err)
		os.Exit(1)
	}
}

func run() error {
	drain := flag.Duration("drain", 10*time.Second, "how long requests may take to finish after SIGTERM")
	notify := flag.Bool("notify", false, "say READY=1 when serving")
	var bad neighbour
	bad.flags()
	accepted := flag.String("accepted", "", "note every accepted connection in this `file`, see accepted.go")
	flag.Parse()

	// First of all, so that a SIGTERM in the midst of starting is not missed.
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM, syscall.SIGINT)

	if stop, err := bad.start(term); stop || err != nil {
		return err
	}
	streams, packets, err := listeners()
	if err != nil {
		return err
	}
	if *accepted != "" {
		if streams, err = noteAccepted(*accepted, streams); err != nil {
			return err
		}
	}

	server := &http.Server{Handler: handler()}
	failed := make(chan error, len(streams))
	for _, l := range streams {
		go func() { failed <- server.Serve(l) }()
	}
	for _, p := range packets {
		go echo(p)
	}
	if *notify {
		if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
			return fmt.Errorf("cannot say READY=1: %w", err)
		}
	}
	bad.serving()

	select {
	case err := <-failed:
		return err
	case <-term:
	}
	ctx, cancel := context.WithTimeout(context.Background(), *drain)
	defer cancel()
	for _, p := range packets {
		p.Close()
	}
	return server.Shutdown(ctx)
}

// listeners gives the listeners that were passed in LISTEN_FDS, or else one of
// our own.
func listeners() (streams []net.Listener, packets []net.PacketConn, err error) {
	for _, f := range activation.Files(true) {
		l, notStream := net.FileListener(f)
		if notStream == nil && l.Addr().Network() != "unixgram" {
			streams = append(streams, l)
		} else if p, err := net.FilePacketConn(f); err == nil {
			packets = append(packets, p)
		} else {
			return nil, nil, fmt.Errorf("cannot use the descriptor %s: %w", f.Name(), errors.Join(notStream, err))
		}
		f.Close() // the listener has its own duplicate
	}
	if len(streams)+len(packets) > 0 {
		return streams, packets, nil
	}
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return nil, nil, err
	}
	return []net.Listener{l}, nil, nil
}

func handler() http.Handler {
	pid := strconv.Itoa(os.Getpid())
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello from pid %s\n", pid)
	})
	mux.HandleFunc("/pid", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, pid)
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		ms, err := strconv.Atoi(r.FormValue("ms"))
		if err != nil {
			http.Error(w, "ms: a number of milliseconds, please", http.StatusBadRequest)
			return
		}
		select {
		case <-time.After(time.Duration(ms) * time.Millisecond):
			fmt.Fprintf(w, "hello from pid %s, after %d ms\n", pid, ms)
		case <-r.Context().Done(): // the client has gone
		}
	})
	mux.HandleFunc("/exit", func(w http.ResponseWriter, r *http.Request) {
		code, err := strconv.Atoi(r.FormValue("code"))
		if err != nil || code < 0 || code > 255 {
			http.Error(w, "code: an exit status from 0 to 255, please", http.StatusBadRequest)
			return
		}
		os.Exit(code)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Pid", pid)
		mux.ServeHTTP(w, r)
	})
}

// echo sends every datagram back to where it came from, until p is closed.
// "pid" is answered with the process id.
func echo(p net.PacketConn) {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := p.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error of an earlier answer: that client's, not ours
		}
		answer := buf[:n]
		if strings.TrimSpace(string(answer)) == "pid" {
			answer = []byte(strconv.Itoa(os.Getpid()))
		}
		p.WriteTo(answer, from)
	}
}
