// Package handoff makes a Go server replaceable while it runs: its listeners
// are inherited from whoever started it, it says when it is ready, and when it
// is told to go it answers everything that it has taken before it ends.
//
//	func main() {
//		http.HandleFunc("/", hello)
//		if err := handoff.ListenAndServe(&http.Server{Addr: ":8080"}); err != nil {
//			log.Fatal(err)
//		}
//	}
//
// That program loses no request when it is replaced
//
//   - under supervise(1), systemd with a socket unit, a tableflip parent,
//     Server::Starter or Einhorn: each of them holds the listeners and starts the
//     next process with them;
//   - and without any of them: on SIGHUP it starts itself again (the binary may
//     be a new one), hands its listeners over, and ends once the new process has
//     said that it is ready. Under systemd that is Type=notify-reload, with no
//     socket unit.
//
// Everything is done by functions on the one process that a program is, as in
// package os/signal. There is nothing to configure.
//
// # Life of a process
//
// [Listen] and [ListenPacket] give a listener: an inherited one where there is one
// for the address, else one that is bound now. [Ready] says that the process can
// serve. Then it serves, until [Draining] is closed: on SIGTERM or SIGINT, by
// [Drain], or since the next process has taken over. From then on it finishes
// what it has begun, until [Deadline], and ends.
//
// [ListenAndServe], [ListenAndServeTLS] and [Serve] do all of this for an
// [http.Server]. Other servers need six lines; see the example of [Draining].
//
// # What happens to an HTTP connection
//
// Shutdown of net/http loses requests: one that is read from a new
// connection just after Shutdown was called is dropped, and an idle connection is
// closed though the client may be sending the next request on it. So Serve does
// not call it at first. When draining begins:
//
//  1. The listeners are closed. What was accepted before is served, also
//     connections whose request is yet to come.
//  2. Every answer carries "Connection: close", so the client opens its next
//     connection to the new process; the connection ends after the answer. On
//     HTTP/2 the answer brings a GOAWAY, the streams that are open are finished,
//     and a stream that the client opened too late is one that GOAWAY declared
//     as not processed: clients repeat it (RFC 9113, 6.8).
//  3. Idle connections stay open, for a client is free to send the next request
//     on them at any moment: they end with that request (2), when the client
//     closes them, or when the time is nearly over. HTTP/1 has no way to tell an
//     idle client to go away.
//  4. When no HTTP/1 connection is left, or shortly before the deadline,
//     Shutdown is called: GOAWAY for idle HTTP/2 connections; idle HTTP/1
//     connections are closed.
//  5. At the deadline, whatever is still going on is cut off.
//
// So what can be lost is a request that a client sends on a connection at the
// very moment of step 4, after it had left it idle for the whole drain time;
// HTTP allows clients to repeat it if it is idempotent (RFC 9112, 9.3.1). And
// what takes longer than the drain time is cut off: see [SetDrainTimeout].
//
// A handler that runs for long (a stream of events, a WebSocket) watches Draining
// and ends politely; Serve waits for it, also after it has hijacked the connection.
// An answer that was begun before the drain could not say "Connection: close", so
// its connection stays as an idle one: a stream over HTTP/1 had better say so at
// its beginning.
//
// SIGINT is somebody at a terminal who wants it to end: idle connections are then
// closed at once, and a second SIGINT ends the process.
//
// # Which listener
//
// Protocols are recognised by their variables, which are then removed so that
// programs started later do not take them for theirs: LISTEN_FDS with LISTEN_PID
// (and LISTEN_FDNAMES; sd_listen_fds(3)), TABLEFLIP_HAS_PARENT_7DIU3,
// SERVER_STARTER_PORT and EINHORN_FD_COUNT.
//
// An inherited listener is lent to the first call that it fits, and a call gets
// the one that fits best. In this order: the name is the same, in
// Listen("tcp", "admin=127.0.0.1:9090"), the same address, the same port. At last
// any one of that kind will do, since the address is a matter of whoever starts the
// program: one that asks for ":8080" serves on the port, or the unix socket, that
// it was given. But an inherited listener is never wider than what was asked for:
// who asks for 127.0.0.1:9090 does not get 0.0.0.0:80. A call with a name does
// without this last rule. A program with several listeners should name them.
//
// With a tableflip parent, network and address must be the parent's literally,
// that is its protocol, and Listen is to be called before Ready.
//
// # Limits
//
// On Windows, Plan 9 and in WebAssembly nothing is inherited and SIGHUP does
// nothing: Listen binds, and the drain is the same. A process that upgrades itself
// changes its pid; it cannot do so as pid 1 of a container. Which sockets
// somebody else passed as descriptors but did not announce is not guessed.
package handoff
