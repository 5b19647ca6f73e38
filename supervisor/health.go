package supervisor

import (
	"context"

	"github.com/supervise/supervise/supervisor/ready"
)

// askLive asks once, in the background, whether the generation lives; the
// answer is an event. New connections go to the current generation, so whoever
// answers an address of ours is the one that is meant.
func (r *runner) askLive(in *instance) {
	gen := in.n
	probe, err := r.probeFor(in, r.cfg.Live)
	if err != nil {
		r.send(evProbed{gen: gen, failure: err.Error()})
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), r.cfg.LiveTimeout)
	r.children.Go(func() {
		defer cancel()
		r.post(evProbed{gen: gen, failure: tryLive(ctx, probe, r.over)})
	})
}

// tryLive is one try, which the end of the supervisor ends too.
func tryLive(ctx context.Context, probe ready.Probe, over <-chan struct{}) string {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- probe.Try(ctx) }()
	var err error
	select {
	case err = <-done:
	case <-over:
		cancel()
		err = <-done
	}
	if err != nil {
		return err.Error()
	}
	return ""
}
