// Package supervisor is the loop and the decisions: it runs services so that
// their ports never close and no client sees their restarts.
//
// # How to read it
//
// One goroutine (loop.go) owns all state: what all services share is the loop's,
// what belongs to one is its runner's (runner.go); order.go has them wait for one
// another, crew.go makes several instances of one. Whatever blocks is a file
// descriptor in its epoll set or a small goroutine that ends in one event
// (event.go). For each event the loop calls
//
//	func (s *service) step(now time.Time, ev event) []action
//
// which is pure: it performs no I/O and reads no clock. The loop then carries
// out the actions in order (perform.go). Every wait has a deadline, deadlines
// are plain fields, and the loop sleeps until the earliest; so nothing stale
// can fire, and a test sets the time.
//
// # A service
//
//	down       nothing runs and nothing will start by itself
//	starting   no generation serves; a candidate is on its way
//	up         the current generation serves
//	replacing  a rollout: the current generation serves, a candidate is on its
//	           way; or the candidate has taken over and the old generation has
//	           not yet been told to stop
//	stopping   everything is being ended
//	backoff    no generation serves; the next start has a time
//	failed     nothing runs because it failed too often, or may not restart
//
// # A generation
//
//	preparing  ExecCondition=, ExecStartPre= and its like run; nothing forked yet
//	spawned    forked; execve(2) has not yet succeeded
//	waiting    runs; not yet ready
//	posting    is ready; ExecStartPost= runs
//	ready      able to serve
//	draining   new connections go to another generation; it answers what it
//	           has; not yet told to stop, so it can still be taken back
//	ending     ExecStop= runs; no signal was sent yet
//	killing    told to stop; then SIGKILL, again and again, until nothing is left
//	cleaning   no process of it is left; ExecStopPost= runs
//	gone       that, too, has ended
//
// The roles are who the service points at: candidate, current; every other
// living generation is an old one, draining or killing.
//
// # A rollout
//
//	reload -> candidate spawned with lanes of its own -> ready
//	       -> steer: new connections go to the candidate's lanes
//	       -> gate: nothing in flight or queued in the old lanes
//	       -> shield: everything the old generation accepted is answered
//	       -> stop signal -> old generation gone -> its lanes are closed
//
// Until the stop signal the old generation is untouched: whatever happens to
// the candidate before it, the old generation stays or becomes current again,
// and that is all there is to a rollback.
//
// A generation that listens on what is not held (held.go) has no rollout: another
// one could not bind beside it. A reload then stops it, through backoff, and
// starts the next one when no process of it is left.
//
// The current generation may be asked, now and then, whether it lives (live.go).
// One that does not is ended, which is a crash like any other, or replaced by a
// rollout.
//
// With Standby= the next generation is started ahead and waits, ready and
// without connections (standby.go). It takes over when the current one dies; a
// rollout ends it, for it is of the code of yesterday.
//
// An address that the new generation does not bind ends with the old one
// (retire.go). An adopted server (adopt.go) is a generation like any other, but
// for its end: while nobody took over from it, it goes on without us.
//
// # Precedence
//
// A stop beats everything. A death beats readiness that comes after it, but
// what the dead process said before (notify socket, report pipe) is heard
// first: the loop reads them dry before it acts on an exit. A reload during
// starting or replacing is remembered once and carried out when the service
// is up. The death of the current generation during a rollout does not end
// the candidate: it goes on as the only hope, and new connections are steered
// to its lanes at once, where they wait in its queue.
//
// # Lanes
//
// The supervisor holds every listener for as long as it lives. A dead
// generation's lane is lent to the next one with its queue intact. A lane in
// whose queue clients wait is never closed while the service lives; where
// nobody serves it, a rollout is made so that the next generation is lent it.
package supervisor
