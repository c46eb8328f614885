package consistency

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics show the last check. They are gauges: a check says how things are, and the next one says it anew.
type metrics struct {
	values    *prometheus.GaugeVec // feature, result
	smape     *prometheus.GaugeVec // feature
	reads     *prometheus.GaugeVec // result
	timestamp prometheus.Gauge
	seconds   prometheus.Gauge
	failures  prometheus.Counter
}

// The label values of result.
const (
	resultMatch        = "match"
	resultMismatch     = "mismatch"
	resultMissing      = "missing"
	resultCompared     = "compared"
	resultPending      = "pending"
	resultMerged       = "merged"
	resultOtherVersion = "other_version"
	resultUnread       = "unread"
	resultOverridden   = "overridden"
)

func newMetrics(r prometheus.Registerer) *metrics {
	opts := func(name, help string) prometheus.GaugeOpts {
		return prometheus.GaugeOpts{Namespace: "millrace", Subsystem: "consistency", Name: name, Help: help}
	}
	m := &metrics{
		values:    prometheus.NewGaugeVec(opts("values", "Values of the last check by what came of computing them again."), []string{"feature", "result"}),
		smape:     prometheus.NewGaugeVec(opts("smape_ratio", "Symmetric mean absolute percentage error of the last check, 0 to 2."), []string{"feature"}),
		reads:     prometheus.NewGaugeVec(opts("reads", "Reads of the last check: compared, or why not."), []string{"result"}),
		timestamp: prometheus.NewGauge(opts("last_check_timestamp_seconds", "When the last check ended.")),
		seconds:   prometheus.NewGauge(opts("last_check_seconds", "How long the last check took.")),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "millrace", Subsystem: "consistency", Name: "failures_total", Help: "Checks that could not be made.",
		}),
	}
	r.MustRegister(m.values, m.smape, m.reads, m.timestamp, m.seconds, m.failures)
	return m
}

func (m *metrics) show(r *Report, ended time.Time, took time.Duration) {
	m.values.Reset()
	m.smape.Reset()
	for _, f := range r.Features {
		m.values.WithLabelValues(f.Name, resultMatch).Set(float64(f.Compared - f.Mismatched - f.Missing))
		m.values.WithLabelValues(f.Name, resultMismatch).Set(float64(f.Mismatched))
		m.values.WithLabelValues(f.Name, resultMissing).Set(float64(f.Missing))
		m.smape.WithLabelValues(f.Name).Set(f.SMAPE)
	}
	m.reads.WithLabelValues(resultCompared).Set(float64(r.Reads))
	m.reads.WithLabelValues(resultMerged).Set(float64(r.Skipped.Merged))
	m.reads.WithLabelValues(resultPending).Set(float64(r.Skipped.Pending))
	m.reads.WithLabelValues(resultOtherVersion).Set(float64(r.Skipped.OtherVersion))
	m.reads.WithLabelValues(resultUnread).Set(float64(r.Skipped.Unread))
	m.reads.WithLabelValues(resultOverridden).Set(float64(r.Skipped.Overridden))
	m.timestamp.Set(float64(ended.UnixMilli()) / 1000)
	m.seconds.Set(took.Seconds())
}

// WriteTextfile writes a report as a file for node_exporter's textfile collector: by rename, so that a scrape never sees half of it.
func WriteTextfile(path string, r *Report, ended time.Time, took time.Duration) error {
	registry := prometheus.NewRegistry()
	newMetrics(registry).show(r, ended, took)
	return prometheus.WriteToTextfile(path, registry)
}
