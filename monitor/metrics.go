package monitor

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/schemas"
)

// stateNumbers is how millrace_drift_state shows a state.
var stateNumbers = map[string]float64{StateOK: 0, StateSuspected: 1, StateConfirmed: 2, StateInsufficient: 3}

type metrics struct {
	statistic, threshold, distance, missing               *prometheus.GaugeVec // by model and column
	predictionStatistic, predictionThreshold, state       *prometheus.GaugeVec // by model
	auc, baselineAUC, calibrationError, coverage          *prometheus.GaugeVec
	loss, baselineLoss                                    *prometheus.GaugeVec // by model and metric
	windowRows, windowClosed, watermark, pending, tracked *prometheus.GaugeVec
	windows, events, retrains, suppressed                 *prometheus.CounterVec
	predictions, labels                                   *prometheus.CounterVec
	leader                                                prometheus.Gauge
	sessionErrors                                         prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "millrace", Name: name, Help: help}, labels)
		r.MustRegister(v)
		return v
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "millrace", Name: name, Help: help}, labels)
		r.MustRegister(v)
		return v
	}
	m := &metrics{
		statistic:           gauge("drift_statistic", "Population stability index of a column in the last window.", "model", "column"),
		threshold:           gauge("drift_threshold", "What drift_statistic has to pass, calibrated on the baseline.", "model", "column"),
		distance:            gauge("drift_distance", "Jensen-Shannon distance (base 2) of a column in the last window.", "model", "column"),
		missing:             gauge("feature_missing_ratio", "Share of the last window's predictions without a value of the column.", "model", "column"),
		predictionStatistic: gauge("prediction_drift_statistic", "Population stability index of the scores in the last window.", "model"),
		predictionThreshold: gauge("prediction_drift_threshold", "What prediction_drift_statistic has to pass.", "model"),
		state:               gauge("drift_state", "0 ok, 1 suspected, 2 confirmed, 3 insufficient.", "model"),
		auc:                 gauge("model_auc", "AUC of the last window whose labels came.", "model"),
		baselineAUC:         gauge("model_baseline_auc", "AUC on the rows held out when the live model was trained.", "model"),
		calibrationError:    gauge("model_calibration_error", "Expected calibration error of the last window whose labels came.", "model"),
		loss:                gauge("model_loss", "RMSE, Poisson deviance or log loss of the last window whose labels came, of a model that foretells no yes or no.", "model", "metric"),
		baselineLoss:        gauge("model_baseline_loss", "The same on the rows held out when the live model was trained.", "model", "metric"),
		coverage:            gauge("model_label_coverage_ratio", "Share of that window's predictions that got a label.", "model"),
		windowRows:          gauge("monitor_window_rows", "Predictions in the last window.", "model"),
		windowClosed:        gauge("monitor_window_closed_timestamp_seconds", "Event time of the end of the last window.", "model"),
		watermark:           gauge("monitor_watermark_timestamp_seconds", "Event time up to which predictions were read.", "model"),
		pending:             gauge("monitor_pending_labels", "Predictions that wait for a label.", "model"),
		tracked:             gauge("monitor_open_windows", "Windows that are being filled or wait for labels.", "model"),
		windows:             counter("monitor_windows_total", "Windows judged, by the state they left the model in.", "model", "state"),
		events:              counter("drift_events_total", "Events on the drift topic.", "model", "kind"),
		retrains:            counter("retrain_requests_total", "Requests for a new model.", "model"),
		suppressed:          counter("retrain_suppressed_total", "Windows with confirmed drift that asked for no new model.", "model", "reason"),
		predictions:         counter("monitor_predictions_total", "Predictions read, by what became of them.", "outcome"),
		labels:              counter("monitor_labels_total", "Labels read, by what became of them.", "outcome"),
		leader:              prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "millrace", Name: "monitor_leader", Help: "1 while this replica judges."}),
		sessionErrors:       prometheus.NewCounter(prometheus.CounterOpts{Namespace: "millrace", Name: "monitor_session_errors_total", Help: "Times the monitor had to start over from what it has published."}),
	}
	r.MustRegister(m.leader, m.sessionErrors)
	return m
}

// judged shows a verdict. fresh is false when another leader published it.
func (m *metrics) judged(v Verdict, fresh bool) {
	e := &v.Full
	if fresh {
		m.counted(v)
	}
	if e.Kind == schemas.DriftPerformance {
		m.performance(e)
		m.charged(e.Model, v.Loss)
		return
	}
	for _, vec := range []*prometheus.GaugeVec{m.statistic, m.threshold, m.distance, m.missing} {
		vec.DeletePartialMatch(prometheus.Labels{"model": e.Model}) // another version may have other columns
	}
	for i := range e.Columns {
		c := &e.Columns[i]
		m.statistic.WithLabelValues(e.Model, c.Column).Set(c.Value)
		m.threshold.WithLabelValues(e.Model, c.Column).Set(c.Threshold)
		m.distance.WithLabelValues(e.Model, c.Column).Set(c.Distance)
		m.missing.WithLabelValues(e.Model, c.Column).Set(c.NullRate)
	}
	m.predictionStatistic.WithLabelValues(e.Model).Set(e.PredictionPSI)
	m.predictionThreshold.WithLabelValues(e.Model).Set(e.PredictionThreshold)
	m.windowRows.WithLabelValues(e.Model).Set(float64(e.Rows))
	m.windowClosed.WithLabelValues(e.Model).Set(float64(e.WindowEnd) / 1000)
}

func (m *metrics) counted(v Verdict) {
	for i := range v.Events {
		m.events.WithLabelValues(v.Full.Model, v.Events[i].Kind).Inc()
	}
	if v.Full.Kind == schemas.DriftWindowClosed {
		m.windows.WithLabelValues(v.Full.Model, v.Full.State).Inc()
	}
	if v.Retrain != nil {
		m.retrains.WithLabelValues(v.Full.Model).Inc()
	}
	if v.Suppressed != "" {
		m.suppressed.WithLabelValues(v.Full.Model, v.Suppressed).Inc()
	}
}

func (m *metrics) performance(e *schemas.Drift) {
	set := func(vec *prometheus.GaugeVec, value *float64) {
		if value == nil {
			vec.DeleteLabelValues(e.Model)
			return
		}
		vec.WithLabelValues(e.Model).Set(*value)
	}
	set(m.auc, e.AUC)
	set(m.baselineAUC, e.BaselineAUC)
	set(m.calibrationError, e.CalibrationError)
	set(m.coverage, &e.LabelCoverage)
}

// charged shows a model's loss.
func (m *metrics) charged(model string, v *LossVerdict) {
	for _, vec := range []*prometheus.GaugeVec{m.loss, m.baselineLoss} {
		vec.DeletePartialMatch(prometheus.Labels{"model": model})
	}
	if v == nil {
		return
	}
	m.loss.WithLabelValues(model, v.Metric).Set(v.Live)
	if v.HeldOut != nil {
		m.baselineLoss.WithLabelValues(model, v.Metric).Set(*v.HeldOut)
	}
}

// watched shows how far a model's watch has come.
func (m *metrics) watched(w *watch, s *ModelStatus) {
	m.state.WithLabelValues(s.Model).Set(stateNumbers[s.State])
	m.watermark.WithLabelValues(s.Model).Set(float64(s.Watermark) / 1000)
	m.pending.WithLabelValues(s.Model).Set(float64(w.pending))
	m.tracked.WithLabelValues(s.Model).Set(float64(len(w.windows)))
}

// resign leaves the gauges to the next leader.
func (m *metrics) resign() {
	m.leader.Set(0)
	for _, vec := range []*prometheus.GaugeVec{
		m.statistic, m.threshold, m.distance, m.missing, m.predictionStatistic, m.predictionThreshold, m.state, m.auc, m.baselineAUC,
		m.calibrationError, m.loss, m.baselineLoss, m.coverage, m.windowRows, m.windowClosed, m.watermark, m.pending, m.tracked,
	} {
		vec.Reset()
	}
}
