// Package wire says what a child must be given so that it finds its
// listeners: the sender's half of every handoff protocol, as pure values. It
// starts nothing, opens nothing and reads no environment.
//
// Each protocol stands in a file of its own and adds to one Plan, since most of
// them do not exclude one another: a program reads the one that it knows. What a
// Plan cannot contain because nobody knows it before the fork, the child's own
// pid, it names in PIDEnv; handoff/shim fills it in.
//
// # Protocols
//
//	name            the child is given                        fds     says that it is ready by   drains on
//	systemd         LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES    3...    READY=1, if it does        KillSignal=
//	tableflip       TABLEFLIP_HAS_PARENT_7DIU3, two pipes     5...    byte 42 (Ready)            KillSignal=, else stand-in
//	server-starter  SERVER_STARTER_PORT, _GENERATION          any     nothing                    KillSignal=
//	einhorn         EINHORN_FD_COUNT, EINHORN_FD_0 ...        any     a line on a socket (ack)   USR2
//	fd              the number, by {fd:NAME}                  any     nothing                    KillSignal=
//	nginx           NGINX                                     any     nothing                    QUIT
//	php-fpm         FPM_SOCKETS                               any     READY=1                    QUIT
//	unicorn         UNICORN_FD                                any     nothing                    QUIT
//	puma            PUMA_INHERIT_0 ...                        any     READY=1, if it does        KillSignal=
//	gunicorn        GUNICORN_FD, GUNICORN_PID                 any     READY=1, too early         KillSignal=
//	inetd           the listener as fd 0 (Java, inetd wait)   0       nothing                    KillSignal=
//	grace           LISTEN_FDS without LISTEN_PID             3...    nothing                    KillSignal=
//	endless         ENDLESS_CONTINUE                          3...    nothing                    KillSignal=
//	overseer        OVERSEER_IS_SLAVE and more                3...    nothing                    USR2
//	goagain         GOAGAIN_FD, GOAGAIN_NAME                  any     nothing                    QUIT
//
// Where nothing is said, readiness is seen: the child waits for connections.
//
// # What excludes what
//
// fd 3 is the first socket for systemd, grace, endless and overseer, and a pipe
// for tableflip. LISTEN_FDS is read by systemd's and by grace's children, with
// and without a pid. Unicorn, Puma and gunicorn read LISTEN_FDS too, and would
// have each socket twice. One fd 0 is one socket. For answers with an error then.
//
// # Those that signal their parent
//
// The libraries grace, endless, overseer and goagain expect their parent to be
// the old server, and end it. They are never offered unless asked for, and then
// Plan.Tame asks for a child whose signals to the supervisor go nowhere
// (handoff/shim, Spec.Filter).
//
// # tableflip, or interception
//
// A tableflip program could also be left alone, its bind(2) answered by
// interception. Measured, three rollouts with 20 requests of 2.6 to 4 s under way in each: as
// its parent 60 of 60 were answered, by interception alone 15 (its SIGTERM is
// the end of it, and the gate waits for 2 s); and it is ready by its own word, not
// by being seen. So auto is its parent, with
// interception beside it for what it asks in a spelling that nobody thought of.
//
// # Addresses are texts
//
// tableflip, Puma, PHP-FPM and endless compare texts: to them localhost:80,
// 127.0.0.1:80 and :http have nothing in common. Where a spare copy of a fd does no
// harm, each listener is offered under every spelling that can mean it (see
// spelling.go), those included that stand on the command line.
package wire
