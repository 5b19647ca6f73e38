// Package control is how one talks to a running supervisor: a unix socket,
// HTTP/1.1 with JSON on it, and a client in Go. api.md beside this file
// documents the API for other languages and for curl(1).
//
// # How to read it
//
// One file per verb (status.go, rollout.go, ...) has the message, its route and
// the client's method. What the supervisor can be asked stands in backend.go:
// the server asks through that interface and knows nothing else of the
// supervisor. The types of a picture are in picture.go; names in JSON are kept,
// fields are only added.
//
//	c, err := control.Dial("/run/supervise/web.sock")
//	st, err := c.Status(ctx)
//	err = c.Rollout(ctx, []string{"web"}, func(e control.Event) { fmt.Println(e) })
//
// # Who may
//
// The socket has mode 0600, and the kernel's word on who connected
// (SO_PEERCRED, unix(7)) is checked as well: root, the user that the supervisor
// runs as, and the members of one group if one is configured (mode 0660 then).
//
// # Why not net/http
//
// A supervisor is PID 1 of small containers: its memory and its start are
// features. The server of net/http comes with TLS and HTTP/2: 4 MB of binary,
// and over a megabyte of memory from the first request on. What is needed is a
// request line, three headers and chunks. http.go has that: one request on each
// connection, then it is closed. Any HTTP client can use it.
//
// # What a client can do to the supervisor
//
// Nothing but what it may ask for. Heads are at most 8 KiB, bodies 64 KiB, a
// request must be complete within 10 s, an answer must be taken within 10 s; at
// most 64 connections are served, and when all are in use the one that has
// waited longest without a complete request makes room. Each connection is one
// goroutine (two while it follows something); while nobody is connected there is
// none, and no timer. A follower that reads too slowly loses events, and is told
// how many; it holds up nobody.
//
// # Limits
//
// Unix sockets only: for metrics and health over TCP there is --http. A path
// must fit into a sockaddr_un (107 bytes).
package control
