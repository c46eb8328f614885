package serving

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/schemas"
)

// metrics is what the stage counts. Label values come from closed lists and from the project: models, inputs, routes, rungs, reasons.
type metrics struct {
	requests       *prometheus.CounterVec   // route, status
	requestSeconds *prometheus.HistogramVec // route
	shed           *prometheus.CounterVec   // reason
	readSeconds    prometheus.Histogram
	readsOff       prometheus.Gauge
	freshness      *prometheus.HistogramVec // group
	predictions    *prometheus.CounterVec   // model, source, rung
	fallbacks      *prometheus.CounterVec   // model, rung, reason
	refusals       *prometheus.CounterVec   // model, reason
	missing        *prometheus.CounterVec   // model, input, status
	armRows        *prometheus.CounterVec   // model, arm, rung
	armScores      *prometheus.HistogramVec // model, arm
	armShare       *prometheus.GaugeVec     // model, arm
	withdrawn      *prometheus.CounterVec   // model
	shadowDropped  *prometheus.CounterVec   // model
	swaps          *prometheus.CounterVec   // model, result
	version        *prometheus.GaugeVec     // model
	degraded       *prometheus.GaugeVec     // model

	sampledOut *prometheus.CounterVec // model
	logDropped *prometheus.CounterVec // reason
	logWritten prometheus.Counter
	logQueue   prometheus.Gauge

	streamLag     *prometheus.GaugeVec     // model
	streamTime    *prometheus.GaugeVec     // model
	streamBad     *prometheus.CounterVec   // model
	streamAborted *prometheus.CounterVec   // model
	batchSeconds  *prometheus.HistogramVec // model
	waitSeconds   *prometheus.HistogramVec // model
	waitGivenUp   *prometheus.CounterVec   // model
}

// The label values of predictions_total's source.
const (
	sourceHTTP   = "http"
	sourceStream = "stream"
)

func newMetrics(r prometheus.Registerer) *metrics {
	quick := []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1}
	slow := []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	aged := prometheus.ExponentialBuckets(.01, 4, 12) // 10 ms to 12 hours
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "millrace", Subsystem: "serving", Name: name, Help: help}, labels)
		r.MustRegister(c)
		return c
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "millrace", Subsystem: "serving", Name: name, Help: help}, labels)
		r.MustRegister(g)
		return g
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "millrace", Subsystem: "serving", Name: name, Help: help, Buckets: buckets}, labels)
		r.MustRegister(h)
		return h
	}
	return &metrics{
		requests:       counter("requests_total", "HTTP requests by route and status.", "route", "status"),
		requestSeconds: histogram("request_seconds", "Time to answer an HTTP request.", quick, "route"),
		shed:           counter("shed_requests_total", "Requests refused with 429 because as many as are allowed were under way, by reason: the queue was full, or the turn did not come in time.", "reason"),
		readSeconds:    histogram("feature_read_seconds", "Time of a read of entity states from Redis.", quick).WithLabelValues().(prometheus.Histogram),
		readsOff:       gauge("feature_reads_off", "1 while no feature is read because Redis does not answer, else 0.").WithLabelValues(),
		freshness:      histogram("feature_freshness_seconds", "Event time from the newest event applied to a partition until now, when an entity of it was read; not under clock: event.", aged, "group"),
		predictions:    counter("predictions_total", "Rows answered, by where they came from and the rung of the fallback ladder that answered.", "model", "source", "rung"),
		fallbacks:      counter("fallbacks_total", "Rows answered by a rung below the model whose turn it was, by rung and reason.", "model", "rung", "reason"),
		refusals:       counter("refusals_total", "Rows that no rung answered, by reason.", "model", "reason"),
		missing:        counter("missing_features_total", "Inputs that were not present when a row was scored, by status.", "model", "input", "status"),
		armRows:        counter("arm_rows_total", "Rows by arm and rung, while there is a challenger or a shadow.", "model", "arm", "rung"),
		armScores:      histogram("arm_score", "Scores by arm, while there is a challenger or a shadow.", prometheus.LinearBuckets(.05, .05, 19), "model", "arm"),
		armShare:       gauge("arm_share", "Share of the entities that a challenger answers or a shadow is asked about; 0 without one.", "model", "arm"),
		withdrawn:      counter("challengers_withdrawn_total", "Challengers that this process has withdrawn for their failures or their scores.", "model"),
		shadowDropped:  counter("shadow_dropped_total", "Rows that the shadow was not asked about, because its queue was full.", "model"),
		swaps:          counter("swaps_total", "Champions that went live (swapped) or did not pass their checks (refused).", "model", "result"),
		degraded:       gauge("degraded", "1 while who answers is not the registry's champion, as that cannot be served; else 0.", "model"),
		version:        gauge("champion_version", "Version of the champion that answers; 0 without one.", "model"),
		sampledOut:     counter("log_sampled_out_total", "HTTP answers that are not for the predictions topic, because the entity is not of the model's sample.", "model"),
		logDropped:     counter("log_dropped_total", "HTTP answers that were not written to the predictions topic, by reason.", "reason"),
		logWritten:     counter("log_written_total", "HTTP answers written to the predictions topic.").WithLabelValues(),
		logQueue:       gauge("log_queue", "HTTP answers waiting to be written to the predictions topic.").WithLabelValues(),
		streamLag:      gauge("stream_lag_records", "Records of the model's topic not yet scored, on the partitions of this process.", "model"),
		streamTime:     gauge("stream_event_time_seconds", "Newest event time scored from the model's topic, Unix time.", "model"),
		streamBad:      counter("stream_bad_records_total", "Records of the model's topic that could not be decoded and were passed over.", "model"),
		streamAborted:  counter("stream_aborted_batches_total", "Batches whose transaction was aborted, to be scored again.", "model"),
		batchSeconds:   histogram("stream_batch_seconds", "Time to score and commit a batch of records, waiting included.", slow, "model"),
		waitSeconds:    histogram("stream_wait_seconds", "Time a batch waited for its feature groups to reach its event time.", slow, "model"),
		waitGivenUp:    counter("stream_waits_given_up_total", "Batches scored although a feature group had not reached their event time.", "model"),
	}
}

// routeMetrics is what is counted of one route, resolved once.
type routeMetrics struct {
	metrics *metrics
	route   string
	seconds prometheus.Observer
	ok      prometheus.Counter
}

func (m *metrics) measure(route string) *routeMetrics {
	return &routeMetrics{metrics: m, route: route, seconds: m.requestSeconds.WithLabelValues(route), ok: m.requests.WithLabelValues(route, "200")}
}

func (m *routeMetrics) observe(status int, took time.Duration) {
	m.seconds.Observe(took.Seconds())
	if status == http.StatusOK {
		m.ok.Inc()
		return
	}
	m.metrics.requests.WithLabelValues(m.route, strconv.Itoa(status)).Inc()
}

// modelMetrics is the counters of one model and source, resolved once: looking a label up costs more than a forest does per tree.
type modelMetrics struct {
	metrics    *metrics
	model      string
	rungs      map[string]prometheus.Counter
	sampledOut prometheus.Counter
	missing    [][statuses]prometheus.Counter // by input and status; nil for those that are not missing
}

func (m *metrics) of(model, source string, inputs []plannedInput) *modelMetrics {
	c := &modelMetrics{metrics: m, model: model, sampledOut: m.sampledOut.WithLabelValues(model), rungs: map[string]prometheus.Counter{}, missing: make([][statuses]prometheus.Counter, len(inputs))}
	for _, rung := range []string{schemas.RungPrimary, schemas.RungChampion, schemas.RungPrevious, schemas.RungSimpler, schemas.RungRule, schemas.RungDefault, schemas.RungRefused} {
		c.rungs[rung] = m.predictions.WithLabelValues(model, source, rung)
	}
	for i, in := range inputs {
		for s := present + 1; s < statuses; s++ {
			if s.missing() && s.possible(in) {
				c.missing[i][s] = m.missing.WithLabelValues(model, in.name, s.String())
			}
		}
	}
	return c
}

// countArm counts one row by the arm whose turn it was.
func (c *modelMetrics) countArm(arm, rung string, score float64) {
	c.metrics.armRows.WithLabelValues(c.model, arm, rung).Inc()
	if rung == schemas.RungPrimary {
		c.metrics.armScores.WithLabelValues(c.model, arm).Observe(score)
	}
}

// count counts one row that was answered.
func (c *modelMetrics) count(v *verdict, status []inputStatus) {
	c.rungs[v.rung].Inc()
	switch v.rung {
	case schemas.RungPrimary:
	case schemas.RungRefused:
		c.metrics.refusals.WithLabelValues(c.model, string(v.reason)).Inc()
	default:
		c.metrics.fallbacks.WithLabelValues(c.model, v.rung, string(v.reason)).Inc()
	}
	for i, s := range status {
		if s.missing() {
			c.missing[i][s].Inc()
		}
	}
}
