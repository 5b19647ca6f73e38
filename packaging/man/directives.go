// Package man makes the manual page supervise.directives(7) from the table of
// directives in supervisor/config, so that the two cannot say different things.
// The page lies beside it; "go test ./packaging/man -update" writes it anew.
package man

import (
	"fmt"
	"strings"

	"github.com/supervise/supervise/supervisor/config"
)

// Directives is the page, for man(1).
func Directives() string {
	var b strings.Builder
	b.WriteString(`.\" Made from the table of directives by "go test ./packaging/man -update".
.TH SUPERVISE.DIRECTIVES 7 "" supervise
.SH NAME
supervise.directives \- what supervise does about each directive of a unit file
.SH DESCRIPTION
.B supervise run
reads the unit files of systemd, with the meaning that
.BR systemd.unit (5),
.BR systemd.service (5),
.BR systemd.socket (5),
.BR systemd.exec (5),
.BR systemd.kill (5)
and
.BR systemd.resource\-control (5)
document. Of each directive this page says whether that is done:
.TP
.B supported
It is done. Where something is said besides, that is how it differs.
.TP
.B not yet
It is read, and a unit that uses it is refused.
.TP
.B ignored
It is not done, and a warning says so.
.TP
.B no effect
There is nothing to do about it here: no warning.
.TP
.B refused
It is not done, and a unit that uses it is refused, because it could not work or would be less safe than it says.
Where that is accepted,
.B \-\-without
and
.B Without=
in the section [X\-Supervise] name it;
.B sandbox
stands for all those that are marked so.
.P
Directives of
.BR systemd.exec (5),
.BR systemd.kill (5)
and
.BR systemd.resource\-control (5)
stand under [Service]. In a socket unit they go for its commands alone, and are ignored.
Every directive of [Service], [Socket] and [Unit] may stand in [X\-Supervise], too, which systemd ignores: there it holds for
.B supervise
alone, and above the others.
Names that begin with X\- are left alone, anywhere.
.SH DIRECTIVES
`)
	section := ""
	for _, d := range config.Table() {
		if d.Section != section {
			section = d.Section
			fmt.Fprintf(&b, ".SS [%s]\n", escape(section))
		}
		write(&b, d)
	}
	b.WriteString(`.SH SEE ALSO
.BR supervise (1),
.BR systemd.directives (7)
`)
	return b.String()
}

func write(b *strings.Builder, d config.Directive) {
	fmt.Fprintf(b, ".TP\n\\fB%s=\\fP", escape(d.Name))
	if d.Arg != "" {
		fmt.Fprintf(b, "\\fI%s\\fP", escape(d.Arg))
	}
	fmt.Fprintf(b, ": %s", d.Support)
	if d.Sandbox {
		b.WriteString(" (sandbox)")
	}
	b.WriteByte('\n')
	if d.Help != d.Means && d.Help != "" {
		fmt.Fprintf(b, "%s.", escape(upper(d.Help)))
		if d.Flag != "" {
			fmt.Fprintf(b, "\nFlag: \\-\\-%s.", escape(d.Flag))
		}
		b.WriteByte('\n')
	}
	if d.Means != "" {
		fmt.Fprintf(b, "%s.\n", escape(upper(d.Means)))
	}
	if d.Repeat && d.Support == config.Supported {
		b.WriteString("May come more than once; an empty value begins anew.\n")
	}
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// escape keeps text from being taken for a request or an escape of troff.
func escape(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, `"`, `\(dq`, "^", `\(ha`, "~", `\(ti`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}
