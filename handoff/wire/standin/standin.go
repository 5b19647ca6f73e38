// Package standin drains a tableflip server that knows no other way.
//
// github.com/cloudflare/tableflip has no word for "drain": the usual program
// handles one signal, SIGHUP, upon which it executes its own argv[0] as its
// successor, and it drains once that says that it is ready. So the supervisor
// starts such a program with an argv[0] that leads to this stand-in, which says so
// and does nothing. The program itself is not concerned: os.Executable() and the
// base name of argv[0] are what they were.
//
// When it is not the supervisor who sent the signal, the stand-in executes the program,
// and the server upgrades itself as it does without a supervisor.
//
// The supervisor makes a directory for each generation:
//
//	DIR/tableflip/NAME   argv[0]: a link to the supervisor's own program
//	DIR/program          a link to the real one
//	DIR/drain            a FIFO, read by the supervisor while it drains
package standin

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	links   = "tableflip" // the directory of argv[0], by which it knows what it is
	program = "program"
	fifo    = "drain"

	parentVariable = "TABLEFLIP_HAS_PARENT_7DIU3"
)

// Dir is a directory that was made.
type Dir struct {
	path  string
	drain int // read end of the FIFO; -1 while it is not read
}

// Make makes dir, which must not exist, for a program: its absolute path, the
// base name that its argv[0] is to have, and the supervisor's own program. Users
// other than ours may pass through it. The caller removes it with Remove.
func Make(dir, target, name, own string) (*Dir, error) {
	d := &Dir{path: dir, drain: -1}
	made := false
	fail := func(err error) (*Dir, error) {
		if made {
			_ = os.RemoveAll(dir)
		}
		return nil, fmt.Errorf("cannot make a stand-in for %s: %w", target, err)
	}
	for _, sub := range []string{dir, filepath.Join(dir, links)} {
		if err := os.Mkdir(sub, 0o711); err != nil {
			return fail(err)
		}
		made = true
		if err := os.Chmod(sub, 0o711); err != nil { // the umask narrowed it
			return fail(err)
		}
	}
	if err := os.Symlink(own, filepath.Join(dir, links, name)); err != nil {
		return fail(err)
	}
	if err := os.Symlink(target, filepath.Join(dir, program)); err != nil {
		return fail(err)
	}
	path := filepath.Join(dir, fifo)
	if err := unix.Mkfifo(path, 0o622); err != nil {
		return fail(err)
	}
	if err := os.Chmod(path, 0o622); err != nil {
		return fail(err)
	}
	return d, nil
}

// Argv0 is what the program is to be started with.
func (d *Dir) Argv0(name string) string { return filepath.Join(d.path, links, name) }

// Drain makes the next start of argv[0] a stand-in, and gives a descriptor that
// is readable once it runs. It is closed by Remove.
func (d *Dir) Drain() (fd int, err error) {
	if d.drain < 0 {
		// For writing as well, so that it does not read as ended before anybody wrote.
		d.drain, err = unix.Open(filepath.Join(d.path, fifo), unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			d.drain = -1
			return -1, fmt.Errorf("cannot drain by a stand-in: %w", err)
		}
	}
	return d.drain, nil
}

// Remove removes the directory. It may be called of nil.
func (d *Dir) Remove() {
	if d == nil {
		return
	}
	if d.drain >= 0 {
		_ = unix.Close(d.drain)
		d.drain = -1
	}
	_ = os.RemoveAll(d.path)
}

// Play plays the part if this process was started as a stand-in, and does not
// return then. It is the first that a supervisor's main calls.
func Play() {
	if os.Getenv(parentVariable) == "" || len(os.Args) == 0 {
		return
	}
	at := filepath.Dir(os.Args[0])
	if filepath.Base(at) != links {
		return
	}
	os.Exit(play(filepath.Dir(at)))
}

// tableflip's fds.
const (
	readyFD = 3
	namesFD = 4
	ready   = 42
)

func play(dir string) int {
	drain, err := unix.Open(filepath.Join(dir, fifo), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil { // nobody reads: the server was told by somebody else
		err = unix.Exec(filepath.Join(dir, program), os.Args, os.Environ())
		fmt.Fprintln(os.Stderr, "supervise: cannot execute the server for its own upgrade:", err)
		return 126
	}
	// The sockets are not ours; a copy would keep the old server's port open.
	for fd := namesFD + 1; fd < drain; fd++ {
		_ = unix.Close(fd)
	}
	_, _ = unix.Write(drain, []byte{'s'})
	_ = unix.Close(drain)
	if _, err := unix.Write(readyFD, []byte{ready}); err != nil {
		return 1
	}
	_ = unix.Close(readyFD)
	// The server takes an end of its successor for a failure, also just after it was
	// ready: it must be there until the server is gone.
	await(namesFD)
	return 0
}

// await reads until the other end is closed. The mode of the descriptor is the server's.
func await(fd int) {
	var b [512]byte
	for {
		n, err := unix.Read(fd, b[:])
		switch {
		case err == unix.EAGAIN:
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		case err == unix.EINTR:
		case n <= 0:
			return
		}
	}
}
