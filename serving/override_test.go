package serving

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/schemas"
)

// overriding is the flight with overrides.
func overriding(overrides string) string {
	return strings.TrimSuffix(flight, "}") + `,"overrides":` + overrides + `}`
}

// What a row says of a fetched input is what the model is given, and what is answered and logged; other inputs and other rows have what was
// read.
func TestOverrides(t *testing.T) {
	w := newWorld(t, withKafka)
	w.apply(arrival{"ATL", noon.Add(-10 * time.Minute), 10})
	w.promote(trained{intercept: -1, weights: map[string]float64{"origin_delays.delay_mean_1h": 0.1, "origin_delays.flights_1h": 0.5, "distance": 0.001}})
	w.start()
	w.awaitReady()
	for _, c := range []struct {
		overrides, status, count string
		value                    any // of the mean
		margin                   float64
	}{
		{`{}`, "present", "present", 10.0, 1.5},
		{`{"origin_delays.delay_mean_1h":-20}`, "overridden", "present", -20.0, -1.5},
		{`{"origin_delays.delay_mean_1h":0.5e1,"origin_delays.flights_1h":3.0}`, "overridden", "overridden", 5.0, 2},
		{`{"origin_delays.delay_mean_1h":null}`, "overridden", "present", nil, 0.5},
	} {
		status, a := w.post(`{"rows":[` + overriding(c.overrides) + `,` + flight + `]}`)
		if status != 200 || len(a.Predictions) != 2 {
			t.Fatalf("%s: %d %+v", c.overrides, status, a)
		}
		if got := *a.Predictions[0].Score; math.Abs(got-sigmoid(c.margin)) > 1e-12 {
			t.Errorf("%s: scored %v, want %v", c.overrides, got, sigmoid(c.margin))
		}
		if got := *a.Predictions[1].Score; math.Abs(got-sigmoid(1.5)) > 1e-12 {
			t.Errorf("%s: the row beside it scored %v", c.overrides, got)
		}
		var logged schemas.Prediction
		eventually(t, "the prediction is logged", func() bool {
			for _, p := range w.predictions() {
				if p.ID == a.Predictions[0].ID {
					logged = p
				}
			}
			return logged.ID != ""
		})
		for i, in := range a.Predictions[0].Features {
			want, value := "present", any(nil)
			switch in.Name {
			case "origin_delays.delay_mean_1h":
				want = c.status
				if in.Value != nil {
					value = *in.Value
				}
				if value != c.value {
					t.Errorf("%s: the value is %v", c.overrides, value)
				}
				if (in.EventTime == nil) != (want == "overridden") {
					t.Errorf("%s: event time %v", c.overrides, in.EventTime)
				}
			case "origin_delays.flights_1h":
				want = c.count
			}
			kept := logged.Inputs[i]
			if in.Status != want || kept.Status != want || (kept.Value == nil) != (in.Value == nil) || kept.Value != nil && *kept.Value != *in.Value {
				t.Errorf("%s: %s is %s, logged as %+v, want %s", c.overrides, in.Name, in.Status, kept, want)
			}
		}
	}
	if n := w.metric("millrace_serving_missing_features_total", "input", "origin_delays.delay_mean_1h", "status", "overridden"); n != 1 {
		t.Errorf("%v inputs overridden with null counted, want 1", n)
	}
}

// An input that is required is there when the row gives it, whatever became of reading it; not when the row gives null.
func TestOverriddenIsPresent(t *testing.T) {
	w := newWorld(t)
	w.model().Serve.Required = []string{"origin_delays.delay_mean_1h"}
	w.fallTo()
	w.promote(byDelay(0.1))
	w.start()
	w.awaitReady()
	if status, a := w.post(flight); status != 422 || a.Code != "required_not_found" {
		t.Errorf("%d %+v", status, a)
	}
	given, null := overriding(`{"origin_delays.delay_mean_1h":10}`), overriding(`{"origin_delays.delay_mean_1h":null}`)
	if status, a := w.post(given); status != 200 || a.Predictions[0].Rung != "primary" {
		t.Errorf("%d %+v", status, a)
	}
	if status, a := w.post(null); status != 422 || a.Code != "required_missing" || a.Predictions[0].Reason != "required_missing: origin_delays.delay_mean_1h is overridden with null" {
		t.Errorf("%d %+v", status, a)
	}
	w.redis.Close()
	if status, a := w.post(given); status != 200 || a.Predictions[0].Rung != "primary" {
		t.Errorf("without Redis: %d %+v", status, a)
	}
}

func TestOverridesThatAreRefused(t *testing.T) {
	w := newWorld(t)
	w.promote(byDelay(0.1))
	w.start()
	w.awaitReady()
	const mean, count = "origin_delays.delay_mean_1h", "origin_delays.flights_1h"
	for overrides, want := range map[string][2]string{
		`[]`:                                     {"wrong_type", ""},
		`null`:                                   {"wrong_type", ""},
		`{"origin_delays.nothing":1}`:            {"unknown_field", ".origin_delays.nothing"},
		`{"distance":77123}`:                     {"unknown_field", ".distance"}, // of the row itself
		`{"` + mean + `":"77123"}`:               {"wrong_type", "." + mean},
		`{"` + mean + `":true}`:                  {"wrong_type", "." + mean},
		`{"` + mean + `":{"a":77123}}`:           {"wrong_type", "." + mean},
		`{"` + mean + `":1e999}`:                 {"out_of_range", "." + mean},
		`{"` + count + `":77123.5}`:              {"wrong_type", "." + count},
		`{"` + mean + `":1,"` + mean + `":null}`: {"malformed", "." + mean},
	} {
		status, a := w.post(`{"rows":[` + overriding(overrides) + `]}`)
		if status != 400 || a.Code != want[0] || a.Field != "rows[0].overrides"+want[1] {
			t.Errorf("%s: %d %s %s", overrides, status, a.Code, a.Field)
		}
		if strings.Contains(a.Detail, "77123") {
			t.Errorf("%s: the answer repeats the value: %s", overrides, a.Detail)
		}
	}
	if status, a := w.post(overriding(`{},"overrides":{}`)); status != 400 || a.Code == "" {
		t.Errorf("twice: %d %+v", status, a)
	}
	own := must[*schemas.Schema](t)(schemas.Parse("x", []byte(`{"type":"record","name":"X","fields":[{"name":"overrides","type":"long"}]}`)))
	if q, p := newRequestReader(own).read([]byte(`{"overrides":7}`), 3); p != nil || q[0].row[0].Int() != 7 || q[0].overrides != nil {
		t.Errorf("a column of that name: %+v %+v", q, p)
	}
}
