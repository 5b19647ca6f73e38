package control

import "context"

var stopRoute = commandRoute(VerbStop, needNames)

// Stop stops services, and returns when no process of theirs is left. Their
// addresses are closed; the supervisor goes on.
func (c *Client) Stop(ctx context.Context, services []string, each func(Event)) error {
	return c.do(ctx, VerbStop, services, each)
}
