package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// supervised is the command under the storm: a supervisor with its server.
type supervised struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended; then err is valid
	err  error
	news chan string   // "rollout done" and "rollout failed" lines
	read chan struct{} // closed when its standard error has been read to the end

	mu   sync.Mutex
	last []string // the end of its standard error
}

// keepLines of standard error are shown when something went wrong.
const keepLines = 30

// begin starts argv, in a process group of its own so that a Ctrl-C at the
// terminal reaches only storm, which then stops it in order. Call end.
func begin(argv, env []string, show io.Writer) (*supervised, error) {
	s := &supervised{done: make(chan struct{}), news: make(chan string, 1000), read: make(chan struct{})}
	s.cmd = exec.Command(argv[0], argv[1:]...)
	s.cmd.Env = append(os.Environ(), env...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	s.cmd.Stdout = show
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s.cmd.Stderr = w
	if err := s.cmd.Start(); err != nil {
		return nil, errors.Join(err, r.Close(), w.Close())
	}
	w.Close()
	go s.listen(r, show)
	go func() {
		s.err = s.cmd.Wait()
		close(s.done)
	}()
	return s, nil
}

// listen ends when the last process that has the pipe has gone.
func (s *supervised) listen(r io.ReadCloser, show io.Writer) {
	defer r.Close()
	defer close(s.read)
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if show != nil {
			fmt.Fprintln(show, line)
		}
		s.mu.Lock()
		s.last = append(s.last, line)
		if len(s.last) > keepLines {
			s.last = s.last[1:]
		}
		s.mu.Unlock()
		if strings.Contains(line, "rollout done") || strings.Contains(line, "rollout failed") {
			select {
			case s.news <- line:
			default: // nobody waits for so many
			}
		}
	}
	// A line that was too long: go on reading, or the writer would block.
	io.Copy(io.Discard, r)
}

func (s *supervised) pid() int { return s.cmd.Process.Pid }

// alive is nil while the command has not ended.
func (s *supervised) alive() error {
	select {
	case <-s.done:
		return fmt.Errorf("%s has ended: %w", s.cmd.Args[0], exitError(s.err))
	default:
		return nil
	}
}

func exitError(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// words are the last lines of standard error, for a message.
func (s *supervised) words() string {
	if s.alive() != nil {
		select {
		case <-s.read:
		case <-time.After(time.Second): // a process that it left has the pipe
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.last) == 0 {
		return ""
	}
	return "\n\t" + strings.Join(s.last, "\n\t")
}

// end stops it with SIGTERM, or after the patience with SIGKILL. It is no
// error that it had ended already.
func (s *supervised) end(patience time.Duration) error {
	if s.alive() != nil {
		return nil
	}
	s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
		return nil
	case <-time.After(patience):
	}
	s.cmd.Process.Kill()
	<-s.done
	return fmt.Errorf("%s did not end within %v after SIGTERM and was killed", s.cmd.Args[0], patience)
}
