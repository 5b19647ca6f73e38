package wire

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// FlipFirst is the first fd of a listener for a tableflip child: 3 and 4 are its pipes.
const FlipFirst = 5

// FlipReady is what a tableflip child writes into its ready pipe.
const FlipReady = 42

// addTableflip plays the parent of a program that uses
// github.com/cloudflare/tableflip (v1.2.3: parent.go, child.go, fds.go): fd 3 is
// the ready pipe, fd 4 the names pipe, out of which the child decodes one gob value
// [][]string whose entry i names fd 5+i by kind, network and address.
//
// The address is the literal text that the program passes to Listen. Each inet
// listener is sent under all its spellings, a copy for each; what is not used
// Ready closes. A unix path is sent once: Ready removes the path of an unused one.
//
// Where the words have an {fd:NAME}, or where there are other protocols, there is one more copy
// of each behind them, which tableflip does not know of and so does not close.
func addTableflip(r *Request, p *Plan) error {
	if n := fixedFD(r.Words); n != "" {
		return fmt.Errorf("handoff tableflip cannot go with %q in the command: fd 3 and 4 are tableflip's own pipes; write {fd:NAME} in place of the number, or another --handoff", n)
	}
	p.Files = append(p.Files, r.Pipes.Ready, r.Pipes.Names)
	var entries [][3]string
	inet := spellings(r.Listeners, r.Words)
	for i, l := range r.Listeners {
		kind := "listener"
		if l.Network == "udp" || l.Network == "unixgram" {
			kind = "packet"
		}
		if l.isUnix() {
			entries = append(entries, [3]string{kind, l.Network, l.Addr})
			p.copy(l)
			continue
		}
		for _, s := range inet {
			if s.index == i {
				entries = append(entries, [3]string{kind, s.network, s.addr()})
				p.copy(l)
			}
		}
	}
	if len(r.Protocols) > 1 || slices.ContainsFunc(r.Words, func(word string) bool { return strings.Contains(word, "{fd:") }) {
		for _, l := range r.Listeners {
			p.lend(l)
		}
	}
	p.Names = gobNames(entries)
	p.setenv("TABLEFLIP_HAS_PARENT_7DIU3", "yes")
	return nil
}

// fixedFD finds an argument that says fd 3 or 4 in one of the usual ways.
func fixedFD(words []string) string {
	for i, word := range words {
		if fdArgument.MatchString(word) {
			return word
		}
		if (word == "3" || word == "4") && i > 0 && (words[i-1] == "--fd" || words[i-1] == "-fd") {
			return words[i-1] + " " + word
		}
	}
	return ""
}

// fdArgument: fd://3, fd@3, fd/3, --fd=3.
var fdArgument = regexp.MustCompile(`(^|[^a-z])fd(://|@|/|=)[34]($|[^0-9])`)

// gobTypes defines the types 65, [][]string, and 64, []string, as encoding/gob
// does when they are the first of their process.
const gobTypes = "\r\xff\x81\x02\x01\x02\xff\x82\x00\x01\xff\x80\x00\x00" + "\v\x7f\x02\x01\x02\xff\x80\x00\x01\f\x00\x00"

// gobNames is the gob stream of a [][]string: the two types, then the value.
// Written out here because encoding/gob costs every supervisor memory and
// start-up time; a test decodes it with that package.
func gobNames(entries [][3]string) []byte {
	value := []byte{0xff, 0x82, 0} // type 65, which is no struct
	value = gobUint(value, uint64(len(entries)))
	for _, e := range entries {
		value = gobUint(value, uint64(len(e)))
		for _, s := range e {
			value = gobUint(value, uint64(len(s)))
			value = append(value, s...)
		}
	}
	return append(gobUint([]byte(gobTypes), uint64(len(value))), value...)
}

// gobUint appends an unsigned integer: a byte below 128, else the negated
// number of bytes and the bytes, the highest first.
func gobUint(b []byte, n uint64) []byte {
	if n < 128 {
		return append(b, byte(n))
	}
	var digits []byte
	for ; n > 0; n >>= 8 {
		digits = append([]byte{byte(n)}, digits...)
	}
	return append(append(b, -byte(len(digits))), digits...)
}
