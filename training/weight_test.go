package training

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
)

// weighted is a world whose rows count for their distance, which some do not have.
func weighted(t *testing.T) *world {
	w := newWorld(t, 12, 480)
	w.model.Train.Weight = expression(t, "distance / 500", w.model.On.Schema, schemas.Null)
	return w
}

func TestWeightsOfRows(t *testing.T) {
	plain := newWorld(t, 12, 480).build(t)
	w := weighted(t)
	d := w.build(t)
	distances := map[string]float64{}
	for _, f := range w.flights {
		distances[f.id] = float64(f.distance)
	}
	for r, key := range d.Keys {
		if d.Weights[r] != distances[key]/500 || d.Weights[r] == 0 {
			t.Fatalf("row %d, %s, has the weight %v, its distance is %v", r, key, d.Weights[r], distances[key])
		}
	}
	without := 0
	for _, key := range plain.Keys {
		if distances[key] == 0 {
			without++
		}
	}
	if plain.Weights != nil || without == 0 || len(d.Keys) != len(plain.Keys)-without || d.Labelled != int64(len(d.Keys)) {
		t.Errorf("%d rows of %d, of which %d have no weight", len(d.Keys), len(plain.Keys), without)
	}
	w.model.Train.Weight = expression(t, "distance - 1000", w.model.On.Schema, schemas.Null)
	if _, err := Build(t.Context(), testConfig(), w.dir, w.model, w.until(), func(string, int64, int64) {}); failure.Of(err) != failure.Refused || !strings.Contains(err.Error(), "distance - 1000") {
		t.Errorf("weights below 0: %v", err)
	}
}

// TestTrainedAndMeasuredByWeight holds the numbers of a run to the pairs of held-out rows, each by the product of weights, and both trainers to
// what they make of the weights when they are called directly.
func TestTrainedAndMeasuredByWeight(t *testing.T) {
	w := weighted(t)
	w.model.Gates = nil
	w.model.Train.GBDT.EarlyStopping = 5
	s, r := w.stage(t)
	event := mustTrain(t, s, w.request("r1"), schemas.ModelPromoted)
	m := modelOf(t, r, event.Digest)
	train, held, err := Split(testConfig(), w.build(t))
	if err != nil {
		t.Fatal(err)
	}
	var won, all, loss, sum float64
	for i, y := range held.Labels {
		p := m.Predict(held.row(i, nil))
		loss -= held.Weights[i] * math.Log(y*p+(1-y)*(1-p))
		sum += held.Weights[i]
		for j, z := range held.Labels {
			if y == 1 && z == 0 {
				pair, q := held.Weights[i]*held.Weights[j], m.Predict(held.row(j, nil))
				all += pair
				if p > q {
					won += pair
				} else if p == q {
					won += pair / 2
				}
			}
		}
	}
	if auc, ll := event.Metrics[project.MetricAUC], event.Metrics[project.MetricLogLoss]; math.Abs(auc-won/all) > 1e-9 || math.Abs(ll-loss/sum) > 1e-9 {
		t.Errorf("auc %v, by pairs %v; log loss %v, by rows %v", auc, won/all, ll, loss/sum)
	}
	for _, name := range []string{project.CandidateLogistic, project.CandidateGBDT} {
		fitted := func(p Part) model.Model {
			t.Helper()
			f, err := s.fit(t.Context(), project.Candidate{Name: name}, s.newFitting(w.model, p, false))
			if err != nil {
				t.Fatal(err)
			}
			return f.Model
		}
		even, twice := train, train
		even.Weights = nil
		twice.Weights = slices.Clone(train.Weights)
		for i := range twice.Weights {
			twice.Weights[i] *= 2
		}
		row := held.row(0, nil)
		a, b := fitted(train), fitted(even)
		if a.Predict(row) == b.Predict(row) {
			t.Errorf("%s takes no notice of weights", name)
		}
		if c := fitted(twice); name == project.CandidateGBDT && math.Abs(a.Predict(row)-c.Predict(row)) > 1e-6 {
			t.Errorf("%s: score %v, with all weights doubled %v", name, a.Predict(row), c.Predict(row))
		}
	}
	kept, err := r.Manifest(event.Digest)
	if err != nil {
		t.Fatal(err)
	}
	dataset, _ := kept.Input(roleDataset)
	_, rows, err := r.Read(dataset)
	if err != nil || !strings.Contains(string(rows), "_weight") {
		t.Errorf("the kept rows have no weights: %v", err)
	}
	description, err := r.Artefacts(registry.KindFeatures)
	if err != nil || len(description) == 0 {
		t.Fatal(err)
	}
	if _, text, err := r.Read(description[0].Digest); err != nil || !strings.Contains(string(text), `"weight": "distance / 500"`) {
		t.Errorf("the kept definitions do not tell of the weight: %s, %v", text, err)
	}
}

// TestMetricsOfRepeatedRows: a row of weight n is measured as n rows.
func TestMetricsOfRepeatedRows(t *testing.T) {
	var scores, labels, weights, manyScores, manyLabels []float64
	for i := range 400 {
		score, label, n := float64(i*7919%401)/401, float64(i*31%7/4), 1+i%4
		scores, labels, weights = append(scores, score), append(labels, label), append(weights, float64(n))
		for range n {
			manyScores, manyLabels = append(manyScores, score), append(manyLabels, label)
		}
	}
	a, b := Evaluate(scores, labels, weights), Evaluate(manyScores, manyLabels, nil)
	if a.Rows != 400 || len(manyLabels) != 1000 {
		t.Fatalf("%d rows, %d with repetitions", a.Rows, len(manyLabels))
	}
	b.Rows = a.Rows
	for name, want := range b.Values() {
		if got := a.Values()[name]; math.Abs(got-want) > 1e-9 {
			t.Errorf("%s by weight is %v, of repeated rows %v", name, got, want)
		}
	}
}
