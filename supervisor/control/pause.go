package control

import "context"

var (
	pauseRoute  = commandRoute(VerbPause, needNames)
	resumeRoute = commandRoute(VerbResume, needNames)
)

// Pause parks the new connections of services in the kernel's queue; Status
// shows how many wait. What is connected already is served on.
func (c *Client) Pause(ctx context.Context, services []string, each func(Event)) error {
	return c.do(ctx, VerbPause, services, each)
}

// Resume serves what was parked.
func (c *Client) Resume(ctx context.Context, services []string, each func(Event)) error {
	return c.do(ctx, VerbResume, services, each)
}
