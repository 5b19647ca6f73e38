package control

import (
	"context"
	"encoding/json"
	"net/url"
	"strconv"
)

// EventQuery says which events.
type EventQuery struct {
	Services []string // none: all, and what is about no service
	Follow   bool     // go on until the client leaves
	Last     int      // at most so many of what was; negative: all that is remembered
	After    uint64   // only those with a greater Seq

	// Begun is called once when nothing that happens from now on is missed. Of
	// the server's making; a client leaves it nil.
	Begun func()
}

var eventsRoute = route{"GET", "/v1/events", func(k *call) error {
	q := EventQuery{Services: k.query["service"], Follow: follows(k.request), Last: -1}
	var err error
	if q.Last, err = number(k.query, "last", -1); err != nil {
		return err
	}
	if after := k.query.Get("after"); after != "" {
		if q.After, err = strconv.ParseUint(after, 10, 64); err != nil {
			return Errorf(BadRequest, "after=%.40q is no number", after)
		}
	}
	q.Begun = func() { _ = k.stream.flushHead() }
	if err := k.backend.Events(k.ctx, q, func(e Event) error { return k.stream.line(e) }); err != nil {
		return err
	}
	return k.stream.end()
}}

// number reads a number of a query.
func number(q url.Values, key string, otherwise int) (int, error) {
	text := q.Get(key)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, Errorf(BadRequest, "%s=%.40q is no number", key, text)
	}
	return n, nil
}

// Events calls each for what happened, and with Follow for what happens, until
// ctx ends, the supervisor ends or each returns an error, which is returned.
func (c *Client) Events(ctx context.Context, q EventQuery, each func(Event) error) error {
	v := url.Values{"service": q.Services, "last": {strconv.Itoa(q.Last)}}
	if q.Follow {
		v.Set("follow", "1")
	}
	if q.After > 0 {
		v.Set("after", strconv.FormatUint(q.After, 10))
	}
	return c.lines(ctx, "GET", "/v1/events", v, nil, func(line []byte) error {
		var e Event
		if err := json.Unmarshal(line, &e); err != nil {
			return err
		}
		return each(e)
	})
}
