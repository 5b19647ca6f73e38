package control

import "context"

var startRoute = commandRoute(VerbStart, needNames)

// Start starts services that are stopped, and returns when they are ready.
func (c *Client) Start(ctx context.Context, services []string, each func(Event)) error {
	return c.do(ctx, VerbStart, services, each)
}
