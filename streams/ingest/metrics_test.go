package ingest

import (
	"math"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/project"
)

// gathered sums the samples of a metric whose labels have the given pairs; of a histogram the number of its observations.
func gathered(t *testing.T, from prometheus.Gatherer, name string, labels ...string) float64 {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	total := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	samples:
		for _, m := range f.GetMetric() {
			has := map[string]string{}
			for _, l := range m.GetLabel() {
				has[l.GetName()] = l.GetValue()
			}
			for i := 0; i+1 < len(labels); i += 2 {
				if has[labels[i]] != labels[i+1] {
					continue samples
				}
			}
			total += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return total
}

// TestMetrics holds what is exported against what was produced.
func TestMetrics(t *testing.T) {
	for _, clock := range []string{project.ClockWall, project.ClockEvent} {
		t.Run(clock, func(t *testing.T) {
			r := newRig(t)
			r.project.Clock = clock
			registry := prometheus.NewRegistry()
			trips := r.trips(9, 800)
			r.produce(trips)
			g := r.run(r.stage(func(_ *Config, d *Deps) { d.Registerer = registry }))
			r.caughtUp()
			r.await("nothing to be behind", func() bool { return gathered(t, registry, "millrace_ingest_lag_records") == 0 })
			newest := int64(math.MinInt64)
			for _, s := range g.Status() {
				newest = max(newest, s.Newest)
			}
			for _, group := range r.project.Groups {
				carried := gathered(t, registry, "millrace_ingest_flush_records_total", "group", group.Name)
				all := gathered(t, registry, "millrace_ingest_records_total", "kind", kindGroup, "name", group.Name)
				if group.Direct { // what its source refuses is the source's to count
					all = float64(r.total())
				}
				if carried != all || carried == 0 {
					t.Errorf("%s: writes carried %v of %v records", group.Name, carried, all)
				}
				var own int64
				for _, s := range g.Status() {
					if s.Kind == kindGroup && s.Name == group.Name {
						own = max(own, s.Newest)
					}
				}
				until := now().UnixMilli()
				if clock == project.ClockEvent {
					until = newest
				}
				fresh := gathered(t, registry, "millrace_ingest_freshness_seconds", "kind", kindGroup, "name", group.Name)
				if want := time.Duration(until-own) * time.Millisecond; math.Abs(fresh-want.Seconds()) > 1e-6 {
					t.Errorf("%s: freshness %v s, want %v", group.Name, fresh, want)
				}
				writes := gathered(t, registry, "millrace_ingest_poll_to_readable_seconds", "group", group.Name)
				if clock == project.ClockEvent {
					writes = 0
				} else if writes == 0 {
					t.Errorf("%s: no write was timed", group.Name)
				}
				if n := gathered(t, registry, "millrace_ingest_event_to_readable_seconds", "group", group.Name); n != writes {
					t.Errorf("%s: %v writes timed from their records, want %v", group.Name, n, writes)
				}
			}
			g.stop(t)
		})
	}
}
