package serving

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/schemas"
)

// A caller's own inputs go through the same model as read features do, in the champion's order, and nothing is read for them.
func TestScoreInputs(t *testing.T) {
	w := newWorld(t)
	w.promote(byDelay(0.1))
	w.start()
	w.awaitReady()
	m, p := w.stage.Model(t.Context(), "late")
	if p != nil || !m.Live || m.Version != 1 || len(m.Inputs) != 2 || m.Inputs[0] != "origin_delays.delay_mean_1h" || m.Inputs[1] != "distance" {
		t.Fatalf("%+v %v", m, p)
	}
	w.redis.Close() // not asked
	predictions, p := w.stage.ScoreInputs(t.Context(), Call{Model: "late"}, [][]float64{{10, 1000}, {math.NaN(), 500}})
	if p != nil {
		t.Fatal(p)
	}
	for i, want := range []float64{sigmoid(-1 + 0.1*10 + 1), sigmoid(-1 + 0.5)} {
		if got := predictions[i]; math.Abs(got.Score-want) > 1e-12 || got.Rung != schemas.RungPrimary || got.Version != 1 {
			t.Errorf("row %d: %+v, want score %v", i, got, want)
		}
	}
	if got := predictions[1].Inputs[2]; got.Name == "" || got.Status != "null" {
		t.Errorf("a NaN is %+v", got)
	}
	for name, rows := range map[string][][]float64{"no_rows": {}, "wrong_type": {{1}}, "too_many_rows": make([][]float64, w.cfg.MaxRows+1)} {
		if _, p := w.stage.ScoreInputs(t.Context(), Call{Model: "late"}, rows); p == nil || p.Code != name {
			t.Errorf("%v, want %s", p, name)
		}
	}
	if _, p := w.stage.ScoreInputs(t.Context(), Call{Model: "late", Timeout: time.Nanosecond}, [][]float64{{1, 2}}); p == nil || p.Code != "deadline" || p.Status != 504 {
		t.Errorf("%v", p)
	}
	if _, p := w.stage.ScoreInputs(t.Context(), Call{Model: "early"}, nil); p == nil || p.Status != 404 {
		t.Errorf("%v", p)
	}
}

// What a problem tells names fields; it never shows what was sent, nor what Redis said.
func TestProblemsShowNothing(t *testing.T) {
	w := newWorld(t)
	w.promote(byDelay(0.1))
	w.start()
	w.awaitReady()
	const secret = "4111-1111"
	for _, body := range []string{
		`{"flight_id":"f","scheduled":"` + secret + `","origin":null,"distance":1}`,
		`{"flight_id":"f","scheduled":1,"origin":null,"distance":"` + secret + `"}`,
		`{"flight_id":"f","scheduled":1,"origin":null,"distance":41111111}`,
		`{"flight_id":"f","scheduled":1,"origin":null,"distance":1,"at":"` + secret + `"}`,
		`"` + secret + `"`, secret, `{"rows":[],"at":"` + secret + `"}`,
	} {
		status, a := w.post(body)
		if status != 400 || a.Code == "" || a.Detail == "" {
			t.Errorf("%s: %d %+v", body, status, a)
		}
		for _, shown := range []string{secret, "41111111"} {
			if strings.Contains(a.Detail, shown) || strings.Contains(a.Field, shown) {
				t.Errorf("%s: %+v", body, a)
			}
		}
	}
	if _, a := w.post(flight, HeaderTimeout, secret); a.Code != "wrong_type" || strings.Contains(a.Detail, secret) {
		t.Errorf("%+v", a)
	}
	address := w.redis.Addr()
	w.redis.Close()
	var p Problem
	if status := w.get("/v1/features/origin_delays/ATL", &p); status != 503 || strings.Contains(p.Detail+p.Hint, address) || p.Type != TypePrefix+"unavailable" {
		t.Errorf("%d %+v", status, p)
	}
}
