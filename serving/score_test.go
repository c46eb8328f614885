package serving

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/registry/model"
)

func TestScoreByHand(t *testing.T) {
	w := newWorld(t)
	w.apply(arrival{"ATL", noon.Add(-30 * time.Minute), 10}, arrival{"ATL", noon.Add(-20 * time.Minute), 50}, arrival{"ATL", noon.Add(-3 * time.Hour), 300})
	digest := w.promote(byDelay(0.1))
	w.start()
	w.awaitReady()

	status, a := w.post(flight)
	if status != 200 || len(a.Predictions) != 1 {
		t.Fatalf("%d %+v", status, a)
	}
	p := a.Predictions[0]
	// Mean delay of the last hour is 30: margin = -1 + 0.1*30 + 0.001*1000.
	if want := sigmoid(-1 + 3 + 1); p.Score == nil || math.Abs(*p.Score-want) > 1e-12 {
		t.Errorf("score %v, want %v", p.Score, want)
	}
	if p.Digest != digest || p.Version != 1 || p.Rung != "primary" || p.Reason != "" || p.JoinKey != "f1" || p.Source != "http" || !p.At.Equal(noon) {
		t.Errorf("%+v", p)
	}
	want := map[string]float64{
		"origin_delays.flights_1h": 2, "origin_delays.flights_24h": 3, "origin_delays.delay_mean_1h": 30, "origin_delays.delay_mean_24h": 120,
		"distance": 1000, "hour": 12,
	}
	for _, f := range p.Features {
		if f.Value == nil || math.Abs(*f.Value-want[f.Name]) > 1e-9 || f.Status != "present" {
			t.Errorf("%s is %v (%s), want %v", f.Name, f.Value, f.Status, want[f.Name])
		}
		if strings.HasPrefix(f.Name, "origin") && (f.EventTime == nil || !f.EventTime.Equal(noon.Add(-20*time.Minute))) {
			t.Errorf("%s: newest event %v", f.Name, f.EventTime)
		}
		delete(want, f.Name)
	}
	if len(want) > 0 {
		t.Errorf("not in the answer: %v", want)
	}
	if len(p.Reasons) != 2 || p.Reasons[0].Input != "origin_delays.delay_mean_1h" || math.Abs(p.Reasons[0].Contribution-3) > 1e-12 || p.ReasonMethod != model.Linear {
		t.Errorf("reasons %+v by %q", p.Reasons, p.ReasonMethod)
	}
}

func TestScoreAsOf(t *testing.T) {
	w := newWorld(t)
	w.apply(arrival{"ATL", noon.Add(-90 * time.Minute), 10}, arrival{"ATL", noon.Add(-20 * time.Minute), 50})
	w.promote(byDelay(0.1))
	w.start()
	w.awaitReady()
	_, a := w.post(`{"rows":[` + flight + `,` + strings.Replace(flight, "{", `{"at":"2001-05-20T11:00:00Z",`, 1) + `],"at":"2001-05-20T11:59:00Z"}`)
	if len(a.Predictions) != 2 {
		t.Fatalf("%+v", a)
	}
	for i, want := range []float64{50, 10} {
		for _, f := range a.Predictions[i].Features {
			if f.Name == "origin_delays.delay_mean_1h" && (f.Value == nil || *f.Value != want) {
				t.Errorf("row %d: mean delay %v, want %v", i, f.Value, want)
			}
		}
	}
}

// Under clock: event, now is just after the newest event, wherever the machine's clock is.
func TestScoreByEventClock(t *testing.T) {
	w := newWorld(t, byEvents)
	w.now = noon.AddDate(20, 0, 0)
	w.apply(arrival{"ATL", noon.Add(-time.Minute), 10}, arrival{"ATL", noon, 50})
	w.promote(byDelay(0.1))
	w.start()
	w.awaitReady()
	_, a := w.post(flight)
	if len(a.Predictions) != 1 || !a.Predictions[0].At.Equal(noon.Add(time.Millisecond)) || *a.Predictions[0].Features[0].Value != 2 {
		t.Errorf("%+v", a)
	}
}

func TestMissingStatuses(t *testing.T) {
	w := newWorld(t)
	w.apply(arrival{"ATL", noon.Add(-3 * time.Hour), 300})
	w.promote(byDelay(0.1))
	w.start()
	w.awaitReady()
	rows := []string{flight, strings.Replace(flight, "ATL", "ZZZ", 1), strings.Replace(flight, `"ATL"`, "null", 1)}
	_, a := w.post(`{"rows":[` + strings.Join(rows, ",") + `]}`)
	if len(a.Predictions) != 3 {
		t.Fatalf("%+v", a)
	}
	for i, want := range []string{"null", "not_found", "not_found"} {
		for _, f := range a.Predictions[i].Features {
			if f.Name == "origin_delays.delay_mean_1h" && (f.Status != want || f.Value != nil) {
				t.Errorf("row %d: %s %v, want %s", i, f.Status, f.Value, want)
			}
		}
		if a.Predictions[i].Rung != "primary" { // the model is told that it is missing
			t.Errorf("row %d: %+v", i, a.Predictions[i])
		}
	}
	if n := w.metric("millrace_serving_missing_features_total", "input", "origin_delays.delay_mean_1h", "status", "not_found"); n != 2 {
		t.Errorf("%v inputs counted as not found, want 2", n)
	}
}

func TestLadder(t *testing.T) {
	w := newWorld(t)
	w.model().Serve.Required = []string{"origin_delays.delay_mean_1h"}
	needy := byDelay(0.1)
	frugal := trained{intercept: 0.5, weights: map[string]float64{"distance": 0.001}}
	old := w.promote(frugal)
	champion := w.promote(needy)
	w.apply(arrival{"ATL", noon.Add(-3 * time.Hour), 300}) // nothing in the last hour
	w.start()
	w.awaitReady()

	status, a := w.post(flight)
	if p := a.Predictions[0]; status != 200 || p.Rung != "previous" || p.Digest != old || p.Version != 1 || p.Reason != "required_missing: origin_delays.delay_mean_1h is null" || *p.Score != sigmoid(1.5) {
		t.Errorf("%d %+v", status, p)
	}

	w.fallTo()
	status, a = w.post(flight)
	if status != 422 || a.Code != "required_missing" || len(a.Predictions) != 1 || a.Predictions[0].Score != nil || a.Predictions[0].Rung != "refused" || a.Predictions[0].Digest != champion {
		t.Errorf("%d %+v", status, a)
	}
	if n := w.metric("millrace_serving_refusals_total", "reason", "required_missing"); n != 1 {
		t.Errorf("%v refusals counted, want 1", n)
	}

	w.fallTo(project.Rung{Kind: project.RungDefault, Score: 0.25})
	status, a = w.post(flight)
	if p := a.Predictions[0]; status != 200 || p.Rung != "default" || *p.Score != 0.25 || p.Reason == "" {
		t.Errorf("%d %+v", status, p)
	}
	for _, rung := range []string{"previous", "refused", "default"} {
		if n := w.metric("millrace_serving_predictions_total", "rung", rung, "source", "http"); n != 1 {
			t.Errorf("%v answers counted on rung %s, want 1", n, rung)
		}
	}
}

// A batch of which only some rows can be answered is answered.
func TestPartlyRefused(t *testing.T) {
	w := newWorld(t)
	w.model().Serve.MissingAllowed = 0.4
	w.apply(arrival{"ATL", noon.Add(-time.Minute), 10})
	w.promote(byDelay(0.1))
	w.start()
	w.awaitReady()
	status, a := w.post(`{"rows":[` + flight + `,` + strings.Replace(flight, "ATL", "ZZZ", 1) + `]}`)
	if status != 200 || a.Predictions[0].Rung != "primary" || a.Predictions[1].Rung != "refused" || !strings.HasPrefix(a.Predictions[1].Reason, "too_many_missing: 1 of 2") {
		t.Errorf("%d %+v", status, a)
	}
}

func TestBadRequests(t *testing.T) {
	w := newWorld(t)
	w.cfg.MaxRows, w.cfg.MaxBody = 3, 2000
	w.promote(byDelay(0.1))
	w.start()
	w.awaitReady()
	with := func(old, new string) string { return strings.Replace(flight, old, new, 1) }
	rows := func(rows ...string) string { return `{"rows":[` + strings.Join(rows, ",") + `]}` }
	for _, c := range []struct {
		name, body  string
		header      string
		status      int
		code, field string
	}{
		{"not JSON", `{"flight_id":`, "", 400, "malformed", ""},
		{"control character", "{\"flight_id\":\"a\x01\"}", "", 400, "malformed", ""},
		{"not an object", `[1]`, "", 400, "wrong_type", ""},
		{"empty", ``, "", 400, "malformed", ""},
		{"unknown field", with(`"origin"`, `"origyn":"x","origin"`), "", 400, "unknown_field", "origyn"},
		{"missing field", with(`,"distance":1000`, ``), "", 400, "missing_field", "distance"},
		{"null where not nullable", with(`1000`, `null`), "", 400, "missing_field", "distance"},
		{"wrong type", with(`1000`, `"far"`), "", 400, "wrong_type", "distance"},
		{"fraction for integer", with(`1000`, `1.5`), "", 400, "wrong_type", "distance"},
		{"out of range", with(`1000`, `20001`), "", 400, "out_of_range", "distance"},
		{"bad time", with(`2001-05-20T12:30:00Z`, `noon`), "", 400, "wrong_type", "scheduled"},
		{"field twice", with(`"distance"`, `"distance":1,"distance"`), "", 400, "malformed", "distance"},
		{"bad at", with(`{`, `{"at":"soon",`), "", 400, "wrong_type", "at"},
		{"at out of range", with(`{`, `{"at":9000000000000000,`), "", 400, "out_of_range", "at"},
		{"entity too long", with(`ATL`, strings.Repeat("x", 1025)), "", 400, "bad_request", "origin"},
		{"entity too long, in a batch", rows(flight, with(`ATL`, strings.Repeat("x", 1025))), "", 400, "bad_request", "rows[1].origin"},
		{"row's field", rows(flight, with(`1000`, `-1`)), "", 400, "out_of_range", "rows[1].distance"},
		{"row's at", rows(flight, with(`{`, `{"at":true,`)), "", 400, "wrong_type", "rows[1].at"},
		{"row is no object", rows(flight, `7`), "", 400, "wrong_type", "rows[1]"},
		{"rows is no array", `{"rows":7}`, "", 400, "wrong_type", "rows"},
		{"rows twice", `{"rows":[],"rows":[]}`, "", 400, "malformed", "rows"},
		{"beside rows", `{"rows":[` + flight + `],"model":"x"}`, "", 400, "unknown_field", "model"},
		{"no rows", rows(), "", 400, "no_rows", "rows"},
		{"too many rows", rows(flight, flight, flight, flight), "", 413, "too_many_rows", "rows"},
		{"body too large", with(`f1`, strings.Repeat("f", 2000)), "", 413, "body_too_large", ""},
		{"timeout is no number", flight, "fast", 400, "wrong_type", HeaderTimeout},
		{"timeout is 0", flight, "0", 400, "wrong_type", HeaderTimeout},
	} {
		t.Run(c.name, func(t *testing.T) {
			var headers []string
			if c.header != "" {
				headers = []string{HeaderTimeout, c.header}
			}
			status, a := w.post(c.body, headers...)
			if status != c.status || a.Status != c.status || a.Code != c.code || a.Field != c.field || a.Detail == "" {
				t.Errorf("%d code %q field %q detail %q; want %d, %q, %q", status, a.Code, a.Field, a.Detail, c.status, c.code, c.field)
			}
		})
	}
}

func TestPaths(t *testing.T) {
	w := newWorld(t)
	w.promote(byDelay(0.1))
	w.start()
	w.awaitReady()
	w.post(flight)
	for path, want := range map[string]int{
		"/healthz": 200, "/readyz": 200, "/v1/models": 200, "/v1/models/late": 200, "/v1/models/late/predictions/f1": 200,
		"/v1/models/early": 404, "/v1/models/late/predictions/f2": 404, "/v1/models/late/x": 404, "/v1/models/": 404, "/v1": 404, "/v1/models/late:score": 405,
		"/v1/features/origin_delays/ATL": 200, "/v1/features/origin_delays": 400, "/v1/features/origin_delays/A/B": 400, "/v1/features/nothing/ATL": 404, "/v1/features/origin_delays/": 404,
		"/v1/features/origin_delays/ATL?at=x": 400, "/v1/models/late%3Ascore": 405,
	} {
		if got := w.get(path, nil); got != want {
			t.Errorf("GET %s: %d, want %d", path, got, want)
		}
	}
	if n := w.metric("millrace_serving_requests_total", "route", "other", "status", "404"); n != 3 {
		t.Errorf("%v requests for nothing counted, want 3", n)
	}
	if n := w.metric("millrace_serving_request_seconds", "route", "score"); n != 3 {
		t.Errorf("%v requests timed, want 3", n)
	}
}

func TestFeatures(t *testing.T) {
	w := newWorld(t)
	w.apply(arrival{"A/B C", noon.Add(-90 * time.Minute), 10}, arrival{"A/B C", noon.Add(-20 * time.Minute), 50})
	w.start()
	type view struct {
		Version  string
		Entity   map[string]string
		At       time.Time
		Newest   *time.Time
		Position struct {
			Partition int32
			Next      int64
			Newest    *time.Time
		}
		Features []struct {
			Name, Status, Window string
			Value                *float64
			TailErrorMs          int64 `json:"tail_error_ms"`
		}
	}
	for _, c := range []struct {
		path   string
		values []any // flights_1h, flights_24h, delay_mean_1h, delay_mean_24h
	}{
		{"A%2FB%20C", []any{1.0, 2.0, 50.0, 30.0}},
		{"A%2FB%20C?at=2001-05-20T11:00:00Z", []any{1.0, 1.0, 10.0, 10.0}},
		{"A%2FB%20C?at=990356400000", []any{1.0, 1.0, 10.0, 10.0}}, // the same instant
		{"A%2FB%20C?at=2001-05-20T13:00:00Z", []any{0.0, 2.0, "null", 30.0}},
		{"nobody", []any{"not_found", "not_found", "not_found", "not_found"}},
	} {
		var v view
		if status := w.get("/v1/features/origin_delays/"+c.path, &v); status != 200 || len(v.Features) != 4 || v.Version != w.group().Version {
			t.Fatalf("%s: %d %+v", c.path, status, v)
		}
		for i, want := range c.values {
			got := any(v.Features[i].Status)
			if v.Features[i].Value != nil {
				got = *v.Features[i].Value
			}
			if got != want {
				t.Errorf("%s: %s is %v, want %v", c.path, v.Features[i].Name, got, want)
			}
		}
	}
	var v view
	w.get("/v1/features/origin_delays/A%2FB%20C", &v)
	if v.Entity["origin"] != "A/B C" || v.Newest == nil || !v.Newest.Equal(noon.Add(-20*time.Minute)) || v.Position.Next != 2 || v.Features[0].Window != "1h" || v.Features[0].TailErrorMs != 60_000 {
		t.Errorf("%+v", v)
	}
}

// The first instant of Unix time is a time like others.
func TestFeaturesOfTheEpoch(t *testing.T) {
	w := newWorld(t)
	w.apply(arrival{"ATL", time.UnixMilli(0), 10})
	w.start()
	var view struct{ Newest *time.Time }
	if w.get("/v1/features/origin_delays/ATL", &view); view.Newest == nil || !view.Newest.Equal(time.UnixMilli(0)) {
		t.Errorf("the newest event is told to be of %v", view.Newest)
	}
}

func TestModelViews(t *testing.T) {
	w := newWorld(t)
	w.start()
	var v modelView
	if status := w.get("/readyz", &answerBody{}); status != 503 {
		t.Errorf("ready without a champion: %d", status)
	}
	if w.get("/v1/models/late", &v); v.State != "waiting" || v.Digest != "" || len(v.Inputs) != 6 || len(v.RequestForm) != 4 {
		t.Errorf("%+v", v)
	}
	status, a := w.post(flight)
	if status != 503 || a.Code != "no_champion" {
		t.Errorf("%d %+v", status, a)
	}
	old := w.promote(trained{weights: map[string]float64{"distance": 1}})
	digest := w.promote(trained{weights: map[string]float64{"hour": 1}, dataUntil: noon})
	w.awaitReady()
	eventually(t, "the second is live", func() bool { w.get("/v1/models/late", &v); return v.Digest == digest })
	if v.Version != 2 || v.Kind != "logistic" || v.DataUntil != "2001-05-20T12:00:00Z" || v.Previous == nil || v.Previous.Digest != old {
		t.Errorf("%+v", v)
	}

	// Rolled back: the version rolled back from stands in for nobody.
	if _, err := w.registry.Rollback(t.Context(), "late", registry.Champion, digest, ""); err != nil {
		t.Fatal(err)
	}
	eventually(t, "rolled back", func() bool { v = modelView{}; w.get("/v1/models/late", &v); return v.Digest == old })
	if v.Previous != nil {
		t.Errorf("%+v stands in", v.Previous)
	}
}

func TestRecentForgetsTheOldest(t *testing.T) {
	w := newWorld(t)
	w.cfg.Recent = 2
	w.promote(byDelay(0.1))
	w.start()
	w.awaitReady()
	for i := range 3 {
		w.post(strings.Replace(flight, "f1", fmt.Sprint("f", i), 1))
	}
	for i, want := range []int{404, 200, 200} {
		var p predictionBody
		if got := w.get(fmt.Sprint("/v1/models/late/predictions/f", i), &p); got != want || want == 200 && p.JoinKey != fmt.Sprint("f", i) {
			t.Errorf("f%d: %d %+v, want %d", i, got, p, want)
		}
	}
}
