package logs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// Rotation says when a log file is moved aside, and how many of them are kept.
type Rotation struct {
	Size int64 // bytes that a file may grow to; 0: it is not rotated by us
	Keep int   // files besides the current one: path.1 is the youngest
}

// maxUnended is how far beyond its size a file grows while no line ends.
const maxUnended = 64 << 10

// File is a log file that several outputs append to, each line by itself. It
// rotates by size and can be opened anew, for those who rotate by their own means
// (logrotate, and then SIGUSR1). A FIFO or a device may be given, too; it is
// neither rotated nor reopened.
//
// Its methods may be called from any goroutine.
type File struct {
	path   string
	rotate Rotation

	mu      sync.Mutex
	fd      int
	regular bool
	size    int64
	ended   bool  // the last byte is a line feed, or there is none
	again   int64 // size at which a rotation that failed is tried again
	closed  bool

	report func(error)
}

// OpenFile opens path for appending, makes it with mode 0640 if need be; its
// folder must exist. The caller closes it, after the outputs. report is called,
// from whoever writes, when a rotation fails; it may be nil and must not block.
func OpenFile(path string, r Rotation, report func(error)) (*File, error) {
	fd, err := openAppend(path, 0o640)
	if err != nil {
		return nil, err
	}
	if report == nil {
		report = func(error) {}
	}
	f := &File{path: path, rotate: r, fd: fd, report: report}
	if err := f.look(); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return f, nil
}

// look learns what was opened. Called with mu held, or before anybody else can.
func (f *File) look() error {
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return fmt.Errorf("cannot open log file: %w", &os.PathError{Op: "fstat", Path: f.path, Err: err})
	}
	f.regular = st.Mode&unix.S_IFMT == unix.S_IFREG
	f.size, f.ended, f.again = st.Size, true, 0
	if f.regular && st.Size > 0 {
		// Opened for writing only: whether a line waits for its end is seen
		// through another descriptor, where that is permitted.
		if r, err := unix.Open(f.path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err == nil {
			var b [1]byte
			n, _ := unix.Pread(r, b[:], st.Size-1)
			f.ended = n != 1 || b[0] == '\n'
			unix.Close(r)
		}
	}
	return nil
}

// Reopen opens the path again and leaves what was open: whoever renamed the file
// may compress it now. On error the old one stays in use.
func (f *File) Reopen() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.regular || f.closed {
		return nil
	}
	return f.reopen(0o640)
}

// Follow opens the path again if it is not the file that is open: renamed, or
// removed, by somebody else.
func (f *File) Follow() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.regular || f.closed {
		return nil
	}
	var ours, there unix.Stat_t
	if unix.Fstat(f.fd, &ours) == nil && unix.Stat(f.path, &there) == nil && ours.Ino == there.Ino && ours.Dev == there.Dev {
		return nil
	}
	return f.reopen(0o640)
}

// reopen is called with mu held.
func (f *File) reopen(mode uint32) error {
	fd, err := openAppend(f.path, mode)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("cannot reopen log file: %s is not a regular file any more", f.path)
	}
	if err := unix.Dup3(fd, f.fd, unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("cannot reopen log file: dup3: %w", err)
	}
	return f.look()
}

// Close closes it. Outputs that write to it are told EBADF.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	if err := unix.Close(f.fd); err != nil {
		return fmt.Errorf("cannot close log file: %w", err)
	}
	return nil
}

// dest gives a destination for one writer.
func (f *File) dest() dest {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.regular {
		return newStream(f.fd) // it may have to be waited for
	}
	return &fileDest{f}
}

type fileDest struct{ f *File }

func (d *fileDest) try(b []byte) (int, error) { return d.f.write(b) }
func (d *fileDest) end()                      {}
func (d *fileDest) fd() int                   { return -1 } // it is never waited for
func (d *fileDest) close()                    {}

// hopeless: whatever is wrong with a disk, an administrator may mend it.
func (d *fileDest) hopeless(err error) bool { return err == unix.EBADF }

func (f *File) write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return 0, unix.EBADF
	}
	done := 0
	for done < len(b) {
		piece := b[done:]
		if f.rotate.Size > 0 {
			piece = piece[:f.fits(piece)]
			if len(piece) == 0 {
				f.turn()
				continue
			}
		}
		n, err := unix.Write(f.fd, piece)
		if err == unix.EINTR {
			continue
		}
		if n > 0 {
			f.ended = piece[n-1] == '\n'
			f.size += int64(n)
			done += n
		}
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// fits is how much of b goes into the current file, 0 when another one must
// begin: whole lines, as many as there is room for, one at least.
func (f *File) fits(b []byte) int {
	most := max(f.rotate.Size, f.again)
	room := most - f.size
	if int64(len(b)) <= room {
		return len(b)
	}
	if room > 0 {
		if i := bytes.LastIndexByte(b[:room], '\n'); i >= 0 {
			return i + 1
		}
	}
	switch {
	case f.size == 0 || !f.ended:
		// One line is longer than a file, or has begun in this one: to its end.
		limit := min(int64(len(b)), max(room, 0)+maxUnended)
		if i := bytes.IndexByte(b[:limit], '\n'); i >= 0 {
			return i + 1
		}
		if f.size < most+maxUnended {
			return int(limit)
		}
	}
	return 0
}

// turn begins another file. Where that fails it goes on with this one, and tries
// again when it has grown by as much again. Called with mu held.
func (f *File) turn() {
	if err := f.turnErr(); err != nil {
		f.again = f.size + max(f.rotate.Size, maxUnended)
		f.report(err)
	}
}

func (f *File) turnErr() error {
	var ours, there unix.Stat_t
	if err := unix.Fstat(f.fd, &ours); err != nil {
		return fmt.Errorf("cannot rotate log file: %w", &os.PathError{Op: "fstat", Path: f.path, Err: err})
	}
	err := unix.Stat(f.path, &there)
	if err != nil && err != unix.ENOENT {
		return fmt.Errorf("cannot rotate log file: %w", &os.PathError{Op: "stat", Path: f.path, Err: err})
	}
	if err == unix.ENOENT || there.Ino != ours.Ino || there.Dev != ours.Dev {
		return f.reopen(ours.Mode & 0o777) // somebody else did it
	}
	if ours.Size < f.size { // or made it shorter
		f.size, f.ended, f.again = ours.Size, true, 0
		return nil
	}
	var errs []error
	for i := f.rotate.Keep; i > 1; i-- {
		errs = append(errs, rename(f.numbered(i-1), f.numbered(i)))
	}
	if err := errors.Join(errs...); err != nil {
		return err // the youngest would overwrite what could not be moved
	}
	if f.rotate.Keep > 0 {
		err = rename(f.path, f.numbered(1))
	} else if err = unix.Unlink(f.path); err != nil {
		err = fmt.Errorf("cannot rotate log file: %w", &os.PathError{Op: "unlink", Path: f.path, Err: err})
	}
	if err != nil {
		return err
	}
	if err := f.reopen(ours.Mode & 0o777); err != nil {
		return err
	}
	// As it was before, where we may: a reader of another group goes on reading.
	_ = unix.Fchown(f.fd, int(ours.Uid), int(ours.Gid))
	_ = unix.Fchmod(f.fd, ours.Mode&0o777)
	return nil
}

func (f *File) numbered(i int) string { return f.path + "." + strconv.Itoa(i) }

// rename moves a file that may be missing.
func rename(from, to string) error {
	err := unix.Rename(from, to)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	return fmt.Errorf("cannot rotate log file: %w", &os.LinkError{Op: "rename", Old: from, New: to, Err: err})
}

// openAppend opens a log file. O_NONBLOCK is for a FIFO that nobody reads, which
// would hold us for ever; regular files do not know it.
func openAppend(path string, mode uint32) (int, error) {
	const flags = unix.O_WRONLY | unix.O_APPEND | unix.O_CREAT | unix.O_CLOEXEC | unix.O_NOCTTY | unix.O_NONBLOCK
	for {
		fd, err := unix.Open(path, flags, mode)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return -1, fmt.Errorf("cannot open log file: %w", &os.PathError{Op: "open", Path: path, Err: err})
		}
		return fd, nil
	}
}
