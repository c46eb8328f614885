package serving

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
)

// alone is the world's stage without Kafka and Redis, loaded.
func (w *world) alone() *Stage {
	w.t.Helper()
	s := must[*Stage](w.t)(New(w.cfg, Deps{
		Project: w.project, Registry: w.registry, Clock: func() time.Time { return w.now }, Log: slog.New(slog.NewTextHandler(testLog{w.t}, nil)), Registerer: prometheus.NewRegistry(),
	}))
	if err := s.Load(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	return s
}

// answerLine is a line that ScoreLines writes.
type answerLine struct {
	predictionBody
	Line    int
	Problem *Problem
}

func (w *world) lines(s *Stage, rows ...string) (Lines, []answerLine) {
	w.t.Helper()
	var out bytes.Buffer
	done := must[Lines](w.t)(s.ScoreLines(w.t.Context(), "late", strings.NewReader(strings.Join(rows, "\n")), &out))
	var answers []answerLine
	for text := range strings.Lines(out.String()) {
		var a answerLine
		if err := json.Unmarshal([]byte(text), &a); err != nil {
			w.t.Fatalf("%v in %s", err, text)
		}
		answers = append(answers, a)
	}
	if done.Rows != len(answers) {
		w.t.Errorf("%+v for %d answers", done, len(answers))
	}
	return done, answers
}

// What was served with features from Redis is scored the same to the bit where there is none, from the features that the answers showed.
func TestOverriddenIsScoredAsServed(t *testing.T) {
	w := newWorld(t)
	w.promote(trained{intercept: -1, weights: map[string]float64{
		"origin_delays.delay_mean_1h": 0.07, "origin_delays.flights_24h": -0.013, "distance": 0.001, "hour": 0.11,
	}})
	var events []arrival
	for i := range 300 {
		events = append(events, arrival{fmt.Sprint("A", i%7), noon.Add(-time.Duration(300-i) * 7 * time.Minute), int64(i*i%101 - 9)})
	}
	w.apply(events...)
	w.start()
	w.awaitReady()
	var served []predictionBody
	var rows []string
	for i := range 3000 { // more than are scored at a time
		origin := fmt.Sprintf(`"A%d"`, i%8) // A7 has no events
		if i%31 == 0 {
			origin = "null"
		}
		row := fmt.Sprintf(`"flight_id":"f%d","scheduled":"2001-05-20T%02d:30:00Z","origin":%s,"distance":%d`, i, i%24, origin, i%2000)
		if i < 200 {
			_, a := w.post("{" + row + "}")
			served = append(served, a.Predictions...)
		} else {
			served = append(served, served[i%200])
			rows = append(rows, rows[i%200])
			continue
		}
		overrides := map[string]*float64{}
		for _, f := range served[i].Features {
			if strings.HasPrefix(f.Name, "origin_delays.") {
				overrides[f.Name] = f.Value
			}
		}
		rows = append(rows, "{"+row+`,"overrides":`+string(must[[]byte](t)(json.Marshal(overrides)))+"}")
	}
	done, answers := w.lines(w.alone(), rows...)
	if len(answers) != 3000 || len(served) != 3000 || done != (Lines{Rows: 3000}) {
		t.Fatalf("%d answers, %d served: %+v", len(answers), len(served), done)
	}
	means := map[float64]bool{}
	for i, a := range answers {
		if a.Score == nil || served[i].Score == nil || math.Float64bits(*a.Score) != math.Float64bits(*served[i].Score) || a.JoinKey != served[i].JoinKey ||
			a.Rung != served[i].Rung || a.Digest != served[i].Digest || a.Version != served[i].Version {
			t.Fatalf("row %d: %+v, served %+v", i, a, served[i])
		}
		means[*a.Score] = true
	}
	if len(means) < 100 {
		t.Errorf("%d different scores tell little", len(means))
	}
}

// A row without a feature that the model uses goes down the ladder; one that says that it is not there is scored as such.
func TestNotOverridden(t *testing.T) {
	w := newWorld(t)
	w.promote(byDelay(0.1))
	const row = `"flight_id":"f1","scheduled":"2001-05-20T12:30:00Z","origin":"ATL","distance":1000`
	const mean = `"origin_delays.delay_mean_1h"`
	done, answers := w.lines(w.alone(),
		"{"+row+"}", "", "{"+row+`,"overrides":{`+mean+":null}}", "{"+row+`,"overrides":{`+mean+":12.5}}", `{`+row+`,"overrides":{"origin_delays.delay_mean_24h":1}}`)
	if done != (Lines{Rows: 4, Refused: 2}) {
		t.Errorf("%+v", done)
	}
	for i, want := range []float64{math.NaN(), sigmoid(-1 + 1), sigmoid(-1 + 1.25 + 1), math.NaN()} {
		a := answers[i]
		switch {
		case math.IsNaN(want):
			if a.Score != nil || a.Rung != schemas.RungRefused || a.Reason != "features_unavailable: origin_delays" {
				t.Errorf("answer %d: %+v", i, a)
			}
		case a.Score == nil || math.Abs(*a.Score-want) > 1e-12 || a.Rung != schemas.RungPrimary:
			t.Errorf("answer %d: %+v, want %v", i, a, want)
		}
	}
	w.fallTo(project.Rung{Kind: project.RungDefault, Score: 0.25})
	if _, answers = w.lines(w.alone(), "{"+row+"}"); answers[0].Score == nil || *answers[0].Score != 0.25 || answers[0].Rung != schemas.RungDefault {
		t.Errorf("with a default: %+v", answers[0])
	}
	w.promote(trained{intercept: -1, weights: map[string]float64{"distance": 0.001}})
	if _, answers = w.lines(w.alone(), "{"+row+"}"); answers[0].Score == nil || answers[0].Rung != schemas.RungPrimary {
		t.Errorf("a model without streaming inputs: %+v", answers[0])
	}
}

// A line that is no row is answered with its problem, in its place; the others are scored.
func TestLinesThatAreNoRows(t *testing.T) {
	w := newWorld(t)
	w.cfg.MaxBody = 200
	w.promote(byDelay(0.1))
	row := func(more string) string {
		return `{"flight_id":"f1","scheduled":"2001-05-20T12:30:00Z","origin":"ATL","distance":1000,"overrides":{` + more + `}}`
	}
	good := row(`"origin_delays.delay_mean_1h":1`)
	lines := []struct{ text, code, field string }{
		{good, "", ""},
		{"{", "malformed", ""},
		{row(`"origin_delays.delay_mean_1h":"1"`), "wrong_type", "overrides.origin_delays.delay_mean_1h"},
		{row(`"origin_delays.delay_mean_1h":1e999`), "out_of_range", "overrides.origin_delays.delay_mean_1h"},
		{row(`"origin_delays.delay_mean_1h":1,"origin_delays.delay_mean_1h":2`), "malformed", "overrides.origin_delays.delay_mean_1h"},
		{row(`"origin_delays.delay_mean_9h":1`), "unknown_field", "overrides.origin_delays.delay_mean_9h"},
		{row(strings.Repeat(" ", 200)), "body_too_large", ""},
		{`{"rows":[` + strings.Replace(row(""), "f1", "f", 1) + `,` + `{}` + `]}`, "missing_field", "rows[1].flight_id"},
		{good, "", ""},
	}
	var texts []string
	for _, l := range lines {
		texts = append(texts, l.text)
	}
	done, answers := w.lines(w.alone(), texts...)
	if done != (Lines{Rows: 9, Unread: 7}) {
		t.Errorf("%+v", done)
	}
	for i, a := range answers {
		want := lines[i]
		switch {
		case want.code == "":
			if a.Score == nil || a.Problem != nil {
				t.Errorf("line %d: %+v", i+1, a)
			}
		case a.Problem == nil || a.Problem.Code != want.code || a.Problem.Field != want.field || a.Line != i+1 || a.Problem.Type != TypePrefix+want.code:
			t.Errorf("line %d: %+v, want %s of %q", i+1, a.Problem, want.code, want.field)
		}
	}
}
