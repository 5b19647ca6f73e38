package control

import "context"

var killRoute = commandRoute(VerbKill, needNames)

// Kill sends a signal ("TERM", "SIGHUP", "9"; "" is TERM) to all processes of
// services. Nothing else changes: what becomes of it is as if somebody else had
// sent it.
func (c *Client) Kill(ctx context.Context, services []string, signal string) error {
	return c.Do(ctx, Command{Verb: VerbKill, Services: services, Signal: signal}, nil)
}
