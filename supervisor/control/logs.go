package control

import (
	"context"
	"encoding/json"
	"net/url"
	"strconv"
)

// LogQuery says which lines.
type LogQuery struct {
	Services []string // none: all
	Follow   bool     // go on until the client leaves
	Last     int      // at most so many of what was; negative: all that is remembered

	// Begun: see EventQuery.
	Begun func()
}

var logsRoute = route{"GET", "/v1/logs", func(k *call) error {
	q := LogQuery{Services: k.query["service"], Follow: follows(k.request)}
	var err error
	if q.Last, err = number(k.query, "last", -1); err != nil {
		return err
	}
	q.Begun = func() { _ = k.stream.flushHead() }
	if err := k.backend.Logs(k.ctx, q, func(l Line) error { return k.stream.line(l) }); err != nil {
		return err
	}
	return k.stream.end()
}}

// Logs calls each for the lines that services wrote, and with Follow for those
// that they write, until ctx ends, the supervisor ends or each returns an error,
// which is returned.
func (c *Client) Logs(ctx context.Context, q LogQuery, each func(Line) error) error {
	v := url.Values{"service": q.Services, "last": {strconv.Itoa(q.Last)}}
	if q.Follow {
		v.Set("follow", "1")
	}
	return c.lines(ctx, "GET", "/v1/logs", v, nil, func(line []byte) error {
		var l Line
		if err := json.Unmarshal(line, &l); err != nil {
			return err
		}
		return each(l)
	})
}
