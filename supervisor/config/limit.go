package config

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Infinity is RLIM_INFINITY: no limit.
const Infinity = ^uint64(0)

// limitUnit is what the numbers of a resource limit count.
type limitUnit int

const (
	limitCount limitUnit = iota
	limitBytes
	limitSeconds
	limitMicroseconds
	limitNice
)

type limitKind struct {
	name     string // directive
	resource int
	unit     limitUnit
	help     string
}

// limitKinds are the resource limits of systemd.exec(5), with their units.
func limitKinds() []limitKind {
	return []limitKind{
		{"LimitCPU", unix.RLIMIT_CPU, limitSeconds, "CPU time"},
		{"LimitFSIZE", unix.RLIMIT_FSIZE, limitBytes, "size of a file written"},
		{"LimitDATA", unix.RLIMIT_DATA, limitBytes, "data segment"},
		{"LimitSTACK", unix.RLIMIT_STACK, limitBytes, "stack"},
		{"LimitCORE", unix.RLIMIT_CORE, limitBytes, "core file"},
		{"LimitRSS", unix.RLIMIT_RSS, limitBytes, "resident set (Linux ignores it)"},
		{"LimitNOFILE", unix.RLIMIT_NOFILE, limitCount, "file descriptors"},
		{"LimitAS", unix.RLIMIT_AS, limitBytes, "address space"},
		{"LimitNPROC", unix.RLIMIT_NPROC, limitCount, "processes of the user"},
		{"LimitMEMLOCK", unix.RLIMIT_MEMLOCK, limitBytes, "locked memory"},
		{"LimitLOCKS", unix.RLIMIT_LOCKS, limitCount, "file locks"},
		{"LimitSIGPENDING", unix.RLIMIT_SIGPENDING, limitCount, "queued signals"},
		{"LimitMSGQUEUE", unix.RLIMIT_MSGQUEUE, limitBytes, "message queues"},
		{"LimitNICE", unix.RLIMIT_NICE, limitNice, "lowest nice level"},
		{"LimitRTPRIO", unix.RLIMIT_RTPRIO, limitCount, "real-time priority"},
		{"LimitRTTIME", unix.RLIMIT_RTTIME, limitMicroseconds, "CPU time of a real-time task without a blocking call"},
	}
}

// ParseLimit reads the value of a Limit directive (systemd.exec(5)): "1024",
// "1024:4096", "16G", "infinity"; spans of time for LimitCPU and LimitRTTIME;
// "+5" and "-5" as nice levels for LimitNICE.
func ParseLimit(name, value string) (Limit, error) {
	for _, k := range limitKinds() {
		if k.name == name {
			return k.parse(value)
		}
	}
	return Limit{}, fmt.Errorf("cannot set %s: there is no such resource limit", name)
}

func (k limitKind) parse(value string) (Limit, error) {
	softText, hardText, pair := strings.Cut(value, ":")
	if !pair {
		hardText = softText
	}
	soft, err := k.value(softText)
	if err != nil {
		return Limit{}, fmt.Errorf("cannot read %q as %s: %w", value, k.name, err)
	}
	hard, err := k.value(hardText)
	if err != nil {
		return Limit{}, fmt.Errorf("cannot read %q as %s: %w", value, k.name, err)
	}
	if soft > hard {
		return Limit{}, fmt.Errorf("cannot use %q as %s: the soft limit %s is above the hard limit %s", value, k.name, softText, hardText)
	}
	return Limit{Name: k.name, Resource: k.resource, Soft: soft, Hard: hard}, nil
}

func (k limitKind) value(s string) (uint64, error) {
	if s == "infinity" {
		return Infinity, nil
	}
	switch k.unit {
	case limitBytes:
		return parseSize(s)
	case limitSeconds:
		return spanIn(s, time.Second)
	case limitMicroseconds:
		return spanIn(s, time.Microsecond)
	case limitNice:
		if strings.HasPrefix(s, "+") || strings.HasPrefix(s, "-") {
			n, err := numberIn(-20, 19)(s)
			return uint64(20 - n), err
		}
		n, err := numberIn(0, 40)(s)
		return uint64(max(n, 1)), err
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n == Infinity {
		return 0, fmt.Errorf("%q is no number; write for example 1024, 1024:4096 or infinity", s)
	}
	return n, nil
}

// spanIn reads a span and counts it in units, rounded up, as systemd does.
func spanIn(s string, unit time.Duration) (uint64, error) {
	d, err := sumSpan(s, unit)
	n := uint64(d / unit)
	if d%unit != 0 {
		n++
	}
	return n, err
}

// String writes the value so that ParseLimit reads it back.
func (l Limit) String() string {
	text := func(n uint64) string {
		if n == Infinity {
			return "infinity"
		}
		return strconv.FormatUint(n, 10)
	}
	if l.Soft == l.Hard {
		return text(l.Soft)
	}
	return text(l.Soft) + ":" + text(l.Hard)
}

// parseSize reads a number of bytes with one of the suffixes K, M, G, T, P, E
// (to the base of 1024) or none.
func parseSize(s string) (uint64, error) {
	digits := strings.TrimRight(s, "KMGTPEB")
	shift := 0
	switch suffix := strings.TrimSuffix(s[len(digits):], "B"); suffix {
	case "":
	case "K", "M", "G", "T", "P", "E":
		shift = 10 * (1 + strings.Index("KMGTPE", suffix))
	default:
		return 0, fmt.Errorf("%q is no unit; units are K, M, G, T, P and E", s[len(digits):])
	}
	whole, fraction, dot := strings.Cut(digits, ".")
	if !allDigits(whole) || dot && !allDigits(fraction) {
		return 0, fmt.Errorf("%q is no number of bytes; write for example 65536 or 64K", s)
	}
	n, err := strconv.ParseUint(whole, 10, 64)
	hi, lo := bits.Mul64(n, 1<<shift)
	part := uint64(0)
	if dot {
		f, _ := strconv.ParseFloat("0."+fraction, 64)
		part = uint64(f * math.Exp2(float64(shift)))
	}
	if err != nil || hi != 0 || lo > math.MaxUint64-1-part {
		return 0, errors.New("it is too large; write infinity for no limit")
	}
	return lo + part, nil
}
