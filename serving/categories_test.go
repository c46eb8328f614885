package serving

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
)

// categorized gives the model the airport by its name, one of these.
func categorized(names ...string) func(*world) {
	return func(w *world) {
		m := w.model()
		m.Inputs = append(m.Inputs, project.Input{
			Name: "origin", Output: -1, Column: m.On.Schema.Index("origin"), Categories: project.NewCategories(names),
		})
	}
}

// byOrigin scores by the place of the origin among names, as the model was trained with them.
func byOrigin(names ...string) trained {
	return trained{intercept: -1, weights: map[string]float64{"origin": 1}, spoil: func(b *model.Bundle) { b.Signature[0].Categories = names }}
}

// TestCategories asks by names a model that was trained with some of them in another order, by JSON, by codes, and in a batch of given inputs.
func TestCategories(t *testing.T) {
	w := newWorld(t, categorized("DEN", "ATL", "SFO", "BOS"))
	w.promote(byOrigin("BOS", "DEN", "ATL"))
	w.start()
	w.awaitReady()
	codes := map[string]float64{"BOS": 0, "DEN": 1, "ATL": 2, "SFO": math.NaN(), "XXX": math.NaN()}
	score := func(code float64) float64 {
		if math.IsNaN(code) {
			return sigmoid(-1)
		}
		return sigmoid(-1 + code)
	}
	for origin, code := range codes {
		status, a := w.post(strings.Replace(flight, "ATL", origin, 1))
		if status != 200 || *a.Predictions[0].Score != score(code) {
			t.Fatalf("%s: %d %+v, want %v", origin, status, a, score(code))
		}
		f := a.Predictions[0].Features[len(a.Predictions[0].Features)-1]
		if f.Name != "origin" || (f.Value == nil) != math.IsNaN(code) || f.Value != nil && (*f.Value != code || f.Status != "present") || f.Value == nil && f.Status != "null" {
			t.Errorf("%s is shown as %+v", origin, f)
		}
	}

	predictions, p := w.stage.ScoreInputs(t.Context(), Call{Model: "late"}, [][]float64{{0}, {1}, {2}, {3}, {4}, {-1}, {math.NaN()}})
	if p != nil {
		t.Fatal(p)
	}
	for i, code := range []float64{1, 2, math.NaN(), 0, math.NaN(), math.NaN(), math.NaN()} {
		if got := predictions[i].Score; got != score(code) {
			t.Errorf("input %d scores %v, want %v", i, got, score(code))
		}
	}

	origins := []string{"BOS", "DEN", "ATL", "SFO", "XXX", ""}
	text := "flight_id,origin,distance,hour,origin_delays.delay_mean_1h,origin_delays.delay_mean_24h,origin_delays.flights_1h,origin_delays.flights_24h\n"
	for _, origin := range origins {
		text += "f," + origin + ",1,2,3,4,5,6\n"
	}
	in, out := filepath.Join(t.TempDir(), "rows.csv"), filepath.Join(t.TempDir(), "out.arrow")
	if err := os.WriteFile(in, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b := &batchRig{world: w, dir: t.TempDir()}
	q := b.request(must[[]BatchPart](t)(BatchFiles(t.Context(), w.model(), []string{in}, out, "", ""))...)
	q.Given = true
	must[*BatchReport](t)(b.score(q))
	for i, row := range b.read(out) {
		code, ok := codes[origins[i]]
		if !ok {
			code = math.NaN()
		}
		if row.score != score(code) {
			t.Errorf("%q in a batch scores %v, want %v", origins[i], row.score, score(code))
		}
	}
}

// A category that the model does not know is missing to it, also where the input is required.
func TestRequiredCategory(t *testing.T) {
	w := newWorld(t, categorized("DEN", "ATL"), func(w *world) { w.model().Serve.Required = []string{"origin"}; w.fallTo() })
	w.promote(byOrigin("ATL"))
	w.start()
	w.awaitReady()
	if status, a := w.post(flight); status != 200 || *a.Predictions[0].Score != sigmoid(-1) {
		t.Errorf("%d %+v", status, a)
	}
	for _, origin := range []string{"DEN", "XXX"} {
		if status, a := w.post(strings.Replace(flight, "ATL", origin, 1)); status == 200 || a.Code != string(reasonRequired) {
			t.Errorf("%s: %d %+v", origin, status, a)
		}
	}
}

// Categories that a model has, and the project has not, are refused with the model.
func TestRecodeRefuses(t *testing.T) {
	w := newWorld(t, categorized("DEN", "ATL"))
	p := must[*plan](t)(compilePlan(w.model(), w.project.Groups, nil))
	last := []int{len(p.inputs) - 1}
	for _, c := range []struct {
		names []string
		says  string
	}{{[]string{"DEN", "BOS"}, `"BOS"`}, {nil, "0 categories"}} {
		_, err := p.recode(last, []model.SignatureInput{{Name: "origin", Categories: c.names}})
		if failure.Of(err) != failure.Refused || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: %v", c.names, err)
		}
	}
	if codes, err := p.recode(last, []model.SignatureInput{{Name: "origin", Categories: []string{"DEN", "ATL"}}}); err != nil || codes != nil {
		t.Errorf("the same names: %v, %v", codes, err)
	}
	distance := slices.IndexFunc(p.inputs, func(in plannedInput) bool { return in.name == "distance" })
	if _, err := p.recode([]int{distance}, []model.SignatureInput{{Name: "distance", Categories: []string{"a"}}}); failure.Of(err) != failure.Refused {
		t.Errorf("names of a number: %v", err)
	}
	if v := p.inputs[last[0]].of(schemas.Row{schemas.NullValue(), schemas.NullValue(), schemas.StringValue("ATL"), schemas.NullValue()}); v != schemas.IntValue(1) {
		t.Errorf("ATL is %v", v)
	}
}

// lastSeen gives the model the group's text, which is the name of the airport that it is read of: one of these.
func lastSeen(names ...string) func(*world) {
	return func(w *world) {
		g, m := w.group(), w.model()
		compiled, faults := features.Compile(features.Definition{
			Name: g.Name, Source: "arrivals", Entity: []string{"origin"}, Windows: []string{"1h", "24h"}, TTL: 30 * 24 * time.Hour,
			Features: []features.FeatureDefinition{
				{Name: "flights", Aggregate: "count()"}, {Name: "delay_mean", Aggregate: "mean(delay)"},
				{Name: "last", Aggregate: "last(lower(origin))", Windows: []string{"1h"}},
			},
		}, g.Source.Schema)
		if len(faults) > 0 {
			w.t.Fatal(faults)
		}
		g.Group = compiled
		m.Inputs = append(m.Inputs, project.Input{
			Name: "origin_delays.last_1h", Group: g, Output: g.Output("last_1h"), Entity: m.Inputs[0].Entity, Column: -1, Categories: project.NewCategories(names),
		})
	}
}

// TestCategoriesOfGroups asks a model by the text that a group says of an airport: by the names that the model was trained with, in another order than
// the project's. What the project or the model does not know is null, what the window has lost is null, an airport never seen is not found; and a row may
// say another text itself.
func TestCategoriesOfGroups(t *testing.T) {
	w := newWorld(t, lastSeen("den", "atl", "sfo", "bos"), func(w *world) { w.model().Serve.MissingAllowed = 1; w.fallTo() })
	for _, airport := range []string{"ATL", "BOS", "DEN", "SFO", "XXX"} {
		w.apply(arrival{airport, noon.Add(-10 * time.Minute), 1})
	}
	w.apply(arrival{"LAX", noon.Add(-2 * time.Hour), 1})
	const input = "origin_delays.last_1h"
	w.promote(trained{intercept: -1, weights: map[string]float64{input: 1}, spoil: func(b *model.Bundle) { b.Signature[0].Categories = []string{"bos", "den", "atl"} }})
	w.start()
	w.awaitReady()
	ask := func(origin, overrides string) answerBody {
		t.Helper()
		status, a := w.post(strings.Replace(overriding(overrides), "ATL", origin, 1))
		if status != 200 {
			t.Fatalf("%s %s: %d %+v", origin, overrides, status, a)
		}
		return a
	}
	for _, c := range []struct {
		origin, overrides, status string
		code                      float64 // below 0: none
	}{
		{"BOS", `{}`, "present", 0},
		{"DEN", `{}`, "present", 1},
		{"ATL", `{}`, "present", 2},
		{"SFO", `{}`, "null", -1}, // new to the model
		{"XXX", `{}`, "null", -1}, // and to the project
		{"LAX", `{}`, "null", -1}, // in no arrival of this hour
		{"JFK", `{}`, "not_found", -1},
		{"ATL", `{"` + input + `":"den"}`, "overridden", 1},
		{"JFK", `{"` + input + `":"bos"}`, "overridden", 0},
		{"ATL", `{"` + input + `":"DEN"}`, "overridden", -1},
		{"ATL", `{"` + input + `":"sfo"}`, "null", -1},
		{"ATL", `{"` + input + `":null}`, "overridden", -1},
	} {
		p := ask(c.origin, c.overrides).Predictions[0]
		want := sigmoid(-1 + max(c.code, 0))
		f := p.Features[len(p.Features)-1]
		if *p.Score != want || f.Name != input || f.Status != c.status || (f.Value == nil) != (c.code < 0) || f.Value != nil && *f.Value != c.code {
			t.Errorf("%s %s: %v, shown as %+v, want %v", c.origin, c.overrides, *p.Score, f, c)
		}
	}
	if status, a := w.post(overriding(`{"` + input + `":7}`)); status != 400 || a.Code != "wrong_type" {
		t.Errorf("a number for a text: %d %+v", status, a)
	}
}
