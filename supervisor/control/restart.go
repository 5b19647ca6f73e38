package control

import "context"

var restartRoute = commandRoute(VerbRestart, nil)

// Restart stops services and starts them again. Meanwhile connections wait in the
// queue of the listeners, which stay open.
func (c *Client) Restart(ctx context.Context, services []string, each func(Event)) error {
	return c.do(ctx, VerbRestart, services, each)
}
