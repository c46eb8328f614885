package serving

import (
	"bytes"
	"context"
	"errors"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
)

func (w *world) rule(text string) project.Rung {
	w.t.Helper()
	return project.Rung{Kind: project.RungRule, Rule: must[*features.Expression](w.t)(features.CompileExpression(text, w.model().On.Schema, schemas.Null))}
}

// promoteBeside makes a champion whose manifest names a simpler model.
func (w *world) promoteBeside(m, simpler trained) (champion, beside string) {
	w.t.Helper()
	put := func(m trained, inputs ...registry.Ref) string {
		content := must[[]byte](w.t)(w.bundle(m).Encode())
		return must[string](w.t)(w.registry.Put(w.t.Context(), registry.Manifest{
			Kind: registry.KindModel, Name: "late", MediaType: model.MediaBundle, Inputs: inputs,
		}, bytes.NewReader(content)))
	}
	beside = put(simpler)
	champion = put(m, registry.Ref{Role: registry.RoleSimpler, Digest: beside})
	must[int](w.t)(w.registry.AddVersion("late", champion))
	w.crown(champion)
	return champion, beside
}

// Each rung answers when none above can: a table of what is there against who answers.
func TestLadderInOrder(t *testing.T) {
	w := newWorld(t)
	w.fallTo(project.Rung{Kind: project.RungPrevious}, project.Rung{Kind: project.RungSimpler}, w.rule("distance > 500 ? 0.4 : nil"), project.Rung{Kind: project.RungDefault, Score: 0.02})
	w.promote(byDelay(0.05))
	champion, beside := w.promoteBeside(byDelay(0.1), trained{intercept: 0.5, weights: map[string]float64{"distance": 0.001}})
	w.start()
	w.awaitReady()
	var v modelView
	w.get("/v1/models/late", &v)
	if v.Simpler == nil || v.Simpler.Digest != beside || len(v.Fallback) != 4 || v.Fallback[2] != "rule: distance > 500 ? 0.4 : nil" {
		t.Errorf("%+v", v)
	}
	w.redis.Close()
	short := strings.Replace(flight, "1000", "100", 1)
	ask := func(body, rung string, score float64, digest string) {
		t.Helper()
		status, a := w.post(body)
		if status != 200 || len(a.Predictions) != 1 {
			t.Fatalf("%d %+v", status, a)
		}
		if p := a.Predictions[0]; p.Rung != rung || math.Abs(*p.Score-score) > 1e-12 || p.Digest != digest || p.Reason != "features_unavailable: origin_delays" {
			t.Errorf("%+v, want %s %v", p, rung, score)
		}
	}
	ask(flight, "simpler", sigmoid(1.5), beside)
	line := *w.stage.models["late"].live.Load()
	line.simpler = nil
	w.stage.models["late"].live.Store(&line)
	ask(flight, "rule", 0.4, champion)
	ask(short, "default", 0.02, champion)
	w.fallTo(w.rule("distance > 500 ? 0.4 : nil"))
	if status, a := w.post(short); status != 503 || a.Code != "features_unavailable" {
		t.Errorf("%d %+v", status, a)
	}
	for _, rung := range []string{"simpler", "rule", "default"} {
		if n := w.metric("millrace_serving_fallbacks_total", "rung", rung, "reason", "features_unavailable"); n != 1 {
			t.Errorf("%v fallbacks to %s counted, want 1", n, rung)
		}
	}
}

// A simpler model that does not pass its checks costs its rung, not the champion.
func TestCorruptSimplerModel(t *testing.T) {
	w := newWorld(t)
	w.fallTo(project.Rung{Kind: project.RungSimpler})
	simpler := trained{weights: map[string]float64{"distance": 0.001}, spoil: func(b *model.Bundle) { b.Scores[0] += 1e-6 }}
	champion, _ := w.promoteBeside(byDelay(0.1), simpler)
	w.start()
	w.awaitReady()
	if _, a := w.post(flight); a.Predictions[0].Digest != champion {
		t.Errorf("%+v", a)
	}
	if w.stage.models["late"].live.Load().simpler != nil {
		t.Error("it stands in")
	}
}

// An entity never seen, one expired, and a window without events are refused with different reasons.
func TestRequiredReasons(t *testing.T) {
	w := newWorld(t)
	w.model().Serve.Required = []string{"origin_delays.delay_mean_1h"}
	w.apply(arrival{"ATL", noon.Add(-3 * time.Hour), 10}, arrival{"OLD", noon.AddDate(0, 0, -40), 10})
	w.promote(byDelay(0.1))
	w.start()
	w.awaitReady()
	for origin, want := range map[string]string{
		"ATL": "required_missing: origin_delays.delay_mean_1h is null",
		"OLD": "required_expired: origin_delays.delay_mean_1h is expired",
		"ZZZ": "required_not_found: origin_delays.delay_mean_1h is not_found",
	} {
		status, a := w.post(strings.Replace(flight, "ATL", origin, 1))
		code, _, _ := strings.Cut(want, ":")
		if status != 422 || a.Code != code || a.Predictions[0].Reason != want {
			t.Errorf("%s: %d %+v, want %s", origin, status, a, want)
		}
	}
}

func TestFetchUntil(t *testing.T) {
	now := noon
	for _, c := range []struct{ left, declared, want time.Duration }{
		{30 * time.Millisecond, 0, 27 * time.Millisecond},                     // a tenth is kept back
		{500 * time.Millisecond, 0, 495 * time.Millisecond},                   // at most 5 ms
		{30 * time.Millisecond, 10 * time.Millisecond, 10 * time.Millisecond}, // declared
		{10 * time.Millisecond, 20 * time.Millisecond, 9 * time.Millisecond},  // the client has less than is declared
	} {
		if got := fetchUntil(now.Add(c.left), now, c.declared).Sub(now); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

// A client that hangs up ends its request's work: nothing is answered, kept or logged.
func TestClientGone(t *testing.T) {
	w := newWorld(t)
	proxy := newStallingProxy(t, w.addr)
	w.addr = proxy.listener.Addr().String()
	w.model().Serve.Timeout = 5 * time.Second
	w.fallTo(project.Rung{Kind: project.RungDefault, Score: 0.02})
	w.apply(arrival{"ATL", noon.Add(-time.Minute), 10})
	w.promote(byDelay(0.1))
	w.start()
	w.awaitReady()
	proxy.stalled.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	r := must[*http.Request](t)(http.NewRequestWithContext(ctx, http.MethodPost, w.server.URL+"/v1/models/late:score", strings.NewReader(flight)))
	done := make(chan error, 1)
	go func() {
		_, err := w.server.Client().Do(r)
		done <- err
	}()
	eventually(t, "the read is under way", func() bool { return len(w.stage.fetch.slots) > 0 })
	start := time.Now()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	eventually(t, "counted as gone", func() bool { return w.metric("millrace_serving_requests_total", "status", "499") == 1 })
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("the work went on for %s", took)
	}
	if n := w.metric("millrace_serving_predictions_total", "source", "http"); n != 0 {
		t.Errorf("%v rows answered", n)
	}
}

// When Redis has been silent for a while, requests do not wait for it, and when it answers, they are served again.
func TestSilentRedisCostsNoWait(t *testing.T) {
	w := newWorld(t)
	proxy := newStallingProxy(t, w.addr)
	w.addr = proxy.listener.Addr().String()
	w.cfg.ReadTimeout = 200 * time.Millisecond
	w.model().Serve.Timeout = 600 * time.Millisecond
	w.apply(arrival{"ATL", noon.Add(-time.Minute), 10})
	w.promote(byDelay(0.1))
	w.start()
	w.awaitReady()
	if status, _ := w.post(flight); status != 200 {
		t.Fatalf("%d while Redis answers", status)
	}
	proxy.stalled.Store(true)
	off := func() float64 { return w.metric("millrace_serving_feature_reads_off") }
	eventually(t, "reads are off", func() bool { w.post(flight); return off() == 1 })
	var took []time.Duration
	for range 21 {
		start := time.Now()
		if status, a := w.post(flight); status != 503 || a.Code != "features_unavailable" {
			t.Fatalf("%d %+v", status, a)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	if median := took[len(took)/2]; median > 200*time.Millisecond {
		t.Errorf("half of the requests took %s and more, none should wait for 600 ms", median)
	}
	proxy.stalled.Store(false)
	eventually(t, "answered by the champion again", func() bool {
		status, a := w.post(flight)
		return status == 200 && a.Predictions[0].Rung == "primary" && off() == 0
	})
}

// What clients with hardly any time see says nothing of Redis.
func TestShortDeadlinesKeepReadsOn(t *testing.T) {
	w := newWorld(t)
	b := newBreaker(func() time.Time { return w.now }, newMetrics(w.registerer()), time.Second)
	b.running.Store(true)
	for range 100 {
		w.now = w.now.Add(100 * time.Millisecond)
		b.failedOn(nil, 2*time.Millisecond)
	}
	if b.open.Load() {
		t.Error("open")
	}
	for range 5 {
		b.failedOn(nil, 20*time.Millisecond)
	}
	if b.open.Load() {
		t.Error("open after failures of one instant")
	}
	w.now = w.now.Add(breakAfter)
	b.succeeded()
	b.failedOn(nil, 20*time.Millisecond)
	if b.open.Load() {
		t.Error("open after a success")
	}
	for range 4 {
		w.now = w.now.Add(breakAfter)
		b.failedOn(nil, 20*time.Millisecond)
	}
	if !b.open.Load() {
		t.Error("closed after half a second of failures")
	}
}
