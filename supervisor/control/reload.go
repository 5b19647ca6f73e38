package control

import "context"

var reloadRoute = commandRoute(VerbReload, nil)

// Reload makes services take new configuration or code into use: ExecReload= or
// Type=notify-reload where the service has it, else a rollout.
func (c *Client) Reload(ctx context.Context, services []string, each func(Event)) error {
	return c.do(ctx, VerbReload, services, each)
}
