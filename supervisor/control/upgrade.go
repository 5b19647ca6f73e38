package control

import "context"

var upgradeRoute = commandRoute(VerbUpgrade, nil)

// Upgrade replaces the supervisor itself by another binary, "" for the file that
// it was started from. Children and listeners stay.
func (c *Client) Upgrade(ctx context.Context, binary string, each func(Event)) error {
	return c.Do(ctx, Command{Verb: VerbUpgrade, Binary: binary}, each)
}
