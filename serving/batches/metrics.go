package batches

import "github.com/prometheus/client_golang/prometheus"

// metrics is what the stage tells Prometheus. Its labels are the batches of the project.
type metrics struct {
	runs     *prometheus.CounterVec
	failures *prometheus.CounterVec
	passed   *prometheus.CounterVec
	rows     *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	instant  *prometheus.GaugeVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		runs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_batch_runs_total", Help: "Runs of scheduled batches that ended, by outcome: done or refused.",
		}, []string{"batch", "outcome"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_batch_failures_total", Help: "Attempts at a run of a batch that failed and are made again, by kind of failure.",
		}, []string{"batch", "kind"}),
		passed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_batch_passed_total", Help: "Instants of a batch that passed without a run and are not made up for.",
		}, []string{"batch"}),
		rows: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_batch_rows_total", Help: "Rows of finished batches, by result: scored, or refused a score.",
		}, []string{"batch", "result"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "millrace_batch_run_seconds", Help: "Time from the beginning of a run to its end, whoever went on with it.",
			Buckets: prometheus.ExponentialBuckets(0.5, 2, 16),
		}, []string{"batch"}),
		instant: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "millrace_batch_last_done_timestamp_seconds", Help: "The newest instant whose run is done.",
		}, []string{"batch"}),
	}
	r.MustRegister(m.runs, m.failures, m.passed, m.rows, m.seconds, m.instant)
	return m
}

// ended notes a run that has just been concluded.
func (m *metrics) ended(r Record) {
	m.runs.WithLabelValues(r.Batch, r.State).Inc()
	m.seconds.WithLabelValues(r.Batch).Observe(r.Ended.Sub(r.Began).Seconds())
	m.rows.WithLabelValues(r.Batch, "scored").Add(float64(r.Rows - r.Without))
	m.rows.WithLabelValues(r.Batch, "refused").Add(float64(r.Without))
	m.known(r)
}

// known notes a run that there is.
func (m *metrics) known(r Record) {
	if r.State == Done {
		m.instant.WithLabelValues(r.Batch).Set(float64(r.Instant.Unix()))
	}
}
