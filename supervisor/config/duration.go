package config

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// The long units of systemd.time(7). A year has 365.25 days and a month is a
// twelfth of it; the page rounds that to 30.44 days, systemd itself does not.
const (
	day   = 24 * time.Hour
	week  = 7 * day
	month = year / 12
	year  = 31557600 * time.Second
)

// spanUnit gives the length of a unit of systemd.time(7), 0 if it is none.
// Case matters: "m" is a minute and "M" a month.
func spanUnit(name string) time.Duration {
	switch name {
	case "ns", "nsec":
		return time.Nanosecond
	case "us", "usec", "µs", "μs": // U+00B5 and U+03BC, systemd takes both
		return time.Microsecond
	case "ms", "msec":
		return time.Millisecond
	case "s", "sec", "second", "seconds":
		return time.Second
	case "m", "min", "minute", "minutes":
		return time.Minute
	case "h", "hr", "hour", "hours":
		return time.Hour
	case "d", "day", "days":
		return day
	case "w", "week", "weeks":
		return week
	case "M", "month", "months":
		return month
	case "y", "year", "years":
		return year
	}
	return 0
}

// ParseDuration reads a time span of systemd.time(7): "30s", "1min 20s",
// "1.5h", and a plain number as seconds. "infinity" gives 0, which means "no
// limit" in the limits of Service; ParseDelay is for values where it does not.
//
// A span that is not zero never becomes zero by rounding, because zero would
// turn the shortest limit into none. Spans longer than 292 years, the range of
// time.Duration, are an error.
func ParseDuration(s string) (time.Duration, error) {
	if strings.TrimSpace(s) == "infinity" {
		return 0, nil
	}
	return ParseDelay(s)
}

// ParseDelay is ParseDuration for spans that have to end: it refuses "infinity".
func ParseDelay(s string) (time.Duration, error) { return parseSpan(s, time.Second) }

// parseSpan reads a span in which a number without a unit counts in units of plain.
func parseSpan(s string, plain time.Duration) (time.Duration, error) {
	d, err := sumSpan(s, plain)
	if err != nil {
		return 0, fmt.Errorf("cannot read %q as a time span: %w", s, err)
	}
	return d, nil
}

func sumSpan(s string, plain time.Duration) (time.Duration, error) {
	rest := strings.TrimSpace(s)
	switch {
	case rest == "":
		return 0, errors.New("it is empty; write for example 30s or 1min 20s")
	case rest == "infinity":
		return 0, errors.New("infinity is not possible here; write for example 30s")
	case strings.HasPrefix(rest, "-"):
		return 0, errors.New("it cannot be negative")
	}
	var total uint64
	nonzero := false
	for rest != "" {
		n := strings.IndexFunc(rest, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
		if n < 0 {
			n = len(rest)
		}
		number := rest[:n]
		rest = strings.TrimLeft(rest[n:], " \t\n\r")
		u := strings.IndexFunc(rest, func(r rune) bool { return r >= '0' && r <= '9' || strings.ContainsRune(". \t\n\r", r) })
		if u < 0 {
			u = len(rest)
		}
		word := rest[:u]
		rest = strings.TrimLeft(rest[u:], " \t\n\r")
		if number == "" {
			return 0, fmt.Errorf("%q has no number in front", word)
		}
		unit := plain
		if word != "" {
			if unit = spanUnit(word); unit == 0 {
				return 0, fmt.Errorf("%q is no unit; units are us, ms, s, min, h, d, w, month, y", word)
			}
		}
		whole, fraction, dot := strings.Cut(number, ".")
		if dot && (fraction == "" || strings.Contains(fraction, ".")) {
			return 0, fmt.Errorf("%q is no number", number)
		}
		var count uint64
		if whole != "" {
			var err error
			if count, err = strconv.ParseUint(whole, 10, 64); err != nil {
				return 0, errTooLong
			}
		}
		hi, lo := bits.Mul64(count, uint64(unit))
		step := uint64(unit)
		var part uint64
		for _, digit := range fraction {
			step /= 10
			part += step * uint64(digit-'0')
		}
		nonzero = nonzero || strings.Trim(number, "0.") != ""
		var carry uint64
		total, carry = bits.Add64(total, lo, 0)
		if hi != 0 || carry != 0 || total > math.MaxInt64-part {
			return 0, errTooLong
		}
		total += part
	}
	if total == 0 && nonzero {
		total = 1
	}
	return time.Duration(total), nil
}

var errTooLong = errors.New("it is longer than 292 years; write infinity for no limit")

// FormatDuration writes d so that ParseDuration, and systemd, read it back:
// "1min 30s". systemd itself does not know units below the microsecond.
func FormatDuration(d time.Duration) string {
	if d <= 0 {
		return "0"
	}
	var parts []string
	for _, u := range []struct {
		name string
		unit time.Duration
	}{
		{"d", day},
		{"h", time.Hour},
		{"min", time.Minute},
		{"s", time.Second},
		{"ms", time.Millisecond},
		{"us", time.Microsecond},
		{"ns", time.Nanosecond},
	} {
		if n := d / u.unit; n > 0 {
			parts = append(parts, strconv.FormatInt(int64(n), 10)+u.name)
			d -= n * u.unit
		}
	}
	return strings.Join(parts, " ")
}

// formatLimit is FormatDuration for values whose 0 means "no limit".
func formatLimit(d time.Duration) string {
	if d == 0 {
		return "infinity"
	}
	return FormatDuration(d)
}
