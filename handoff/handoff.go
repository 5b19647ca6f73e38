package handoff

import (
	"net"
	"net/http"
	"time"
)

// std is the process that this program is: its environment, its signals and
// its end exist once.
var std = newProcess(osEnvironment())

// Listen gives a listener for an address: an inherited one if there is one that
// fits (see "Which listener" above), else [net.Listen] is called. The network is
// "tcp", "tcp4", "tcp6", "unix" or "unixpacket"; the address may have a name
// before it, as in "admin=127.0.0.1:9090". For "tcp" an inherited unix stream
// socket will do, so do not rely on the address being a [*net.TCPAddr].
//
// The caller closes it. Closing it leaves the path of an inherited unix socket
// alone. Where the address is in use, the error says by whom, as far as this
// process may know, and is still [syscall.EADDRINUSE].
func Listen(network, address string) (net.Listener, error) { return std.listen(network, address) }

// ListenPacket is Listen for datagrams: "udp", "udp4", "udp6" and "unixgram".
func ListenPacket(network, address string) (net.PacketConn, error) {
	return std.listenPacket(network, address)
}

// Ready says that this process serves from now on: READY=1 to NOTIFY_SOCKET
// (sd_notify(3)), the ready byte to a tableflip parent, the acknowledgement to
// an Einhorn master. It is nil when nobody wants to know. Only the first call says
// anything. [Serve] calls it.
//
// If the service manager wants to hear a watchdog (WATCHDOG_USEC), it does
// so from now on, twice in each interval; see [Watchdog].
func Ready() error { return std.ready() }

// Draining is closed when this process should take nothing new, finish what it has
// begun, and end before [Deadline]. From the first call on, SIGTERM and SIGINT do
// that and no longer end the process by themselves; where this process bound its
// listeners itself, SIGHUP upgrades it.
func Draining() <-chan struct{} { return std.drainingC() }

// Deadline is when this process should be gone, once it is draining; until then
// ok is false. Soon after it comes SIGKILL from a supervisor that told us its
// patience.
func Deadline() (t time.Time, ok bool) { return std.deadline() }

// Drain begins to drain, as SIGTERM does.
func Drain() { std.drain(causeCall) }

// SetDrainTimeout sets how long a drain may take, from its beginning until
// [Deadline]. The default is what the supervisor told us (supervise passes its
// TimeoutStopSec in TIMEOUT_STOP_USEC, of which a tenth, at most 2 s, is
// left to spare), or else 25 s. It is no use once the drain has begun.
func SetDrainTimeout(d time.Duration) { std.setDrainTimeout(d) }

// Watchdog has the pings of the watchdog depend on check: it is called before
// each, and no ping is sent when it returns an error. Without Watchdog a ping says
// no more than that goroutines still run. If nobody asked for pings, check is
// never called.
func Watchdog(check func() error) { std.setWatchdog(check) }

// ListenAndServe gets a listener for srv.Addr by [Listen] and calls [Serve]. An
// empty address is ":http", as it is to net/http.
func ListenAndServe(srv *http.Server) error { return std.listenAndServe(srv, nil) }

// ListenAndServeTLS is ListenAndServe with TLS, and HTTP/2 where the client
// wants it. The files may be "" if srv.TLSConfig has a certificate.
func ListenAndServeTLS(srv *http.Server, certFile, keyFile string) error {
	return std.listenAndServe(srv, &keyPair{certFile, keyFile})
}

// Serve serves HTTP on listeners, says that it is [Ready], and drains as told
// above. It returns nil when the drain is over and nothing was cut off: the
// program should then end. With several servers, each in a goroutine of its own,
// Serve returns when all of them have drained, so it does not matter which one main
// waits for. The first says Ready: what takes time to prepare comes before it.
//
// Serve closes the listeners. It wraps srv.Handler, srv.ConnState and
// srv.ConnContext, so srv belongs to Serve from now on and is used for nothing else.
// A listener of TLS connections ([tls.NewListener]) is welcome.
func Serve(srv *http.Server, listeners ...net.Listener) error {
	return std.serve(srv, listeners, srv.Serve)
}
