package metrics

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/supervise/supervise/supervisor/control"
)

// parse reads the exposition format strictly: every sample belongs to the family
// before it, no series comes twice, and every line is one of the three.
func parse(text string) (map[string]float64, error) {
	help := regexp.MustCompile(`^# HELP ([a-z_]+) [^\n]+$`)
	kind := regexp.MustCompile(`^# TYPE ([a-z_]+) (gauge|counter|histogram)$`)
	sample := regexp.MustCompile(`^([a-z_]+)(\{(?:[a-z_]+="(?:[^"\\\n]|\\\\|\\"|\\n)*",?)+\})? ([-+.0-9eInf]+)$`)
	out := map[string]float64{}
	families := map[string]bool{}
	family, typed := "", ""
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		if m := help.FindStringSubmatch(line); m != nil {
			if family = m[1]; families[family] {
				return nil, fmt.Errorf("family %s comes twice", family)
			}
			families[family] = true
			continue
		}
		if m := kind.FindStringSubmatch(line); m != nil {
			if m[1] != family {
				return nil, fmt.Errorf("TYPE of %s after HELP of %s", m[1], family)
			}
			typed = m[2]
			if (typed == "counter") != strings.HasSuffix(family, "_total") {
				return nil, fmt.Errorf("%s is a %s", family, typed)
			}
			continue
		}
		m := sample.FindStringSubmatch(line)
		if m == nil {
			return nil, fmt.Errorf("no line of the format: %q", line)
		}
		name := m[1]
		if typed == "histogram" {
			name = regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")
		}
		if name != family {
			return nil, fmt.Errorf("%s in family %s", m[1], family)
		}
		v, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			return nil, err
		}
		key := m[1] + m[2]
		if _, twice := out[key]; twice {
			return nil, fmt.Errorf("%s comes twice", key)
		}
		out[key] = v
	}
	return out, nil
}

func TestText(t *testing.T) {
	st := control.Status{
		Supervisor: control.Supervisor{Version: `1"\` + "\n", Since: time.UnixMilli(1500), Memory: 7},
		Services: []control.Service{
			{
				Name: "web", State: "replacing", Current: &control.Generation{Generation: 8, Connections: 5, Memory: 100, Tasks: 3},
				Candidate: &control.Generation{Generation: 9, Connections: -1},
				Draining:  []control.Generation{{Connections: 1}, {Connections: 2}},
				Sockets: []control.Socket{
					{Name: "http", Address: "127.0.0.1:80", Lanes: []control.Lane{{Queue: 2, Backlog: 10}, {Queue: 3, Backlog: 10}}},
					{Name: "http", Address: "[::1]:80"},
				},
			},
			{Name: "api", State: "backoff", Failures: 4},
		},
	}
	var web Tally
	web.Starts = 9
	web.Restart("signal")
	web.Restart("signal")
	web.Keep("crash", 12)
	web.Keep("stranded", 0)
	web.Leave("unanswered", 1)
	for _, d := range []time.Duration{-1, time.Millisecond, 2 * time.Millisecond, time.Second, time.Hour} {
		web.Start.Observe(d)
	}
	got, err := parse(string(Text(st, map[string]Tally{"web": web.Clone()})))
	if err != nil {
		t.Fatal(err)
	}
	for k, want := range map[string]float64{
		`supervise_info{version="1\"\\\n"}`:                                          1,
		`supervise_start_time_seconds`:                                               1.5,
		`supervise_service_up{service="web"}`:                                        1,
		`supervise_service_up{service="api"}`:                                        0,
		`supervise_service_state{service="api",state="backoff"}`:                     1,
		`supervise_service_state{service="api",state="up"}`:                          0,
		`supervise_generation{service="web"}`:                                        8,
		`supervise_generation{service="api"}`:                                        0,
		`supervise_generations{service="web",role="old"}`:                            2,
		`supervise_generation_connections{service="web",role="old"}`:                 3,
		`supervise_generation_connections{service="web",role="candidate"}`:           0,
		`supervise_socket_queue{service="web",socket="http",address="127.0.0.1:80"}`: 5,
		`supervise_restarts_total{service="web",cause="signal"}`:                     2,
		`supervise_restarts_total{service="web",cause="exit"}`:                       0,
		`supervise_kept_connections_total{service="web",when="crash"}`:               12,
		`supervise_gate_left_total{service="web",what="unanswered"}`:                 1,
		`supervise_start_seconds_bucket{service="web",le="0.001"}`:                   2,
		`supervise_start_seconds_bucket{service="web",le="0.0025"}`:                  3,
		`supervise_start_seconds_bucket{service="web",le="1"}`:                       4,
		`supervise_start_seconds_bucket{service="web",le="300"}`:                     4,
		`supervise_start_seconds_bucket{service="web",le="+Inf"}`:                    5,
		`supervise_start_seconds_count{service="web"}`:                               5,
		`supervise_start_seconds_sum{service="web"}`:                                 3601.003,
		`supervise_rollout_seconds_count{service="api"}`:                             0,
	} {
		if v, ok := got[k]; !ok || v != want {
			t.Errorf("%s is %v (%t), not %v", k, v, ok, want)
		}
	}
}

// Whatever a service is called, the format holds.
func TestTextForAnyName(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.String().Draw(t, "name") + string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"))
		st := control.Status{Services: []control.Service{{Name: name, Sockets: []control.Socket{{Name: name, Address: name}}}}}
		if _, err := parse(string(Text(st, nil))); err != nil {
			t.Fatalf("%q: %v", name, err)
		}
	})
}

func TestHistogramBuckets(t *testing.T) {
	var h Histogram
	if len(h.buckets) != len(bounds())+1 {
		t.Fatal("buckets and bounds do not fit")
	}
	for i, b := range bounds() {
		h.Observe(time.Duration(b * float64(time.Second)))
		if h.buckets[i] != 1 {
			t.Errorf("%v is not in its bucket", b)
		}
	}
	if h.Count() != uint64(len(bounds())) {
		t.Error(h.Count())
	}
}
