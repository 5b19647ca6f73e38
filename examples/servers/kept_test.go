package servers

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/cmd/storm/load"
)

// kept is what became of connections that clients keep, in two rollouts.
type kept struct {
	outcome
	none  bool  // the server keeps none
	other bool  // it is not HTTP
	idle  []end // of those that were idle
	stale int64 // closed by the server when the next request was on its way
	total int64
}

// end is that of an idle connection: how long after the old generation was told
// to stop, and how.
type end struct {
	after time.Duration
	err   error
}

const (
	idleConnections = 3
	keptRequests    = 40 // at least, before and between the rollouts
)

// keepOn rolls out while some clients keep their connections.
func keepOn(t *testing.T, p *place, sup *supervised) kept {
	t.Helper()
	if p.talk != nil {
		return kept{other: true}
	}
	ends := make(chan end, idleConnections)
	told := make(chan struct{})
	for range idleConnections {
		c, keeps := keepOne(t, p)
		defer c.Close()
		if !keeps {
			return kept{none: true}
		}
		go func() {
			_, err := c.Read(make([]byte, 1))
			at := time.Now()
			<-told
			ends <- end{time.Since(at), err}
		}()
	}
	l, err := load.Start(load.Options{Network: p.network(), Addrs: []string{p.addr()}, Workers: 2, Rate: 200, KeepAlive: true, Repeat: true})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Stop()
	var k kept
	var signalled, now time.Time
	for i := 1; i <= 2; i++ {
		await(t, "answer on kept connections", func() error {
			if l.OK() < int64(i*keptRequests) {
				return fmt.Errorf("%d good answers and %d failures", l.OK(), l.Failed())
			}
			return sup.alive()
		})
		l.Mark(fmt.Sprintf("rollout %d", i))
		from := sup.now()
		sup.rollOut(t, p.alone)
		if i == 1 {
			signalled, now = sup.await(t, from, "old generation drained").read, time.Now()
			close(told)
		}
	}
	for range idleConnections {
		select {
		case e := <-ends:
			e.after = now.Add(-e.after).Sub(signalled)
			k.idle = append(k.idle, e)
		case <-time.After(patience):
			t.Fatalf("an idle connection outlived its generation by %v\n%s", patience, sup.words())
		}
	}
	r := l.Stop()
	k.stale, k.total = r.Stale, r.Total()
	fresh := r
	fresh.Failures = nil
	for _, f := range r.Failures {
		if f.Reused { // it had accepted the connection: whatever then happens is its doing
			k.server = append(k.server, f)
		} else {
			fresh.Failures = append(fresh.Failures, f)
		}
	}
	o := judge(fresh, 0, nil)
	o.server = append(o.server, k.server...)
	k.outcome = o
	return k
}

// keepOne makes a request on a connection of its own, and keeps that.
func keepOne(t *testing.T, p *place) (c net.Conn, keeps bool) {
	t.Helper()
	c, err := net.DialTimeout(p.network(), p.addr(), patience)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		t.Fatal(err)
	}
	if answer.Close {
		return c, false
	}
	// Some say that they keep it, and do not.
	c.SetReadDeadline(time.Now().Add(stays))
	_, err = c.Read(make([]byte, 1))
	c.SetReadDeadline(time.Now().Add(patience))
	return c, errors.Is(err, os.ErrDeadlineExceeded)
}

// stays is how long a connection that is kept stays at least.
const stays = 200 * time.Millisecond

func (k kept) String() string {
	switch {
	case k.other:
		return "not HTTP"
	case k.none:
		return "keeps none"
	}
	how, slowest := "closed", time.Duration(0)
	for _, e := range k.idle {
		if errors.Is(e.err, unix.ECONNRESET) {
			how = "reset"
		}
		slowest = max(slowest, e.after)
	}
	when := "at once"
	if slowest > time.Second {
		when = fmt.Sprintf("after %d s", (slowest+time.Second/2)/time.Second)
	}
	return fmt.Sprintf("idle %s %s; busy: %d failed, %d asked again, of %d", how, when, k.failed(), k.stale, k.total)
}
