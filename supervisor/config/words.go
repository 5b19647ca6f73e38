package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

const blanks = " \t\n\r"

// SplitWords splits s at white space as systemd.syntax(7) says under "quoting":
// single and double quotes hold blanks together, also in the middle of a word
// (as systemd does, though its page says less), and C escapes are understood in
// and outside of quotes. An unknown escape or an open quote is an error.
func SplitWords(s string) ([]string, error) {
	var words []string
	for rest := strings.TrimLeft(s, blanks); rest != ""; rest = strings.TrimLeft(rest, blanks) {
		word, after, err := cutWord(rest, nil)
		if err != nil {
			return nil, fmt.Errorf("cannot split %q into words: %w", s, err)
		}
		words = append(words, word)
		rest = after
	}
	return words, nil
}

// cutWord takes the first word off s, which does not begin with a blank. Where
// unknown is not nil, an escape that systemd does not know is kept as it is, as
// systemd does, and unknown is told of it.
func cutWord(s string, unknown func(error)) (word, rest string, err error) {
	var b strings.Builder
	quote := byte(0)
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == 0:
			return "", "", errors.New("there is a NUL byte in it")
		case c == '\\':
			n, err := unescape(&b, s[i+1:])
			switch {
			case err != nil && unknown == nil, err != nil && i+1 == len(s) && quote != 0:
				return "", "", err
			case err != nil:
				unknown(err)
				b.WriteByte('\\')
				if i+1 < len(s) && s[i+1] != 0 {
					b.WriteByte(s[i+1])
					n = 1
				}
			}
			i += 1 + n
			continue
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			b.WriteByte(c)
		case c == '\'' || c == '"':
			quote = c
		case strings.IndexByte(blanks, c) >= 0:
			return b.String(), s[i:], nil
		default:
			b.WriteByte(c)
		}
		i++
	}
	if quote != 0 {
		return "", "", fmt.Errorf("the closing %c is missing", quote)
	}
	return b.String(), "", nil
}

// unescape writes what the escape s (after its backslash) stands for, and gives
// the number of bytes that it took.
func unescape(b *strings.Builder, s string) (int, error) {
	if s == "" {
		return 0, errors.New(`it ends in a backslash; write \\ for a backslash`)
	}
	if i := strings.IndexByte(`abfnrtv\"'s`, s[0]); i >= 0 {
		b.WriteByte("\a\b\f\n\r\t\v\\\"' "[i])
		return 1, nil
	}
	start, digits, base := 1, 0, 16
	switch c := s[0]; {
	case c == 'x':
		digits = 2
	case c == 'u':
		digits = 4
	case c == 'U':
		digits = 8
	case c >= '0' && c <= '7':
		start, digits, base = 0, 3, 8
	}
	if digits > 0 && len(s) >= start+digits {
		n, err := strconv.ParseUint(s[start:start+digits], base, 32)
		wide := digits > 3
		if err == nil && n != 0 && (wide && utf8.ValidRune(rune(n)) && n <= utf8.MaxRune || !wide && n < 256) {
			if wide {
				b.WriteRune(rune(n))
			} else {
				b.WriteByte(byte(n))
			}
			return start + digits, nil
		}
	}
	return 0, fmt.Errorf(`\%c begins no escape of systemd.syntax(7); write \\ for a backslash`, s[0])
}

// JoinWords writes words so that SplitWords reads them back.
func JoinWords(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = quoteWord(w)
	}
	return strings.Join(quoted, " ")
}

func quoteWord(w string) string {
	var b strings.Builder
	blank := w == ""
	for i := range len(w) {
		switch c := w[i]; {
		case c == '"' || c == '\\' || c == '\'':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\t':
			b.WriteString(`\t`)
		case c < ' ' || c == 0x7f:
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			blank = blank || c == ' ' || c == ';'
			b.WriteByte(c)
		}
	}
	if blank {
		return `"` + b.String() + `"`
	}
	return b.String()
}
