package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Expand replaces {fd:NAME}, {addr:NAME} and {port:NAME} in s. Where sockets
// share a name, {fd:NAME:1} is the second of them and {fd:NAME} the first.
//
// Lookup is asked for each with kind "fd", "addr" or "port" and the name with
// its index as written ("web", "web:1"; SplitIndex takes it apart), and says
// whether there is one. For the message about an unknown name it is asked for
// kind "names", name "", and may give the names that there are.
//
// All other braces stay as they are: "{{" is not special, and neither is a brace
// around what cannot be a name, as in {port: 80}.
func Expand(s string, lookup func(kind, name string) (string, bool)) (string, error) {
	var b strings.Builder
	for {
		before, p, after, ok := cutPlaceholder(s)
		b.WriteString(before)
		if !ok {
			return b.String(), nil
		}
		value, ok := lookup(p.kind, p.name)
		if !ok {
			hint := "there are no sockets"
			if names, ok := lookup("names", ""); ok && names != "" {
				hint = "there are " + names
			}
			return "", fmt.Errorf("cannot replace {%s:%s}: no socket of that name; %s", p.kind, p.name, hint)
		}
		b.WriteString(value)
		s = after
	}
}

// placeholder is one {kind:name}; name has its index, if there is one.
type placeholder struct{ kind, name string }

// cutPlaceholder takes s apart around its first placeholder. Before is all of s
// if there is none.
func cutPlaceholder(s string) (before string, p placeholder, after string, ok bool) {
	for i := 0; i < len(s); i++ {
		if s[i] != '{' {
			continue
		}
		body := s[i+1:]
		end := strings.IndexByte(body, '}')
		if end < 0 {
			break
		}
		kind, name, ok := strings.Cut(body[:end], ":")
		if ok && slices.Contains([]string{"fd", "addr", "port"}, kind) && validReference(name) {
			return s[:i], placeholder{kind, name}, body[end+1:], true
		}
	}
	return s, placeholder{}, "", false
}

func validReference(name string) bool {
	base, index, ok := strings.Cut(name, ":")
	return CheckName(base) == nil && (!ok || allDigits(index))
}

// SplitIndex takes the index off a name of Expand: "web:1" is "web" and 1, "web"
// is "web" and 0. An index beyond any number of sockets is -1.
func SplitIndex(name string) (base string, index int) {
	base, digits, ok := strings.Cut(name, ":")
	if !ok {
		return base, 0
	}
	index, err := strconv.Atoi(digits)
	if err != nil {
		return base, -1
	}
	return base, index
}

// SocketNames lists the names of sockets once each, in their order, for messages.
func SocketNames(sockets []Socket) string {
	var names []string
	for _, s := range sockets {
		if s.Name != "" && !slices.Contains(names, s.Name) {
			names = append(names, s.Name)
		}
	}
	return strings.Join(names, ", ")
}
