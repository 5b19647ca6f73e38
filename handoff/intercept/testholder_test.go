package intercept

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// deadline is the one generous bound of every wait in these tests.
const deadline = 30 * time.Second

// memHolder holds listeners in memory, as a supervisor would: a list of slots
// for each key, each lent to one generation after the other. With lanes, each
// generation has a listener of its own in a SO_REUSEPORT group, and steer sends
// new connections to one of them.
type memHolder struct {
	t     testing.TB
	lanes bool

	mu     sync.Mutex
	held   map[Key][]*slot
	events []Event
	calls  []string // one line for each decision
	note   *sync.Cond
}

type slot struct {
	key    Key
	fd     int
	cookie uint64
	inode  uint64
	gens   map[*genHolder]bool // who was lent it, and is not gone
	link   string              // hard link of a unix path
	dev    uint64
	ino    uint64
}

func newHolder(t testing.TB) *memHolder {
	h := &memHolder{t: t, held: map[Key][]*slot{}}
	h.note = sync.NewCond(&h.mu)
	t.Cleanup(func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		for key := range h.held {
			h.drop(key)
		}
	})
	return h
}

func (h *memHolder) drop(key Key) {
	for _, s := range h.held[key] {
		_ = unix.Close(s.fd)
		if s.link != "" {
			_ = os.Remove(s.link)
		}
	}
	delete(h.held, key)
}

func (h *memHolder) say(format string, a ...any) {
	h.calls = append(h.calls, fmt.Sprintf(format, a...))
	h.note.Broadcast()
}

// log is every decision so far.
func (h *memHolder) log() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var b strings.Builder
	for _, c := range h.calls {
		b.WriteString(c + "\n")
	}
	for _, e := range h.events {
		b.WriteString(e.String() + "\n")
	}
	return b.String()
}

// count tells how many decisions begin with prefix.
func (h *memHolder) count(prefix string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.countLocked(prefix)
}

func (h *memHolder) countLocked(prefix string) int {
	n := 0
	for _, c := range h.calls {
		if strings.HasPrefix(c, prefix) {
			n++
		}
	}
	return n
}

// wait waits until at least n decisions begin with prefix.
func (h *memHolder) wait(prefix string, n int) error {
	late := time.AfterFunc(deadline, func() { h.mu.Lock(); h.note.Broadcast(); h.mu.Unlock() })
	defer late.Stop()
	end := time.Now().Add(deadline)
	h.mu.Lock()
	for h.countLocked(prefix) < n {
		if time.Now().After(end) {
			h.mu.Unlock()
			return fmt.Errorf("no %q:\n%s", prefix, h.log())
		}
		h.note.Wait()
	}
	h.mu.Unlock()
	return nil
}

func (h *memHolder) failed(kind EventKind, err error) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, e := range h.events {
		if e.Kind == kind && errors.Is(e.Err, err) {
			n++
		}
	}
	return n
}

// genHolder is the holder as one generation sees it.
type genHolder struct {
	*memHolder
	number int
	open   func(inode uint64) (bool, error) // in this generation
	ready  map[Key]bool                     // listened on
}

func (h *memHolder) generation(number int, open func(inode uint64) (bool, error)) *genHolder {
	return &genHolder{memHolder: h, number: number, open: open, ready: map[Key]bool{}}
}

// steer sends the new connections of a SO_REUSEPORT group to one member.
func steer(fd, index int) {
	prog := []unix.SockFilter{ret(uint32(index))}
	_ = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &unix.SockFprog{Len: 1, Filter: &prog[0]})
}

// steer sends new connections to the lanes of g, and waits until the others
// have no client in their queue.
func (g *genHolder) steer() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, slots := range g.held {
		for i, s := range slots {
			if s.gens[g] {
				steer(s.fd, i)
			}
		}
		for _, s := range slots {
			for end := time.Now().Add(deadline); !s.gens[g] && time.Now().Before(end); time.Sleep(time.Millisecond) {
				info, err := unix.GetsockoptTCPInfo(s.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
				if err != nil || info.Unacked == 0 {
					break
				}
			}
		}
	}
}

// release closes the lanes that nobody has, but one of each key.
func (h *memHolder) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, slots := range h.held {
		for i := 0; i < len(slots) && len(slots) > 1; {
			if len(slots[i].gens) > 0 {
				i++
				continue
			}
			_ = unix.Close(slots[i].fd)
			last := len(slots) - 1
			slots[i] = slots[last] // as the kernel does
			slots = slots[:last]
		}
		h.held[key] = slots
		if len(slots) == 1 {
			steer(slots[0].fd, 0)
		}
	}
}

// gone forgets the generation.
func (g *genHolder) gone() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, slots := range g.held {
		for _, s := range slots {
			delete(s.gens, g)
		}
	}
}

func (g *genHolder) free(s *slot) bool {
	if !s.gens[g] {
		return true
	}
	open, err := g.open(s.inode)
	return err == nil && !open
}

func (g *genHolder) Bind(c *Call) Decision {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.held[c.Key] {
		if !g.free(s) || g.lanes && len(s.gens) > 0 && !s.gens[g] {
			continue
		}
		if c.Key.Family == unix.AF_UNIX && !c.Key.Abstract() && !g.relink(s, c) {
			g.say("pass foreign %s", c.Key)
			return Pass()
		}
		delete(s.gens, g)
		d := Lend(s.fd)
		d.Own = len(s.gens) == 0
		s.gens[g] = true
		g.say("lend %s", c.Key)
		return d
	}
	if len(g.held[c.Key]) > 0 && !g.lanes {
		g.say("pass busy %s", c.Key)
		return Pass()
	}
	for key := range g.held {
		if key.Conflicts(c.Key) {
			g.drop(key)
			g.say("release %s", key)
		}
	}
	if c.Key.Family == unix.AF_UNIX || c.Key.Type == unix.SOCK_DGRAM {
		g.say("pass first %s", c.Key)
		return Pass()
	}
	fd, err := fresh(c, g.lanes)
	if err != nil {
		g.say("pass %s: %v", c.Key, err)
		return Pass()
	}
	g.say("give %s", c.Key)
	return Give(fd)
}

// fresh opens a plain TCP socket with the address of the call.
func fresh(c *Call, reuseport bool) (int, error) {
	fd, err := unix.Socket(c.Key.Family, c.Key.Type|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return -1, err
	}
	for _, opt := range []int{unix.SO_REUSEADDR, unix.SO_REUSEPORT} {
		v, _ := unix.GetsockoptInt(c.Socket, unix.SOL_SOCKET, opt)
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt, v)
	}
	if reuseport {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	if err := errors.Join(CopyOptions(fd, c.Socket), bindKey(fd, c.Key)); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func bindKey(fd int, k Key) error {
	if k.Family == unix.AF_INET {
		return unix.Bind(fd, &unix.SockaddrInet4{Addr: k.Addr.Addr().As4(), Port: int(k.Addr.Port())})
	}
	return unix.Bind(fd, &unix.SockaddrInet6{Addr: k.Addr.Addr().As16(), Port: int(k.Addr.Port()), ZoneId: k.Scope})
}

// relink makes the path lead to the slot's socket again; false if somebody
// else's file is there.
func (g *genHolder) relink(s *slot, c *Call) bool {
	if c.Exists {
		return c.Dev == s.dev && c.Ino == s.ino
	}
	return os.Link(s.link, c.Key.Path) == nil
}

func (g *genHolder) Listen(c *Call) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !c.Bound {
		g.say("listen unbound gen %d", g.number)
		return false
	}
	g.ready[c.Key] = true
	for _, s := range g.held[c.Key] {
		if s.cookie == c.Cookie {
			g.say("listen held %s gen %d", c.Key, g.number)
			return false
		}
	}
	s := &slot{key: c.Key, fd: c.Socket, cookie: c.Cookie, gens: map[*genHolder]bool{g: true}}
	var st unix.Stat_t
	_ = unix.Fstat(c.Socket, &st)
	s.inode = st.Ino
	if c.Key.Family == unix.AF_UNIX && !c.Key.Abstract() {
		s.link = filepath.Join(filepath.Dir(c.Key.Path), ".held."+strconv.FormatUint(c.Inode, 10))
		if err := os.Link(c.Key.Path, s.link); err != nil {
			g.say("not held %s: %v", c.Key, err)
			return false
		}
		if err := unix.Lstat(s.link, &st); err == nil {
			s.dev, s.ino = st.Dev, st.Ino
		}
	}
	g.held[c.Key] = append(g.held[c.Key], s)
	if g.lanes && len(g.held[c.Key]) == 1 {
		steer(s.fd, 0)
	}
	g.say("learn %s gen %d", c.Key, g.number)
	return true
}

func (g *genHolder) Unlink(r *Removal) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for key, slots := range g.held {
		for _, s := range slots {
			if key.Path == r.Path && s.dev == r.Dev && s.ino == r.Ino {
				g.say("unlink kept %s", r.Path)
				return true
			}
		}
	}
	g.say("unlink %s", r.Path)
	return false
}

func (g *genHolder) Event(e Event) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.events = append(g.events, e)
	g.note.Broadcast()
}

// family lists the processes of a generation: pid, its descendants, its
// process group, and whoever has the marker in its environment.
func family(pid int, marker string) []int {
	dirs, _ := os.ReadDir("/proc")
	parents := map[int]int{}
	member := map[int]bool{}
	for _, d := range dirs {
		p, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + d.Name() + "/stat")
		if err != nil {
			continue
		}
		f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		parents[p], _ = strconv.Atoi(f[1])
		pgrp, _ := strconv.Atoi(f[2])
		env, _ := os.ReadFile("/proc/" + d.Name() + "/environ")
		if p == pid || pgrp == pid || marker != "" && bytes.Contains(env, []byte(marker)) {
			member[p] = true
		}
	}
	for again := true; again; {
		again = false
		for p, parent := range parents {
			if member[parent] && !member[p] {
				member[p], again = true, true
			}
		}
	}
	var pids []int
	for p := range member {
		pids = append(pids, p)
	}
	return pids
}
