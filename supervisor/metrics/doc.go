// Package metrics counts, as plain values that the loop owns, and writes what was
// counted, beside a picture of the supervisor, as text for Prometheus (the
// exposition format 0.0.4, which OpenMetrics readers take too).
//
// Nothing here runs by itself: no goroutine, no registry, no init. A counter is a
// number in a Tally; the gauges are made from the picture when somebody asks. So
// a supervisor that is not asked pays for nothing, and one without --http has no
// Tally either.
//
// It is written here and not with a metrics library because of what those bring:
// github.com/VictoriaMetrics/metrics, the leanest, links the client of net/http
// (for pushing). Measured with supervise -- sleep, merely linked: 1 MB more memory
// (PSS) of 8, 1.3 MB more binary, and 4 ms longer until main.
//
// Labels: service, and per metric the few words that are listed with it. Neither
// generation nor pid is a label: a rollout must not make a new series. Names
// begin with supervise_, times are seconds, sizes bytes.
package metrics
