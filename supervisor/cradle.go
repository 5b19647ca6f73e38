package supervisor

import (
	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/handoff/intercept"
	"github.com/supervise/supervise/handoff/shim"
)

// cradle is a throw-away OS thread that has the filter on it already, and on
// which one child can be born. To make one takes longer than a fork, so the next
// generation's is made ahead (prepareSpare); until then it sleeps.
type cradle struct {
	fd   int // notify fd of the filter; start hands it over
	spec chan *shim.Spec
	born chan birth
}

type birth struct {
	child *shim.Child
	err   error
}

// newCradle makes the thread. A filterError says that there can be no filter.
func newCradle() (*cradle, error) {
	c := &cradle{fd: -1, spec: make(chan *shim.Spec), born: make(chan birth, 1)}
	installed := make(chan error, 2)
	go func() {
		installed <- intercept.Thread(func() error {
			fd, err := intercept.Install(intercept.Options{Unlink: true})
			c.fd = fd
			installed <- err
			if err != nil {
				return nil
			}
			if spec, ok := <-c.spec; ok {
				child, err := shim.Start(spec)
				c.born <- birth{child, err}
			}
			return nil
		})
	}()
	if err := <-installed; err != nil {
		return nil, filterError{err}
	}
	return c, nil
}

// cradleAhead makes a cradle beside what the caller does meanwhile. nil comes
// where there can be none; whoever tries then is told why.
func cradleAhead() <-chan *cradle {
	ahead := make(chan *cradle, 1)
	go func() {
		c, _ := newCradle()
		ahead <- c
	}()
	return ahead
}

// start has the child born, once, and gives it with the notify fd, which is
// the caller's then. On error there is neither.
func (c *cradle) start(spec *shim.Spec) (child *shim.Child, notifyFD int, err error) {
	c.spec <- spec
	b := <-c.born
	if b.err != nil {
		_ = unix.Close(c.fd)
		return nil, -1, b.err
	}
	return b.child, c.fd, nil
}

// close ends a cradle that nobody was born in.
func (c *cradle) close() {
	close(c.spec)
	_ = unix.Close(c.fd)
}
