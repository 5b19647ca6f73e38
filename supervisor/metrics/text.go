package metrics

import (
	"strconv"
	"strings"
	"time"

	"github.com/supervise/supervise/supervisor/control"
)

// ContentType is that of the text.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// Text writes everything: st is the picture, tallies are by service.
func Text(st control.Status, tallies map[string]Tally) []byte {
	w := &writer{}
	w.family("supervise_info", "gauge", "the supervisor")
	w.sample("supervise_info", 1, "version", st.Supervisor.Version)
	w.family("supervise_start_time_seconds", "gauge", "when the supervisor was started")
	w.sample("supervise_start_time_seconds", float64(st.Supervisor.Since.UnixMilli())/1000)
	w.family("supervise_memory_bytes", "gauge", "resident anonymous memory of the supervisor itself")
	w.sample("supervise_memory_bytes", float64(st.Supervisor.Memory))

	services := func(name, kind, help string, f func(s *control.Service)) {
		w.family(name, kind, help)
		for i := range st.Services {
			f(&st.Services[i])
		}
	}
	gauge := func(name, help string, value func(s *control.Service) float64) {
		services(name, "gauge", help, func(s *control.Service) { w.sample(name, value(s), "service", s.Name) })
	}
	counter := func(name, help string, value func(t *Tally) float64) {
		services(name, "counter", help, func(s *control.Service) {
			t := tallies[s.Name]
			w.sample(name, value(&t), "service", s.Name)
		})
	}
	words := func(name, help, label string, known []string, value func(t *Tally) map[string]int) {
		services(name, "counter", help, func(s *control.Service) {
			t := tallies[s.Name]
			for _, word := range known {
				w.sample(name, float64(value(&t)[word]), "service", s.Name, label, word)
			}
		})
	}
	histogram := func(name, help string, value func(t *Tally) *Histogram) {
		services(name, "histogram", help, func(s *control.Service) {
			t := tallies[s.Name]
			w.histogram(name, value(&t), "service", s.Name)
		})
	}

	gauge("supervise_service_up", "1 while a generation serves", func(s *control.Service) float64 { return truth(Serves(s)) })
	services("supervise_service_state", "gauge", "1 for the state that the service is in", func(s *control.Service) {
		for _, state := range []string{"down", "starting", "up", "replacing", "stopping", "backoff", "failed"} {
			w.sample("supervise_service_state", truth(s.State == state), "service", s.Name, "state", state)
		}
	})
	gauge("supervise_service_paused", "1 while new connections are parked", func(s *control.Service) float64 { return truth(s.Paused) })
	gauge("supervise_generation", "number of the generation that serves, 0 for none", func(s *control.Service) float64 {
		if s.Current == nil {
			return 0
		}
		return float64(s.Current.Generation)
	})
	gauge("supervise_failures", "failures in a row", func(s *control.Service) float64 { return float64(s.Failures) })
	byRole := func(name, help string, value func(g *control.Generation) float64) {
		services(name, "gauge", help, func(s *control.Service) {
			var current, candidate, standby, old float64
			if s.Current != nil {
				current = value(s.Current)
			}
			if s.Candidate != nil {
				candidate = value(s.Candidate)
			}
			if s.Standby != nil {
				standby = value(s.Standby)
			}
			for i := range s.Draining {
				old += value(&s.Draining[i])
			}
			w.sample(name, current, "service", s.Name, "role", "current")
			w.sample(name, candidate, "service", s.Name, "role", "candidate")
			w.sample(name, standby, "service", s.Name, "role", "standby")
			w.sample(name, old, "service", s.Name, "role", "old")
		})
	}
	byRole("supervise_generations", "living generations", func(*control.Generation) float64 { return 1 })
	byRole("supervise_generation_connections", "established connections; old: what is drained", func(g *control.Generation) float64 {
		return float64(max(g.Connections, 0))
	})
	byRole("supervise_generation_memory_bytes", "memory of all processes", func(g *control.Generation) float64 { return float64(g.Memory) })
	byRole("supervise_generation_tasks", "processes and threads", func(g *control.Generation) float64 { return float64(g.Tasks) })

	bySocket := func(name, help string, value func(l control.Lane) int) {
		services(name, "gauge", help, func(s *control.Service) {
			for _, k := range s.Sockets {
				n := 0
				for _, lane := range k.Lanes {
					n += value(lane)
				}
				w.sample(name, float64(n), "service", s.Name, "socket", k.Name, "address", k.Address)
			}
		})
	}
	bySocket("supervise_socket_queue", "connections that wait to be accepted", func(l control.Lane) int { return l.Queue })
	bySocket("supervise_socket_backlog", "connections that may wait", func(l control.Lane) int { return l.Backlog })
	bySocket("supervise_socket_lanes", "listeners", func(control.Lane) int { return 1 })

	counter("supervise_starts_total", "generations that were started", func(t *Tally) float64 { return float64(t.Starts) })
	words("supervise_restarts_total", "starts that nobody asked for, by why the one before ended", "cause", Causes(), func(t *Tally) map[string]int { return t.Restarts })
	words("supervise_rollouts_total", "rollouts that ended", "result", []string{"done", "failed"}, func(t *Tally) map[string]int {
		return map[string]int{"done": t.Done, "failed": t.Failed}
	})
	words("supervise_kept_connections_total", "connections that found nobody to serve them, waited and were not refused", "when", []string{"crash", "rollout", "stranded"}, func(t *Tally) map[string]int { return t.Kept })
	words("supervise_gate_left_total", "connections that were left when a gate met its bound", "what", []string{"queued", "in_flight", "unanswered"}, func(t *Tally) map[string]int { return t.Left })
	counter("supervise_not_alive_total", "generations that were found not to live", func(t *Tally) float64 { return float64(t.Sick) })
	counter("supervise_output_dropped_lines_total", "lines of output that nobody took", func(t *Tally) float64 { return float64(t.DroppedLine) })
	counter("supervise_output_dropped_bytes_total", "bytes of output that nobody took", func(t *Tally) float64 { return float64(t.DroppedByte) })
	histogram("supervise_start_seconds", "from the start of a generation until it was ready", func(t *Tally) *Histogram { return &t.Start })
	histogram("supervise_rollout_seconds", "from the start of a rollout until the old generation was gone", func(t *Tally) *Histogram { return &t.Rollout })
	histogram("supervise_gate_seconds", "from the steering of new connections until the old lanes were empty", func(t *Tally) *Histogram { return &t.Gate })
	histogram("supervise_shield_seconds", "from then until everything accepted was answered", func(t *Tally) *Histogram { return &t.Shield })
	histogram("supervise_outage_seconds", "from the end of a current generation until the next was ready; connections wait meanwhile", func(t *Tally) *Histogram { return &t.Outage })
	return w.b
}

// Serves reports whether a generation of the service can be reached.
func Serves(s *control.Service) bool {
	return s.Current != nil && (s.State == "up" || s.State == "replacing") && !s.Paused
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// writer writes lines of the format.
type writer struct{ b []byte }

func (w *writer) family(name, kind, help string) {
	w.b = append(w.b, "# HELP "+name+" "+help+"\n# TYPE "+name+" "+kind+"\n"...)
}

// sample writes one line; labels are names and values in turn.
func (w *writer) sample(name string, value float64, labels ...string) {
	w.b = append(w.b, name...)
	for i := 0; i+1 < len(labels); i += 2 {
		sep := byte(',')
		if i == 0 {
			sep = '{'
		}
		w.b = append(append(append(w.b, sep), labels[i]...), `="`...)
		w.b = append(append(w.b, escape(labels[i+1])...), '"')
	}
	if len(labels) > 0 {
		w.b = append(w.b, '}')
	}
	w.b = strconv.AppendFloat(append(w.b, ' '), value, 'f', -1, 64)
	w.b = append(w.b, '\n')
}

// escape makes a value of a label: valid UTF-8 with \\, \" and \n.
func escape(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(strings.ToValidUTF8(s, "\ufffd"))
}

func (w *writer) histogram(name string, h *Histogram, labels ...string) {
	n := uint64(0)
	for i, b := range bounds() {
		n += h.buckets[i]
		w.sample(name+"_bucket", float64(n), append(labels[:len(labels):len(labels)], "le", strconv.FormatFloat(b, 'g', -1, 64))...)
	}
	n += h.buckets[len(bounds())]
	w.sample(name+"_bucket", float64(n), append(labels[:len(labels):len(labels)], "le", "+Inf")...)
	w.sample(name+"_sum", float64(h.sum)/float64(time.Second), labels...)
	w.sample(name+"_count", float64(n), labels...)
}
