package control

import (
	"os"
	"path/filepath"
	"strings"
)

// Find looks for running supervisors that we may talk to, in Dirs. Sockets that
// nobody listens on any more are passed over.
func Find() []*Client {
	var found []*Client
	for _, dir := range Dirs() {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			if !strings.HasSuffix(e.Name(), suffix) || e.Type()&os.ModeSocket == 0 {
				continue
			}
			if c, err := Dial(filepath.Join(dir, e.Name())); err == nil {
				found = append(found, c)
			}
		}
	}
	return found
}

// Name is the base name of the socket without its ending: the name of the
// service where it was not chosen otherwise.
func (c *Client) Name() string { return strings.TrimSuffix(filepath.Base(c.path), suffix) }
