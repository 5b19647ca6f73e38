package main

// supervise(1) is made from the help: the commands, their flags and texts, so
// that the two cannot say different things. packaging/build has it written by
//
//	go test ./cmd/supervise -run TestManPage -man FILE

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var manPage = flag.String("man", "", "write the manual page into this `file`")

func TestManPage(t *testing.T) {
	status := 0
	page := *manPage
	if page == "" {
		page = filepath.Join(t.TempDir(), "supervise.1")
	}
	if err := os.WriteFile(page, []byte(manual(newRoot(nil, &status))), 0o644); err != nil {
		t.Fatal(err)
	}
	man, err := exec.LookPath("man")
	if err != nil {
		t.Skip("no man: ", err)
	}
	cmd := exec.Command(man, "--warnings", "-l", page)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "MANPAGER=cat", "MANWIDTH=100")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || stderr.Len() > 0 || !strings.Contains(string(out), "--timeout-stop DURATION") {
		t.Errorf("man: %v %s", err, stderr.String())
	}
}

// manual is supervise(1).
func manual(root *cobra.Command) string {
	var b strings.Builder
	b.WriteString(`.\" Made from the help by packaging/build.
.TH SUPERVISE 1 "" supervise
.SH NAME
supervise \- ` + roff(root.Short) + `
.SH SYNOPSIS
.nf
`)
	synopsis := func(c *cobra.Command) {
		for line := range strings.Lines(c.UseLine()) {
			b.WriteString(roff(strings.TrimSpace(line)) + "\n")
		}
	}
	verbs := func(each func(*cobra.Command)) {
		for _, c := range root.Commands() {
			if c.IsAvailableCommand() && c.Name() != "help" {
				each(c)
			}
		}
	}
	synopsis(root)
	verbs(synopsis)
	b.WriteString(".fi\n.SH DESCRIPTION\n")
	prose(&b, root.Long)
	b.WriteString(".SH OPTIONS\nEach is the directive of systemd that stands in brackets, where there is one; see\n.BR supervise.directives (7).\n")
	options(&b, root.Flags())
	b.WriteString(".SH EXAMPLES\n")
	example(&b, root.Example)
	b.WriteString(".SH COMMANDS\n")
	verbs(func(c *cobra.Command) {
		fmt.Fprintf(&b, ".SS %s\n", roff(c.Name()))
		b.WriteString(".nf\n")
		synopsis(c)
		b.WriteString(".fi\n.P\n")
		if c.Long != "" {
			prose(&b, c.Long)
		} else {
			prose(&b, upperFirst(c.Short)+".")
		}
		// Those of the root again are not told again.
		own := pflag.NewFlagSet(c.Name(), pflag.ContinueOnError)
		own.SortFlags = false
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if of := root.Flags().Lookup(f.Name); of == nil || of.Usage != f.Usage {
				own.AddFlag(f)
			}
		})
		options(&b, own)
		if c.Example != "" {
			example(&b, c.Example)
		}
	})
	b.WriteString(`.SH SIGNALS
.TP
.BR TERM ", " INT
Stop, gracefully; a second one: at once.
.TP
.B QUIT
Stop, with a dump of the server where its KillSignal makes one.
.TP
.B HUP
Reload: a rollout, or what the unit says.
.TP
.BR USR1 ", " WINCH ", " TTIN ", " TTOU ", " CONT ", " TSTP
Passed on.
.SH EXIT STATUS
One service: the status of its last main process, 128+N when signal N ended it; 0 after a stop that was asked for.
.TP
.B 64
Wrong use: a bad flag, unit or address.
.TP
.B 69
An address is held by someone else;
.B supervise why
tells who.
.TP
.B 70
A fault of supervise itself.
.TP
.B 75
The command never became ready.
.TP
.B 126
The command was found and cannot be executed.
.TP
.B 127
The command was not found.
.SH SEE ALSO
.BR supervise.directives (7),
.BR handoff (7),
.BR systemd.service (5),
.BR systemd.socket (5)
`)
	return b.String()
}

func options(b *strings.Builder, flags *pflag.FlagSet) {
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		arg, usage := pflag.UnquoteUsage(f)
		name := `\fB` + roff("--"+f.Name) + `\fP`
		if f.Shorthand != "" {
			name = `\fB` + roff("-"+f.Shorthand) + `\fP, ` + name
		}
		if arg != "" {
			name += ` \fI` + roff(arg) + `\fP`
		}
		fmt.Fprintf(b, ".TP\n%s\n%s.\n", name, roff(upperFirst(usage)))
	})
}

// prose is text with paragraphs.
func prose(b *strings.Builder, text string) {
	for i, p := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if i > 0 {
			b.WriteString(".P\n")
		}
		for line := range strings.Lines(p) {
			b.WriteString(roff(strings.TrimSpace(line)) + "\n")
		}
	}
}

func example(b *strings.Builder, text string) {
	b.WriteString(".P\n.RS 4\n.nf\n")
	for line := range strings.Lines(text) {
		b.WriteString(roff(strings.TrimSpace(line)) + "\n")
	}
	b.WriteString(".fi\n.RE\n")
}

func upperFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// roff keeps text from being taken for a request or an escape.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, `"`, `\(dq`, "^", `\(ha`, "~", `\(ti`, "`", `\(ga`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}
