package serving

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

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
