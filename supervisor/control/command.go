package control

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
)

// A verb that changes something is a POST. Its body is a Command; its answer is
// one line for each step and a last one with the result.

// step is one line of such an answer.
type step struct {
	Event  *Event  `json:"event,omitempty"`
	Result *result `json:"result,omitempty"`
}

// result is how it ended.
type result struct {
	OK     bool     `json:"ok"`
	Errors []*Error `json:"errors,omitempty"`
}

// commandRoute makes the route of a verb. check looks at the body, and may be nil.
func commandRoute(verb Verb, check func(*Command) error) route {
	return route{"POST", "/v1/" + string(verb), func(k *call) error {
		var c Command
		if err := k.decode(&c); err != nil {
			return err
		}
		c.Services = append(c.Services, k.query["service"]...)
		if k.query.Get("no_wait") != "" {
			c.NoWait = true
		}
		c.Verb, c.Peer = verb, k.peer
		if check != nil {
			if err := check(&c); err != nil {
				return err
			}
		}
		err := k.backend.Do(k.ctx, c, func(e Event) { _ = k.stream.line(step{Event: &e}) })
		if err != nil && !k.stream.begun {
			if all := flatten(err); len(all) == 1 {
				return all[0]
			}
		}
		r := result{OK: err == nil, Errors: flatten(err)}
		if werr := k.stream.line(step{Result: &r}); werr != nil {
			return werr
		}
		return k.stream.end()
	}}
}

// flatten takes joined errors apart.
func flatten(err error) []*Error {
	if err == nil {
		return nil
	}
	if j, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // the outermost is meant
		var all []*Error
		for _, e := range j.Unwrap() {
			all = append(all, flatten(e)...)
		}
		return all
	}
	return []*Error{asError(err)}
}

// needNames is for the verbs that must be told whom they mean.
func needNames(c *Command) error {
	if len(c.Services) == 0 {
		return Errorf(BadRequest, "%s needs the name of a service", c.Verb)
	}
	return nil
}

// errNoResult: the supervisor ended, or died, before it said how it went.
var errNoResult = errors.New("the supervisor ended the connection without a result")

// Do has a command carried out; each is called for what happens meanwhile, and
// may be nil. Errors that the supervisor reports are an *Error, or several joined.
func (c *Client) Do(ctx context.Context, cmd Command, each func(Event)) error {
	body, err := json.Marshal(cmd)
	if err != nil {
		return err
	}
	var r *result
	err = c.lines(ctx, "POST", "/v1/"+string(cmd.Verb), nil, body, func(line []byte) error {
		var s step
		if err := json.Unmarshal(line, &s); err != nil {
			return err
		}
		if s.Event != nil && each != nil {
			each(*s.Event)
		}
		if s.Result != nil {
			r = s.Result
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case r == nil:
		return errNoResult
	case r.OK:
		return nil
	}
	var errs []error
	for _, e := range r.Errors {
		errs = append(errs, e)
	}
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}

// do is the body of the methods that are a verb and names.
func (c *Client) do(ctx context.Context, verb Verb, services []string, each func(Event)) error {
	return c.Do(ctx, Command{Verb: verb, Services: slices.Clone(services)}, each)
}
