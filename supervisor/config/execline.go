package config

import "slices"

// ExecLine is one command of ExecStart= and its family (systemd.service(5),
// "command lines"), with its specifiers replaced.
type ExecLine struct {
	Path string   // what is executed; without '/' it is looked for in PATH
	Argv []string // argv[0] is Path but for the prefix '@'

	IgnoreFailure bool      // '-': whatever it ends with is success
	NoExpand      bool      // ':': "$" has no meaning in Argv
	Privilege     Privilege // '+', '!' and '!!'

	At Position // zero of the flags
}

// Privilege says what of the service's credentials and sandboxing a command
// line is spared.
type Privilege string

const (
	PrivilegeNone    Privilege = ""   // all of it holds
	PrivilegeFull    Privilege = "+"  // none of it holds: runs as the supervisor does
	PrivilegeUser    Privilege = "!"  // User=, Group=, SupplementaryGroups= and AmbientCapabilities= do not hold
	PrivilegeAmbient Privilege = "!!" // as none where the kernel has ambient capabilities: since Linux 4.3
)

// ExecStart gives the commands that are the service: Start, or else Command as
// one line in which "$" has no meaning. None is there for a unit that has only
// ExecStop=.
func (s *Service) ExecStart() []ExecLine {
	if len(s.Command) == 0 {
		return s.Start
	}
	return []ExecLine{{Path: s.Command[0], Argv: slices.Clone(s.Command), NoExpand: true, At: s.At}}
}
