package supervisor

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/supervise/supervise/supervisor/config"
	"github.com/supervise/supervise/supervisor/logs"
)

// outputGrace is how long the last words of a generation wait for a slow reader,
// and stalledGrace for one that is known to take nothing.
const (
	outputGrace  = 5 * time.Second
	stalledGrace = 200 * time.Millisecond
)

// places are where the output of a service goes: the same for each generation.
type places struct {
	out, err       config.Output
	outLog, errLog *logs.File // nil where that is no file
}

// readPlaces reads where the output goes; nothing is opened.
func (r *runner) readPlaces() (err error) {
	output := r.cfg.Output
	if output == "socket" { // of the main process alone; the rest has none
		output = "prefix"
	}
	if r.places.out, err = config.ParseOutput(output); err != nil {
		return err
	}
	r.places.err = r.places.out
	if r.cfg.ErrorOutput != "" {
		r.places.err, err = config.ParseOutput(r.cfg.ErrorOutput)
	}
	return err
}

// openPlaces opens the log files, before anything is started. Services that
// name the same path share the file.
func (r *runner) openPlaces() (err error) {
	if r.places.outLog, err = r.logFile(r.places.out); err != nil {
		return err
	}
	if r.cfg.TruncateOut && r.places.outLog != nil {
		if err := unix.Truncate(r.places.out.Path, 0); err != nil {
			return fmt.Errorf("cannot empty log file %s: %w", r.places.out.Path, err)
		}
	}
	r.places.errLog, err = r.logFile(r.places.err)
	return err
}

// logFile gives the file of a place, nil where it is none.
func (l *loop) logFile(o config.Output) (*logs.File, error) {
	if o.Kind != config.OutputFile {
		return nil, nil
	}
	if f := l.files[o.Path]; f != nil {
		return f, nil
	}
	f, err := logs.OpenFile(o.Path, logs.Rotation{Size: o.Rotate, Keep: o.Keep}, func(err error) {
		l.poll.post(func() { l.log.Warn("log file is not rotated", "error", err) })
	})
	if err != nil {
		return nil, err
	}
	if l.files == nil {
		l.files = map[string]*logs.File{}
	}
	l.files[o.Path] = f
	return f, nil
}

// reopenLogs is what SIGUSR1 asks for: somebody renamed the files.
func (l *loop) reopenLogs() {
	for path, f := range l.files {
		if err := f.Reopen(); err != nil {
			l.log.Warn("going on with the old log file", "error", err)
			continue
		}
		l.log.Debug("log file reopened", "path", path)
	}
}

func (l *loop) closeLogs() {
	for _, f := range l.files {
		if err := f.Close(); err != nil {
			l.log.Warn("output of the command may be lost", "error", err)
		}
	}
}

// newOutput makes what takes the child's words.
func (r *runner) newOutput(in *instance) (*logs.Output, error) {
	if r.pump == nil {
		var err error
		if r.loop.pump, err = logs.NewPump(); err != nil {
			return nil, err
		}
	}
	return logs.New(logs.Options{
		Pump:   r.pump,
		Stdout: r.place(in, r.places.out, r.places.outLog, 1),
		Stderr: r.place(in, r.places.err, r.places.errLog, 2),
		Report: func(err error) { r.outputFails(in, err) },
	})
}

func (r *runner) place(in *instance, o config.Output, f *logs.File, fd int) logs.Place {
	p := logs.Place{FD: fd, File: f}
	name := r.cfg.SyslogIdent
	if name == "" {
		name = r.cfg.Name
	}
	if o.Prefix {
		p.Prefix = fmt.Sprintf("%s.%d | ", name, in.n)
	}
	switch o.Kind {
	case config.OutputJournal:
		p.Journal = &logs.Journal{Identifier: name, Service: r.cfg.Name, Generation: in.n, Invocation: in.marker}
	case config.OutputNull:
		p.Null = true
	case config.OutputInherit, config.OutputPrefix, config.OutputFile:
	}
	return p
}

// outputFails says what is lost of the output of a generation. It may be called
// from any goroutine, and when the loop has ended: last words are among it.
func (r *runner) outputFails(in *instance, err error) {
	var loss *logs.LossError
	if errors.As(err, &loss) {
		r.log.Warn("output of the command was dropped", "service", r.cfg.Name, "generation", in.n,
			"lines", loss.Lines, "bytes", loss.Bytes, "within", loss.For.Round(time.Millisecond))
		return
	}
	r.warn(in, "output of the command is lost", err)
}

// followLogs has a generation that begins write to the files that have the
// configured names now: they may have been renamed since.
func (r *runner) followLogs() {
	for _, f := range []*logs.File{r.places.outLog, r.places.errLog} {
		if f == nil {
			continue
		}
		if err := f.Follow(); err != nil {
			r.log.Warn("going on with the old log file", "service", r.cfg.Name, "error", err)
		}
	}
}

func (r *runner) closeOutput(in *instance) {
	out := in.output
	in.output = nil
	r.endOutput(out)
}

// endOutput ends the copying once all is written. A reader that is slow is given
// time, in a goroutine of its own; at the end of the supervisor the last outputs
// are waited for.
func (r *runner) endOutput(out *logs.Output) {
	grace := outputGrace
	if out.Stalled() {
		grace = stalledGrace
	}
	r.children.Go(func() {
		_ = out.Flush(time.Now().Add(grace)) // what it loses is reported by Close
		_ = out.Close()
		if lines, bytes := out.Dropped(); lines+bytes > 0 {
			r.poll.post(func() { r.tally.dropped(lines, bytes) })
		}
	})
}
