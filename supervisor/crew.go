package supervisor

import (
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/supervise/supervise/supervisor/config"
	"github.com/supervise/supervise/supervisor/listen"
)

// crew are the instances of one service (Instances=): each a runner with a
// machine, generations and rollouts of its own, on sockets that all share. New
// connections are spread at random over the lanes of the current generation of
// each; one that dies is left out until its successor is there, which is lent the
// dead one's lane with the clients in its queue.
type crew struct {
	name    string
	members []*runner
	set     *listen.Set
	steered map[*runner][]*listen.Lane // of each member's current generation
	batch   int                        // how many roll out at a time

	cause   evReload
	asks    map[*runner][]int // of those in queue
	queue   []*runner         // whose rollout has still to come
	rolling map[*runner]int   // those that roll out, with the failures that they had before
}

// expand gives the services that are run for one that was configured.
func expand(cfg *config.Service) []*config.Service {
	if cfg.Instances <= 1 {
		return []*config.Service{cfg}
	}
	var all []*config.Service
	for i := range cfg.Instances {
		c := *cfg
		c.Name = fmt.Sprintf("%s@%d", cfg.Name, i+1)
		c.Env = append(slices.Clone(cfg.Env), fmt.Sprintf("SUPERVISE_INSTANCE=%d", i+1))
		all = append(all, &c)
	}
	return all
}

func newCrew(cfg *config.Service, members []*runner) {
	if len(members) < 2 {
		return
	}
	c := &crew{
		name: cfg.Name, members: members, batch: max(1, cfg.RolloutBatch),
		steered: map[*runner][]*listen.Lane{}, rolling: map[*runner]int{},
	}
	for _, r := range members {
		r.crew = c
	}
}

// mates are all instances of the service, this one among them.
func (r *runner) mates() []*runner {
	if r.crew == nil {
		return []*runner{r}
	}
	return r.crew.members
}

// sharing are the generations of all who share the sockets.
func (r *runner) sharing() iter.Seq[*instance] {
	return func(yield func(*instance) bool) {
		for _, mate := range r.mates() {
			for _, in := range mate.instances {
				if !yield(in) {
					return
				}
			}
		}
	}
}

// sole reports whether no more than one generation of all shares the sockets.
func (r *runner) sole() bool {
	n := 0
	for range r.sharing() {
		n++
	}
	return n <= 1
}

// holder is who of those who share the sockets still has them; nil if nobody.
func (r *runner) holder() *runner {
	for _, mate := range r.mates() {
		if mate.set != nil {
			return mate
		}
	}
	return nil
}

// steerTo moves new connections to these lanes, in place of the service's old ones.
func (r *runner) steerTo(lanes []*listen.Lane) error {
	if r.crew == nil {
		return r.set.Steer(lanes)
	}
	r.crew.steered[r] = lanes
	return r.crew.spread()
}

// leave takes the lanes of an instance that ended out of the spread, if others serve.
func (c *crew) leave(r *runner, lanes []*listen.Lane) error {
	its := c.steered[r]
	if len(its) == 0 || len(lanes) == 0 || !slices.Contains(lanes, its[0]) {
		return nil
	}
	delete(c.steered, r)
	if len(c.steered) == 0 {
		c.steered[r] = its // new clients wait in its queue
		return nil
	}
	return c.spread()
}

func (c *crew) spread() error {
	var all []*listen.Lane
	for _, r := range c.members {
		all = append(all, c.steered[r]...)
	}
	return c.set.Steer(all)
}

// reload has all instances replaced, a batch at a time.
// asks are who waits for the end of a member's part of it.
func (c *crew) reload(ev evReload, asks map[*runner]int) {
	c.cause, c.queue = ev, slices.Clone(c.members)
	for r, ask := range asks {
		if c.asks == nil {
			c.asks = map[*runner][]int{}
		}
		c.asks[r] = append(c.asks[r], ask)
	}
	c.next()
}

// next starts the rollouts for which there is room.
func (c *crew) next() {
	for len(c.queue) > 0 && len(c.rolling) < c.batch {
		r := c.queue[0]
		c.queue = c.queue[1:]
		c.rolling[r] = r.s.rolloutsFail
		ev := c.cause
		ev.asks = c.asks[r]
		delete(c.asks, r)
		r.reload(ev)
	}
}

// changed is called when the machine of a member has another state.
func (c *crew) changed(r *runner) {
	before, ok := c.rolling[r]
	if !ok || r.s.state == replacing || r.s.state == starting {
		return
	}
	delete(c.rolling, r)
	if r.s.rolloutsFail > before && len(c.queue) > 0 {
		r.log.Error("rollout ended at the first instance that failed; the others keep what they run",
			"service", c.name, "instance", r.cfg.Name, "left", len(c.queue))
		c.queue = nil
		for other, asks := range c.asks {
			other.answered(actAnswer{asks: asks, failure: "not replaced, since " + r.cfg.Name + " failed"})
		}
		c.asks = nil
	}
	c.next()
}

// crews are the services with instances.
func (l *loop) crews() []*crew {
	all := map[*crew]bool{}
	for _, r := range l.runners {
		if r.crew != nil {
			all[r.crew] = true
		}
	}
	return slices.Collect(maps.Keys(all))
}
