package control

import (
	"context"
	"net/url"
)

var statusRoute = route{"GET", "/v1/status", func(k *call) error {
	st, err := k.backend.Status(k.ctx, k.query["service"])
	if err != nil {
		return err
	}
	return k.answer(st)
}}

// Status asks for a picture of the named services, of all when none is named.
func (c *Client) Status(ctx context.Context, services ...string) (Status, error) {
	var st Status
	err := c.get(ctx, "/v1/status", url.Values{"service": services}, &st)
	return st, err
}

// names is what a supervisor says without looking at anything.
type names struct {
	Services []string `json:"services"`
}

var namesRoute = route{"GET", "/v1/services", func(k *call) error {
	all, err := k.backend.Names(k.ctx)
	if err != nil {
		return err
	}
	return k.answer(names{Services: all})
}}

// Names asks for the names of all services.
func (c *Client) Names(ctx context.Context) ([]string, error) {
	var n names
	err := c.get(ctx, "/v1/services", nil, &n)
	return n.Services, err
}
