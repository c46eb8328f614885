package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/millrace/millrace/schemas"
)

// Names of metrics in a model event.
const (
	metricAUC      = "auc"
	metricAblation = "auc_without_stream_features"
	metricVersus   = "versus_champion"
)

// summary is what the demo has seen. Its JSON names are stable.
type summary struct {
	Events          int64    `json:"events"`
	Features        int      `json:"features"` // outputs of all feature groups, per entity
	AUC             float64  `json:"auc"`      // of the model live at first, on held-out rows
	AUCWithout      float64  `json:"auc_without_stream_features"`
	Candidates      int      `json:"candidates"`
	DriftEvents     int      `json:"drift_events"` // transitions: suspected, confirmed, resolved, quality
	RetrainEvents   int      `json:"retrain_events"`
	Swaps           int      `json:"swaps"` // promotions that replaced a live model
	Refused         int      `json:"refused"`
	Predictions     int64    `json:"predictions"`
	WindowsJudged   int      `json:"windows_judged"`
	Requests        int64    `json:"requests"`
	RequestsLate    int64    `json:"requests_late"`    // refused at their deadline
	RequestsDropped int64    `json:"requests_dropped"` // any other answer than a score, or none
	Seconds         float64  `json:"seconds"`
	Endpoint        string   `json:"endpoint"`
	Console         string   `json:"console"`
	Metrics         string   `json:"metrics"`
	Kafka           string   `json:"kafka"`
	Redis           string   `json:"redis"`
	DataDir         string   `json:"data_dir"`
	Model           string   `json:"model"`
	Missing         []string `json:"missing,omitempty"` // the steps that did not happen

	retrained []schemas.ModelEvent
	curl      string
	named     string
}

func (d *demo) summary() *summary {
	s := &summary{
		Seconds: time.Since(d.started).Seconds(), Endpoint: d.rt.endpoint(), Console: d.rt.endpoint() + "/console/",
		Metrics: d.rt.endpoint() + "/metrics", Kafka: d.rt.kafka.Brokers[0], Redis: d.rt.redisAddr(), DataDir: d.rt.dataDir,
		AUC: d.live.Metrics[metricAUC], AUCWithout: d.live.Metrics[metricAblation],
	}
	for _, g := range d.rt.project.Groups {
		s.Features += len(g.Outputs)
	}
	if d.producer != nil {
		s.Events = d.producer.sent
	}
	if d.watch != nil {
		d.watch.mu.Lock()
		s.Predictions, s.WindowsJudged = d.watch.predictions, d.watch.windows
		s.DriftEvents, s.RetrainEvents = len(d.watch.drifts), len(d.watch.retrains)
		for _, m := range d.watch.models {
			if m.Kind == schemas.ModelRefused {
				s.Refused++
			}
			if decided(m) {
				s.Candidates += d.evaluated(m)
			}
			if decided(m) && m.RetrainID != "" && m.Previous != "" {
				s.retrained = append(s.retrained, m)
			}
		}
		s.Swaps = max(len(d.watch.promoted())-1, 0)
		d.watch.mu.Unlock()
	}
	if d.requests != nil {
		d.requests.mu.Lock()
		s.Requests, s.RequestsLate, s.RequestsDropped = d.requests.asked, d.requests.late, d.requests.dropped
		s.Model = d.requests.model
		s.curl = fmt.Sprintf("curl -s %s/v1/models/%s:score -d '%s'", s.Endpoint, d.requests.model, d.requests.example)
		s.named = fmt.Sprintf("curl -s %s/v1/models/%s/predictions/%s", s.Endpoint, d.requests.model, d.requests.flight)
		if d.requests.dropped > 0 {
			s.Missing = append(s.Missing, fmt.Sprintf("%d requests were dropped, the last with: %s", d.requests.dropped, d.requests.lastFail))
		}
		d.requests.mu.Unlock()
	}
	s.missing()
	return s
}

// evaluated is how many candidates a training run has measured.
func (d *demo) evaluated(m schemas.ModelEvent) int {
	n := 0
	for _, candidate := range d.model.Train.Candidates {
		if _, ok := m.Metrics[metricAUC+"_"+candidate.Name]; ok {
			n++
		}
	}
	return n
}

// missing names the steps of the loop that did not happen.
func (s *summary) missing() {
	for _, step := range []struct {
		happened bool
		name     string
	}{
		{s.Events > 0, "no event was produced"},
		{s.AUC > 0, "no model was trained"},
		{s.Predictions > 0, "nothing was scored"},
		{s.DriftEvents > 0, "no drift was found"},
		{s.RetrainEvents > 0, "no retraining was requested"},
		{s.Swaps+s.Refused > 0, "no candidate was promoted or refused after the drift"},
	} {
		if !step.happened {
			s.Missing = append(s.Missing, step.name)
		}
	}
}

func (s *summary) printJSON(out io.Writer) {
	text, err := json.Marshal(s)
	if err != nil {
		fmt.Fprintln(out, `{"missing":["the summary cannot be written"]}`)
		return
	}
	fmt.Fprintln(out, string(text))
}

func (s *summary) print(out io.Writer) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(out, "  %-14s %s\n", name, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(out, "\nWhat happened in %.0f seconds\n", s.Seconds)
	line("events", "%d in, %d features kept per pair of airports", s.Events, s.Features)
	line("first model", "AUC %.3f on held-out flights; %.3f without streaming features", s.AUC, s.AUCWithout)
	line("predictions", "%d on the predictions topic; %d requests over HTTP, %d refused at the deadline, %d dropped", s.Predictions, s.Requests, s.RequestsLate, s.RequestsDropped)
	line("monitor", "%d windows judged, %d drift events, %d retrain events", s.WindowsJudged, s.DriftEvents, s.RetrainEvents)
	for _, m := range s.retrained {
		if m.Kind == schemas.ModelPromoted {
			line("retrained", "%s@%d promoted: AUC %.3f, the champion's %.3f on the same rows", m.Model, m.Version, m.Metrics[metricAUC], m.Metrics[metricAUC]-m.Metrics[metricVersus])
		} else {
			line("retrained", "candidate refused: %s", m.Reason)
		}
	}
	line("swaps", "%d, with %d candidates evaluated and %d refused", s.Swaps, s.Candidates, s.Refused)
	for _, m := range s.Missing {
		line("MISSING", "%s", m)
	}
	fmt.Fprintf(out, "\nWhere to go on\n")
	line("console", "%s", s.Console)
	line("endpoint", "%s", s.Endpoint)
	line("metrics", "%s", s.Metrics)
	line("Kafka, Redis", "%s, %s", s.Kafka, s.Redis)
	line("files", "%s", s.DataDir)
	if s.curl != "" {
		line("score", "%s", s.curl)
		line("a flight", "%s", s.named)
	}
	fmt.Fprintln(out)
}
