package training

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
)

// metrics is what the stage tells Prometheus.
type metrics struct {
	requests    *prometheus.CounterVec
	deadLetters prometheus.Counter
	runs        *prometheus.CounterVec
	failures    *prometheus.CounterVec
	seconds     *prometheus.HistogramVec
	heldOut     *prometheus.GaugeVec
	rows        *prometheus.GaugeVec
	finished    *prometheus.GaugeVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_training_requests_total", Help: "Retrain requests received.",
		}, []string{"model"}),
		deadLetters: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "millrace_training_dead_letters_total", Help: "Retrain requests that could not be read.",
		}),
		runs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_training_runs_total", Help: "Training runs that ended, by outcome: promoted or refused.",
		}, []string{"model", "outcome"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_training_failures_total", Help: "Attempts at a training run that failed, by kind of failure.",
		}, []string{"model", "kind"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "millrace_training_run_seconds", Help: "Time that a training run took, from the dataset to the verdict.",
			Buckets: prometheus.ExponentialBuckets(0.5, 2, 12),
		}, []string{"model"}),
		heldOut: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "millrace_training_held_out_ratio", Help: "Metrics of the last trained model on its held-out rows: auc, calibration_error, brier and the like.",
		}, []string{"model", "metric"}),
		rows: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "millrace_training_rows", Help: "Rows of the last training run, by part: train or held_out.",
		}, []string{"model", "part"}),
		finished: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "millrace_training_finished_timestamp_seconds", Help: "When the last training run ended.",
		}, []string{"model"}),
	}
	r.MustRegister(m.requests, m.deadLetters, m.runs, m.failures, m.seconds, m.heldOut, m.rows, m.finished)
	return m
}

// ran notes a run. The labels are models and metrics of the project, so their number is bounded.
func (m *metrics) ran(model string, event schemas.ModelEvent, err error, took time.Duration) {
	if err != nil {
		m.failures.WithLabelValues(model, failure.Of(err).String()).Inc()
		return
	}
	m.runs.WithLabelValues(model, event.Kind).Inc()
	m.seconds.WithLabelValues(model).Observe(took.Seconds())
	m.finished.WithLabelValues(model).Set(float64(event.At) / 1000)
	for name, v := range event.Metrics {
		switch name {
		case project.MetricRows:
			m.rows.WithLabelValues(model, "held_out").Set(v)
		case metricTrainRows:
			m.rows.WithLabelValues(model, "train").Set(v)
		default:
			m.heldOut.WithLabelValues(model, name).Set(v)
		}
	}
}
