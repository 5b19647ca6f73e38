//go:build unix

package handoff

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cloudflare/tableflip"
)

const (
	canUpgrade = true

	// flipVariable is tableflip's own sign that there is a parent.
	flipVariable = "TABLEFLIP_HAS_PARENT_7DIU3"

	// legacyVariable is what we tell our own successor besides: a legacy, as
	// JSON. It is in the environment of this process only while the successor is
	// being started, since tableflip passes that environment on.
	legacyVariable = "HANDOFF_LEGACY"

	// pidFile is the name by which tableflip passes on the pipe on which the
	// successor writes its pid, a line. tableflip does not tell it.
	pidFile = "handoff pid"

	flipPrefix = "handoff-" // and a number: the address of our sockets to tableflip
)

// legacy is what a process leaves to the one that replaces it.
type legacy struct {
	Asked    []string `json:"asked"` // "tcp :8080"; number n is tableflip's address handoff-n
	Notify   string   `json:"notify,omitempty"`
	Pings    int64    `json:"pings,omitempty"`    // ns
	Patience int64    `json:"patience,omitempty"` // ns
}

// flip is the part of a process that is done by tableflip: a child of any
// tableflip parent, and a parent on SIGHUP. Until one or the other, it is nothing.
type flip struct {
	mu       sync.Mutex
	upgrader *tableflip.Upgrader
	notReady error // what Upgrade says before Ready
	child    bool  // of somebody, or of our predecessor if isHeir
	isHeir   bool
	kept     []kept
	isReady  bool
	busy     bool // an upgrade is under way
	stopped  bool
}

// kept is one of our sockets that a successor will get.
type kept struct {
	asked   string
	network string
	socket  any
	added   bool // to the upgrader
}

// load becomes a tableflip child if there is such a parent.
func (f *flip) load(p *process) error {
	text := p.env.take(legacyVariable)
	if p.env.take(flipVariable) == "" {
		return nil // text, if any, leaked from somebody else's upgrade
	}
	// tableflip reads the variable itself.
	if err := os.Setenv(flipVariable, "yes"); err != nil {
		return err
	}
	defer os.Unsetenv(flipVariable)
	if err := f.open(); err != nil {
		return err
	}
	f.child = true
	word, err := f.upgrader.File(pidFile)
	if err != nil || word == nil {
		return err // a foreign parent: Listen asks by the literal address
	}
	defer word.Close()
	var left legacy
	if err := json.Unmarshal([]byte(text), &left); err != nil {
		return fmt.Errorf("cannot read %s: %w", legacyVariable, err)
	}
	f.isHeir = true
	p.notifier = notifier{addr: left.Notify}
	p.pings, p.patience = time.Duration(left.Pings), time.Duration(left.Patience)
	for i, asked := range left.Asked {
		h, err := f.heirloom(i, asked)
		if err != nil {
			return fmt.Errorf("cannot inherit %s: %w", asked, err)
		}
		p.inherited.sockets = append(p.inherited.sockets, h)
	}
	if _, err := fmt.Fprintln(word, p.env.pid); err != nil {
		return fmt.Errorf("cannot tell the old process our pid: %w", err)
	}
	return nil
}

// open makes the upgrader, once.
func (f *flip) open() (err error) {
	if f.upgrader, err = tableflip.New(tableflip.Options{}); err != nil {
		return err
	}
	// An Upgrade just after Ready may still be refused: the goroutine in
	// between has two pieces of news and takes one at random. This is the error,
	// which has no exported name, to know it by then.
	f.notReady = f.upgrader.Upgrade()
	return nil
}

// heirloom claims the socket of that number before Ready closes it.
func (f *flip) heirloom(number int, asked string) (*inherited, error) {
	network, _, _ := strings.Cut(asked, " ")
	h := &inherited{asked: asked, protocol: flipVariable}
	var err error
	if (&ask{network: network}).packet() {
		h.packet, err = f.upgrader.PacketConn(network, flipPrefix+strconv.Itoa(number))
	} else {
		h.stream, err = f.upgrader.Listener(network, flipPrefix+strconv.Itoa(number))
	}
	if err == nil && h.stream == nil && h.packet == nil {
		err = errors.New("the old process did not pass it on")
	}
	unlinks(h.stream, true)
	return h, err
}

// unlinks sets whether the path goes when the listener is closed. What we bound
// is ours to remove, unless a successor has it.
func unlinks(socket any, on bool) {
	if l, ok := socket.(*net.UnixListener); ok {
		l.SetUnlinkOnClose(on)
	}
}

// foreign reports whether a parent that is not our predecessor holds the sockets.
func (f *flip) foreign() bool { return f.child && !f.isHeir }

// heir reports whether our predecessor is the parent.
func (f *flip) heir() bool { return f.isHeir }

// inherit asks a foreign parent; nil if it has no such socket.
func (f *flip) inherit(a *ask) (net.Listener, error) {
	if !f.foreign() {
		return nil, nil
	}
	l, err := f.upgrader.Listener(a.network, a.address)
	if err != nil {
		return nil, fmt.Errorf("cannot inherit %s %s: %w", a.network, a.address, err)
	}
	return l, nil
}

func (f *flip) inheritPacket(a *ask) (net.PacketConn, error) {
	if !f.foreign() {
		return nil, nil
	}
	c, err := f.upgrader.PacketConn(a.network, a.address)
	if err != nil {
		return nil, fmt.Errorf("cannot inherit %s %s: %w", a.network, a.address, err)
	}
	return c, nil
}

// keep remembers a socket for the next process.
func (f *flip) keep(a *ask, socket any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kept = append(f.kept, kept{asked: a.network + " " + a.literal(), network: a.network, socket: socket})
}

// ready says so to a tableflip parent.
func (f *flip) ready(p *process) error {
	f.mu.Lock()
	f.isReady = true
	f.mu.Unlock()
	if !f.child {
		return nil
	}
	err := f.upgrader.Ready()
	if err == nil && f.isHeir {
		go f.closeLeft(p)
	}
	return err
}

// closeLeft gives up what the old process served and this one does not ask for,
// once the old one has ended: by then Listen has been called.
func (f *flip) closeLeft(p *process) {
	if f.upgrader.WaitForParent(context.Background()) != nil {
		return
	}
	for _, h := range p.inherited.left() {
		if h.stream != nil {
			h.stream.Close()
		} else {
			h.packet.Close()
		}
	}
}

// stop ends an upgrade that is under way: it is the end that is wanted now.
func (f *flip) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopped = true
	if f.busy {
		// It removes unix paths by the names that tableflip knows, and ours are no paths.
		f.upgrader.Stop()
	}
}

// prepare has everything that a successor needs in the upgrader.
func (f *flip) prepare() (asked []string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.stopped:
		return nil, errors.New("this process is ending")
	case !f.isReady:
		return nil, errors.New("this process is not ready yet")
	case f.busy:
		return nil, errors.New("an upgrade is under way")
	}
	if f.upgrader == nil {
		if err := f.open(); err != nil {
			return nil, err
		}
		if err := f.upgrader.Ready(); err != nil {
			return nil, err
		}
	}
	for i := range f.kept {
		k := &f.kept[i]
		asked = append(asked, k.asked)
		if k.added {
			continue
		}
		name := flipPrefix + strconv.Itoa(i)
		switch s := k.socket.(type) {
		case tableflip.Listener:
			err = f.upgrader.AddListener(k.network, name, s)
			unlinks(s, true) // until the successor is ready
		case tableflip.PacketConn:
			err = f.upgrader.AddPacketConn(k.network, name, s)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot pass on %s: %w", k.asked, err)
		}
		k.added = true
	}
	f.busy = true
	return asked, nil
}

// upgrade starts this program again, with all its listeners, and begins to
// drain when the new process is ready. Whatever fails, this one goes on.
func (p *process) upgrade() error {
	if p.env.pid == 1 {
		return errors.New("process 1 cannot be replaced by another: its end is the end of the container")
	}
	f := &p.flip
	asked, err := f.prepare()
	if err != nil {
		return err
	}
	// A manager that does not listen does not keep us from it.
	_ = p.notifier.send("RELOADING=1" + monotonic())
	pid, err := f.start(legacy{
		Asked: asked, Notify: p.notifier.addr,
		Pings: int64(p.pings), Patience: int64(p.patience),
	})
	f.mu.Lock()
	f.busy = false // before anybody hears that it is over, and may ask again
	f.mu.Unlock()
	if err != nil {
		_ = p.notifier.send("READY=1\nSTATUS=cannot upgrade: " + strings.ReplaceAll(err.Error(), "\n", " "))
		return err
	}
	f.mu.Lock()
	for _, k := range f.kept {
		unlinks(k.socket, false)
	}
	f.mu.Unlock()
	if pid != 0 {
		// From us, while we are still the one that the manager listens to.
		_ = p.notifier.send("MAINPID=" + strconv.Itoa(pid) + "\nREADY=1")
	}
	p.drain(causeUpgrade)
	return nil
}

// start has tableflip start the successor, and gives its pid when it is ready.
func (f *flip) start(left legacy) (pid int, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	err = f.upgrader.AddFile(pidFile, w)
	if err = errors.Join(err, w.Close()); err != nil {
		return 0, err
	}
	text, err := json.Marshal(left)
	if err != nil {
		return 0, err
	}
	if err := os.Setenv(legacyVariable, string(text)); err != nil {
		return 0, err
	}
	for range 100 {
		if err = f.upgrader.Upgrade(); err != f.notReady {
			break
		}
		time.Sleep(time.Millisecond)
	}
	os.Unsetenv(legacyVariable)
	if err != nil {
		return 0, err
	}
	if err := r.SetReadDeadline(time.Now().Add(notifyPatience)); err != nil {
		return 0, err
	}
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		// A program that is another one now, and does not use this package.
		return 0, nil
	}
	return strconv.Atoi(strings.TrimSpace(line))
}
