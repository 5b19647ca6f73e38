package control

import "context"

var rolloutRoute = commandRoute(VerbRollout, nil)

// Rollout replaces the current generations of services (of all when none is named)
// by new ones, without losing a connection. It returns when the old ones are
// gone; a candidate that failed is an *Error with code Failed.
func (c *Client) Rollout(ctx context.Context, services []string, each func(Event)) error {
	return c.do(ctx, VerbRollout, services, each)
}
