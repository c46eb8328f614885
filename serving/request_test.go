package serving

import (
	"context"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/schemas"
)

func timeoutContext(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}

func mustRead(t testing.TB, s *Stage, body string) []question {
	t.Helper()
	q, p := s.models["late"].reader.read([]byte(body), 512)
	if p != nil {
		t.Fatalf("%+v", p)
	}
	return q
}

// FuzzRequest: whatever a client sends is answered by rows of the schema's width or by a problem that names a status, never by a panic.
func FuzzRequest(f *testing.F) {
	for _, body := range []string{
		flight, `{"rows":[` + flight + `]}`, `{"rows":[{}],"at":1}`, `{"rows":[{"at":"2001-05-20T12:00:00Z"}]}`, `{"at":null}`, `[]`, `{"rows":{}}`,
		`{"flight_id":"f","scheduled":990360000000,"origin":null,"distance":1e3}`, strings.Repeat(`{"rows":[`, 400), `{"":0}`, "\x00",
	} {
		f.Add([]byte(body))
	}
	departure := must[*schemas.Schema](f)(schemas.Parse("departure", []byte(departureSchema)))
	reader := newRequestReader(departure)
	f.Fuzz(func(t *testing.T, body []byte) {
		questions, p := reader.read(body, 3)
		if p != nil {
			if p.Status != 400 && p.Status != 413 || p.Code == "" || p.Detail == "" {
				t.Fatalf("%+v", p)
			}
			return
		}
		if len(questions) == 0 || len(questions) > 3 {
			t.Fatalf("%d rows", len(questions))
		}
		if !json.Valid(body) {
			t.Fatal("not JSON, and read")
		}
		for _, q := range questions {
			if len(q.row) != 4 || q.row[0].IsNull() || q.row[3].IsNull() || q.at != noTime && (q.at < schemas.MinTime || q.at > schemas.MaxTime) {
				t.Fatalf("%+v", q)
			}
		}
	})
}

// A schema's own columns have the names first.
func TestRequestOfSchemaWithRowsAndAt(t *testing.T) {
	s := must[*schemas.Schema](t)(schemas.Parse("x", []byte(`{"type":"record","name":"X","fields":[{"name":"rows","type":"long"},{"name":"at","type":"long"}]}`)))
	reader := newRequestReader(s)
	q, p := reader.read([]byte(`{"rows":1,"at":2}`), 3)
	if p != nil || len(q) != 1 || q[0].row[0].Int() != 1 || q[0].row[1].Int() != 2 || q[0].at != noTime {
		t.Errorf("%+v %+v", q, p)
	}
}

// The hand-written answer is the JSON that encoding/json reads back to the same values.
func TestAppendPrediction(t *testing.T) {
	v := 1e-300
	p := &schemas.Prediction{
		ID: "a/\"b\"\n", Model: "mö", Digest: "sha256:x", Version: 7, At: 990360000001, ScoredAt: 990360000000, JoinKey: `\`, Score: 0.1, Rung: "primary",
		Inputs:       []schemas.PredictionInput{{Name: "x", Value: &v, Status: "present", EventTime: 5}, {Name: "y", Status: "null"}},
		Reasons:      []schemas.Contribution{{Input: "x", Value: -2.5}, {Input: "y", Value: math.Inf(1)}},
		ReasonMethod: "saabas", LatencyMicros: 12, Source: "http", Arm: schemas.ArmChallenger,
	}
	var back map[string]any
	if err := json.Unmarshal(appendPrediction(nil, p), &back); err != nil {
		t.Fatalf("%v in %s", err, appendPrediction(nil, p))
	}
	want := map[string]any{
		"id": "a/\"b\"\n", "score": 0.1, "model": "mö", "version": 7.0, "digest": "sha256:x", "arm": "challenger", "rung": "primary", "reason": "", "join_key": `\`,
		"features": []any{
			map[string]any{"name": "x", "value": 1e-300, "status": "present", "event_time": "1970-01-01T00:00:00.005Z"},
			map[string]any{"name": "y", "value": nil, "status": "null", "event_time": nil},
		},
		"reasons":       []any{map[string]any{"input": "x", "contribution": -2.5}, map[string]any{"input": "y", "contribution": nil}},
		"reason_method": "saabas", "at": "2001-05-20T12:00:00.001Z", "scored_at": "2001-05-20T12:00:00Z", "source": "http", "latency_us": 12.0,
	}
	got, _ := json.Marshal(back)
	wanted, _ := json.Marshal(want)
	if string(got) != string(wanted) {
		t.Errorf("got  %s\nwant %s", got, wanted)
	}
	p.Refused = true
	if err := json.Unmarshal(appendPrediction(nil, p), &back); err != nil || back["score"] != nil {
		t.Errorf("refused with score %v (%v)", back["score"], err)
	}
}

func TestStrongest(t *testing.T) {
	s := &scorer{names: []string{"a", "b", "c", "d", "e", "f", "g", "h"}}
	got := s.strongest([]float64{0.1, -5, 0, 2, -2, 3, 0.2, 0.15})
	want := "b f d e g"
	names := make([]string, len(got))
	for i, r := range got {
		names[i] = r.Input
	}
	if strings.Join(names, " ") != want || got[0].Value != -5 {
		t.Errorf("%v, want %s", got, want)
	}
	if got := s.strongest(make([]float64, 8)); len(got) != 0 {
		t.Errorf("%v of nothing", got)
	}
}
