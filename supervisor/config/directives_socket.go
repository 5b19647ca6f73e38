package config

import (
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"strings"
	"time"
)

// socketUnitDirectives are those of [Socket] that a socket unit has once; the
// options of each address are in socketOptions.
func socketUnitDirectives() []Directive {
	list := []Directive{
		listenLine("ListenStream", "tcp or unix stream address: PORT, ADDRESS:PORT, /path or @name", "tcp", "unix"),
		listenLine("ListenDatagram", "udp or unix datagram address", "udp", "unixgram"),
		listenLine("ListenSequentialPacket", "unix seqpacket address", "", "unixpacket"),
		socketSetting("FileDescriptorName", "NAME", "what the listeners are called; the unit's name by default", "", parseFDName,
			func(u *SocketUnit) *string { return &u.fdName }),
		{
			Section: "Socket", Name: "Service", Arg: "UNIT", Help: "the service that is lent the listeners; that of the same name by default",
			readSocket: func(r *reading, u *SocketUnit, value string) error {
				text, err := r.expand(value)
				if err != nil || text == "" {
					u.Service = ""
					return err
				}
				name, err := parseUnitName(text)
				switch {
				case err != nil:
					return err
				case name.suffix != ".service":
					return fmt.Errorf("%q is no service", text)
				case name.isTemplate():
					return fmt.Errorf("%q is a template: name an instance of it", text)
				}
				u.Service = text
				return nil
			},
		},
		socketSetting("Accept", argBool, "start a process for each connection, of the template NAME@.service", false, ParseBool, func(u *SocketUnit) *bool { return &u.Accept }),
		socketSetting("MaxConnections", argNumber, "connections at a time with Accept=yes", 64, numberIn(0, math.MaxInt32), func(u *SocketUnit) *int { return &u.MaxConnections }),
		socketSetting("MaxConnectionsPerSource", argNumber, "the same, of one address or user; 0 is MaxConnections=", 0, numberIn(0, math.MaxInt32), func(u *SocketUnit) *int { return &u.MaxPerSource }),
		socketSetting("TriggerLimitIntervalSec", argSpan, "time in which TriggerLimitBurst= activations are the most; 0 is no limit", 2*time.Second, ParseDelay, func(u *SocketUnit) *time.Duration { return &u.TriggerInterval }),
		socketSetting("TriggerLimitBurst", argNumber, "activations in TriggerLimitIntervalSec=: 20, or 200 with Accept=yes; 0 is no limit", -1, numberIn(0, math.MaxInt32), func(u *SocketUnit) *int { return &u.TriggerBurst }),
		pending(socketSetting("FlushPending", argBool, "throw away what waits before listening again", false, ParseBool, func(u *SocketUnit) *bool { return &u.FlushPending })),
		{
			Section: "Socket", Name: "Symlinks", Arg: "PATH...", Help: "links to its one unix path", Repeat: true,
			readSocket: func(r *reading, u *SocketUnit, value string) error {
				if value == "" {
					u.Symlinks = nil
					return nil
				}
				words, err := r.words(value)
				if err != nil {
					return err
				}
				for _, w := range words {
					if !path.IsAbs(w) {
						return fmt.Errorf("the path %q is not absolute", w)
					}
				}
				u.Symlinks = append(u.Symlinks, words...)
				return nil
			},
		},
		pending(socketSetting("TimeoutSec", argSpan, "time for each of the socket's commands; 0 is no limit", 90*time.Second, ParseDuration, func(u *SocketUnit) *time.Duration { return &u.Timeout })),
		socketExec("ExecStartPre", "command before the addresses are bound", func(u *SocketUnit) *[]ExecLine { return &u.StartPre }),
		socketExec("ExecStartPost", "command after the addresses are bound", func(u *SocketUnit) *[]ExecLine { return &u.StartPost }),
		socketExec("ExecStopPre", "command before the addresses are given up", func(u *SocketUnit) *[]ExecLine { return &u.StopPre }),
		socketExec("ExecStopPost", "command after the addresses are given up", func(u *SocketUnit) *[]ExecLine { return &u.StopPost }),
	}
	for _, o := range socketOptions() {
		list = append(list, Directive{
			Section: o.section, Name: o.directive, Arg: o.arg, Help: o.help,
			readSocket: func(r *reading, u *SocketUnit, value string) error {
				text, err := r.expand(value)
				if err != nil {
					return err
				}
				// For every address of the unit, wherever it stands; tried on one now.
				probe := Socket{Options: unitSocketOptions()}
				if err := o.apply(&probe, text); err != nil {
					return errors.Unwrap(err)
				}
				u.options = append(u.options, socketValue{o, text})
				return nil
			},
		})
	}
	return list
}

// socketValue is an option that a socket unit sets for all its addresses.
type socketValue struct {
	option socketOption
	value  string
}

// unitSocketOptions are the options of a socket of whose unit nothing is said.
func unitSocketOptions() SocketOptions {
	o := DefaultSocketOptions()
	o.RemoveOnStop = false
	return o
}

func pending(d Directive) Directive {
	d.Support = Pending
	return d
}

func socketSetting[T comparable](name, arg, help string, initial T, parse func(string) (T, error), at func(*SocketUnit) *T) Directive {
	return Directive{
		Section: "Socket", Name: name, Arg: arg, Help: help,
		readSocket: func(r *reading, u *SocketUnit, value string) error {
			text, err := r.expand(value)
			if err != nil {
				return err
			}
			v := initial
			if text != "" {
				if v, err = parse(text); err != nil {
					return err
				}
			}
			*at(u) = v
			return nil
		},
		idle: func(u *SocketUnit) bool { return *at(u) == initial },
	}
}

func socketExec(name, help string, at func(*SocketUnit) *[]ExecLine) Directive {
	return Directive{
		Section: "Socket", Name: name, Arg: "COMMAND", Help: help, Repeat: true, Support: Pending,
		readSocket: func(r *reading, u *SocketUnit, value string) error {
			if value == "" {
				*at(u) = nil
				return nil
			}
			lines, err := r.parseExec(value)
			if err == nil {
				*at(u) = append(*at(u), lines...)
			}
			return err
		},
	}
}

// listenLine makes a Listen directive of a socket unit. An empty value drops
// the addresses of all of them, as systemd.socket(5) says.
func listenLine(name, help, inet, unix string) Directive {
	return Directive{
		Section: "Socket", Name: name, Arg: "ADDRESS", Help: help, Repeat: true,
		readSocket: func(r *reading, u *SocketUnit, value string) error {
			text, err := r.expand(value)
			if err != nil {
				return err
			}
			if text == "" {
				u.Sockets = nil
				return nil
			}
			sockets, err := parseDirectiveAddress(text, inet, unix)
			if err != nil {
				return fmt.Errorf("cannot listen on %q: %w", text, err)
			}
			for _, s := range sockets {
				s.Source, s.At, s.Unit = name+"="+text, r.at, u.Name+".socket"
				if s.Options = DefaultSocketOptions(); s.IsUnix() {
					s.Options = unitSocketOptions()
				}
				u.Sockets = append(u.Sockets, s)
			}
			return nil
		},
	}
}

// parseFDName is CheckName in the words of a unit file.
func parseFDName(s string) (string, error) {
	if err := CheckName(s); err != nil {
		return "", fmt.Errorf("cannot use %q: %w", s, err)
	}
	return s, nil
}

// finish gives every address of the unit what the unit says of all, and looks
// at the unit as a whole.
func (u *SocketUnit) finish() []error {
	var errs []error
	fail := func(at Position, format string, args ...any) {
		errs = append(errs, &UnitError{At: at, Err: fmt.Errorf(format, args...)})
	}
	if u.TriggerBurst < 0 {
		u.TriggerBurst = 20
		if u.Accept {
			u.TriggerBurst = 200
		}
	}
	name := u.fdName
	if name == "" {
		name = socketName(u.Name + ".socket")
	}
	for i := range u.Sockets {
		s := &u.Sockets[i]
		s.Name = name
		for _, v := range u.options {
			if err := v.option.apply(s, v.value); err != nil {
				fail(s.At, "%w", err)
			}
		}
	}
	u.RemoveOnStop = slices.ContainsFunc(u.Sockets, func(s Socket) bool { return s.IsUnix() && s.Options.RemoveOnStop })
	if len(u.Sockets) == 0 {
		fail(u.At, "there is no address: write ListenStream=8080 or ListenStream=/run/%s.sock into [Socket]", u.Name)
	}
	paths := 0
	for _, s := range u.Sockets {
		if s.IsUnix() && !strings.HasPrefix(s.Path, "@") {
			paths++
		}
		if u.Accept && s.Network != "tcp" && s.Network != "unix" && s.Network != "unixpacket" {
			fail(s.At, "Accept=yes and %s do not go together: a %s socket accepts no connections", s.Source, s.Network)
		}
	}
	if len(u.Symlinks) > 0 && paths != 1 {
		fail(u.At, "Symlinks= wants exactly one unix path in the unit, and there are %d", paths)
	}
	if u.Accept && u.Service != "" {
		fail(u.At, "Accept=yes and Service= do not go together: the template is %s@.service", u.Name)
	}
	return errs
}
