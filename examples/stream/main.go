// Command stream holds connections for long, as WebSocket servers and streams of
// events do, and lets go of them politely when it is replaced:
//
//	supervise --listen :8080 -- stream
//	curl -N http://127.0.0.1:8080/events     an event each second, with its number
//	websocat ws://127.0.0.1:8080/ws          (any WebSocket client) echoes
//
// No supervisor can carry a stream over to another process. What can be done is
// to end it between two events rather than in the midst of one, in the protocol's
// own words, so that the client comes back, to the new process, and goes on
// where it was: with "Last-Event-ID" here, which browsers send by themselves, and
// close code 1012 ("service restart") on the WebSocket.
package main

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/supervise/supervise/handoff"
)

func main() {
	addr := flag.String("addr", ":8080", "`address` to listen on where no listener is inherited")
	flag.DurationVar(&interval, "interval", time.Second, "time between two events")
	flag.Parse()
	http.HandleFunc("/events", events)
	http.HandleFunc("/ws", socket)
	if err := handoff.ListenAndServe(&http.Server{Addr: *addr}); err != nil {
		log.Fatal(err)
	}
}

var interval time.Duration

// events counts, from the number after the last one that the client has seen.
func events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	if r.ProtoMajor == 1 {
		// The connection ends with the stream. Else it would stay, idle, and
		// the drain would wait for what the client does with it.
		w.Header().Set("Connection", "close")
	}
	out := http.NewResponseController(w)
	n, _ := strconv.Atoi(r.Header.Get("Last-Event-ID"))
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		n++
		fmt.Fprintf(w, "id: %d\ndata: pid %d\n\n", n, os.Getpid())
		if out.Flush() != nil {
			return
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		case <-handoff.Draining():
			// Come back at once; browsers wait for seconds otherwise.
			io.WriteString(w, "retry: 10\n\n")
			return
		}
	}
}

// socket echoes text messages. It is as small a WebSocket (RFC 6455) as can be,
// to have none among the dependencies: messages of up to 125 bytes in one frame.
func socket(w http.ResponseWriter, r *http.Request) {
	key := r.Header.Get("Sec-WebSocket-Key")
	if key == "" {
		http.Error(w, "a WebSocket, please", http.StatusBadRequest)
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer conn.Close()
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	if rw.Flush() != nil {
		return
	}

	messages := make(chan []byte)
	gone := make(chan struct{})
	defer close(gone)
	go func() {
		defer close(messages)
		for {
			text, err := readText(rw.Reader)
			if err != nil {
				return
			}
			select {
			case messages <- text:
			case <-gone:
				return
			}
		}
	}()
	const text, goodbye = 0x81, 0x88
	for {
		select {
		case m, ok := <-messages:
			if !ok {
				return
			}
			if _, err := conn.Write(append([]byte{text, byte(len(m))}, m...)); err != nil {
				return
			}
		case <-handoff.Draining():
			// 1012, service restart: the client reconnects. It answers with its
			// own goodbye; what it had sent before that is read and echoed.
			conn.Write([]byte{goodbye, 2, 1012 >> 8, 1012 & 0xff})
			conn.SetReadDeadline(time.Now().Add(2 * time.Second))
			for m := range messages {
				conn.Write(append([]byte{text, byte(len(m))}, m...))
			}
			return
		}
	}
}

// readText reads one masked text frame; any other is the end.
func readText(r *bufio.Reader) ([]byte, error) {
	var head [6]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := int(head[1] & 0x7f)
	if head[0] != 0x81 || head[1]&0x80 == 0 || n > 125 {
		return nil, net.ErrClosed
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r, text); err != nil {
		return nil, err
	}
	for i := range text {
		text[i] ^= head[2+i%4]
	}
	return text, nil
}
